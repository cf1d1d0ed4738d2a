"""The export: the envelope of CONTRACT section 3, key by key, in position order, in pages."""

from __future__ import annotations

import json

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.history import export as export_module
from orchestrator.history.export import export
from orchestrator.history.views import workspace_view
from tests.history import AuditedHistory

ENVELOPE = [
    *("position", "id", "workspace", "version", "type", "schema", "recorded_at", "occurred_at", "actor"),
    *("source", "source_id", "correlation_id", "causation_id", "data"),
]


def lines_of(history: AuditedHistory, **options: object) -> list[dict[str, object]]:
    written: list[str] = []
    count = export(history.store, written.append, **options)  # type: ignore[arg-type]
    lines = "".join(written).splitlines()
    assert count == len(lines)
    return [json.loads(line) for line in lines]


def test_envelope_is_that_of_the_contract(history: AuditedHistory) -> None:
    history.register()
    history.write("dépôt/a")
    events = lines_of(history)

    assert [list(event) for event in events] == [ENVELOPE] * 3
    assert [event["type"] for event in events] == ["PolicyChanged", "WorkspaceRegistered", "FileWritten"]
    assert [event["version"] for event in events] == [None, 1, None]
    assert events[2]["recorded_at"] == "2026-11-23T14:02:01.000000Z"
    assert isinstance(events[2]["data"], dict)
    assert events[2]["data"]["path"] == "dépôt/a"


def test_pages_join_without_gap_or_double_and_progress_ends_at_the_last(
    history: AuditedHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "_PAGE", 3)
    history.register()
    history.write(*"abcdefg")
    seen: list[tuple[int, int]] = []
    positions = [event["position"] for event in lines_of(history, progress=lambda *at: seen.append(at))]

    assert positions == sorted(set(positions))  # type: ignore[type-var]
    assert len(positions) == 9
    assert seen[-1] == (positions[-1], positions[-1])


def test_after_and_workspace_choose(history: AuditedHistory) -> None:
    history.register("one")
    history.register("two")
    history.write("a", workspace="one")
    history.write("b", workspace="two")

    assert {event["workspace"] for event in lines_of(history, workspace="one")} == {"one"}
    assert len(lines_of(history, after=3)) == 2
    assert lines_of(history, after=99) == []


def test_workspace_view_shows_numbers_window_and_cycle(history: AuditedHistory) -> None:
    history.register(fleet="blue", quiet="5s")
    history.write("a")
    history.change(cmd.Hold(reason="freeze"))
    history.change(cmd.Release(reason="over"))
    history.at(5)
    with history.store.read() as reader:
        stored = reader.workspace("ws")
        assert stored is not None
        waiting = workspace_view(reader, stored)
    history.queued()
    cycle = history.start()
    with history.store.read() as reader:
        stored = reader.workspace("ws")
        assert stored is not None
        running = workspace_view(reader, stored)

    assert (waiting["id"], waiting["state"], waiting["fleet"]) == ("ws", "window_open", "blue")
    assert waiting["due_at"] == "2026-11-23T14:02:06.000000Z"
    assert waiting["due_at_latest"] == "2026-11-23T14:03:01.000000Z"
    assert waiting["policy"] == {"quiet": "5s"}
    assert (waiting["policy_in_force"]["quiet"], waiting["policy_in_force"]["max_wait"]) == ("5s", "1m")
    assert (running["state"], running["due_at"]) == ("running", None)
    assert running["running_cycle"]["id"] == cycle
    assert running["running_cycle"]["lease_until"] == "2026-11-23T14:02:36.000000Z"
    assert running["last_cycle"] == {"id": cycle, "started_at": "2026-11-23T14:02:06.000000Z", "ended_at": None}
    json.dumps(running)
