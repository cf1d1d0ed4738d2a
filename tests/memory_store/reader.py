"""One reading transaction on the in-memory store: a look at one committed content."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime
from itertools import islice

import msgspec

from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.domain.decide import is_served
from orchestrator.domain.events import FileWritten, Recorded
from orchestrator.domain.policy import Policies, PolicyLayer
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.serving import Need, SeenWorker, Serving
from orchestrator.domain.snapshot import Snapshot
from orchestrator.domain.state import Phase
from orchestrator.ports.keys import StoredKey
from orchestrator.ports.recomputation import Recomputation
from orchestrator.ports.store import Clock, EventFilter, RestartFilter, Waived
from orchestrator.ports.workspaces import KeptRow, OpenCycle, Outlook, StoredWorkspace, WorkspaceFilter
from orchestrator.storage.sql.keys import with_changes
from orchestrator.storage.sql.reader import waived_by
from orchestrator.storage.sql.shared_reads import HOLDING
from orchestrator.storage.sql.workspace_rows import fleet_of, spelled_workspace
from tests.memory_store.content import Content
from tests.memory_store.log import MemoryLog


class MemoryReader:
    """``CoreReader`` over a content and the shared log below its length."""

    def __init__(
        self, log: MemoryLog, content: Content, clock: Clock, present: Callable[[], list[SeenWorker]] | None = None
    ) -> None:
        self._log, self._content, self._clock = log, content, clock
        self._present = present

    def clock(self) -> datetime:
        """Return the clock."""
        return self._clock.now()

    def workspace(self, workspace: str) -> StoredWorkspace | None:
        """Return a workspace's row, removed ones too."""
        stored = self._content.workspaces.get(workspace)
        return None if stored is None else self._seen(stored)

    def _seen(self, stored: StoredWorkspace) -> StoredWorkspace:
        """Return a workspace with what the log says of who serves it."""
        registration = stored.state.registration
        need = (registration.executor, registration.pool) if registration else ("", "")
        since = self._content.away.get(need)
        if since is None or stored.state.phase not in (Phase.QUEUED, Phase.RETRYING):
            return stored
        return msgspec.structs.replace(stored, unserved_since=since)

    def workspaces(self, wanted: WorkspaceFilter) -> list[StoredWorkspace]:
        """Return a page of workspaces."""
        ids = sorted(name for name in self._content.workspaces if name > wanted.after)
        stored = (self._seen(self._content.workspaces[name]) for name in ids)
        return list(islice((one for one in stored if wanted.admits(one.state, one.phase)), wanted.limit))

    def policies(self) -> Policies:
        """Return the stored policy layers."""
        return Policies(layers=self._content.policies)

    def policy_layers(self) -> list[PolicyLayer]:
        """Return the layers as they lie there."""
        return list(self._content.policies.values())

    def event(self, event: str) -> Recorded | None:
        """Return an event by its id."""
        return self._log.by_id(event, length=self._content.length)

    def events_by_id(self, ids: Collection[str]) -> dict[str, Recorded]:
        """Return the events of some ids, for those that exist."""
        return {one: found for one in ids if (found := self.event(one)) is not None}

    def events(self, wanted: EventFilter) -> list[Recorded]:
        """Return a page of the log."""
        last = self._content.length if wanted.to_position is None else min(wanted.to_position, self._content.length)
        found = self._log.between(wanted.after + 1, last, wanted.workspace)
        chosen = (
            event
            for event in (reversed(list(found)) if wanted.newest else found)
            if (not wanted.types or event.type in wanted.types)
            and wanted.correlation_id in (None, event.correlation_id)
        )
        page = list(islice(chosen, wanted.limit))
        return page[::-1] if wanted.newest else page

    def stored_events(self, wanted: EventFilter) -> list[StoredEvent]:
        """Return a page of the log as a database would keep it."""
        return [self._log.stored(event.position) for event in self.events(wanted)]

    def workspace_rows(self, after: str, limit: int) -> dict[str, KeptRow]:
        """Return a page of workspaces as a database would keep them."""
        page = self.workspaces(WorkspaceFilter(removed=True, after=after, limit=limit))
        return {stored.state.workspace: self.spell(stored, None) for stored in page}

    def spell(self, stored: StoredWorkspace, like: KeptRow | None) -> KeptRow:
        """Return what the rows of a workspace must be."""
        return spelled_workspace(stored, like)

    def access_keys(self, *, digests: bool = False) -> list[StoredKey]:
        """Return all keys, by name and age."""
        keys = with_changes((), self._content.keys)
        return keys if digests else [dataclasses.replace(key, digest="") for key in keys]

    def last_position(self) -> int:
        """Return the newest position; 0 for an empty log."""
        return self._content.length

    def restart(self, restart: str) -> RestartProjection | None:
        """Return a restart by its id."""
        return self._content.restarts.get(restart)

    def restarts(self, wanted: RestartFilter) -> list[RestartProjection]:
        """Return a page of restart history."""
        newest_first = wanted.after is None
        in_order = sorted(self._content.restarts.values(), key=lambda one: one.queued_position, reverse=newest_first)
        found = (record for record in in_order if self._matches(record, wanted))
        return list(islice(found, wanted.limit))

    def _matches(self, record: RestartProjection, wanted: RestartFilter) -> bool:
        return (
            wanted.workspace in (None, record.workspace)
            and wanted.fleet in (None, record.fleet)
            and wanted.state in (None, record.state)
            and wanted.cause in (None, record.cause)
            and (wanted.since is None or record.queued_at >= wanted.since)
            and (wanted.until is None or record.queued_at < wanted.until)
            and (wanted.before is None or record.queued_position < wanted.before)
            and (wanted.after is None or record.queued_position > wanted.after)
            and (wanted.path is None or self._wrote(record, wanted.path))
        )

    def _wrote(self, record: RestartProjection, path: str) -> bool:
        last = min(record.to_position, self._content.length)
        held = self._log.between(record.from_position, last, record.workspace)
        return any(isinstance(event.data, FileWritten) and event.data.path == path for event in held)

    def snapshots_between(self, first: int, last: int) -> list[Snapshot]:
        """Return all snapshots of these positions, both ends included, in their order."""
        return [found for position, found in self._content.snapshots.items() if first <= position <= last]

    def restart_holding(self, workspace: str, position: int) -> RestartProjection | None:
        """Return the newest restart whose range holds ``position`` and that succeeded or is unsettled."""
        holding = (
            record
            for record in self._content.restarts.values()
            if record.workspace == workspace
            and record.state in HOLDING
            and record.from_position <= position <= record.to_position
        )
        return max(holding, key=lambda record: record.queued_position, default=None)

    def restarts_holding(self, positions: Collection[int]) -> dict[int, RestartProjection]:
        """Return what ``restart_holding`` says of each of these events, for those that a restart holds."""
        events = (self._log.at(position) for position in positions if 0 < position <= self._content.length)
        holders = ((event.position, self.restart_holding(event.workspace or "", event.position)) for event in events)
        return {position: holder for position, holder in holders if holder is not None}

    def waived(self, workspace: str, position: int) -> Waived | None:
        """Return the waived range that holds ``position``, if one does."""
        later = self._log.between(position + 1, self._content.length, workspace)
        return next((found for event in later if (found := waived_by(event, position))), None)

    def cycles_of(self, worker: str) -> list[OpenCycle]:
        """Return the open cycles that a worker of that name holds, by workspace."""
        rows = sorted(self._content.workspaces.items())
        held = ((name, stored.lease) for name, stored in rows)
        return [
            OpenCycle(workspace=name, cycle=lease.cycle, fence=lease.fence)
            for name, lease in held
            if lease is not None and lease.worker == worker
        ]

    def outlook(self, due_most: int, ready_most: int, *, running_most: int | None = None) -> Outlook:
        """Return what there is to do now."""
        return Outlook(
            now=self.clock(),
            due=self.due_workspaces(due_most),
            ready=self.ready_workspaces(ready_most, running_most=running_most),
            next_at=self.next_instant(),
            waits=bool(self.waiting_for()),
            away=bool(self._content.away),
            recomputes=bool(self._content.recomputations),
            last_tick_at=self._content.last_tick_at,
        )

    def recomputations(self) -> list[Recomputation]:
        """Return the changed layers that not all open windows follow yet, the one that was changed first first."""
        return sorted(self._content.recomputations.values(), key=lambda one: one.version)

    def open_windows(self, fleet: str | None, after: str, limit: int) -> list[str]:
        """Return workspaces of a fleet (None: of all) whose window is due some time, by id, those after ``after``."""
        rows = sorted(self._content.workspaces.items())
        return [
            name
            for name, stored in rows
            if stored.due_at is not None and name > after and fleet in (None, fleet_of(stored.state))
        ][:limit]

    def due_workspaces(self, limit: int) -> list[str]:
        """Return workspaces with something for the tick: a due window, a passed hold or lease; oldest first."""
        now = self._content.store_time(self._clock.now())
        rows = self._content.workspaces.items()
        due = ((min(instants), name) for name, stored in rows if (instants := _tick_instants(stored)))
        oldest_first = sorted(pair for pair in due if pair[0] <= now)
        return [name for _, name in oldest_first[:limit]]

    def ready_workspaces(
        self,
        limit: int,
        *,
        except_fleets: Collection[str] = (),
        serving: Serving | None = None,
        running_most: int | None = None,
    ) -> list[str]:
        """Return workspaces that a worker may start now, the longest ready first."""
        now = self._content.store_time(self._clock.now())
        longest_first = sorted(
            (ready_at, name)
            for name, stored in self._content.workspaces.items()
            if (ready_at := stored.state.ready_at) is not None
            and ready_at <= now
            and fleet_of(stored.state) not in except_fleets
            and is_served(stored.state, serving)
        )
        if not longest_first:
            return []
        running = Counter(fleet_of(one.state) for one in self._content.workspaces.values() if one.state.cycle)
        return list(islice((name for _, name in longest_first if self._has_room(name, running, running_most)), limit))

    def _has_room(self, name: str, running: Counter[str], running_most: int | None) -> bool:
        state = self._content.workspaces[name].state
        most = policy_in_force(state, self.policies()).max_concurrent
        in_fleet = most is None or running[fleet_of(state)] < most
        return in_fleet and (running_most is None or running.total() < running_most)

    def workers(self) -> list[SeenWorker]:
        """Return the workers that were seen lately."""
        if self._present is not None:
            return self._present()
        return [worker for _, worker in sorted(self._content.workers.items())]

    def waiting_for(self) -> dict[Need, datetime]:
        """Return for what restarts wait to be started, and since when the longest is ready."""
        now, found = self._content.store_time(self._clock.now()), dict[Need, datetime]()
        for stored in self._content.workspaces.values():
            registration, ready_at = stored.state.registration, stored.state.ready_at
            if registration is not None and ready_at is not None and ready_at <= now:
                need = (registration.executor, registration.pool)
                found[need] = min(ready_at, found.get(need, ready_at))
        return found

    def away(self) -> dict[Need, datetime]:
        """Return what nobody serves as the log says, and since when."""
        return dict(self._content.away)

    def unclaimable(self) -> int:
        """Count the workspaces whose restart waits for what nobody serves."""
        return sum(self._seen(one).phase is Phase.UNCLAIMABLE for one in self._content.workspaces.values())

    def next_instant(self) -> datetime | None:
        """Return the earliest future instant at which the tick or a worker may have something to do."""
        now = self._content.store_time(self._clock.now())
        instants = (at for stored in self._content.workspaces.values() for at in _instants(stored))
        return min((at for at in instants if at > now), default=None)

    def last_tick_at(self) -> datetime | None:
        """Return when a tick last ended, by the clock."""
        return self._content.last_tick_at


def _tick_instants(stored: StoredWorkspace) -> list[datetime]:
    """Return the instants at which the tick has something to do."""
    hold, lease = stored.state.hold, stored.lease
    instants = (stored.due_at, hold.until if hold else None, lease.until if lease else None)
    return [at for at in instants if at is not None]


def _instants(stored: StoredWorkspace) -> list[datetime]:
    ready_at = stored.state.ready_at
    return _tick_instants(stored) if ready_at is None else [*_tick_instants(stored), ready_at]
