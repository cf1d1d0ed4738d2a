"""Load, decide, append, fold: the one way in which a decision about a workspace reaches the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.commands import Command
from orchestrator.domain.decide import decide
from orchestrator.domain.due import due, window_due
from orchestrator.domain.events import ClockRegressed, CycleStarted, EventData, NewEvent, Recorded, RestartQueued
from orchestrator.domain.evolve import evolve
from orchestrator.domain.policy import DEFAULT_FLEET, Policies, Policy
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.restart_projection import RestartProjection, project, restart_of
from orchestrator.domain.scopes import EVERYWHERE, Reach
from orchestrator.domain.snapshot import Snapshot, is_kept
from orchestrator.domain.state import WorkspaceState
from orchestrator.errors import Forbidden
from orchestrator.ports.store import Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.workspaces import Lease, StoredWorkspace
from orchestrator.service.announce import announce
from orchestrator.service.write_budget import WriteBudget

SYSTEM = "system"
"""The actor of what the product does by itself: ticks, drains, rescues."""

_REGRESSION_REPORTED_FROM_MS = 1_000


@dataclass(frozen=True, kw_only=True)
class Author:
    """Who asks, as the envelope keeps it, and over which workspaces: ``scope`` is what it is called in a refusal."""

    actor: str = SYSTEM
    source: str | None = None
    source_id: str | None = None
    occurred_at: datetime | None = None
    traceparent: str | None = None
    reach: Reach = EVERYWHERE
    scope: str = ""
    budget: WriteBudget | None = None
    """What they may write; None: as much as they like."""


BY_ITSELF = Author()
"""The author of what no request asked for."""


def check_reach(reach: Reach, scope: str, state: WorkspaceState) -> None:
    """Raise ``Forbidden`` where a workspace is beyond what somebody may act on; whether it exists is not said.

    One that is not registered is judged as one of the default fleet.
    """
    if not reach.everywhere:
        fleet = state.registration.fleet if state.registration else DEFAULT_FLEET
        if not reach.holds(state.workspace, fleet):
            raise Forbidden(
                f"workspace {state.workspace!r} is beyond what this key may do: its scope {scope} is for {reach}",
                needs=scope,
            )


def expected_at(state: WorkspaceState, policy: Policy) -> datetime | None:
    """Return when what waits is restarted as things stand: None while a hold has no end, or with nothing to do.

    A queued or retrying restart takes everything along; while one runs, the rest waits for the next.
    """
    if state.restart is not None and state.restart.cycle is None:
        at = state.restart.ready_at
    else:
        found = window_due(state, policy)
        if found is None:
            return None
        at = found.at
    if state.hold is None:
        return at
    return None if state.hold.until is None else max(at, state.hold.until)


def carry_out(
    tx: Transaction, state: WorkspaceState, command: Command, author: Author, ids: Ids, policies: Policies
) -> tuple[WorkspaceState, list[Recorded]]:
    """Decide ``command``, append what it leads to, and return the new state with the recorded events."""
    decided = decide(state, command, policy_in_force(state, policies), tx.now)
    return append(tx, state, decided, author, ids, policies)


def append(
    tx: Transaction,
    state: WorkspaceState,
    decided: Sequence[EventData],
    author: Author,
    ids: Ids,
    policies: Policies,
) -> tuple[WorkspaceState, list[Recorded]]:
    """Append decisions of one workspace, fold them into its row, its restarts' read models and its snapshots."""
    if not decided:
        return state, []
    recorded = append_all(tx, _enveloped(state, decided, author, ids), ids)
    after, snapshots = state, []
    for event in recorded:
        after = evolve(after, event, policy_in_force(after, policies))
        if is_kept(event.data):
            snapshots.append(Snapshot(position=event.position, state=after))
    save(tx, [after], policies, lease=_lease_of(recorded))
    tx.save_restarts(_projected(tx, after, recorded))
    tx.save_snapshots(snapshots)
    return after, recorded


def append_all(tx: Transaction, events: Sequence[NewEvent], ids: Ids) -> list[Recorded]:
    """Append events; the first ones after the database's clock stepped back report that too."""
    if tx.clock_behind_ms < _REGRESSION_REPORTED_FROM_MS or tx.last_clock_regression_at() == tx.now:
        return tx.append(events)
    regressed = NewEvent(
        id=ids.new("evt"),
        workspace=None,
        version=None,
        data=ClockRegressed(by_ms=tx.clock_behind_ms),
        actor=SYSTEM,
    )
    reported, *recorded = tx.append([regressed, *events])
    announce([reported])  # before the commit: the clock has stepped back whatever becomes of this transaction
    return recorded


def save(tx: Transaction, states: Sequence[WorkspaceState], policies: Policies, *, lease: Lease | None = None) -> None:
    """Write rows, each with the instant at which its window is due under the policies given.

    ``lease`` is that of a cycle that starts with this.
    """
    rows = []
    for state in states:
        found = due(state, policy_in_force(state, policies))
        rows.append(StoredWorkspace(state=state, due_at=found.at if found else None, lease=lease))
    tx.save(rows)


def _lease_of(recorded: Sequence[Recorded]) -> Lease | None:
    """Return the lease that a start gives; renewals go on from there."""
    started = next((event.data for event in recorded if isinstance(event.data, CycleStarted)), None)
    if started is None:
        return None
    return Lease(cycle=started.cycle, fence=started.fence, worker=started.worker, until=started.lease_until)


def _enveloped(state: WorkspaceState, decided: Sequence[EventData], author: Author, ids: Ids) -> list[NewEvent]:
    events, version = [], state.version
    for data in decided:
        if not data.FACT:
            version += 1
        events.append(
            NewEvent(
                id=ids.new("evt"),
                workspace=state.workspace,
                version=None if data.FACT else version,
                data=data,
                actor=author.actor,
                source=author.source,
                source_id=author.source_id,
                occurred_at=author.occurred_at,
                correlation_id=getattr(data, "restart", None),
                traceparent=author.traceparent,
            )
        )
    return events


def _projected(tx: Transaction, state: WorkspaceState, recorded: Sequence[Recorded]) -> list[RestartProjection]:
    fleet = state.registration.fleet if state.registration else ""
    records: dict[str, RestartProjection | None] = {}
    for event in recorded:
        restart = restart_of(event.data)
        if restart is not None:
            if restart not in records:  # a restart that is only now queued has no record to ask for
                records[restart] = None if isinstance(event.data, RestartQueued) else tx.restart(restart)
            records[restart] = project(records[restart], event, fleet=fleet)
    return [record for record in records.values() if record is not None]
