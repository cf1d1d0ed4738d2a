"""The committer of each simulated process: the product's own groups, led by whichever thread of it finds none at work.

While one leads, waiting for locks or the disk, the units of others gather, and share the next commit. A process dies as
a whole, so a leader among the callers stands for the committer's own thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import Asked, Unit
from orchestrator.storage.committing import Busy, Outcome, commit_group
from tests.simulation.boundaries import Boundary
from tests.simulation.hub import Hub, Thread


@dataclass(eq=False)
class Entry:
    """A unit that waits, whose thread it is, and where a fault may strike it."""

    unit: Unit[Any]
    thread: Thread
    step: Boundary
    commit: Boundary
    outcome: Outcome | None = None


WriteTogether = Callable[[Sequence[Entry], Collection[str], bool], AbstractContextManager[Transaction]]


@dataclass(frozen=True)
class _Group:
    """The store as the entries of one group see it."""

    entries: Sequence[Entry]
    together: WriteTogether

    def write(
        self,
        workspaces: Collection[str] = (),
        *,
        skip_locked: bool = False,
        asked: Collection[Asked] = (),
        deciding: Collection[str] = (),
    ) -> AbstractContextManager[Transaction]:
        return self.together(self.entries, workspaces, skip_locked)


class SimulatedCommitter:
    """``cross`` lets a fault strike a unit's step; ``gathers`` draws how many microseconds a group gathers."""

    def __init__(
        self, hub: Hub, together: WriteTogether, cross: Callable[[Boundary], None], gathers: Callable[[], int]
    ) -> None:
        self._hub, self._together, self._cross, self._gathers = hub, together, cross, gathers
        self._waiting: list[Entry] = []
        self._led = False

    def carry_out(self, entry: Entry) -> Outcome:
        """Lead a group, or wait until somebody's has this unit; return what became of it."""
        self._waiting.append(entry)
        while entry.outcome is None:
            if self._led:
                self._hub.wait(None)
            else:
                self._lead()
        if isinstance(entry.outcome, Busy):  # it waits for its rows by itself, as the product's second thread does
            return self._commit([entry], skip_locked=False)[0]
        return entry.outcome

    def _lead(self) -> None:
        self._gather()
        group, self._waiting = sorted(self._waiting, key=lambda entry: not entry.unit.hurried), []
        try:
            outcomes = self._commit(group, skip_locked=True)
        finally:
            self._led = False
        for entry, outcome in zip(group, outcomes, strict=True):
            entry.outcome = outcome
        for entry in (*group, *self._waiting[:1]):  # one of those that came meanwhile leads next
            if entry.thread is not self._hub.current:
                self._hub.wake(entry.thread)

    def _gather(self) -> None:
        self._led = True
        if wait := self._gathers():
            try:
                self._hub.wait(wait)
            except BaseException:
                self._led = False
                raise

    def _commit(self, group: Sequence[Entry], *, skip_locked: bool) -> list[Outcome]:
        units = [self._struck(entry) for entry in group]
        return commit_group(_Group(group, self._together), units, skip_locked=skip_locked)

    def _struck(self, entry: Entry) -> Unit[Any]:
        def step(tx: Transaction) -> Any:
            self._cross(entry.step)
            return entry.unit.step(tx)

        return replace(entry.unit, step=step)
