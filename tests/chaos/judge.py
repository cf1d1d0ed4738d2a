"""What must be true after the faults: nothing acknowledged is missing, what is unknown is there once or not at all,
everything pending is covered in time, and log, rows, ledger agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.domain import events as ev
from tests.chaos.production import ChaosProduction
from tests.chaos.writers import Operation
from tests.system.deployment import FLOOR, LEASE_S, TICK_S
from tests.system.history import History, check_sound
from tests.waiting import wait_until

RETRY_S = 0.5
"""The longest wait of a workspace that fails at first, by the policy of these tests."""
BUSY_S = 4.0
"""What a machine of two cores that everybody shares may add."""
BOUND_S = 0.8 + 2 * TICK_S + LEASE_S + 2 * 0.3 + RETRY_S + BUSY_S
"""CONTRACT L1 and L2 with ``FLOOR``: max_wait or spacing, a tick, a dead worker's lease and a tick, the unsettled
restart's rest (two cycles of 300 ms, a retry), and what a busy machine adds."""


@dataclass
class Verdict:
    """What a judge saw. ``problems`` are violations, a sentence each."""

    operations: int = 0
    acknowledged: int = 0
    unknown: int = 0
    unknown_stored: int = 0
    resolved: int = 0
    """Operations that were lost or refused at first, and answered at another try."""
    lost: int = 0
    doubled: int = 0
    staleness_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        """Take another round's figures in."""
        for name in ("operations", "acknowledged", "unknown", "unknown_stored", "resolved", "lost", "doubled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.staleness_s = max(self.staleness_s, other.staleness_s)
        self.problems += other.problems


def judge(
    production: ChaosProduction, workspaces: Sequence[str], operations: Sequence[Operation], *, healed_at: datetime
) -> Verdict:
    """Wait until everything of these workspaces is covered, then compare what clients were told with what there is."""
    verdict = Verdict(operations=len(operations))
    try:
        await_rest(production, workspaces)
    except AssertionError as error:
        verdict.problems.append(f"L1, after healing: {error}")
    histories = {workspace: production.history(workspace) for workspace in workspaces}
    for workspace, history in histories.items():
        _judge_log(production, workspace, history, verdict)
    _judge_operations(operations, histories, verdict)
    verdict.staleness_s = max((_staleness_s(history, healed_at) for history in histories.values()), default=0.0)
    if verdict.staleness_s > BOUND_S:
        verdict.problems.append(f"L1: something waited {verdict.staleness_s:.1f} s after healing, over {BOUND_S:.1f} s")
    return verdict


def await_rest(production: ChaosProduction, workspaces: Sequence[str], *, timeout_s: float = 40.0) -> None:
    """Wait until nothing of these workspaces is pending or unsettled."""

    def waiting() -> list[str]:
        states = [production.state(workspace) for workspace in workspaces]
        return [state.workspace for state in states if state.pending or state.restart is not None]

    wait_until(
        lambda: not waiting(), what=f"everything is covered; {waiting()} wait", timeout_s=timeout_s, every_s=0.05
    )


def _judge_operations(operations: Sequence[Operation], histories: dict[str, History], verdict: Verdict) -> None:
    stored: Counter[str] = Counter()
    by_id = {event.id: event for history in histories.values() for event in history.asks}
    for event in by_id.values():
        stored[_name_of(event)] += 1
    for operation in operations:
        verdict.acknowledged += operation.acknowledged
        verdict.unknown += operation.unknown
        verdict.unknown_stored += operation.unknown and stored[operation.id] > 0
        verdict.resolved += operation.acknowledged and operation.tries > len(operation.answers)
        if stored[operation.id] > 1:
            verdict.doubled += 1
            verdict.problems.append(f"S1: {operation.id} is stored {stored[operation.id]} times")
        told = {(answer["id"], answer["position"]) for answer in operation.answers}
        if len(told) > 1:
            verdict.problems.append(f"{operation.id} was answered with {sorted(told)}")
        for event_id, position in told:
            if event_id not in by_id or by_id[event_id].position != position:
                verdict.lost += 1
                verdict.problems.append(f"S1: {operation.id} was acknowledged as {event_id}, which is not stored")
        odd = [code for code in operation.refused if code != 503]
        if odd:
            verdict.problems.append(f"{operation.id} was answered with {odd}; trouble is 503, nothing else")


def _name_of(event: ev.Recorded) -> str:
    """The operation's id: a write's source id, a request's reason."""
    return event.data.reason if isinstance(event.data, ev.RestartRequested) else str(event.source_id)


def _judge_log(production: ChaosProduction, workspace: str, history: History, verdict: Verdict) -> None:
    """The promises on the log, and the ledger of what was really done."""
    try:
        check_sound(history)
        assert history.pending == [], "S1: a write is not covered"
        acts = [(act.cycle, act.fence) for act in production.acts(workspace)]
        starts = [(start.cycle, start.fence) for start in history.starts]
        assert len(set(acts)) == len(acts), "a cycle acted twice"
        assert [start for start in starts if start in set(acts)] == acts, "acts in another order than the starts"
        succeeded = {cycle.start.cycle for cycle in history.successes}
        assert succeeded <= {cycle for cycle, _ in acts}, "a cycle succeeded that never acted"
    except AssertionError as error:
        verdict.problems.append(f"{workspace}: {error}")


def _staleness_s(history: History, healed_at: datetime) -> float:
    """How long the write that waited longest after the healing had waited when its covering cycle started."""
    waits = [timedelta(0)]
    for ask in history.asks:
        covering = [cycle.start.started_at for cycle in history.covering(ask.position)]
        if covering and covering[0] > healed_at:
            waits.append(covering[0] - max(ask.recorded_at, healed_at))
    return max(waits) / timedelta(seconds=1)


assert FLOOR["max_wait"] == "800ms", "BOUND_S is reckoned with this"
