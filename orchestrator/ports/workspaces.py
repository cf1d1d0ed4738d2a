"""What a store keeps of workspaces, and which of them may be asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from orchestrator.domain.state import Phase, WorkspaceState


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The right to run an open cycle, and until when. It is no part of the state: renewals are no events."""

    cycle: str
    fence: int
    worker: str
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Renewed:
    """What became of the leases that were to be renewed, by workspace; one that is in neither set is lost.

    ``held_up``: another transaction holds its row, so it was passed over, and nothing is known of it yet.
    """

    kept: Collection[str] = ()
    held_up: Collection[str] = ()


class StoredWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace's row: its folded state, and when its window is due (None: no window is judged).

    ``lease`` is the open cycle's. A reader gives it; to a transaction it is given with the state that a start leads
    to, and asked for by ``Transaction.leases``, as ingest never locks one.
    """

    state: WorkspaceState
    due_at: datetime | None
    lease: Lease | None = None
    unserved_since: datetime | None = None
    """Since when nobody serves its executor in its pool, as the log says; a transaction does not read it."""

    @property
    def phase(self) -> Phase:
        """Return the workspace's state as people see it."""
        found = self.state.phase
        waits = found in (Phase.QUEUED, Phase.RETRYING)
        return Phase.UNCLAIMABLE if waits and self.unserved_since is not None else found


class KeptRow(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace's rows as they are kept, undecoded, each as one text. ``lease``: all but until when.

    ``due_at``: when its window is due, as the row says. ``is_old``: the state is kept in the shape of revision 0002,
    with its registration inside of it.
    ``is_leased_in_row``: the open cycle was leased in the row itself, by an older version.
    """

    workspace: str
    registration: str | None
    lease: str | None
    due_at: datetime | None = None
    is_old: bool = False
    is_leased_in_row: bool = False


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What there is to do, at one instant, as one statement tells it: the tick's, and what it may ring for.

    ``due``: a due window, a passed hold or lease, oldest first. ``ready``: what a worker may start, the longest ready
    first. ``next_at``: the earliest instant after ``now`` at which either may grow. ``waits``: a restart is ready,
    even if nothing may start it; ``away``: the log says that something is served by nobody; ``recomputes``: not all
    open windows follow a changed policy yet.
    """

    now: datetime
    due: Sequence[str]
    ready: Sequence[str]
    next_at: datetime | None
    waits: bool
    away: bool
    recomputes: bool
    last_tick_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class OpenCycle:
    """A cycle that has started and not ended, and the fence it was started with."""

    workspace: str
    cycle: str
    fence: int


@dataclass(frozen=True, kw_only=True)
class WorkspaceFilter:
    """Which workspaces: all set fields must hold. Ordered by id, those after ``after``."""

    phase: Phase | None = None
    fleet: str | None = None
    label: tuple[str, str] | None = None
    after: str = ""
    limit: int = 100
    removed: bool = False
    """True to list removed ones too; ``phase`` removed implies it."""

    def admits(self, state: WorkspaceState, phase: Phase | None = None) -> bool:
        """Return whether a workspace in this state is wanted, wherever its id stands; ``phase``: as it is shown."""
        phase = phase or state.phase
        registration = state.registration
        labels = registration.labels if registration else {}
        wanted_phase = self.phase is phase or (self.phase is None and (self.removed or phase is not Phase.REMOVED))
        return (
            wanted_phase
            and self.fleet in (None, registration.fleet if registration else "")
            and (self.label is None or labels.get(self.label[0]) == self.label[1])
        )
