"""Workspaces as they were at a past instant: the nearest snapshot, and what came since folded into it.

The fold uses the policies as they were at each event. A lease is as its cycle's start gave it: renewals are no
events. Databases of before the snapshots answer too; they fold more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain

from orchestrator.domain.due import due
from orchestrator.domain.encoding import format_instant
from orchestrator.domain.events import CycleStarted, PolicyChanged
from orchestrator.domain.evolve import apply
from orchestrator.domain.policy import Policies, PolicyLayer
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.snapshot import Snapshot
from orchestrator.domain.state import WorkspaceState
from orchestrator.errors import InvalidInput
from orchestrator.ports.inquiries import PastEvent, Place
from orchestrator.ports.store import EventFilter, Reader
from orchestrator.ports.workspaces import Lease, StoredWorkspace, WorkspaceFilter

MOST_EXAMINED = 500
"""Workspaces that one page looks at. A page for which few of them are wanted is short, and says where to go on."""

_PAGE = 500


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A past instant: the newest position recorded by then, and the policies as they were up to it."""

    at: datetime
    position: int
    history: PolicyHistory

    @property
    def policies(self) -> Policies:
        """Return the policies of that instant."""
        return self.history.at(self.position)


class PolicyHistory:
    """The stored policies as they were after each of the log's few ``PolicyChanged``."""

    def __init__(self, changes: Sequence[PastEvent]) -> None:
        self._positions: list[int] = []
        self._policies = [Policies(layers={})]
        for event in changes:
            data = event.data
            if isinstance(data, PolicyChanged):
                layer = PolicyLayer(scope=data.scope, policy=data.policy, version=data.policy_version)
                self._positions.append(event.position)
                self._policies.append(Policies(layers={**self._policies[-1].layers, data.scope: layer}))

    def at(self, position: int) -> Policies:
        """Return the policies after the event at ``position``."""
        return self._policies[bisect_right(self._positions, position)]


@dataclass(frozen=True, kw_only=True)
class PastWorkspaces:
    """A page of workspaces as they were; ``next_after`` is the id to go on after, None at the end."""

    items: tuple[StoredWorkspace, ...]
    next_after: str | None


def moment_at(reader: Reader, at: datetime) -> Moment:
    """Return a past instant's place in the log.

    Raises ``InvalidInput`` for an instant in the future of the database's clock, and of the log where that clock
    has stepped back: what will be is not known.
    """
    place = _checked(reader.place_of(at), at)
    changes = reader.past_events(None, after=0, to_position=place.position, limit=_PAGE)
    return Moment(at=at, position=place.position, history=PolicyHistory(changes))


def workspace_at(reader: Reader, workspace: str, at: datetime) -> tuple[StoredWorkspace | None, Moment]:
    """Return a workspace as it was, a removed one too, and the instant's place; None if it did not exist yet.

    Raises ``InvalidInput`` as ``moment_at`` does. Two statements: the nearest snapshot, and the events from there
    to the instant, which are those of one window and one restart, with the changes of policies.
    """
    place, snapshot = reader.snapshot_by(workspace, at)
    _checked(place, at)
    after = snapshot.position if snapshot else 0
    found = reader.past_events(workspace, after=after, to_position=place.position, limit=_PAGE)
    mine = [event for event in found if type(event.data) is not PolicyChanged]
    moment = Moment(at=at, position=place.position, history=PolicyHistory(found))
    wanted = EventFilter(workspace=workspace, to_position=place.position, limit=_PAGE)
    rest = () if len(mine) < _PAGE else _events(reader, replace(wanted, after=mine[-1].position))
    return _folded(workspace, snapshot, chain(mine, rest), moment), moment


def workspaces_at(reader: Reader, wanted: WorkspaceFilter, moment: Moment) -> PastWorkspaces:
    """Return a page of workspaces as they were, by id. Looks at no more than ``MOST_EXAMINED`` of them."""
    found: list[StoredWorkspace] = []
    after, examined = wanted.after, 0
    while examined < MOST_EXAMINED:
        limit = min(wanted.limit, MOST_EXAMINED - examined)
        rows = reader.workspaces(WorkspaceFilter(removed=True, after=after, limit=limit))
        names = [row.state.workspace for row in rows]
        snapshots = reader.snapshots(names, moment.position)
        for name in names:
            was = _folded(name, snapshots.get(name), _since(reader, name, snapshots.get(name), moment), moment)
            if was is not None and wanted.admits(was.state):
                found.append(was)
            after = name
            if len(found) == wanted.limit:
                return PastWorkspaces(items=tuple(found), next_after=after)
        examined += len(names)
        if len(names) < limit:
            return PastWorkspaces(items=tuple(found), next_after=None)
    return PastWorkspaces(items=tuple(found), next_after=after)


def _since(reader: Reader, workspace: str, snapshot: Snapshot | None, moment: Moment) -> Iterator[PastEvent]:
    after = snapshot.position if snapshot else 0
    wanted = EventFilter(workspace=workspace, after=after, to_position=moment.position, limit=_PAGE)
    return _events(reader, wanted)


def _folded(
    workspace: str, snapshot: Snapshot | None, since: Iterable[PastEvent], moment: Moment
) -> StoredWorkspace | None:
    """Fold what came since the snapshot into it; None: nothing ever came."""
    state = snapshot.state if snapshot else WorkspaceState(workspace=workspace)
    existed, lease = snapshot is not None, None
    for event in since:
        existed = True
        policy = policy_in_force(state, moment.history.at(event.position))
        state = apply(state, event.data, at=event.recorded_at, position=event.position, policy=policy)
        if isinstance(event.data, CycleStarted):
            started = event.data
            lease = Lease(cycle=started.cycle, fence=started.fence, worker=started.worker, until=started.lease_until)
    if not existed:
        return None
    found = due(state, policy_in_force(state, moment.policies))
    return StoredWorkspace(state=state, due_at=found.at if found else None, lease=lease if state.cycle else None)


def _checked(place: Place, at: datetime) -> Place:
    if at > place.now:
        now, then = format_instant(place.now), format_instant(at)
        raise InvalidInput(f"at: {then} is in the future; the database's clock says {now}", field="at")
    return place


def _events(reader: Reader, wanted: EventFilter) -> Iterator[PastEvent]:
    while True:
        page = reader.events(wanted)
        yield from (PastEvent(event.position, event.recorded_at, event.data) for event in page)
        if len(page) < wanted.limit:
            return
        wanted = replace(wanted, after=page[-1].position)
