"""The promises of liveness, broken by hand; and lateness that something in the log explains."""

from __future__ import annotations

from orchestrator.audit.verify.report import Promise
from tests.audit.verify.logs import Log, broken, later_by, verify

L1, L2, L3, L4 = (Promise(f"L{n}") for n in (1, 2, 3, 4))


def test_l1_a_cycle_that_starts_much_too_late(log: Log) -> None:
    log.delay(log.of("last", "CycleStarted"), 120)

    assert broken(verify(log.encode())) == {L1: [(95, 97)]}
    assert broken(verify(log.encode(), tick_us=None)) == {}


def test_l1_a_restart_that_is_queued_much_too_late(log: Log) -> None:
    queued = log.of("last", "RestartQueued")
    due_at = queued["data"]["due_at"]
    log.delay(queued, 120)
    queued["data"]["due_at"] = due_at

    assert broken(verify(log.encode())) == {L1: [(95, 97)]}


def test_l1_a_write_that_no_cycle_ever_takes(log: Log) -> None:
    """Another workspace shows how late it is when the log ends."""
    for kind in ("CycleSucceeded", "CycleStarted", "RestartQueued"):
        log.drop("ruled", kind)

    assert broken(verify(log.encode())) == {L1: [(89,)]}


def test_l1_a_restart_that_nobody_starts(log: Log) -> None:
    for kind in ("CycleSucceeded", "CycleStarted"):
        log.drop("ruled", kind)

    assert broken(verify(log.encode())) == {L1: [(89, 91)]}


def test_l1_a_wait_for_a_worker_that_was_busy_is_explained(log: Log) -> None:
    """While another workspace's cycle runs, the one slot that there is for certain is taken."""
    log.delay(log.of("last", "CycleStarted"), 120)
    busy = log.of("ruled", "CycleSucceeded")
    log.events.remove(busy)
    late = busy | {"position": 101, "recorded_at": log.events[-1]["recorded_at"]}
    log.events.append(late)
    report = verify(log.encode())

    assert report.violations == ()
    assert report.explained == 1


def test_l2_a_dead_worker_s_cycle_is_abandoned_much_too_late(log: Log) -> None:
    log.delay(log.of("orphan", "CycleAbandoned"), 361)

    assert broken(verify(log.encode())) == {L2: [(83, 84)]}


def test_l2_an_abandoned_cycle_does_not_go_on(log: Log) -> None:
    log.delay(log.of("orphan", "CycleStarted", 1), 30)

    assert broken(verify(log.encode())) == {L2: [(84, 85)]}


def test_l2_a_cycle_that_nobody_ever_abandons(log: Log) -> None:
    log.drop("probed", "CycleSucceeded", 1)

    assert broken(verify(log.encode())) == {L2: [(64,)]}


def test_l3_what_was_cancelled_is_never_waived(log: Log) -> None:
    log.drop("cancelled", "WritesWaived")

    assert broken(verify(log.encode())) == {L3: [(38, 40)]}


def test_l3_what_was_removed_is_never_waived(log: Log) -> None:
    log.drop("removed", "WritesWaived")

    assert broken(verify(log.encode())) == {L3: [(43, 49)]}


def test_l3_a_write_of_a_workspace_that_was_removed(log: Log) -> None:
    waived = log.of("removed", "WritesWaived")
    put = log.put(waived, "FileWritten", version=False, path="z", op="modified", action="restart")

    assert broken(verify(log.encode())) == {L3: [(put,)]}


def test_l3_a_failure_without_retry_or_give_up(log: Log) -> None:
    log.drop("gave_up", "RestartGaveUp")
    del log.events[
        log.events.index(log.of("gave_up", "FileWritten", 1)) : log.position("gave_up", "CycleSucceeded") - 1
    ]

    assert broken(verify(log.encode()))[L3] == [(21, 24)]


def test_l4_one_restart_too_many_once_the_writes_have_stopped(log: Log) -> None:
    """A range that leaves a write out makes the second one; that breaks S1 as well."""
    log.data("gave_up", "CycleStarted", 1).update(to_position=21, writes=1)
    log.data("gave_up", "CycleSucceeded")["writes"] = 1
    ended = log.of("gave_up", "CycleSucceeded")
    again = log.data("gave_up", "RestartQueued", 1) | {"restart": "rst_again", "from_position": 22, "writes": 1}
    put = log.put(ended, "RestartQueued", **again)
    log.cut_after(log.events[put - 1])
    found = broken(verify(log.encode()))

    assert found[L4] == [(27, put)]
    assert found[Promise.S1] == [(26, 28)]


AWAY = {"executor": "simulated", "pool": "default"}


def put_of_nobody(log: Log, after: dict[str, object], kind: str, **data: object) -> int:
    """Put an event of no workspace after another one; return its position."""
    position = log.put(after, kind, version=False, **data)
    next(event for event in log.events if event["position"] == position)["workspace"] = None
    return position


def test_l1_a_wait_for_somebody_who_serves_it_is_explained(log: Log) -> None:
    log.delay(log.of("last", "CycleStarted"), 120)
    queued = log.of("last", "RestartQueued")
    put_of_nobody(log, queued, "ExecutorAway", **AWAY, since=queued["recorded_at"])

    assert verify(log.encode()).violations == ()


def test_l1_nobody_is_said_to_be_away_since_before_a_cycle_was_started(log: Log) -> None:
    queued, first = log.of("last", "RestartQueued"), log.events[0]
    position = put_of_nobody(log, queued, "ExecutorAway", **AWAY, since=first["recorded_at"])

    [found] = broken(verify(log.encode()))[L1]
    assert found[1] == position
    assert broken(verify(log.encode(), tick_us=None)) == {}


def test_an_absence_begins_once_ends_once_and_not_in_the_future(log: Log) -> None:
    queued = log.of("last", "RestartQueued")
    at = queued["recorded_at"]
    first = put_of_nobody(log, queued, "ExecutorAway", **AWAY, since=at)
    event = next(event for event in log.events if event["position"] == first)
    second = put_of_nobody(log, event, "ExecutorAway", **AWAY, since=later_by(at, 1))
    event = next(event for event in log.events if event["position"] == second)
    third = put_of_nobody(log, event, "ExecutorBack", executor="simulated", pool="elsewhere")

    assert broken(verify(log.encode())) == {Promise.LOG: [(first, second), (second,), (third,)]}
