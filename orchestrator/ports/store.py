"""What the core needs of the world, as Protocols. Adapters live in ``storage`` and ``workers``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.domain.events import Cause, Recorded, Waiver
from orchestrator.domain.policy import Policies, PolicyLayer
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.domain.serving import Serving
from orchestrator.domain.snapshot import Snapshot
from orchestrator.domain.state import Phase
from orchestrator.ports.inquiries import FileWrites, Inquiries
from orchestrator.ports.keys import KeyReader, KeyUses
from orchestrator.ports.presence import Presence, PresenceStore
from orchestrator.ports.recomputation import Recomputation
from orchestrator.ports.sealing import Seals, SealStore
from orchestrator.ports.sums import Sums, SumsToAdd
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import AnswerT, Asked, Tell, Unit
from orchestrator.ports.verification import Verifications, VerificationStore
from orchestrator.ports.workspaces import KeptRow, OpenCycle, Outlook, Renewed, StoredWorkspace, WorkspaceFilter


class Clock(Protocol):
    """The host's clock, where a store has no database server to ask."""

    def now(self) -> datetime:
        """Return the present instant in UTC, to the microsecond."""
        ...


class Ids(Protocol):
    """Makes ids: UUIDv7, so that they sort by time."""

    def new(self, prefix: str) -> str:
        """Return a fresh id like ``evt_0197...``."""
        ...


class Doorbell(Protocol):
    """Wakes a worker up. Losing, doubling or delaying a ring changes nothing but latency."""

    def ring(self, workspace: str) -> None:
        """Tell some worker that ``workspace`` may be startable. Raises ``BrokerUnavailable``."""
        ...


@dataclass(frozen=True, kw_only=True)
class RestartFilter:
    """Which restarts: all set fields must hold. Newest first, those queued before position ``before``.

    With ``after`` set: oldest first, those queued after that position.
    """

    workspace: str | None = None
    fleet: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    state: RestartState | None = None
    cause: Cause | None = None
    path: str | None = None
    before: int | None = None
    after: int | None = None
    limit: int = 100


@dataclass(frozen=True, kw_only=True)
class EventFilter:
    """Which events: all set fields must hold. In position order, those after ``after``.

    ``newest``: where there are more than ``limit``, the last ones instead of the first.
    """

    after: int = 0
    to_position: int | None = None
    newest: bool = False
    workspace: str | None = None
    correlation_id: str | None = None
    """The restart that the events are about."""
    types: Collection[str] = ()
    limit: int = 500


@dataclass(frozen=True, kw_only=True)
class Waived:
    """The waived range that holds a position."""

    event: str
    reason: Waiver
    at: datetime
    actor: str


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """What waits, over all workspaces, at one instant of the database's clock."""

    now: datetime
    pending_writes: int
    pending_workspaces: int
    oldest_due_at: datetime | None
    running: int
    phases: Mapping[Phase, int] = field(default_factory=dict)


LOG_SUMS = "log"
"""Name of the counters that the metrics are made of."""


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Sums over the log up to ``position``, kept so that a scrape reads only what came since."""

    position: int
    sums: Mapping[str, int]


class CoreReader(Presence, KeyReader, Protocol):
    """What the service, the fate of a write and a replay of the log read, without locks.

    Each method is one statement over an index, whatever the history's length.
    """

    def clock(self) -> datetime:
        """Return the database's clock."""
        ...

    def workspace(self, workspace: str) -> StoredWorkspace | None:
        """Return a workspace's row, removed ones too."""
        ...

    def workspaces(self, wanted: WorkspaceFilter) -> list[StoredWorkspace]:
        """Return a page of workspaces."""
        ...

    def policies(self) -> Policies:
        """Return the stored policy layers."""
        ...

    def policy_layers(self) -> list[PolicyLayer]:
        """Return the layers as they lie there, read now, for whoever compares them: ``policies`` may keep decoded ones.

        Both are the same unless somebody has changed the rows by hand.
        """
        ...

    def event(self, event: str) -> Recorded | None:
        """Return an event by its id."""
        ...

    def events_by_id(self, ids: Collection[str]) -> dict[str, Recorded]:
        """Return the events of some ids, for those that exist."""
        ...

    def events(self, wanted: EventFilter) -> list[Recorded]:
        """Return a page of the log."""
        ...

    def stored_events(self, wanted: EventFilter) -> list[StoredEvent]:
        """Return a page of the log as it is kept, for whoever reads all of it: several times faster than ``events``."""
        ...

    def workspace_rows(self, after: str, limit: int) -> dict[str, KeptRow]:
        """Return a page of workspaces as they are kept, by id."""
        ...

    def spell(self, stored: StoredWorkspace, like: KeptRow | None) -> KeptRow:
        """Return what the rows of a workspace must be, in the words of ``workspace_rows`` and the shape of ``like``."""
        ...

    def last_position(self) -> int:
        """Return the newest position; 0 for an empty log."""
        ...

    def restart(self, restart: str) -> RestartProjection | None:
        """Return a restart by its id."""
        ...

    def restarts(self, wanted: RestartFilter) -> list[RestartProjection]:
        """Return a page of restart history."""
        ...

    def snapshots_between(self, first: int, last: int) -> list[Snapshot]:
        """Return all snapshots of these positions, both ends included, in their order."""
        ...

    def restart_holding(self, workspace: str, position: int) -> RestartProjection | None:
        """Return the newest restart whose range holds ``position`` and that succeeded or is unsettled."""
        ...

    def restarts_holding(self, positions: Collection[int]) -> dict[int, RestartProjection]:
        """Return what ``restart_holding`` says of each of these events, for those that a restart holds."""
        ...

    def waived(self, workspace: str, position: int) -> Waived | None:
        """Return the waived range that holds ``position``, if one does."""
        ...

    def cycles_of(self, worker: str) -> list[OpenCycle]:
        """Return the open cycles that a worker of that name holds, by workspace."""
        ...

    def outlook(self, due_most: int, ready_most: int, *, running_most: int | None = None) -> Outlook:
        """Return what there is to do now, in one statement that costs the more the more is due, and nothing else.

        ``running_most`` bounds the cycles of all fleets together; see ``ready_workspaces``.
        """
        ...

    def due_workspaces(self, limit: int) -> list[str]:
        """Return workspaces with something for the tick: a due window, a passed hold or lease; oldest first."""
        ...

    def ready_workspaces(
        self,
        limit: int,
        *,
        except_fleets: Collection[str] = (),
        serving: Serving | None = None,
        running_most: int | None = None,
    ) -> list[str]:
        """Return workspaces that a worker may start now, the longest ready first.

        Left out is what has no room: its fleet is full by the policy in force for it, or ``running_most`` cycles run
        in all. ``except_fleets`` leaves out fleets that have become full since; ``serving`` what that worker does not
        serve, as far as a row tells before it is read.
        """
        ...

    def next_instant(self) -> datetime | None:
        """Return the earliest future instant at which the tick or a worker may have something to do."""
        ...

    def recomputations(self) -> list[Recomputation]:
        """Return the changed layers that not all open windows follow yet, the one that was changed first first."""
        ...

    def open_windows(self, fleet: str | None, after: str, limit: int) -> list[str]:
        """Return workspaces of a fleet (None: of all) whose window is due some time, by id, those after ``after``."""
        ...

    def last_tick_at(self) -> datetime | None:
        """Return when a tick last ended, by the database's clock."""
        ...


class CoreStore(PresenceStore, Protocol):
    """The log, the workspaces' rows and the read models: what the service needs of them."""

    def commit(self, unit: Unit[AnswerT]) -> AnswerT:
        """Carry out a unit and return its answer once it is committed, alone or together with others that wait.

        Raises what its step raised (nothing of it is stored then), ``Overloaded`` where too many wait, and
        ``StorageUnavailable`` when the database does not answer in time, also where the commit's outcome is unknown.
        """
        ...

    def write(
        self,
        workspaces: Collection[str] = (),
        *,
        skip_locked: bool = False,
        asked: Collection[Asked] = (),
        deciding: Collection[str] = (),
    ) -> AbstractContextManager[Transaction]:
        """Open a writing transaction that holds these workspaces' rows, existing or not yet.

        What a committer stands on; the service hands units to ``commit``. Commits when the block ends, rolls back when
        it raises. With ``skip_locked`` a row that another transaction holds is left out instead of waited for.
        ``asked`` and ``deciding`` (workspaces) is what the steps will ask for. Raises ``StorageUnavailable``.
        """
        ...

    def read(self) -> AbstractContextManager[CoreReader]:
        """Open a reading transaction."""
        ...

    def renew_leases(self, held: Mapping[str, tuple[int, int]]) -> Renewed:
        """Renew leases, given as workspace -> (fence, lease in ms), all in one statement that waits for no row."""
        ...

    def ticked(self) -> None:
        """Note that a tick ended now."""
        ...

    def forget_answers(self, before: datetime) -> int:
        """Delete idempotency answers remembered before that instant; return how many."""
        ...

    def check(self, *, reads_only: bool = False) -> None:
        """Raise ``StorageUnavailable`` or ``MigrationsPending`` unless the store can serve.

        ``reads_only``: a database that takes no writes, such as a standby, is good enough.
        """
        ...

    def close(self) -> None:
        """Release connections and files."""
        ...


class Reader(CoreReader, Inquiries, Sums, Verifications, Protocol):
    """All that can be read: with it what auditors ask, and what is counted and sealed."""

    @property
    def seals(self) -> Seals:
        """Return what is sealed, at the same state of the database."""
        ...

    def backlog(self) -> Backlog:
        """Return what waits."""
        ...

    def counters(self, name: str = LOG_SUMS) -> Counters:
        """Return the kept sums of that name; position 0 and none if there are none yet."""
        ...


class EventStore(CoreStore, KeyUses, SealStore, VerificationStore, Protocol):
    """The whole store, in one database: the core's, and what is counted, sealed and verified."""

    def submit(self, unit: Unit[Any], tell: Tell) -> None:
        """Do what ``commit`` does without waiting for it. Raises ``Unavailable`` where the unit is not even taken."""
        ...

    def read(self) -> AbstractContextManager[Reader]:
        """Open a reading transaction."""
        ...

    def save_counters(self, counters: Counters, *, expected_position: int) -> bool:
        """Keep the sums if the kept ones still are at ``expected_position``; return whether they were."""
        ...

    def add_sums(self, new: SumsToAdd) -> bool:
        """Add to the kept sums if those still are at ``new.after``; return whether they were."""
        ...

    def add_file_counts(self, files: Sequence[FileWrites], *, position: int, expected_position: int) -> bool:
        """Add newer writes to the kept counts if those still are at ``expected_position``; return whether they were."""
        ...
