"""One reading transaction on a SQL database: each method is one statement over an index."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import msgspec
import sqlalchemy as sa

from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.domain.events import Recorded, WritesWaived
from orchestrator.domain.policy import Policies, PolicyLayer
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.serving import Need, SeenWorker, Serving
from orchestrator.ports.keys import StoredKey
from orchestrator.ports.recomputation import Recomputation
from orchestrator.ports.store import LOG_SUMS, Backlog, Counters, EventFilter, RestartFilter, Waived
from orchestrator.ports.verification import StoredVerification, Verified
from orchestrator.ports.workspaces import KeptRow, OpenCycle, Outlook, StoredWorkspace, WorkspaceFilter
from orchestrator.storage.sql import keys as access
from orchestrator.storage.sql import presence, queue, recomputation, rows
from orchestrator.storage.sql import shared_reads as lookups
from orchestrator.storage.sql.backlog import read_backlog
from orchestrator.storage.sql.checkpoints import SqlSeals
from orchestrator.storage.sql.column_types import Instant, InstantText
from orchestrator.storage.sql.database_time import DatabaseTime
from orchestrator.storage.sql.event_pages import event_page
from orchestrator.storage.sql.inquiries import SqlInquiries
from orchestrator.storage.sql.policy_cache import PolicyCache, stored_layers
from orchestrator.storage.sql.restart_pages import restart_page
from orchestrator.storage.sql.restart_writes import restart_writes
from orchestrator.storage.sql.restarts_of_path import restarts_of_path
from orchestrator.storage.sql.schema import IS_WAIVER, counters, events, leases, restarts, workspaces
from orchestrator.storage.sql.statements import ONE, Statements
from orchestrator.storage.sql.verification import read_verification, read_verified
from orchestrator.storage.sql.workspace_pages import workspace_page
from orchestrator.storage.sql.workspace_rows import kept_row, spelled_workspace, to_compare, to_read, workspace_of

_UNDECODED = [
    InstantText(column) if isinstance(column.type, Instant) else column
    for column in (events.c[name] for name in StoredEvent.__struct_fields__)
]
_TOLD = [events.c[name] for name in rows.TOLD]


class SqlReader(SqlInquiries):
    """``Reader`` over ``Statements``."""

    def __init__(self, sql: Statements, time: DatabaseTime, policies: PolicyCache) -> None:
        super().__init__(sql, time)
        self._policies = policies

    @property
    def seals(self) -> SqlSeals:
        """Return what is sealed, at the same state of the database."""
        return SqlSeals(self._sql)

    def clock(self) -> datetime:
        """Return the database's clock."""
        at: datetime = self._sql.run(sa.select(self._time.clock())).scalar_one()
        return at

    def workspace(self, workspace: str) -> StoredWorkspace | None:
        """Return a workspace's row, removed ones too."""
        row = self._sql.run(to_read.where(workspaces.c.id == workspace)).mappings().one_or_none()
        return None if row is None else workspace_of(row)

    def workspaces(self, wanted: WorkspaceFilter) -> list[StoredWorkspace]:
        """Return a page of workspaces."""
        return workspace_page(self._sql, wanted)

    def policies(self) -> Policies:
        """Return the stored policy layers."""
        return self._policies.read(self._sql)

    def policy_layers(self) -> list[PolicyLayer]:
        """Return the layers as they lie there now, however lately they were read."""
        return stored_layers(self._sql, sa.true())

    def event(self, event: str) -> Recorded | None:
        """Return an event by its id."""
        row = self._sql.run(sa.select(events).where(events.c.id == event)).mappings().one_or_none()
        return None if row is None else rows.event_of(row)

    def events_by_id(self, ids: Collection[str]) -> dict[str, Recorded]:
        """Return the events of some ids, for those that exist."""
        found = self._sql.run(sa.select(events).where(events.c.id.in_(sorted(ids)))).mappings()
        return {row["id"]: rows.event_of(row) for row in found}

    def events(self, wanted: EventFilter) -> list[Recorded]:
        """Return a page of the log."""
        result = self._sql.run(event_page(sa.select(events), wanted))
        found = [rows.event_of(row) for row in result.mappings()]
        return found[::-1] if wanted.newest else found

    def restart_events(self, record: RestartProjection, *, to_end: bool, limit: int) -> list[Recorded]:
        """Return the workspace's events from the first position of a restart's range on."""
        page = sa.select(*_TOLD).where(events.c.workspace == record.workspace)
        page = page.where(events.c.position >= record.from_position)
        if to_end:
            last = sa.select(sa.func.max(events.c.position)).where(events.c.correlation_id == record.id)
            page = page.where(events.c.position <= last.scalar_subquery())
        result = self._sql.run(page.order_by(events.c.position).limit(limit))
        return [rows.told_event_of(record.workspace, row) for row in result]

    def restart_writes(self, record: RestartProjection, *, after: int, limit: int) -> list[Recorded]:
        """Return the writes of a restart's range that ask for something, those after a position."""
        return restart_writes(self._sql, record, after=after, limit=limit)

    def stored_events(self, wanted: EventFilter) -> list[StoredEvent]:
        """Return a page of the log as it is kept."""
        found = rows.stored_events_of(self._sql.fetch(event_page(sa.select(*_UNDECODED), wanted)))
        return found[::-1] if wanted.newest else found

    def workspace_rows(self, after: str, limit: int) -> dict[str, KeptRow]:
        """Return a page of workspaces as they are kept, undecoded."""
        page = to_compare.where(workspaces.c.id > after).order_by(workspaces.c.id).limit(limit)
        return {row["id"]: kept_row(row) for row in self._sql.run(page).mappings()}

    def spell(self, stored: StoredWorkspace, like: KeptRow | None) -> KeptRow:
        """Return what the rows of a workspace must be."""
        return spelled_workspace(stored, like)

    def stored_decisions(self, workspace: str, from_version: int, limit: int) -> list[StoredEvent]:
        """Return a workspace's decisions as they are kept, from a version on, in their order."""
        later = sa.select(*_UNDECODED).where(events.c.workspace == workspace, events.c.version >= from_version)
        return rows.stored_events_of(self._sql.fetch(later.order_by(events.c.version).limit(limit)))

    def access_keys(self, *, digests: bool = False) -> list[StoredKey]:
        """Return all keys, by name and age, those that are over too."""
        return access.read_keys(self._sql, digests=digests)

    def last_position(self) -> int:
        """Return the newest position; 0 for an empty log."""
        return self._sql.run(sa.select(sa.func.max(events.c.position))).scalar_one() or 0

    def restart(self, restart: str) -> RestartProjection | None:
        """Return a restart by its id."""
        return lookups.restart(self._sql, restart)

    def restarts(self, wanted: RestartFilter) -> list[RestartProjection]:
        """Return a page of restart history."""
        if wanted.path is None:
            return restart_page(self._sql, wanted)
        return restarts_of_path(self._sql, wanted)

    def restart_holding(self, workspace: str, position: int) -> RestartProjection | None:
        """Return the newest restart whose range holds ``position`` and that succeeded or is unsettled."""
        candidate = lookups.first_holding(restarts, workspace, position)
        record = next(iter(lookups.restart_projections(self._sql, candidate)), None)
        return None if record is None or record.from_position > position else record

    def restarts_holding(self, positions: Collection[int]) -> dict[int, RestartProjection]:
        """Return what ``restart_holding`` says of each of these events, for those that a restart holds."""
        return lookups.restarts_holding(self._sql, positions)

    def waived(self, workspace: str, position: int) -> Waived | None:
        """Return the waived range that holds ``position``, if one does."""
        to_position = self._sql.json(events.c.data)["to_position"].as_integer()
        first = (
            sa.select(events)
            .where(events.c.workspace == workspace, events.c.position > position, IS_WAIVER)
            .where(to_position >= position)
            .order_by(events.c.position)
            .limit(ONE)
        )
        row = self._sql.run(first).mappings().one_or_none()
        return None if row is None else waived_by(rows.event_of(row), position)

    def cycles_of(self, worker: str) -> list[OpenCycle]:
        """Return the open cycles that a worker of that name holds, by workspace."""
        either = (leases.c.worker == worker) | workspaces.c.lease_until.is_not(None)
        listed = self._sql.run(to_read.where(either).order_by(workspaces.c.id)).mappings()
        held = ((stored.state.workspace, stored.lease) for stored in map(workspace_of, listed))
        return [
            OpenCycle(workspace=name, cycle=lease.cycle, fence=lease.fence)
            for name, lease in held
            if lease is not None and lease.worker == worker
        ]

    def outlook(self, due_most: int, ready_most: int, *, running_most: int | None = None) -> Outlook:
        """Return what there is to do now, in one statement."""
        wanted = queue.Startable(running_most=running_most)
        return queue.read_outlook(self._sql, self._time, due_most, ready_most, wanted)

    def due_workspaces(self, limit: int) -> list[str]:
        """Return workspaces with something for the tick: a due window, a passed hold or lease; oldest first."""
        return queue.read_due(self._sql, self._time, limit)

    def ready_workspaces(
        self,
        limit: int,
        *,
        except_fleets: Collection[str] = (),
        serving: Serving | None = None,
        running_most: int | None = None,
    ) -> list[str]:
        """Return workspaces that a worker may start now, the longest ready first."""
        wanted = queue.Startable(except_fleets=frozenset(except_fleets), serving=serving, running_most=running_most)
        return queue.read_ready(self._sql, self._time, limit, wanted)

    def workers(self) -> list[SeenWorker]:
        """Return the workers that were seen lately."""
        return presence.read_workers(self._sql)

    def waiting_for(self) -> dict[Need, datetime]:
        """Return for what restarts wait to be started, and since when the longest is ready."""
        return presence.waiting_for(self._sql, self._time.store_time())

    def away(self) -> dict[Need, datetime]:
        """Return what nobody serves as the log says, and since when."""
        return presence.read_away(self._sql)

    def unclaimable(self) -> int:
        """Count the workspaces whose restart waits for what nobody serves."""
        return presence.count_unclaimable(self._sql)

    def next_instant(self) -> datetime | None:
        """Return the earliest future instant at which the tick or a worker may have something to do."""
        return queue.read_next_instant(self._sql, self._time)

    def backlog(self) -> Backlog:
        """Return what waits: from the kept sums, or by a pass over all workspaces where those are far behind."""
        return read_backlog(self._sql, self._time)

    def counters(self, name: str = LOG_SUMS) -> Counters:
        """Return the kept sums of that name; position 0 and none if there are none yet."""
        wanted = sa.select(counters.c.position, counters.c.sums).where(counters.c.name == name)
        row = self._sql.run(wanted).one_or_none()
        if row is None:
            return Counters(position=0, sums={})
        return Counters(position=row.position, sums=msgspec.json.decode(row.sums, type=dict[str, int]))

    def verification(self) -> StoredVerification | None:
        """Return where the next run goes on; None if the log was never verified."""
        return read_verification(self._sql)

    def verified(self) -> Verified | None:
        """Return the same without its state."""
        return read_verified(self._sql)

    def recomputations(self) -> list[Recomputation]:
        """Return the changed layers that not all open windows follow yet, the one that was changed first first."""
        return recomputation.unfinished(self._sql)

    def open_windows(self, fleet: str | None, after: str, limit: int) -> list[str]:
        """Return workspaces of a fleet (None: of all) whose window is due some time, by id, those after ``after``."""
        return recomputation.open_windows(self._sql, fleet, after, limit)

    def last_tick_at(self) -> datetime | None:
        """Return when a tick last ended, by the database's clock."""
        at: datetime | None = self._sql.run(queue.LAST_TICK).scalar_one_or_none()
        return at


def waived_by(event: Recorded, position: int) -> Waived | None:
    """Return what a ``WritesWaived`` says of ``position``: None if its range begins after it."""
    data = event.data
    if not isinstance(data, WritesWaived) or not data.from_position <= position <= data.to_position:
        return None
    return Waived(event=event.id, reason=data.reason, at=event.recorded_at, actor=event.actor)
