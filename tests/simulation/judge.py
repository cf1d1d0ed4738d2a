"""The verdict on a run: the promises from its export alone, the acts that really happened, what clients were told.

Each check works from evidence that the code it judges has not made: the engine-free verifier reads the log, the
list of acts is the outside world's, the list of acknowledgements the clients'.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from orchestrator.audit.verify.lines import Unreadable, microseconds, parse_instant
from orchestrator.audit.verify.log_pass import Verifier
from orchestrator.audit.verify.report import Promise
from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.domain.state import DEFAULT_POOL
from orchestrator.history.replay import Difference
from tests.simulation.calm import Calm
from tests.simulation.clients import Ack
from tests.simulation.target import Act

_SLACK = 1_000_000
"""Microseconds for commits and messages, on top of a tick."""


class Finding(NamedTuple):
    """A promise that a run broke, and one sentence."""

    promise: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a run that is over."""

    events: Sequence[StoredEvent]
    acks: Sequence[Ack]
    acts: Sequence[Act]
    ready: Mapping[str, int]
    """By cycle: how long the log was when its workspace was seen ready."""
    differences: Sequence[Difference]
    """Between the log and the rows, found during the run or at its end."""
    written: Mapping[str, int]
    """Writes that clients reported, by workspace: each counts once, however often it was reported."""
    requested: Mapping[str, int]
    seen: Sequence[tuple[str, str]]
    """What was seen to be wrong while the run went on: the promise, and a sentence."""
    verifier: Verifier
    """Has taken every event in turn, as they were committed."""
    unreadable: Unreadable | None
    told_wrongly: Sequence[str]
    """What the product tells people of the past, and the log does not bear out."""
    deadlines: Mapping[str, tuple[int, int]]
    limits: Mapping[str, tuple[int, int]]
    permanent: Collection[str]
    survivors: Collection[str]
    """Workers that lived until the end, and had nothing left to do."""
    held_too_long: Sequence[str]
    running_most: int | None
    raised: Sequence[tuple[str, str, Exception]]
    logged: Sequence[str]
    """Defects that the product caught and logged."""
    quiet_position: int
    """The end of the log when the last fault and the last client were over."""
    settled: bool
    runaway: bool
    unanswered: int
    """Clients that have no answer long after the last fault."""
    calm: Calm | None
    tick: int
    bound_s: float
    waiting: Sequence[str]
    pools: Mapping[str, Collection[str]]
    """What each worker serves, by its name."""


class Cycle(msgspec.Struct):
    """What the ledger check reads of a cycle."""

    cycle: str
    restart: str
    fence: int
    to_position: int = 0
    shadow: bool = False
    reason: str = ""


class _Worker(msgspec.Struct):
    worker: str


class _Target(msgspec.Struct):
    target: dict[str, str]


_decode_worker = msgspec.json.Decoder(_Worker).decode
_decode_target = msgspec.json.Decoder(_Target).decode
_decode_cycle = msgspec.json.Decoder(Cycle).decode


def judge(evidence: Evidence) -> list[Finding]:
    """Return every promise that was broken."""
    checks = (_raised, _log, _seen, _replayed, _acknowledged, _capacity, _ledger, _results, _claims, _liveness, _calm)
    return [finding for check in checks for finding in check(evidence)]


def _raised(evidence: Evidence) -> Iterator[Finding]:
    if evidence.runaway:
        yield Finding("L3", "the run goes round in circles and does not come to an end")
    for process, thread, error in evidence.raised:
        yield Finding("no thread dies", f"{thread} of {process} raised {type(error).__name__}: {error}")
    for text in evidence.logged:
        yield Finding("no thread dies", f"a defect was logged: {text}")


def _log(evidence: Evidence) -> Iterator[Finding]:
    verifier = evidence.verifier
    calm_from = evidence.calm.position if evidence.calm is not None else sys.maxsize
    if evidence.unreadable is not None:
        verifier.unreadable(evidence.unreadable)
    else:
        verifier.finish()
    for found in verifier.findings.kept:
        if found.promise in (Promise.L1, Promise.L2) and min(found.positions, default=0) <= calm_from:
            continue  # late under faults is no violation
        yield Finding(found.promise.value, f"{found.workspace} at {found.positions}: {found.text}")
    if verifier.sums().imbalance:
        yield Finding("S2", f"the ledger is out of balance by {verifier.sums().imbalance}")


def _seen(evidence: Evidence) -> Iterator[Finding]:
    for promise, text in evidence.seen:
        yield Finding(promise, text)
    for text in evidence.told_wrongly:
        yield Finding("history", text)
    for name in evidence.held_too_long:
        yield Finding("hold", f"{name} is still held, though that was to end by itself")
    for cycle, (at, deadline) in evidence.deadlines.items():
        if cycle in evidence.limits:
            began, timeout = evidence.limits[cycle]
            if deadline < began + timeout or deadline > at + timeout:
                told = f"{(deadline - began) / 1e6:.1f} s after its start, with a cycle_timeout of {timeout / 1e6:g} s"
                yield Finding("deadline", f"{cycle} is to end {told}")


def _replayed(evidence: Evidence) -> Iterator[Finding]:
    for difference in evidence.differences:
        text = f"{difference.table} {difference.id}: stored {difference.stored}, replayed {difference.replayed}"
        yield Finding("S10", text)


def _acknowledged(evidence: Evidence) -> Iterator[Finding]:
    """Nothing that was acknowledged is missing, and no id of a caller is stored twice."""
    stored = {event.id: event for event in evidence.events}
    for ack in evidence.acks:
        event = stored.get(ack.id)
        if event is None:
            yield Finding("acknowledged", f"{ack.id} of {ack.workspace} was acknowledged and is not in the log")
        elif (event.position, event.workspace) != (ack.position, ack.workspace):
            yield Finding("acknowledged", f"{ack.id} was acknowledged at {ack.position}, and is at {event.position}")
    counts = Counter((event.source, event.source_id) for event in evidence.events if event.source_id is not None)
    for key, times in counts.items():
        if times > 1:
            yield Finding("once", f"{key} is stored {times} times")
    yield from _counted(evidence, "FileWritten", evidence.written)
    yield from _counted(evidence, "RestartRequested", evidence.requested)
    told = Counter((ack.workspace, ack.position) for ack in evidence.acks)
    for (workspace, position), times in told.items():
        if times > 1:
            yield Finding("once", f"position {position} of {workspace} was acknowledged for {times} requests")


def _calm(evidence: Evidence) -> Iterator[Finding]:
    """In the calm nothing is abandoned but what was killed, and that in time."""
    calm = evidence.calm
    if calm is None:
        return
    if not calm.settled:
        yield Finding("L1", f"{calm.workspace} still waits, though nothing was broken when it was written to")
    killing = calm.killing
    for event in evidence.events:
        if event.position <= calm.position or event.type != "CycleAbandoned":
            continue
        cycle = _decode_cycle(event.data).cycle
        if killing is None or cycle != killing.cycle:
            yield Finding("L2", f"{cycle} is abandoned at {event.position}, though its worker lives")
            continue
        if killing.stopped:
            if _decode_cycle(event.data).reason != "shutdown":
                yield Finding("shutdown", f"{cycle} is left to its lease by a worker that was asked to stop")
            continue
        late = parse_instant(event.recorded_at) - microseconds(killing.at) - killing.lease_ms * 1_000 - evidence.tick
        if late > _SLACK:
            yield Finding("L2", f"{cycle} is abandoned {late / 1e6:.1f} s too late after its worker's death")


def _counted(evidence: Evidence, kind: str, asked: Mapping[str, int]) -> Iterator[Finding]:
    """No more is stored than was asked for: a repetition is told from something new."""
    stored = Counter(
        event.workspace
        for event in evidence.events
        if event.type == kind and b'"trigger":"probe"' not in bytes(event.data)
    )
    for workspace, times in stored.items():
        if times > asked.get(workspace or "", 0):
            yield Finding(
                "once", f"{workspace} has {times} {kind} where {asked.get(workspace or '', 0)} were asked for"
            )


def _capacity(evidence: Evidence) -> Iterator[Finding]:
    most, live = evidence.running_most, set()
    for event in evidence.events:
        if event.type == "CycleStarted":
            live.add(_decode_cycle(event.data).cycle)
            if most is not None and len(live) > most:
                yield Finding("capacity", f"{len(live)} cycles run at position {event.position}, {most} may")
        elif event.type in ("CycleSucceeded", "CycleFailed", "CycleAbandoned"):
            live.discard(_decode_cycle(event.data).cycle)


def _ledger(evidence: Evidence) -> Iterator[Finding]:
    """Join the log's cycles with the acts that really happened."""
    started, succeeded = _cycles(evidence.events)
    acts: dict[str, list[Act]] = defaultdict(list)
    fences: dict[str, int] = {}
    for act in evidence.acts:
        acts[act.cycle].append(act)
        if act.fence < fences.get(act.workspace, 0):
            text = f"{act.workspace} was restarted under fence {act.fence} after {fences[act.workspace]}"
            yield Finding("ledger", text)
        fences[act.workspace] = max(act.fence, fences.get(act.workspace, 0))
        cycle = started.get(act.cycle)
        if cycle is None or cycle.fence != act.fence:
            yield Finding("ledger", f"{act.workspace} was restarted for {act.cycle}, which never started so")
        elif cycle.shadow:
            yield Finding("ledger", f"{act.workspace} was restarted by the shadow cycle {act.cycle}")
    for name, position in succeeded.items():
        cycle = started.get(name)
        if cycle is not None and not cycle.shadow and evidence.ready.get(name, position) >= position:
            yield Finding("S3", f"{name} is recorded as succeeded before its workspace was seen ready")
        if cycle is not None and not cycle.shadow and not any(act.log >= cycle.to_position for act in acts[name]):
            text = f"{name} covers up to {cycle.to_position}, and no act of it came after that was written"
            yield Finding("coverage", text)


def _results(evidence: Evidence) -> Iterator[Finding]:
    """What a worker that lived on was told by an executor is in the log: as the cycle's end, or as too late (S3)."""
    workers, recorded = {}, set()
    for event in evidence.events:
        if event.type in ("CycleStarted", "CycleFailed", "CycleAbandoned", "CycleSucceeded", "LateResultRejected"):
            data = msgspec.json.decode(bytes(event.data))
            if event.type == "CycleStarted":
                workers[data["cycle"]] = data["worker"]
            elif event.type != "CycleAbandoned" or data["reason"] == "shutdown":
                if data["cycle"] in recorded:
                    yield Finding("S3", f"the result of {data['cycle']} is recorded again at {event.position}")
                recorded.add(data["cycle"])
            if (
                event.type == "CycleFailed"
                and data["cycle"] in evidence.permanent
                and data["error_kind"] != "permanent"
            ):
                yield Finding("S4", f"{data['cycle']} failed for good, and is recorded as {data['error_kind']}")
    for cycle in sorted({act.cycle for act in evidence.acts} - recorded):
        if workers.get(cycle) in evidence.survivors:
            yield Finding("S3", f"the result of {cycle} came back to {workers[cycle]}, and no event records it")


def _cycles(events: Sequence[StoredEvent]) -> tuple[dict[str, Cycle], dict[str, int]]:
    started, succeeded = {}, {}
    for event in events:
        if event.type == "CycleStarted":
            cycle = _decode_cycle(event.data)
            started[cycle.cycle] = cycle
        elif event.type == "CycleSucceeded":
            succeeded[_decode_cycle(event.data).cycle] = event.position
    return started, succeeded


def _claims(evidence: Evidence) -> Iterator[Finding]:
    """Only a worker that serves a workspace's pool starts its cycles."""
    pool: dict[str | None, str] = {}
    for event in evidence.events:
        if event.type in ("WorkspaceRegistered", "WorkspaceChanged"):
            pool[event.workspace] = _decode_target(event.data).target.get("pool", DEFAULT_POOL)
        elif event.type == "CycleStarted":
            worker = _decode_worker(event.data).worker
            if pool[event.workspace] not in evidence.pools[worker]:
                yield Finding("claims", f"{worker} starts a cycle of {event.workspace} in a pool that is not its own")


def _liveness(evidence: Evidence) -> Iterator[Finding]:
    if evidence.unanswered:
        yield Finding("L1", f"{evidence.unanswered} clients have no answer long after the last fault")
    if not evidence.settled and not evidence.runaway:
        names = ", ".join(evidence.waiting)
        yield Finding("L1", f"{evidence.bound_s:.0f} s after the healing, {names} still wait")
    last = evidence.calm.position if evidence.calm is not None else sys.maxsize
    after = [event for event in evidence.events if evidence.quiet_position < event.position <= last]
    # A write whose client has given up may still be committed, by a server that was slow when the faults ended.
    asked = {event.workspace: event.position for event in after if event.type in ("FileWritten", "RestartRequested")}
    late = (event for event in after if event.position > asked.get(event.workspace, 0))
    queued = Counter(event.workspace for event in late if event.type == "RestartQueued")
    gave_up = {event.workspace for event in after if event.type == "RestartGaveUp"}
    for workspace, times in queued.items():
        if times > 1 and workspace not in gave_up:
            yield Finding("L4", f"{times} restarts of {workspace} were queued after the last write")
