"""What became of this write: every status, the restart and cycle behind it, and until when at the latest."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain.explain import FateStatus
from orchestrator.domain.restart_projection import RestartState
from orchestrator.errors import NotFound
from orchestrator.history.fate import Fate, fate_of, fates_of
from orchestrator.history.views import fate_view
from orchestrator.ports.store import EventFilter
from tests.history import START, AuditedHistory


def fate(history: AuditedHistory, write: str) -> Fate:
    with history.store.read() as reader:
        return fate_of(reader, write)


def test_covered_write_names_restart_cycle_and_both_waits(history: AuditedHistory) -> None:
    history.register()
    [write] = history.write("a")
    history.at(15)
    restart = history.queued()
    cycle = history.start()
    history.at(31)
    history.succeed()

    found = fate(history, write.id)
    assert found.status is FateStatus.COVERED
    assert found.final
    assert (found.restart, found.cycle) == (restart, cycle)
    assert (found.start_waited_ms, found.waited_ms) == (15_000, 31_000)
    assert found.explanation == f"Covered by {restart} (cycle {cycle}), 31 s after it was written."


def test_covered_request_was_made(history: AuditedHistory) -> None:
    history.register()
    request = history.request("stale")
    restart = history.queued()
    cycle = history.start()
    history.at(0.4)
    history.succeed()

    found = fate(history, request)
    assert found.explanation == f"Covered by {restart} (cycle {cycle}), 0.4 s after it was made."
    assert (found.path, found.trigger, found.reason) == (None, "manual", "stale")


def test_pending_write_is_due_at_the_latest_by_max_wait(history: AuditedHistory) -> None:
    history.register()
    [write] = history.write("a")
    history.at(10)
    history.write("b")

    found = fate(history, write.id)
    assert found.status is FateStatus.PENDING
    assert not found.final
    assert found.due_at == START + timedelta(seconds=60)
    assert found.explanation == "Pending: its restart is due at 2026-11-23 14:03:01 at the latest."


def test_spacing_moves_the_latest_instant(history: AuditedHistory) -> None:
    history.register(max_wait="20s")
    history.write("a")
    history.at(15)
    history.queued()
    history.start()
    history.at(16)
    history.succeed()
    [write] = history.write("b")

    assert fate(history, write.id).due_at == START + timedelta(seconds=75)


def test_pending_write_of_a_queued_restart_says_when_it_may_start(history: AuditedHistory) -> None:
    history.register()
    [inside] = history.write("a")
    history.at(15)
    restart = history.queued()
    history.at(16)
    [joins] = history.write("b")

    for write in (inside, joins):
        found = fate(history, write.id)
        assert (found.restart, found.due_at, found.ready_at) == (restart, None, START + timedelta(seconds=15))
        assert found.restart_state is RestartState.QUEUED
        assert found.explanation == f"Pending: {restart} takes it along and may start from 2026-11-23 14:02:16 on."


def test_write_during_a_cycle_waits_for_the_next_restart(history: AuditedHistory) -> None:
    history.register()
    [inside] = history.write("a")
    history.at(15)
    restart = history.queued()
    cycle = history.start()
    history.at(16)
    [late] = history.write("b")

    assert fate(history, inside.id).explanation == (
        f"Pending: {restart} (cycle {cycle}) is running and will cover it if it succeeds."
    )
    found = fate(history, late.id)
    assert (found.restart, found.due_at) == (None, None)
    assert found.explanation == f"Pending: it is taken into the next restart, once {restart} has ended."


def test_held_write_is_due_after_the_release(history: AuditedHistory) -> None:
    history.register()
    history.change(cmd.Hold(reason="freeze"))
    [write] = history.write("a")

    found = fate(history, write.id)
    assert (found.held, found.due_at, found.ready_at) == (True, None, None)
    assert found.explanation == (
        "Pending: the workspace is held (freeze); it is taken into one restart after the release."
    )


def test_recorded_write_names_its_rule(history: AuditedHistory) -> None:
    history.register(rules=[{"match": "docs/**", "action": "record"}])
    [write] = history.write("docs/readme.md")

    found = fate(history, write.id)
    assert found.status is FateStatus.RECORDED
    assert found.explanation == "Recorded only, by rule docs/**."


def test_removal_waives_by_name(history: AuditedHistory) -> None:
    history.register()
    [write] = history.write("a")
    history.author = "local:bob"
    history.change(cmd.Remove(reason="gone"))

    found = fate(history, write.id)
    assert found.status is FateStatus.WAIVED
    assert (found.waived_by, found.waived_reason) == ("local:bob", "workspace_removed")
    assert found.explanation == "Waived: workspace removed by local:bob."


def test_cancel_waives_by_name(history: AuditedHistory) -> None:
    history.register()
    [write] = history.write("a")
    history.at(15)
    restart = history.queued()
    history.cancel(restart, "no")
    [later] = history.write("b")

    assert fate(history, write.id).explanation == f"Waived: {restart} was cancelled by local:ann."
    assert fate(history, later.id).status is FateStatus.PENDING


def test_write_of_a_give_up_is_pending_until_the_next_try(history: AuditedHistory) -> None:
    history.register(max_attempts=1)
    [write] = history.write("a")
    history.at(15)
    history.queued()
    history.start()
    history.at(16)
    history.fail("x")

    found = fate(history, write.id)
    assert found.status is FateStatus.PENDING
    assert found.due_at == START + timedelta(seconds=316)


def test_shadow_coverage_is_marked(history: AuditedHistory) -> None:
    history.register(mode="shadow")
    [write] = history.write("a")
    history.at(15)
    history.queued()
    history.start()

    found = fate(history, write.id)
    assert found.shadow
    assert found.explanation.startswith("Covered in shadow mode (nothing was executed) by ")
    assert fate_view(found)["status"] == "covered"


def test_fates_of_many_are_the_fates_of_each(history: AuditedHistory) -> None:
    history.register(rules=[{"match": "docs/**", "action": "record"}])
    history.register("gone")
    asked = [event.id for event in history.write("a", "docs/x")]
    asked += [event.id for event in history.write("b", workspace="gone")]
    history.change(cmd.Remove(reason="gone"), "gone")
    history.at(15)
    history.queued()
    history.start()
    history.at(16)
    history.succeed()
    asked += [event.id for event in history.write("c", "d")]
    asked.append(history.request("now"))

    with history.store.read() as reader:
        [registered] = reader.events(EventFilter(types=["WorkspaceRegistered"], limit=1))
        found = fates_of(reader, [*asked, "evt_nope", registered.id, asked[0]])
        assert found == {write: fate_of(reader, write) for write in asked}
        assert {one.status for one in found.values()} == set(FateStatus)
        assert fates_of(reader, []) == {}


def test_ids_of_nothing_and_of_other_events_are_not_found(history: AuditedHistory) -> None:
    history.register()
    with history.store.read() as reader:
        registered = reader.events(EventFilter())[-1]
    for unknown in ("evt_nope", registered.id):
        with pytest.raises(NotFound, match=unknown):
            fate(history, unknown)
