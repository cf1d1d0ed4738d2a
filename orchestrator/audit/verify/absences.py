"""What nobody serves: said once, for a time in which nothing of it was started, and ended once (CONTRACT section 8)."""

from __future__ import annotations

import msgspec

from orchestrator.audit.verify import event_data as data_of
from orchestrator.audit.verify.judge import Judge
from orchestrator.audit.verify.ledger import Absence, Workspace
from orchestrator.audit.verify.lines import Envelope, microseconds, spell_instant
from orchestrator.audit.verify.report import Promise

_SLACK_US = 1_000_000
"""A worker says every tick that it is there: so much later, on top of the tick, it may still have started a cycle."""
_away = msgspec.json.Decoder(data_of.ExecutorAway).decode
_back = msgspec.json.Decoder(data_of.ExecutorBack).decode


def need_of(executor: str, pool: str) -> str:
    """Return the key of an executor and a pool."""
    return f"{executor} {pool}"


def away(judge: Judge, event: Envelope, at: int) -> None:
    """Take that nobody serves something."""
    data, ledger = _away(event.data), judge.ledger
    need, since = need_of(data.executor, data.pool), microseconds(data.since)
    before, started = ledger.away.get(need), ledger.started.get(need)
    what = f"executor {data.executor} in pool {data.pool}"
    if before is not None:
        judge.broken(Promise.LOG, None, (before.position, event.position), f"{what} is said to be away twice")
    if since > at:
        text = f"{what} is said to be away since {spell_instant(since)}, which is still to come"
        judge.broken(Promise.LOG, None, (event.position,), text)
    if judge.tick_us is not None and started is not None and started.since > since + judge.tick_us + _SLACK_US:
        text = f"{what} is said to be away since {spell_instant(since)}, but a cycle was started later"
        judge.broken(Promise.L1, None, (started.position, event.position), text)
    ledger.away[need] = Absence(position=event.position, since=since)


def back(judge: Judge, event: Envelope, at: int) -> None:
    """Take that somebody serves it again. What waited for it is judged from here on."""
    data, ledger = _back(event.data), judge.ledger
    need = need_of(data.executor, data.pool)
    if ledger.away.pop(need, None) is None:
        text = f"executor {data.executor} in pool {data.pool} is said to be back, but nothing says it was away"
        judge.broken(Promise.LOG, None, (event.position,), text)
    for workspace in ledger.workspaces.values():
        if workspace.need == need:
            workspace.floor = max(workspace.floor, at)


def started(judge: Judge, workspace: Workspace, position: int, at: int) -> None:
    """Note a start: somebody serves it. While it is said to be away, whoever came may not have been seen by a tick."""
    if workspace.need in judge.ledger.away:
        workspace.floor = max(workspace.floor, at)
    judge.ledger.started[workspace.need] = Absence(position=position, since=at)


def is_away(judge: Judge, workspace: Workspace) -> bool:
    """Return whether nobody serves the workspace, as the log says."""
    return workspace.need in judge.ledger.away
