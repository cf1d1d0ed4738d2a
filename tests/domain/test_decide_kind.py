"""``reload`` if all the writes of a restart are reload and nothing was requested; else ``restart``."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain import events as ev
from tests.domain.given_when_then import Scenario, scenario, that

RULES = [{"match": "conf/**", "action": "reload"}, {"match": "*.log", "action": "record"}]


def with_rules(**given: Any) -> Scenario:
    return scenario(rules=RULES, **given).at(0)


@pytest.mark.parametrize(
    ("paths", "kind"),
    [
        (["conf/a"], ev.Kind.RELOAD),
        (["conf/a", "conf/b"], ev.Kind.RELOAD),
        (["conf/a", "main.py"], ev.Kind.RESTART),
        (["main.py", "conf/a"], ev.Kind.RESTART),
        (["main.py"], ev.Kind.RESTART),
        (["conf/a", "x.log"], ev.Kind.RELOAD),
    ],
)
def test_the_kind_of_a_burst(paths: list[str], kind: ev.Kind) -> None:
    run = with_rules().write(*paths).at(15).tick().then(that(ev.RestartQueued, kind=kind))
    run.start().then(that(ev.CycleStarted, kind=kind))
    assert run.restarts["rst_1"].kind is kind


@pytest.mark.parametrize("trigger", ["manual", "mutation"])
def test_a_request_asks_for_a_restart(trigger: str) -> None:
    run = with_rules().write("conf/a")
    (run.manual() if trigger == "manual" else run.mutation()).at(15).tick()
    run.then(that(ev.RestartQueued, kind=ev.Kind.RESTART))


def test_a_probes_request_asks_for_a_restart() -> None:
    with_rules().probe().tick().then(that(ev.RestartQueued, kind=ev.Kind.RESTART))


def test_a_queued_reload_becomes_a_restart_by_what_came_before_its_start() -> None:
    run = with_rules().write("conf/a").at(15).tick().then(that(ev.RestartQueued, kind=ev.Kind.RELOAD))
    run.write("main.py").start().then(that(ev.CycleStarted, kind=ev.Kind.RESTART))
    assert run.restarts["rst_1"].kind is ev.Kind.RESTART


def test_a_retried_reload_becomes_a_restart_by_a_request() -> None:
    run = with_rules().write("conf/a").at(15).tick().start().at(16).fail(jitter=0).manual().at(17).start()
    run.then(that(ev.CycleStarted, kind=ev.Kind.RESTART, attempt=2))


def test_what_a_give_up_left_is_counted_in() -> None:
    run = with_rules(max_attempts=1).write("main.py").at(15).tick().start().at(16).fail()
    run.at(100).write("conf/a").at(115).tick().then(that(ev.RestartQueued, kind=ev.Kind.RESTART, writes=2))


def test_what_is_covered_no_longer_counts() -> None:
    run = with_rules().write("main.py").at(15).tick().start().at(16).succeed().at(100).write("conf/a")
    run.at(115).tick().then(that(ev.RestartQueued, kind=ev.Kind.RELOAD))
