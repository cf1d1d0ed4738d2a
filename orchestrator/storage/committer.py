"""The committer of a process: one thread that commits whatever units wait, together.

An idle one commits at once; while it does, others come, and share the next commit. So nobody waits for company, unless
a setting says so, and the more there is to do the less each costs. A unit whose row another process holds is passed
over and stays first in line; the longest of them is waited for by a thread of its own, along with all others of its
rows, so that neither they nor anybody else starve.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog

from orchestrator.errors import Overloaded, StorageUnavailable
from orchestrator.ports.unit import Answered, AnswerT, Refused, Tell, Unit, Wake
from orchestrator.storage.committing import AnyUnit, Busy, Outcome, Writing, commit_group

_log = structlog.get_logger("orchestrator")

WAITING_MOST = 20_000
"""How many units may wait; whoever comes after them is told to come again."""
_TOGETHER_MOST = 256
_WEIGHT_MOST = 2_000
_PASSED_OVER_S = 0.005
_WAITED_FOR_AFTER_S = 0.02
_BUSY_MOST_S = 5.0


@dataclass
class _Waiting:
    """A unit in line, and whom to tell. ``busy_since_s``: since when it is passed over, on ``time.monotonic()``."""

    unit: AnyUnit
    tell: Tell
    busy_since_s: float | None = None


@dataclass
class _Line:
    """Who waits: those in a hurry before the others, in each in the order in which they came."""

    hurried: deque[_Waiting] = field(default_factory=deque)
    others: deque[_Waiting] = field(default_factory=deque)
    busy: deque[_Waiting] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self.hurried) + len(self.others) + len(self.busy)

    def add(self, waiting: _Waiting) -> None:
        (self.hurried if waiting.unit.hurried else self.others).append(waiting)

    def take(self) -> list[_Waiting]:
        """Take the next group: those that were passed over, those in a hurry, then the others."""
        taken: list[_Waiting] = []
        weight = 0
        for line in (self.busy, self.hurried, self.others):
            while line and len(taken) < _TOGETHER_MOST and weight < _WEIGHT_MOST:
                taken.append(line.popleft())
                weight += taken[-1].unit.weight
        return taken


class Committer:
    """Carries units out for one store, from any number of threads. Its own threads begin with the first unit."""

    def __init__(self, store: Writing, *, waiting_most: int = WAITING_MOST, company_wait_ms: int = 0) -> None:
        self._store, self._waiting_most = store, waiting_most
        self._company_wait_s = company_wait_ms / 1_000
        self._line = _Line()
        self._awaited: list[_Waiting] = []
        self._lock = threading.Lock()
        self._more = threading.Condition(self._lock)
        """Told of units by those who bring them, where the thread that commits has nothing to do."""
        self._rows = threading.Condition(self._lock)
        """Told of units that were passed over; not of each that comes, as whoever waits for a row is woken by that."""
        self._closing = False
        self._threads: list[threading.Thread] = []

    def commit(self, unit: Unit[AnswerT]) -> AnswerT:
        """Wait for a unit's commit and return its answer. Raises what its step raised, or ``Unavailable``."""
        future: Future[AnswerT] = Future()

        def tell(outcome: Answered | Refused) -> None:
            if isinstance(outcome, Answered):
                future.set_result(outcome.answer)
            else:
                future.set_exception(outcome.error)

        self.submit(unit, tell)
        return future.result()

    def submit(self, unit: AnyUnit, tell: Tell) -> None:
        """Put a unit in line; ``tell`` is called by the committer's thread and must return at once, and not raise.

        Raises ``Overloaded`` where too many wait, ``StorageUnavailable`` at the process' end.
        """
        with self._lock:
            if self._closing:
                raise StorageUnavailable("this process is stopping; nothing was stored")
            if len(self._line) >= self._waiting_most:
                raise Overloaded(f"{self._waiting_most} others wait to be stored; nothing was stored, try again soon")
            self._line.add(_Waiting(unit, tell))
            if not self._threads:
                self._begin()
            self._more.notify()

    def close(self) -> None:
        """Commit what waits, and end; what comes later is refused."""
        with self._lock:
            self._closing = True
            self._more.notify()
            self._rows.notify()
        for thread in self._threads:
            thread.join()

    def _begin(self) -> None:
        works = {"committer": self._commit_groups, "committer-waits": self._wait_for_rows}
        self._threads = [threading.Thread(target=work, name=name, daemon=True) for name, work in works.items()]
        for thread in self._threads:
            thread.start()

    def _commit_groups(self) -> None:
        while group := self._next_group():
            self._carry_out(group, skip_locked=True)
            self._pause_for(group)

    def _next_group(self) -> list[_Waiting]:
        """Wait for something to do and take it; empty once everything is done and nothing more may come."""
        with self._lock:
            self._more.wait_for(lambda: self._has_work() or self._is_over())
            self._await_company()
            group = self._line.take()
            if not group:
                self._rows.notify()  # the other thread waits for this end
            return group

    def _await_company(self) -> None:
        """Let others come along for a moment; not where somebody is in a hurry, a group is full or the end has come."""
        if self._company_wait_s > 0 and self._has_work():
            line = self._line
            self._more.wait_for(
                lambda: line.hurried or len(line) >= _TOGETHER_MOST or self._closing, self._company_wait_s
            )

    def _has_work(self) -> bool:
        return bool(self._line.hurried or self._line.others or self._line.busy)

    def _is_over(self) -> bool:
        return self._closing and not self._has_work() and not self._awaited

    def _pause_for(self, group: list[_Waiting]) -> None:
        """Leave the rows of others alone for a moment, where nothing else is left to do."""
        with self._lock:
            only_busy = self._line.busy and not self._line.hurried and not self._line.others
            if only_busy and all(waiting.busy_since_s is not None for waiting in group):
                self._more.wait(_PASSED_OVER_S)

    def _wait_for_rows(self) -> None:
        """Wait for the rows of the unit that was passed over the longest; carry out with it who waits for no others."""
        while True:
            with self._lock:
                self._rows.wait_for(
                    lambda: self._take_awaited() or self._is_over(),
                    timeout=_WAITED_FOR_AFTER_S if self._line.busy else None,
                )
                if not self._awaited:
                    if self._is_over():
                        return
                    continue
            self._carry_out(self._awaited, skip_locked=False)
            with self._lock:
                self._awaited = []
                self._more.notify()  # it may be the last thing before an end

    def _take_awaited(self) -> bool:
        first = self._line.busy[0] if self._line.busy else None
        if first is None or first.busy_since_s is None:
            return False
        if time.monotonic() - first.busy_since_s < _WAITED_FOR_AFTER_S:
            return False
        rows = frozenset(first.unit.workspaces)
        waiting, self._line.busy = self._line.busy, deque()
        for one in waiting:
            joins = len(self._awaited) < _TOGETHER_MOST and rows.issuperset(one.unit.workspaces)
            (self._awaited if joins else self._line.busy).append(one)
        return True

    def _carry_out(self, group: list[_Waiting], *, skip_locked: bool) -> None:
        try:
            outcomes = commit_group(self._store, [waiting.unit for waiting in group], skip_locked=skip_locked)
        except BaseException as error:
            self._answer(group, [Refused(StorageUnavailable(f"the committer ended: {error!r}"))] * len(group))
            raise
        self._answer(group, outcomes)

    def _answer(self, group: list[_Waiting], outcomes: list[Outcome]) -> None:
        passed_over, wakes = [], dict[Wake, None]()
        for waiting, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Busy):
                passed_over.append(waiting)
            elif (wake := _tell(waiting, outcome)) is not None:
                wakes[wake] = None
        for wake in wakes:
            _guarded(wake, "all")
        if passed_over:
            self._put_back(passed_over)

    def _put_back(self, passed_over: list[_Waiting]) -> None:
        now_s = time.monotonic()
        with self._lock:
            for waiting in reversed(passed_over):
                waiting.busy_since_s = waiting.busy_since_s or now_s
                self._line.busy.appendleft(waiting)
            self._more.notify()
            self._rows.notify()


def _tell(waiting: _Waiting, outcome: Answered | Refused) -> Wake | None:
    return _guarded(lambda: waiting.tell(outcome), waiting.unit.name)


def _guarded(call: Callable[[], Wake | None], unit: str) -> Wake | None:
    """Call; whoever cannot be told must not keep the others from their answers."""
    try:
        return call()
    except Exception:  # noqa: BLE001 (see above)
        _log.exception("commit.not_told", unit=unit)
        return None
