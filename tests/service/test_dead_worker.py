"""What follows from the death of a worker, said by who started it."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.domain.events import CycleAbandoned, CycleStarted, RestartQueued
from orchestrator.service.dead_worker import abandon_cycles_of
from tests.history import START, History
from tests.service.world import IDS, events


def running(history: History, *workspaces: str) -> str:
    """Let one worker have an open cycle of each; return its name."""
    for workspace in workspaces:
        history.register(workspace)
        history.write("a", workspace=workspace)
    history.at(15)
    for workspace in workspaces:
        history.queued(workspace)
        history.start(workspace)
    return events(history.store, CycleStarted)[0].worker


def test_each_open_cycle_of_the_dead_worker_is_abandoned(history: History) -> None:
    worker = running(history, "one", "two")
    history.at(16)

    assert abandon_cycles_of(history.store, IDS, worker) == ["one", "two"]
    assert [event.reason for event in events(history.store, CycleAbandoned)] == ["worker_died"] * 2
    for workspace in ("one", "two"):
        assert history.state(workspace).ready_at == START + timedelta(seconds=16)
    assert abandon_cycles_of(history.store, IDS, worker) == []


def test_what_others_run_goes_on(history: History) -> None:
    running(history, "one")

    assert abandon_cycles_of(history.store, IDS, "another") == []
    assert events(history.store, CycleAbandoned) == []


def test_what_was_due_after_the_last_attempt_is_folded_in_the_same_transaction(history: History) -> None:
    history.register(max_attempts=1)
    history.write("a")
    history.at(15)
    history.queued()
    history.start()
    history.at(16)
    history.request("now")

    assert abandon_cycles_of(history.store, IDS, events(history.store, CycleStarted)[0].worker) == ["ws"]
    assert [queued.writes for queued in events(history.store, RestartQueued)] == [1, 1]
