"""Who may carry a restart out, and when it is said that nobody is there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.domain.decide import is_served
from orchestrator.domain.events import ExecutorAway, ExecutorBack
from orchestrator.domain.policy import PolicyPatch
from orchestrator.domain.serving import Patience, SeenWorker, Serving, absences
from orchestrator.domain.state import Registration, WorkspaceState

NEED = ("docker", "host-2")
PATIENCE = Patience(waits=timedelta(seconds=3), gone_after=timedelta(seconds=5))


def at(seconds: float) -> datetime:
    return datetime(2026, 11, 23, 12, tzinfo=UTC) + timedelta(seconds=seconds)


def seen(seconds: float, *, executor: str = "docker", pool: str = "host-2") -> SeenWorker:
    serving = Serving(executors=frozenset({executor}), pools=frozenset({pool}))
    return SeenWorker(name="w", host="h", serving=serving, slots=1, seen_at=at(seconds))


@pytest.mark.parametrize(
    ("executor", "pool", "served"),
    [("docker", None, True), ("docker", "default", True), ("docker", "host-2", False), ("command", None, False)],
)
def test_a_worker_serves_a_workspace_by_executor_and_pool(executor: str, pool: str | None, served: bool) -> None:
    target = {} if pool is None else {"pool": pool}
    registration = Registration(fleet="f", labels={}, executor=executor, target=target, policy=PolicyPatch())
    serving = Serving(executors=frozenset({"docker"}))
    assert serving.serves(registration) is served
    assert is_served(WorkspaceState(workspace="ws", registration=registration), serving) is served


def test_a_program_that_names_no_pool_is_no_worker_s_that_serves_the_default_one() -> None:
    registration = Registration(fleet="f", labels={}, executor="process", target={}, policy=PolicyPatch())
    assert registration.pool == "up"
    assert not Serving(executors=frozenset({"process"})).serves(registration)


def test_nobody_is_away_before_something_has_waited_for_long_enough() -> None:
    assert absences({}, [], [], at(9), PATIENCE) == []
    assert absences({NEED: at(0)}, [], [], at(2.9), PATIENCE) == []
    assert absences({NEED: at(0)}, [], [], at(3), PATIENCE) == [
        ExecutorAway(executor="docker", pool="host-2", since=at(0))
    ]


def test_a_worker_that_is_busy_is_there_however_long_others_wait() -> None:
    assert absences({NEED: at(0)}, [seen(96)], [], at(100), PATIENCE) == []


def test_a_worker_that_says_nothing_for_long_enough_is_gone_since_it_was_last_seen() -> None:
    [away] = absences({NEED: at(0)}, [seen(95)], [], at(100), PATIENCE)
    assert away == ExecutorAway(executor="docker", pool="host-2", since=at(95))


@pytest.mark.parametrize("other", [{"executor": "command"}, {"pool": "default"}])
def test_a_worker_that_serves_something_else_helps_nobody(other: dict[str, str]) -> None:
    [away] = absences({NEED: at(0)}, [seen(9, **other)], [], at(9), PATIENCE)
    assert away == ExecutorAway(executor="docker", pool="host-2", since=at(0))


def test_what_is_away_is_said_once() -> None:
    assert absences({NEED: at(0)}, [], [NEED], at(100), PATIENCE) == []


def test_it_is_back_when_somebody_is_there_or_nothing_waits_any_more() -> None:
    back = [ExecutorBack(executor="docker", pool="host-2")]
    assert absences({NEED: at(0)}, [seen(99)], [NEED], at(100), PATIENCE) == back
    assert absences({}, [], [NEED], at(100), PATIENCE) == back
