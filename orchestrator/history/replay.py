"""Promise S10: folding the log gives the workspaces' rows, the restarts, the policies and snapshots, byte for byte.

Of the keys those that are live are compared: each has the event that made it, and none that revoked it.

Leases are the rows' own: their renewals are no events. One pass beside the stored rows: restarts are queued in the
order of the log, so their rows are read along with it, and one that has settled is compared and let go. Memory is
one state a workspace and one record an unsettled restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from msgspec.structs import replace

from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.domain.due import due
from orchestrator.domain.encoding import canonical_json, decode_data, encode_state, parse_instant, unreadable_event
from orchestrator.domain.events import EventData, FileWritten, PolicyChanged, Recorded, RestartQueued
from orchestrator.domain.evolve import apply
from orchestrator.domain.policy import (
    DEFAULT_SCOPE,
    SETTINGS_SCOPE,
    Policies,
    Policy,
    PolicyLayer,
    fleet_scope,
)
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.restart_projection import SETTLED, RestartProjection, project, restart_of
from orchestrator.domain.snapshot import Snapshot, is_kept
from orchestrator.domain.state import Registration, WorkspaceState
from orchestrator.errors import Unreadable
from orchestrator.history.replayed_keys import ReplayedKeys
from orchestrator.ports.recomputation import Recomputation
from orchestrator.ports.store import CoreReader, CoreStore, EventFilter, RestartFilter
from orchestrator.ports.workspaces import KeptRow, StoredWorkspace

_PAGE = 1_000
_DAMAGED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What folding an event may raise whose data is well-formed and absurd: a duration of a million years."""

_UNREAD = Policy()
"""Only writes are folded with regard to a policy (its ``max_count``)."""

Progress = Callable[[int, int], None]
"""Takes the position that is folded and the last one that will be."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One row that is not what the log says. None: there is no such row on that side."""

    table: str
    id: str
    stored: str | None
    replayed: str | None


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    """How much was folded, and every difference.

    ``broken``: why the replay had to end before the end, at the event or row that is its one difference.
    """

    events: int
    workspaces: int
    restarts: int
    policies: int
    differences: tuple[Difference, ...]
    broken: str | None = None


class _StoredRestarts:
    """The stored restarts in the order in which they were queued, read page by page beside the log."""

    def __init__(self, reader: CoreReader | None = None) -> None:
        """Begin to read; without a reader there are none."""
        self._rows = iter(()) if reader is None else self._read(reader)
        self._next = next(self._rows, None)

    def _read(self, reader: CoreReader) -> Iterator[RestartProjection]:
        after = 0
        while page := reader.restarts(RestartFilter(after=after, limit=_PAGE)):
            yield from page
            after = page[-1].queued_position

    def up_to(self, position: int) -> Iterator[RestartProjection]:
        """Yield the rows that say they were queued at or before ``position``."""
        while self._next is not None and self._next.queued_position <= position:
            row, self._next = self._next, next(self._rows, None)
            yield row

    def rest(self) -> Iterator[RestartProjection]:
        """Yield the rows that are left."""
        if self._next is not None:
            yield self._next
        yield from self._rows


@dataclass
class Replayed:
    """What the log says, event by event, and where the stored restarts say something else."""

    stored_restarts: _StoredRestarts = field(default_factory=_StoredRestarts)
    behind: Sequence[Recomputation] = ()
    events: int = 0
    restarts: int = 0
    states: dict[str, WorkspaceState] = field(default_factory=dict)
    layers: dict[str, PolicyLayer] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    keys: ReplayedKeys = field(default_factory=ReplayedKeys)
    _snapshots: dict[int, WorkspaceState] = field(default_factory=dict)
    _unsettled: dict[str, RestartProjection] = field(default_factory=dict)
    _stored: dict[str, RestartProjection] = field(default_factory=dict)
    _policies: dict[str, tuple[Registration | None, Policy]] = field(default_factory=dict)
    _instant: tuple[str, datetime] | None = None

    def take(self, event: StoredEvent) -> None:
        """Fold one event in."""
        data, at, workspace = _data_of(event), self._at(event.recorded_at), event.workspace
        if workspace is None:
            self._take_policy(data)
            self.keys.take(data)
            return
        before = self.states.get(workspace) or WorkspaceState(workspace=workspace)
        policy = self._policy(before) if type(data) is FileWritten else _UNREAD
        after = self.states[workspace] = apply(before, data, at=at, position=event.position, policy=policy)
        if data.FACT:
            return
        self._project(event, data, at, after)
        if is_kept(data):
            self._snapshots[event.position] = after

    def _take_policy(self, data: EventData) -> None:
        if isinstance(data, PolicyChanged):
            self.layers[data.scope] = PolicyLayer(scope=data.scope, policy=data.policy, version=data.policy_version)
            self._policies.clear()

    def compare_snapshots(self, stored: Sequence[Snapshot]) -> None:
        """Compare those kept since the last time. One may be missing: while an upgrade rolls, older workers keep none.

        A state of the past is folded from the nearest one; a missing one costs time only.
        """
        for snapshot in stored:
            kept, replayed = snapshot.state, self._snapshots.get(snapshot.position)
            if replayed is not None and not kept.registration_position:  # of revision 0002, which did not say it
                replayed = replace(replayed, registration_position=0)
            if kept != replayed:
                name = f"{kept.workspace} at {snapshot.position}"
                sides = [None if state is None else encode_state(state) for state in (kept, replayed)]
                self.differences.append(
                    Difference(table="workspace_snapshots", id=name, stored=sides[0], replayed=sides[1])
                )
        self._snapshots.clear()

    def _at(self, text: str) -> datetime:
        """Return an instant; the events of a transaction share one."""
        if self._instant is None or self._instant[0] != text:
            self._instant = (text, parse_instant(text))
        return self._instant[1]

    def _policy(self, state: WorkspaceState) -> Policy:
        """Return the numbers in force, merged once for each registration and each change of a layer."""
        registration, policy = self._policies.get(state.workspace, (None, None))
        if policy is None or registration is not state.registration:
            policy = policy_in_force(state, Policies(layers=self.layers))
            self._policies[state.workspace] = (state.registration, policy)
        return policy

    def _project(self, event: StoredEvent, data: EventData, at: datetime, state: WorkspaceState) -> None:
        restart = restart_of(data)
        if restart is None:
            return
        if isinstance(data, RestartQueued):
            self.restarts += 1
            self._stored |= {row.id: row for row in self.stored_restarts.up_to(event.position)}
        fleet = state.registration.fleet if state.registration else ""
        recorded = Recorded(
            id=event.id,
            workspace=event.workspace,
            version=event.version,
            data=data,
            actor=event.actor,
            position=event.position,
            recorded_at=at,
        )
        record = project(self._unsettled.get(restart), recorded, fleet=fleet)
        if record is None:
            return
        self._unsettled[restart] = record
        if record.state in SETTLED:
            del self._unsettled[restart]
            self._compare(restart, self._stored.pop(restart, None), record)

    def _compare(self, restart: str, stored: RestartProjection | None, replayed: RestartProjection | None) -> None:
        if stored != replayed:
            self.differences.append(
                Difference(table="restarts", id=restart, stored=_spelled(stored), replayed=_spelled(replayed))
            )

    def compare_unsettled(self) -> None:
        """Compare what has not settled, and name the stored restarts that the log does not know."""
        self._stored |= {row.id: row for row in self.stored_restarts.rest()}
        for restart in sorted(self._stored.keys() | self._unsettled.keys()):
            self._compare(restart, self._stored.get(restart), self._unsettled.get(restart))

    def workspace(self, name: str, stored: KeptRow | None) -> StoredWorkspace:
        """Return what a workspace's row must hold: its state, and when its window is due.

        One that does not follow a changed policy yet is due when it says: what looks at it then works it out anew.
        """
        state = self.states[name]
        found = due(state, self._policy(state))
        due_at = found.at if found else None
        if due_at is not None and stored is not None and stored.due_at is not None and self._is_behind(state):
            due_at = stored.due_at
        return StoredWorkspace(state=state, due_at=due_at)

    def _is_behind(self, state: WorkspaceState) -> bool:
        fleet = state.registration.fleet if state.registration else ""
        return any(
            state.workspace > one.to and one.scope in (SETTINGS_SCOPE, DEFAULT_SCOPE, fleet_scope(fleet))
            for one in self.behind
        )


def replay(store: CoreStore, progress: Progress = lambda position, last: None) -> ReplayReport:
    """Fold the whole log beside what is stored, in one snapshot, and compare byte for byte.

    It ends at the first event that cannot be folded, and at a row that cannot even be read: that is the only finding.
    """
    replayed, broken = Replayed(), None
    try:
        with store.read() as reader:
            replayed.stored_restarts, replayed.behind = _StoredRestarts(reader), reader.recomputations()
            _fold(replayed, reader, progress)
            found = _compared(replayed, reader)
    except Unreadable as error:
        broken = str(error)
        found = [Difference(table=error.table, id=error.id, stored=broken, replayed=None)]
    return ReplayReport(
        events=replayed.events,
        workspaces=len(replayed.states),
        restarts=replayed.restarts,
        policies=len(replayed.layers),
        differences=tuple(found),
        broken=broken,
    )


def _fold(replayed: Replayed, reader: CoreReader, progress: Progress) -> None:
    after, last = 0, reader.last_position()
    while page := reader.stored_events(EventFilter(after=after, limit=_PAGE)):
        for event in page:
            try:
                replayed.take(event)
            except _DAMAGED as error:
                raise unreadable_event(event.position, event.id, error) from error
            replayed.events += 1
        replayed.compare_snapshots(reader.snapshots_between(after + 1, page[-1].position))
        after = page[-1].position
        progress(after, last)


def _compared(replayed: Replayed, reader: CoreReader) -> list[Difference]:
    replayed.compare_unsettled()
    layers = {scope: canonical_json(layer) for scope, layer in replayed.layers.items()}
    stored = {layer.scope: canonical_json(layer) for layer in reader.policy_layers()}
    return [
        *_workspace_differences(replayed, reader),
        *replayed.differences,
        *_differences("policies", stored, layers),
        *(
            Difference(table="access_keys", id=key, stored=kept, replayed=said)
            for key, kept, said in replayed.keys.differences(reader.access_keys(digests=True), reader.clock())
        ),
    ]


def _workspace_differences(replayed: Replayed, reader: CoreReader) -> Iterator[Difference]:
    """Compare the workspaces in the order of their ids, and work out no more of them between two reads than a page.

    PostgreSQL ends a transaction in which nothing is asked for 10 s: spelling 100,000 workspaces took 4 s (measured).
    """
    names, after = deque(sorted(replayed.states)), ""
    while (page := reader.workspace_rows(after, _PAGE)) or names:
        ends = [name for name in (next(reversed(page), None), *islice(names, _PAGE - 1, _PAGE)) if name is not None]
        after = min(ends, default=names[-1] if names else "")
        stored = {name: row for name, row in page.items() if name <= after}
        expected: dict[str, KeptRow] = {}
        while names and names[0] <= after:
            name = names.popleft()
            expected[name] = reader.spell(replayed.workspace(name, stored.get(name)), stored.get(name))
        yield from _differences("workspaces", _part(stored, "workspace"), _part(expected, "workspace"))
        both = stored.keys() & expected.keys()
        for table, part in _BESIDE.items():
            sides = [{name: rows[name] for name in both} for rows in (stored, expected)]
            yield from _differences(table, *(_part(side, part) for side in sides))


_BESIDE = {"registrations": "registration", "leases": "lease"}


def _part(rows: Mapping[str, KeptRow], part: str) -> dict[str, str]:
    return {name: text for name, row in rows.items() if (text := getattr(row, part)) is not None}


def _data_of(event: StoredEvent) -> EventData:
    try:
        return decode_data(event.type, event.schema, event.data, of_nobody=event.workspace is None)
    except Unreadable as error:
        raise unreadable_event(event.position, event.id, error) from None


def _spelled(record: RestartProjection | None) -> str | None:
    return None if record is None else canonical_json(record)


def _differences(table: str, stored: Mapping[str, str], replayed: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted(stored.keys() | replayed.keys()):
        if stored.get(name) != replayed.get(name):
            yield Difference(table=table, id=name, stored=stored.get(name), replayed=replayed.get(name))
