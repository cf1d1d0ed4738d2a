"""Every promise of safety, broken by hand in a good log: exactly that promise is named, with the positions."""

from __future__ import annotations

import pytest

from orchestrator.audit.verify.report import Promise
from tests.audit.verify.logs import TICK_US, Log, broken, instant, verify

S1, S2, S3, S4, S5, S6, S7, S9 = (Promise(f"S{n}") for n in (1, 2, 3, 4, 5, 6, 7, 9))


def test_the_good_log_is_good(good_lines: bytes) -> None:
    report = verify(good_lines)

    assert report.violations == ()
    assert report.good
    unchecked = {verdict.promise: verdict.reason for verdict in report.promises if verdict.verdict != "good"}
    assert set(unchecked) == {Promise.S8, Promise.S10}
    assert all(unchecked.values())
    assert report.explained == 0
    sums = report.sums
    assert (sums.accepted, sums.covered, sums.waived, sums.recorded, sums.pending) == (19, 14, 3, 1, 1)
    assert sums.imbalance == 0


def test_without_a_tick_l1_and_l2_are_not_checked(good_lines: bytes) -> None:
    unchecked = {v.promise for v in verify(good_lines, tick_us=None).promises if v.verdict == "not checked"}

    assert unchecked == {Promise.S8, Promise.S10, Promise.L1, Promise.L2}


def test_s1_a_cycle_claims_a_write_that_came_after_its_start(log: Log) -> None:
    log.data("last", "CycleStarted")["to_position"] = 99
    found = broken(verify(log.encode()))

    assert found == {S1: [(97, 99)]}


def test_s1_a_cycle_leaves_out_a_write_that_waited(log: Log) -> None:
    started, ended = log.data("gave_up", "CycleStarted", 1), log.data("gave_up", "CycleSucceeded")
    started |= {"to_position": 21, "writes": 1}
    ended["writes"] = 1
    found = broken(verify(log.encode(), tick_us=None))

    assert found == {S1: [(26, 28)]}


def test_s1_a_cycle_whose_range_ends_at_no_position(log: Log) -> None:
    for number in (1, 0):
        log.drop("last", "FileWritten", number)
    for kind in ("RestartQueued", "CycleStarted"):
        log.data("last", kind)["to_position"] = -1

    assert S1 in broken(verify(log.encode(), tick_us=None))


def test_s1_a_waiver_without_cancel_or_removal(log: Log) -> None:
    position = log.put(
        log.of("last", "FileWritten", 1), "WritesWaived", from_position=96, to_position=99, writes=1, reason="operator"
    )

    assert broken(verify(log.encode())) == {S1: [(position,)]}


def test_s1_a_waiver_of_more_than_the_cancelled_restart_held(log: Log) -> None:
    log.data("cancelled", "WritesWaived")["to_position"] = 39

    assert broken(verify(log.encode())) == {S1: [(38, 41)]}


def test_s1_a_reload_for_a_write_that_asks_for_a_restart(log: Log) -> None:
    log.data("last", "CycleStarted")["kind"] = "reload"

    assert broken(verify(log.encode())) == {S1: [(95, 97)]}


def test_s1_a_shadow_cycle_that_passes_for_a_live_one(log: Log) -> None:
    log.data("shadow", "CycleSucceeded")["shadow"] = False

    assert broken(verify(log.encode())) == {S1: [(69, 70)]}


def test_s2_a_write_is_missing(log: Log) -> None:
    assert log.of("plain", "FileWritten", 1)["position"] == log.drop("plain", "FileWritten", 1)
    report = verify(log.encode())

    assert broken(report) == {S2: [(6,)]}
    assert report.sums.imbalance == -1


def test_s2_a_write_was_put_in(log: Log) -> None:
    put = log.put(
        log.of("plain", "FileWritten"), "FileWritten", version=False, path="b", op="modified", action="restart"
    )
    report = verify(log.encode())

    assert put == 4
    assert broken(report) == {S2: [(7,)]}
    assert report.sums.imbalance == 1


def test_s2_more_is_covered_than_the_cycle_held(log: Log) -> None:
    log.data("last", "CycleSucceeded")["writes"] = 2
    report = verify(log.encode())

    assert broken(report) == {S2: [(98,)]}
    assert report.sums.imbalance == -1


def test_s3_a_second_cycle_while_one_is_live(log: Log) -> None:
    first = log.of("last", "CycleStarted")
    stamp = instant(1118)
    second = first["data"] | {
        "cycle": "cyc_second",
        "fence": 2,
        "attempt": 2,
        "started_at": stamp,
        "lease_until": instant(1148),
    }
    put = log.put(first, "CycleStarted", **second | {"previous_started_at": first["recorded_at"]})
    log.of("last", "CycleStarted", 1)["recorded_at"] = stamp
    log.data("last", "CycleSucceeded").update(cycle="cyc_second", fence=2)

    assert broken(verify(log.encode())) == {S3: [(97, put)]}


def test_s3_an_end_with_a_fence_that_is_not_current(log: Log) -> None:
    log.data("orphan", "CycleSucceeded")["fence"] = 1

    assert broken(verify(log.encode())) == {S3: [(85, 86)]}


def test_s3_a_zombie_s_result_that_counted(log: Log) -> None:
    zombie = log.data("orphan", "CycleStarted")
    log.data("orphan", "CycleSucceeded").update(cycle=zombie["cycle"], fence=zombie["fence"])

    assert broken(verify(log.encode())) == {S3: [(85, 86)]}


def test_s3_a_cycle_that_was_abandoned_before_its_lease_had_passed(log: Log) -> None:
    log.of("orphan", "CycleAbandoned")["recorded_at"] = instant(945)

    assert broken(verify(log.encode())) == {S3: [(83, 84)]}


def test_s3_a_living_worker_is_said_to_have_died(log: Log) -> None:
    log.data("orphan", "CycleAbandoned")["reason"] = "worker_died"

    # It started the next cycle itself, and others after it; the result of the first came late.
    starts = [log.position(name, "CycleStarted") for name in ("orphan", "ruled", "last")]
    starts[0] = log.position("orphan", "CycleStarted", 1)
    late = log.position("orphan", "LateResultRejected")
    assert broken(verify(log.encode())) == {S3: [(84, position) for position in sorted([*starts, late])]}


def test_a_worker_that_died_is_no_breach(log: Log) -> None:
    log.data("orphan", "CycleAbandoned")["reason"] = "worker_died"
    log.data("orphan", "CycleStarted")["worker"] = "host:1:0123456789abcdef"
    log.drop("orphan", "LateResultRejected")

    assert verify(log.encode()).violations == ()


def test_s3_a_lease_that_is_longer_than_the_policy_gives(log: Log) -> None:
    log.data("last", "CycleStarted")["lease_until"] = instant(2000)

    assert broken(verify(log.encode())) == {S3: [(94, 97)]}


def test_s3_the_live_cycle_s_result_is_refused(log: Log) -> None:
    started = log.of("last", "CycleStarted")
    data = started["data"]
    named = {"restart": data["restart"], "cycle": data["cycle"], "fence": 1, "current_fence": 1, "result": "succeeded"}
    put = log.put(started, "LateResultRejected", **named)

    assert broken(verify(log.encode())) == {S3: [(97, put)]}


def test_s4_a_retry_before_its_instant(log: Log) -> None:
    log.data("retry", "CycleFailed")["retry_at"] = instant(124)

    assert broken(verify(log.encode())) == {S4: [(17, 18)]}


def test_s4_a_retry_that_waits_longer_than_its_backoff(log: Log) -> None:
    log.data("retry", "CycleFailed")["retry_at"] = instant(126)

    assert broken(verify(log.encode())) == {S4: [(15, 17), (17, 18)]}


def test_s5_a_hold_that_nobody_ends_before_its_time(log: Log) -> None:
    released = log.of("held", "WorkspaceReleased")
    released["actor"] = "system"
    held = log.of("held", "WorkspaceHeld")

    assert broken(verify(log.encode())) == {S5: [(held["position"], released["position"])]}


def test_s4_a_restart_that_nobody_asked_for_within_min_interval(log: Log) -> None:
    """It is queued before its due too, since the due instant keeps min_interval."""
    log.of("manual", "RestartRequested")["data"]["trigger"] = "mutation"
    log.data("manual", "RestartQueued", 1)["cause"] = "mutation"

    assert broken(verify(log.encode())) == {S5: [(76, 77)], S4: [(74, 78)]}


def test_s4_a_retry_although_no_attempt_is_left(log: Log) -> None:
    log.data("retry", "CycleFailed")["error_kind"] = "permanent"

    assert broken(verify(log.encode())) == {S4: [(15, 17)]}


def test_s4_a_give_up_although_attempts_are_left(log: Log) -> None:
    log.data("gave_up", "CycleFailed")["error_kind"] = "transient"

    assert broken(verify(log.encode())) == {S4: [(24, 25)]}


def test_s4_a_give_up_that_comes_back_too_soon(log: Log) -> None:
    log.data("gave_up", "RestartGaveUp")["next_try_at"] = instant(221)

    assert broken(verify(log.encode())) == {S4: [(24, 25)]}


def test_s5_queued_before_its_due(log: Log) -> None:
    log.of("last", "FileWritten")["recorded_at"] = instant(1101)
    for name in ("opened_at", "last_write_at"):
        log.data("last", "RestartQueued")[name] = instant(1101)

    assert broken(verify(log.encode())) == {S5: [(95, 96)]}


def test_s5_another_due_at_than_its_numbers_give(log: Log) -> None:
    log.data("last", "RestartQueued")["due_at"] = instant(1114)

    assert broken(verify(log.encode())) == {S5: [(95, 96)]}


def test_s5_another_cause_than_the_log_shows(log: Log) -> None:
    log.data("last", "RestartQueued")["cause"] = "max_wait"

    assert broken(verify(log.encode())) == {S5: [(95, 96)]}


def test_s5_other_numbers_than_those_in_force(log: Log) -> None:
    log.data("last", "RestartQueued")["max_wait_ms"] = 61_000

    assert broken(verify(log.encode())) == {S5: [(94, 96)]}


def test_s5_another_opening_than_that_of_the_first_write(log: Log) -> None:
    log.data("plain", "RestartQueued")["opened_at"] = instant(1)

    assert broken(verify(log.encode())) == {S5: [(5, 6)]}


def test_s5_a_start_under_another_policy_than_that_in_force(log: Log) -> None:
    log.data("last", "CycleStarted")["policy_version"] = 9

    assert broken(verify(log.encode())) == {S5: [(94, 97)]}


def test_s5_queued_and_started_under_a_hold(log: Log) -> None:
    put = log.put(log.of("last", "FileWritten"), "WorkspaceHeld", reason="freeze", until=None)

    assert broken(verify(log.encode())) == {S5: [(put, put + 1), (put, put + 2)]}


def test_s6_two_unsettled_restarts(log: Log) -> None:
    queued = log.of("last", "RestartQueued")
    put = log.put(queued, "RestartQueued", **queued["data"] | {"restart": "rst_second"})
    log.data("last", "CycleStarted")["restart"] = "rst_second"
    log.data("last", "CycleSucceeded")["restart"] = "rst_second"
    found = broken(verify(log.encode()))

    assert found.pop(Promise.L4) == [(96, put)]
    assert found == {S6: [(96, put)]}


def test_s6_ranges_overlap(log: Log) -> None:
    log.data("plain", "CycleStarted", 1)["from_position"] = 5

    assert broken(verify(log.encode())) == {S6: [(8, 11)]}


def test_s6_ranges_leave_a_hole(log: Log) -> None:
    log.data("plain", "RestartQueued", 1)["from_position"] = 7

    assert broken(verify(log.encode()))[S6][0] == (8, 10)


def test_s6_a_give_up_of_another_restart(log: Log) -> None:
    log.data("gave_up", "RestartGaveUp")["restart"] = "rst_other"

    assert broken(verify(log.encode())) == {S6: [(22, 25)]}


def test_s7_a_cycle_keeps_the_stamp_of_the_one_before(log: Log) -> None:
    """The incident's second layer: without the new stamp a write chains cycle into cycle."""
    started = log.data("plain", "CycleStarted", 1)
    started["started_at"] = started["previous_started_at"]

    assert broken(verify(log.encode())) == {S7: [(7, 11)]}


def test_s7_a_stamp_that_is_not_the_event_s_instant(log: Log) -> None:
    log.data("last", "CycleStarted")["started_at"] = instant(1116.0 + 60)

    assert broken(verify(log.encode())) == {S7: [(97,)]}


def test_s7_a_fence_that_does_not_rise(log: Log) -> None:
    for kind in ("CycleStarted", "CycleSucceeded"):
        log.data("plain", kind, 1)["fence"] = 1

    assert broken(verify(log.encode())) == {S7: [(7, 11)]}


def test_s7_another_previous_start_than_the_last(log: Log) -> None:
    log.data("plain", "CycleStarted", 1)["previous_started_at"] = None

    assert broken(verify(log.encode())) == {S7: [(7, 11)]}


def test_s7_a_give_up_counts_other_attempts_than_there_were(log: Log) -> None:
    log.data("gave_up", "RestartGaveUp")["attempts"] = 2

    assert broken(verify(log.encode())) == {S7: [(22, 25)]}


def test_s9_a_cycle_of_a_restart_that_was_never_queued(log: Log) -> None:
    log.drop("last", "RestartQueued")

    assert broken(verify(log.encode())) == {S9: [(97,)]}


def test_s9_a_restart_for_nothing(log: Log) -> None:
    """Nothing waited, so it has no cause; and it is one more than may follow once the writes have stopped."""
    queued = log.of("manual", "RestartQueued", 1)
    named = queued["data"] | {"restart": "rst_put", "from_position": 77, "to_position": 77, "requests": 0}
    put = log.put(log.of("manual", "CycleSucceeded", 1), "RestartQueued", **named)
    log.cut_after(log.events[put - 1])

    assert broken(verify(log.encode())) == {S9: [(79, put)], Promise.L4: [(77, put)]}


def test_s9_a_probe_suppressed_for_another_reason_than_the_state_gives(log: Log) -> None:
    log.data("probed", "ProbeSuppressed")["reason"] = "held"

    assert broken(verify(log.encode())) == {S9: [(54, 55)]}


def test_s9_a_probe_that_asked_for_a_restart_although_it_was_to_be_suppressed(log: Log) -> None:
    log.put(log.of("last", "FileWritten", 1), "RestartRequested", trigger="probe", reason="no answer")

    assert broken(verify(log.encode())) == {S9: [(99, 100)]}


@pytest.mark.parametrize(
    ("name", "said"), [("rule", "src/**"), ("quiet_ms", 1), ("max_wait_ms", 1), ("action", "restart")]
)
def test_s9_a_write_follows_a_rule_that_is_not_in_force(log: Log, name: str, said: object) -> None:
    log.data("ruled", "FileWritten")[name] = said
    found = broken(verify(log.encode(), tick_us=None))

    assert S9 in found


def test_s9_of_a_part_of_a_log_no_rule_is_missed(log: Log) -> None:
    """The layer that it comes from may have been set before."""
    log.data("ruled", "FileWritten")["rule"] = "src/**"
    for event in log.events:
        if event["type"] == "PolicyChanged":
            event["data"]["policy_version"] += 1

    assert S9 not in broken(verify(log.encode(), tick_us=None))


def test_s9_a_write_is_only_recorded_and_names_no_rule(log: Log) -> None:
    log.data("last", "FileWritten")["action"] = "record"

    assert S9 in broken(verify(log.encode(), tick_us=None))


def test_the_sentence_names_what_contradicts_what(log: Log) -> None:
    log.data("last", "CycleSucceeded")["fence"] = 7
    [violation] = verify(log.encode()).violations

    assert violation.workspace == "last"
    assert violation.text.endswith("succeeds with fence 7, but cycle cyc_0130 with fence 1 is live")
    assert TICK_US == 1_000_000
