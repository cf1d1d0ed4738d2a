"""When a window is due, and by what cause (CONTRACT section 2, "due")."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.due import spacing_ends
from tests.domain.given_when_then import instant, scenario, that

RULES = [
    {"match": "slow/**", "quiet": "40s", "max_wait": "2m"},
    {"match": "fast/**", "quiet": "1s", "max_wait": "5s"},
    {"match": "*.log", "action": "record"},
]


def test_nothing_waits_nothing_is_due() -> None:
    scenario().at(100).then_not_due().tick().then_nothing()


def test_a_write_is_due_after_quiet() -> None:
    scenario().at(3).write("a").then_due(18, ev.Cause.QUIET)


def test_each_write_moves_the_end_of_quiet() -> None:
    scenario().at(0).write("a").at(14).write("b").at(20).write("c").then_due(35, ev.Cause.QUIET)


def test_second_write_inside_the_window_is_folded_and_does_not_move_the_windows_start() -> None:
    restarts = scenario(max_wait="20s").at(0).write("a").at(10).write("b").then_due(20, ev.Cause.MAX_WAIT)
    restarts.at(20).tick().then(that(ev.RestartQueued, writes=2, opened_at=0, last_write_at=10))


def test_max_wait_bounds_a_burst_that_never_goes_quiet() -> None:
    burst = scenario()
    for second in range(0, 60, 5):
        burst.at(second).write("a")
    burst.then_due(60, ev.Cause.MAX_WAIT)


def test_quiet_comes_before_max_wait_at_equal_times() -> None:
    scenario(quiet="15s", max_wait="15s").at(0).write("a").then_due(15, ev.Cause.QUIET)


def test_max_wait_shorter_than_quiet_wins() -> None:
    scenario(quiet="15s", max_wait="5s").at(0).write("a").then_due(5, ev.Cause.MAX_WAIT)


def test_no_quiet_at_all_is_due_at_the_write() -> None:
    scenario(quiet="0s").at(7).write("a").then_due(7, ev.Cause.QUIET)


def test_max_count_is_due_at_the_write_that_reaches_it() -> None:
    waits = scenario(max_count=3).at(0).write("a").at(1).write("b").then_due(16, ev.Cause.QUIET)
    waits.at(2).write("c").then_due(2, ev.Cause.MAX_COUNT).at(3).write("d").then_due(2, ev.Cause.MAX_COUNT)


def test_max_count_of_one_is_due_at_once() -> None:
    scenario(max_count=1).at(4).write("a").then_due(4, ev.Cause.MAX_COUNT)


def test_many_writes_at_one_instant_reach_max_count() -> None:
    scenario(max_count=3).at(4).write("a", "b", "c", "d").then_due(4, ev.Cause.MAX_COUNT)


def test_recorded_writes_open_no_window_and_do_not_count() -> None:
    noise = scenario(max_count=2, rules=RULES).at(0).write("x.log", "y.log", "z.log").then_not_due().then_pending()
    noise.at(5).write("a").then_due(20, ev.Cause.QUIET).at(19).write("x.log").then_due(20, ev.Cause.QUIET)


# --- path rules with numbers of their own


@pytest.mark.parametrize(
    ("writes", "due_at", "cause"),
    [
        ([(0, "slow/a")], 40, ev.Cause.QUIET),
        ([(0, "fast/a")], 1, ev.Cause.QUIET),
        ([(0, "slow/a"), (10, "b")], 40, ev.Cause.QUIET),
        ([(0, "a"), (30, "slow/b")], 60, ev.Cause.MAX_WAIT),
        ([(0, "slow/a"), (2, "fast/b")], 7, ev.Cause.MAX_WAIT),
        ([(0, "fast/a"), (0.5, "fast/b")], 1.5, ev.Cause.QUIET),
        ([(0, "slow/a"), (35, "slow/b")], 75, ev.Cause.QUIET),
        ([(0, "slow/a"), (35, "slow/b"), (60, "slow/c"), (95, "slow/d")], 120, ev.Cause.MAX_WAIT),
    ],
)
def test_the_quiet_that_ends_last_and_the_max_wait_that_ends_first_count(
    writes: list[tuple[float, str]], due_at: float, cause: ev.Cause
) -> None:
    burst = scenario(rules=RULES)
    for at, path in writes:
        burst.at(at).write(path)
    burst.then_due(due_at, cause)


def test_the_first_rule_that_matches_wins() -> None:
    rules = [{"match": "docs/**", "action": "record"}, {"match": "**", "action": "reload"}]
    log = scenario(rules=rules).at(0).write("docs/a", "b").of_type(ev.FileWritten)
    assert [(write.action.value, write.rule) for write in log] == [("record", "docs/**"), ("reload", "**")]


# --- leading edge


def test_leading_first_write_of_an_idle_workspace_is_due_at_once() -> None:
    scenario(edge="leading").at(5).write("a").then_due(5, ev.Cause.LEADING)


def test_leading_counts_from_the_first_write_although_more_came() -> None:
    scenario(edge="leading").at(5).write("a").at(5.5).write("b").then_due(5, ev.Cause.LEADING)


def test_leading_the_rest_of_the_burst_makes_one_more_restart() -> None:
    burst = scenario(edge="leading").at(0).write("a").tick().start()
    burst.at(1).write("b").at(4).write("c").succeed().at(9).write("d").then_due(60, ev.Cause.QUIET)
    burst.at(59).tick().then_nothing().at(60).tick().then(that(ev.RestartQueued, writes=3)).start().at(61).succeed()
    burst.then_pending().then_not_due()


def test_leading_not_while_min_interval_since_the_last_start_has_not_passed() -> None:
    settled = scenario(edge="leading").at(0).write("a").tick().start().at(1).succeed()
    settled.at(59).write("b").then_due(74, ev.Cause.QUIET)


def test_leading_again_once_min_interval_has_passed() -> None:
    settled = scenario(edge="leading").at(0).write("a").tick().start().at(1).succeed()
    settled.at(60).write("b").then_due(60, ev.Cause.LEADING)


def test_leading_not_where_a_request_waited() -> None:
    waits = scenario(edge="leading").at(0).manual().tick().start().at(1).succeed().at(30).mutation()
    waits.at(70).write("a").then_due(60, ev.Cause.MUTATION)
    waits.under(edge="leading", min_interval="0s").then_due(30, ev.Cause.MUTATION)
    waits.tick().start().at(71).succeed().at(80).write("b").then_due(80, ev.Cause.LEADING)


@pytest.mark.parametrize("given", ["queued", "running", "retrying", "held", "given up"])
def test_leading_not_where_something_was_under_way(given: str) -> None:
    busy = scenario(edge="leading", min_interval="0s", max_attempts=1 if given == "given up" else 3)
    if given == "held":
        busy.at(0).hold().at(10).write("b").release().then_due(25, ev.Cause.QUIET)
        return
    busy.at(0).write("a").tick()
    if given != "queued":
        busy.start()
    if given in ("retrying", "given up"):
        busy.at(1).fail(jitter=0.9)
    busy.at(2).write("b")
    if given == "given up":
        busy.then_due(17, ev.Cause.QUIET)
    elif given == "running":
        busy.at(3).succeed().then_due(17, ev.Cause.QUIET)
    else:
        busy.then_not_due().cancel().then(ev.RestartCancelled, ev.WritesWaived).then_due(17, ev.Cause.QUIET)


def test_switching_to_leading_takes_the_open_window_with_it() -> None:
    scenario().at(0).write("a").at(3).under(edge="leading").then_due(0, ev.Cause.LEADING)


# --- requests, and ties


@pytest.mark.parametrize(("ask", "cause"), [("manual", ev.Cause.MANUAL), ("mutation", ev.Cause.MUTATION)])
def test_a_request_is_due_at_its_own_time(ask: str, cause: ev.Cause) -> None:
    asked = scenario().at(0).write("a").at(4)
    (asked.manual() if ask == "manual" else asked.mutation()).at(6)
    (asked.manual() if ask == "manual" else asked.mutation()).then_due(4, cause)


def test_an_earlier_end_of_quiet_comes_before_a_later_manual_request() -> None:
    scenario().at(0).write("a").at(16).manual().then_due(15, ev.Cause.QUIET)


def test_a_probes_request_counts_only_while_no_write_is_in_the_window() -> None:
    scenario().at(5).probe().then_due(5, ev.Cause.PROBE).at(6).write("a").then_due(21, ev.Cause.QUIET)


def test_at_equal_times_the_cause_is_the_first_of_the_list() -> None:
    """Spacing moves everything to one instant; the order of the causes then decides."""
    settled = scenario(max_count=2, max_wait="20s").at(0).manual().tick().start().at(1).succeed()
    settled.at(32).write("a").then_due(60, ev.Cause.QUIET)
    settled.at(33).write("b").then_due(60, ev.Cause.MAX_COUNT)
    settled.at(34).mutation().then_due(60, ev.Cause.MUTATION)
    settled.at(60).manual().then_due(60, ev.Cause.MANUAL)


def test_the_order_of_causes_is_the_contracts() -> None:
    assert [cause.value for cause in ev.Cause] == [
        *("manual", "mutation", "max_count", "leading", "quiet", "max_wait", "probe", "gave_up"),
    ]


def test_max_count_comes_before_leading_at_equal_times() -> None:
    scenario(edge="leading", max_count=1).at(0).write("a").then_due(0, ev.Cause.MAX_COUNT)


# --- a policy that changes while the window is open


@pytest.mark.parametrize(
    ("changed", "due_at", "cause"),
    [
        ({"quiet": "2s"}, 12, ev.Cause.QUIET),
        ({"max_wait": "12s"}, 12, ev.Cause.MAX_WAIT),
        ({"max_count": 2}, 10, ev.Cause.MAX_COUNT),
        ({"quiet": "1m"}, 60, ev.Cause.MAX_WAIT),
    ],
)
def test_a_changed_policy_recomputes_the_open_window(changed: dict[str, Any], due_at: float, cause: ev.Cause) -> None:
    scenario().at(0).write("a").at(10).write("b").under(**changed).then_due(due_at, cause)


def test_a_rules_own_numbers_stay_as_they_were_when_the_write_came() -> None:
    scenario(rules=RULES).at(0).write("slow/a").at(10).under(quiet="2s").then_due(40, ev.Cause.QUIET)


def test_a_raised_max_count_is_due_at_the_write_that_reaches_the_new_number() -> None:
    """S5: the instant at which the old, lower number was reached must not survive."""
    waits = scenario(max_count=2).at(0).write("a").at(1).write("b").then_due(1, ev.Cause.MAX_COUNT)
    waits.at(2).under(max_count=4).then_due(16, ev.Cause.QUIET)
    waits.at(3).write("c").then_due(18, ev.Cause.QUIET).at(5).write("d").then_due(5, ev.Cause.MAX_COUNT)


def test_a_max_count_raised_to_what_waits_is_not_due_before_its_last_write() -> None:
    waits = scenario(max_count=2).at(0).write("a").at(1).write("b").at(4).write("c")
    waits.under(max_count=3).then_due(4, ev.Cause.MAX_COUNT)


def test_a_lowered_max_count_stays_due_where_it_was_when_more_writes_come() -> None:
    waits = scenario().at(0).write("a").at(1).write("b").at(4).write("c")
    waits.under(max_count=2).then_due(4, ev.Cause.MAX_COUNT).at(6).write("d").then_due(4, ev.Cause.MAX_COUNT)


def test_a_changed_min_interval_moves_the_end_of_spacing() -> None:
    settled = scenario().at(0).manual().tick().start().at(1).succeed().at(10).write("a")
    settled.then_due(60, ev.Cause.QUIET).under(min_interval="2m").then_due(120, ev.Cause.QUIET)
    assert spacing_ends(settled.state, settled.policy) == instant(120)


def test_a_workspace_never_started_has_no_spacing() -> None:
    fresh = scenario()
    assert spacing_ends(fresh.state, fresh.policy) is None
