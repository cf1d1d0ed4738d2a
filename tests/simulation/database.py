"""The store that the simulated processes see: the product's own, behind row locks, an append lock and faults.

A transaction holds its rows from its begin on, then the one append lock, as on PostgreSQL; others may run and read
meanwhile, and wait for what it holds, or pass it over. A frozen holder is rolled back by the server.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

from orchestrator.domain.serving import Serving
from orchestrator.errors import RolledBack, StorageUnavailable, TimedOut
from orchestrator.ports.store import CoreReader
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import AnswerT, Asked, Unit
from orchestrator.ports.workspaces import Renewed
from orchestrator.storage.committing import answer_of
from tests.memory_store.store import MemoryEventStore
from tests.simulation.boundaries import Boundary, boundaries_of
from tests.simulation.committer import Entry, SimulatedCommitter
from tests.simulation.faults import Fault
from tests.simulation.hub import SECOND, Hub, Killed, Process, Thread

ResultT = TypeVar("ResultT")

EPOCH = datetime(2026, 11, 23, 12, tzinfo=UTC)
APPEND = ""
"""The name of the append lock; no workspace is called so."""
_LOCK_WAITS = 5 * SECOND


class Striking(Protocol):
    """Whatever decides which fault strikes at a boundary."""

    def cross(self, boundary: Boundary) -> Fault | None:
        """Let a fault strike, or time pass. Returns one that the caller has to carry out."""
        ...


class DatabaseClock:
    """The database's clock: simulated time, and how far it was stepped."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.offset = 0
        self._shown, self._instant = 0, EPOCH

    def now(self) -> datetime:
        at = self._hub.now + self.offset
        if at != self._shown:  # it is looked at some three times at each instant
            self._shown, self._instant = at, EPOCH + timedelta(microseconds=at)
        return self._instant

    def time_of(self, at: datetime) -> int:
        """Return when, in the run's time, the clock will show that instant."""
        since = at - EPOCH
        return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds - self.offset


class Locks:
    """Row locks and the append lock, by name; waiters are woken in turn, and the first one to run gets it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._holders: dict[str, Thread] = {}
        self._waiting: dict[str, list[Thread]] = {}

    def free(self, name: str) -> bool:
        return name not in self._holders

    def acquire(self, name: str) -> None:
        """Wait for a lock, for 5 s at most. Raises ``TimedOut``, for the append lock ``StorageUnavailable``."""
        thread = self._hub.current
        if thread is None:
            raise RuntimeError("only a simulated thread can lock")
        if name in self._holders:
            self._wait_for(name, thread)
        self._holders[name] = thread

    def _wait_for(self, name: str, thread: Thread) -> None:
        hub = self._hub
        ends = hub.now + _LOCK_WAITS
        while name in self._holders:
            waiting = self._waiting.setdefault(name, [])
            waiting.append(thread)
            woken = hub.wait(ends - hub.now) if ends > hub.now else False
            if thread in waiting:
                waiting.remove(thread)
            if not woken:
                kind = StorageUnavailable if name == APPEND else TimedOut
                raise kind("another transaction kept a lock for 5 s; try again")

    def release(self, names: Collection[str]) -> None:
        for name in names:
            del self._holders[name]
            for thread in self._waiting.pop(name, ()):
                self._hub.wake(thread)


class SimulatedStore:
    """``CoreStore`` of all simulated processes."""

    def __init__(self, hub: Hub, world: Striking, committed: Callable[[Collection[str] | None], None]) -> None:
        self._hub = hub
        self._committers: WeakKeyDictionary[Process, SimulatedCommitter] = WeakKeyDictionary()
        self.clock = DatabaseClock(hub)
        self.memory = MemoryEventStore(self.clock)
        self.locks = Locks(hub)
        self.world = world
        self.committed = committed
        """Told which workspaces a commit may have changed; None: any."""
        self.renewed: Callable[[Mapping[str, tuple[int, int]], Collection[str]], None] = lambda held, kept: None
        """Told of the leases that were to be renewed, and of those that were."""
        self.gathers: Callable[[], int] = lambda: 0
        """Draws how long the next group of a process gathers, in microseconds."""
        self.away = False

    def commit(self, unit: Unit[AnswerT]) -> AnswerT:
        """Carry out a unit together with those of the same process that wait: see ``SimulatedCommitter``."""
        begin, step, commit, committed = boundaries_of(sys._getframe(1).f_code, "commit")
        self.cross(begin)
        thread = self._hub.current
        if thread is None:
            raise RuntimeError("only a simulated thread can commit")
        committer = self._committers.setdefault(
            thread.process, SimulatedCommitter(self._hub, self._write_together, self.stepped, self.gathers)
        )
        outcome = committer.carry_out(Entry(unit=unit, thread=thread, step=step, commit=commit))
        self.answer(committed)
        answer: AnswerT = answer_of(outcome)
        return answer

    def _write_together(
        self, entries: Sequence[Entry], workspaces: Collection[str], skip_locked: bool
    ) -> AbstractContextManager[Transaction]:
        commits = [entry.commit for entry in entries if set(entry.unit.workspaces) <= set(workspaces)]
        recomputes = any(entry.unit.name == "recompute" and entry.unit.workspaces for entry in entries)
        return _Write(self, tuple(sorted(workspaces)), skip_locked, commits, recomputes=recomputes)

    def stepped(self, boundary: Boundary) -> None:
        """Come to a unit's step. Raises ``StorageUnavailable`` where a statement of it fails."""
        if self.world.cross(boundary) is not None:
            raise StorageUnavailable("a statement failed")

    def write(
        self,
        workspaces: Collection[str] = (),
        *,
        skip_locked: bool = False,
        asked: Collection[Asked] = (),
        deciding: Collection[str] = (),
    ) -> AbstractContextManager[Transaction]:
        raise NotImplementedError("what is simulated hands units to commit")

    def read(self) -> AbstractContextManager[CoreReader]:
        return _Read(self)

    def renew_leases(self, held: Mapping[str, tuple[int, int]]) -> Renewed:
        """Renew those whose rows nobody holds, and pass over the others."""

        def renew(locked: Collection[str]) -> Renewed:
            free = {name: held[name] for name in held if name in locked}
            kept = self.memory.renew_leases(free).kept
            self.renewed(free, kept)
            self.committed(free)
            return Renewed(kept=kept, held_up=held.keys() - free.keys())

        return self._change("renew_leases", sorted(held), renew, skip_locked=True)

    def note_worker(self, name: str, host: str, serving: Serving, slots: int) -> None:
        """Do nothing: who is there is told by the world, see ``memory.present``."""

    def ticked(self) -> None:
        self._change("ticked", (), lambda locked: self.memory.ticked())

    def forget_answers(self, before: datetime) -> int:
        return self._change("forget_answers", (), lambda locked: self.memory.forget_answers(before))

    def check(self, *, reads_only: bool = False) -> None:
        if self.away:
            raise StorageUnavailable("the database is away")

    def close(self) -> None:
        """Nothing to release."""

    def _change(
        self,
        operation: str,
        names: Sequence[str],
        change: Callable[[Collection[str]], ResultT],
        *,
        skip_locked: bool = False,
    ) -> ResultT:
        """Carry out one statement that commits by itself, in the name of whoever called the caller.

        ``change`` is told which of the rows named are locked: all, unless those that others hold are passed over.
        """
        begin, committed = boundaries_of(sys._getframe(2).f_code, operation)
        self.cross(begin)
        held: list[str] = []
        try:
            for name in (*names, APPEND):
                if name == APPEND or not skip_locked or self.locks.free(name):
                    self.locks.acquire(name)
                    held.append(name)
            done = change(held)
        finally:
            self.locks.release(held)
        self.answer(committed)
        return done

    def cross(self, boundary: Boundary) -> None:
        """Come to the begin of something. Raises ``StorageUnavailable`` before it has any effect."""
        if self.world.cross(boundary) is not None:
            raise StorageUnavailable("the connection was cut before anything was sent")
        self.check()

    def answer(self, boundary: Boundary) -> None:
        """Come back from something that is done. Raises ``StorageUnavailable`` where the answer gets lost."""
        if self.world.cross(boundary) is not None:
            raise StorageUnavailable("the connection was cut; the outcome is unknown")


class _Read(AbstractContextManager[CoreReader]):
    def __init__(self, store: SimulatedStore) -> None:
        self._store = store

    def __enter__(self) -> CoreReader:
        (begin,) = boundaries_of(sys._getframe(1).f_code, "read")
        self._store.cross(begin)
        self._inner = self._store.memory.read()
        return self._inner.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        return self._inner.__exit__(kind, error, at)


class _Write(AbstractContextManager[Transaction]):
    """One writing transaction, from the wish for its locks to its commit."""

    def __init__(
        self,
        store: SimulatedStore,
        names: tuple[str, ...],
        skip_locked: bool,
        commits: Sequence[Boundary],
        *,
        recomputes: bool,
    ) -> None:
        """``recomputes``: what it commits is a reason to compare all rows with the log."""
        self._store, self._names, self._skip_locked, self._commits = store, names, skip_locked, commits
        self._recomputes = recomputes
        self._held: list[str] = []

    def __enter__(self) -> Transaction:
        self._store.check()
        try:
            self._lock()
            self._inner = self._store.memory.write(self._held[:-1])
            return self._inner.__enter__()
        except BaseException:
            self._release()
            raise

    def _lock(self) -> None:
        locks = self._store.locks
        for name in self._names:
            if not self._skip_locked or locks.free(name):
                locks.acquire(name)
                self._held.append(name)
        locks.acquire(APPEND)
        self._held.append(APPEND)

    def _release(self) -> None:
        held, self._held = self._held, []
        self._store.locks.release(held)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        names = self._held[:-1]
        try:
            if error is not None:
                return self._inner.__exit__(kind, error, at)
            self._commit_or_roll_back()
        finally:
            self._release()
        self._store.committed(None if self._recomputes else names)
        return None

    def _commit_or_roll_back(self) -> None:
        store = self._store
        try:
            struck = [boundary for boundary in self._commits if store.world.cross(boundary) is not None]
            if store.away:
                raise StorageUnavailable("the transaction was rolled back")
            if struck:
                raise RolledBack("the transaction was refused")
        except (Killed, StorageUnavailable) as error:
            self._inner.__exit__(type(error), error, error.__traceback__)
            raise
        self._inner.__exit__(None, None, None)
