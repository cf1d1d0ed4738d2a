"""Events, states and records for the tests of the stores: short to write, all fields possible."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from msgspec.structs import replace

from orchestrator.domain import events as ev
from orchestrator.domain.policy import Action, Edge, Mode, PolicyPatch, Rule
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.domain.state import (
    Ends,
    Folded,
    Full,
    Hold,
    NextTry,
    OpenWrites,
    Registration,
    Requests,
    RunningCycle,
    UnsettledRestart,
    Window,
    WorkspaceState,
    Writes,
)
from orchestrator.ports.store import CoreStore
from orchestrator.ports.workspaces import Lease, StoredWorkspace

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
_numbers = count(1)

FULL_PATCH = PolicyPatch(
    quiet_ms=1,
    max_wait_ms=2,
    max_count=3,
    edge=Edge.LEADING,
    min_interval_ms=4,
    settle_ms=5,
    cycle_timeout_ms=6,
    max_attempts=7,
    retry_backoff_ms=8,
    retry_backoff_max_ms=9,
    give_up_backoff_ms=10,
    lease_ms=11,
    rules=(Rule(match=("docs/**", "!docs/a"), action=Action.RELOAD, quiet_ms=12, max_wait_ms=13), Rule(match=("é",))),
    max_concurrent=14,
    mode=Mode.SHADOW,
)


def at(seconds: float) -> datetime:
    """Return noon and so many seconds."""
    return NOON + timedelta(seconds=seconds)


def event(data: ev.EventData, workspace: str | None = "ws", version: int | None = None, **rest: Any) -> ev.NewEvent:
    """Return a new event with a fresh id."""
    return ev.NewEvent(
        id=f"evt_{next(_numbers)}", workspace=workspace, version=version, data=data, actor="local:me", **rest
    )


def file_written(
    path: str = "a.py", workspace: str = "ws", action: Action = Action.RESTART, **rest: Any
) -> ev.NewEvent:
    """Return a write."""
    return event(ev.FileWritten(path=path, op=ev.Operation.MODIFIED, action=action), workspace, **rest)


def requested(workspace: str = "ws", version: int = 1, **rest: Any) -> ev.NewEvent:
    """Return a decision."""
    return event(ev.RestartRequested(trigger=ev.Trigger.MANUAL, reason="because"), workspace, version, **rest)


def waived(first: int, last: int, version: int = 1, workspace: str = "ws") -> ev.NewEvent:
    """Return the end of a range without a restart."""
    data = ev.WritesWaived(from_position=first, to_position=last, writes=1, reason=ev.Waiver.OPERATOR)
    return event(data, workspace, version)


def cycle_started(cycle: str, version: int = 1, workspace: str = "ws") -> ev.NewEvent:
    """Return the start of a cycle."""
    data = ev.CycleStarted(
        restart="rst_1",
        cycle=cycle,
        kind=ev.Kind.RESTART,
        attempt=1,
        iteration=1,
        fence=1,
        worker="w",
        from_position=1,
        to_position=2,
        writes=1,
        requests=0,
        files=1,
        started_at=NOON,
        previous_started_at=None,
        lease_until=at(30),
        shadow=False,
        fenced=True,
        policy_version=1,
    )
    return event(data, workspace, version)


def cycle() -> RunningCycle:
    """Return an open cycle."""
    return RunningCycle(id="cyc_1", worker="w", attempt=2, iteration=3, started_at=NOON, shadow=True)


def leased(state: WorkspaceState, until: datetime = NOON) -> StoredWorkspace:
    """Return a workspace whose open cycle has its lease until then."""
    assert state.cycle is not None
    lease = Lease(cycle=state.cycle.id, fence=state.fence, worker=state.cycle.worker, until=until)
    return StoredWorkspace(state=state, due_at=None, lease=lease)


def unsettled(ready_at: datetime = NOON, running: RunningCycle | None = None) -> UnsettledRestart:
    """Return a restart that is queued, or running."""
    return UnsettledRestart(
        id="rst_1",
        cause=ev.Cause.MAX_WAIT,
        kind=ev.Kind.RELOAD,
        from_position=1,
        to_position=9,
        files=2,
        queued_at=NOON,
        due_at=NOON,
        ready_at=ready_at,
        retrying=True,
        cycles=2,
        spent=1,
        cycle=running,
    )


def registration(fleet: str = "", labels: dict[str, str] | None = None) -> Registration:
    """Return how a workspace is registered."""
    target = {"argv": ["a", "b"], "grace": "1m30s", "deep": {"n": 1, "none": None, "yes": True}}
    return Registration(
        fleet=fleet, labels=labels or {}, executor="simulated", target=target, policy=PolicyPatch(quiet_ms=1)
    )


def state(workspace: str = "ws", fleet: str = "", labels: dict[str, str] | None = None, **rest: Any) -> WorkspaceState:
    """Return a registered workspace."""
    return WorkspaceState(
        workspace=workspace, registration=registration(fleet, labels), registration_position=1, **rest
    )


def full_state(workspace: str = "ws") -> WorkspaceState:
    """Return a state in which no field has its default."""
    return WorkspaceState(
        workspace=workspace,
        version=7,
        registration=replace(registration("blue", {"a": "1", 'qu"ote': "ü"}), policy=FULL_PATCH),
        registration_position=9,
        removed=True,
        hold=Hold(reason="maintenance", until=at(60)),
        fence=3,
        settled_to=4,
        last_position=5,
        last_start_at=at(1),
        last_end_at=at(2),
        give_ups=6,
        next_try=NextTry(at=at(3), anyway=True),
        window=Window(
            opened_at=at(4),
            writes=OpenWrites(
                all=Writes(count=1, reload_only=False, first_at=at(5), last_at=at(6)),
                opened_idle=True,
                quiet=Ends(policy_from=at(7), rule_until=at(8)),
                max_wait=Ends(policy_from=at(9), rule_until=at(10)),
                full=Full(at=at(11), max_count=8),
            ),
            requests=Requests(count=2, manual_at=at(12), mutation_at=at(13), probe_at=at(14.123456)),
        ),
        folded=Folded(
            writes=Writes(count=3, reload_only=False, first_at=at(16), last_at=at(17)), requests=4, opened_at=at(15)
        ),
        restart=unsettled(at(18), cycle()),
        last_cycle="cyc_0",
    )


def record(number: int = 1, **rest: Any) -> RestartProjection:
    """Return a queued restart; ``number`` is its place in history and the end of its range."""
    made = RestartProjection(
        id=f"rst_{number}",
        workspace="ws",
        fleet="",
        state=RestartState.SUCCEEDED,
        cause=ev.Cause.QUIET,
        kind=ev.Kind.RESTART,
        from_position=number,
        to_position=number,
        writes=1,
        requests=0,
        files=1,
        opened_at=NOON,
        last_write_at=NOON,
        due_at=NOON,
        queued_at=at(number),
        queued_position=number,
        quiet_ms=15_000,
        max_wait_ms=60_000,
        max_count=10_000,
        edge=Edge.TRAILING,
        min_interval_ms=60_000,
        policy_version=0,
    )
    return replace(made, **rest)


def open_window(writes: int = 0, requests: int = 0) -> Window:
    """Return a window that holds so many."""
    fresh = OpenWrites(
        all=Writes(count=writes, reload_only=False, first_at=NOON, last_at=NOON),
        opened_idle=True,
        quiet=Ends(),
        max_wait=Ends(),
    )
    return Window(
        opened_at=NOON, writes=fresh if writes else None, requests=Requests(count=requests) if requests else None
    )


def put(store: CoreStore, *saved: WorkspaceState | StoredWorkspace, due_at: datetime | None = None) -> None:
    """Save workspaces; bare states have the same due instant, and a lease until noon where their cycle is open."""
    rows = []
    for one in saved:
        bare = one if isinstance(one, WorkspaceState) else one.state
        row = one if isinstance(one, StoredWorkspace) else StoredWorkspace(state=bare, due_at=due_at)
        rows.append(leased(bare) if bare.cycle and row.lease is None and row is not one else row)
    with store.write([row.state.workspace for row in rows]) as transaction:
        transaction.save(rows)


def log(store: CoreStore, *events: ev.NewEvent) -> list[ev.Recorded]:
    """Append in one transaction."""
    with store.write() as transaction:
        return transaction.append(events)
