"""The commands on another version's log, and on damaged rows: what cannot be read is one line, never a stack trace."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.audit.verify import log_pass
from orchestrator.domain import access_events
from orchestrator.domain.event_types import EVENT_TYPES
from tests.cli.conftest import Recorded, Run
from tests.cli.test_reading import one_error

OLD_LOG = Path(__file__).parents[1] / "audit" / "old_logs" / "cb48bf8.ndjson"


def copied(recorded: Recorded, folder: Path, *statements: str) -> str:
    """Return the URL of a copy of the database, after these statements."""
    copy = folder / "copy.db"
    with (
        closing(sqlite3.connect(recorded.data / "orchestrator.db")) as source,
        closing(sqlite3.connect(copy)) as edited,
    ):
        source.backup(edited)
        for words in statements:
            edited.execute(words)
        edited.commit()
    return f"sqlite:///{copy}"


@pytest.fixture
def newer(recorded: Recorded, tmp_path: Path) -> str:
    """The database, with one more event at its end, of a type that this version does not know."""
    columns = "id, workspace, type, schema, data, actor, recorded_at"
    values = "SELECT 'evt_newer', 'ws', 'FileMoved', 7, '{\"from\":1.5}', 'me', max(recorded_at) FROM events"
    return copied(recorded, tmp_path, f"INSERT INTO events ({columns}) {values}")


def test_an_unknown_event_is_named_where_it_must_be_read(run: Run, newer: str) -> None:
    for arguments in (["tail"], ["why", "evt_newer"]):
        ran = run(*arguments, "--database-url", newer)
        assert ran.code == 2
        assert "event evt_newer at position" in one_error(ran.err)
        assert "'FileMoved' is not one that this version knows" in one_error(ran.err)


def test_an_unknown_event_is_exported_as_it_is_stored(run: Run, newer: str) -> None:
    ran = run("audit", "export", "--database-url", newer)
    assert ran.code == 0
    last = json.loads(ran.out.splitlines()[-1])
    assert (last["type"], last["schema"], last["data"]) == ("FileMoved", 7, {"from": 1.5})


def test_replay_ends_at_an_unknown_event_with_one_finding(run: Run, newer: str) -> None:
    ran = run("replay", "--database-url", newer)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.count("\n") == 1
    assert "the event evt_newer at position" in ran.out
    assert "the rows not compared" in ran.out
    report = json.loads(run("replay", "--database-url", newer, "--json").out)
    assert [found["table"] for found in report["differences"]] == ["events"]
    assert report["broken"] in ran.out


def test_why_and_the_lists_go_on(run: Run, newer: str, recorded: Recorded) -> None:
    for arguments in (["workspaces"], ["restarts"], ["why", recorded.covered], ["why", recorded.pending]):
        assert run(*arguments, "--database-url", newer).code == 0


def test_a_log_of_schema_1_keeps_the_promises(run: Run) -> None:
    ran = run("audit", "verify", str(OLD_LOG), "--json")
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        ("workspaces SET folded_state = '{'", ["workspaces"], "of workspaces cannot be read by this version"),
        ("workspaces SET due_at = 'soon'", ["workspaces"], "holds 'soon' where an instant belongs"),
        ("restarts SET cause = 'whim'", ["restarts"], "of restarts cannot be read by this version"),
        ("policies SET policy = '[]'", ["policy", "show"], "'settings' of policies cannot be read by this version"),
    ],
)
def test_a_damaged_row_is_one_line(
    change: str, arguments: list[str], words: str, run: Run, recorded: Recorded, tmp_path: Path
) -> None:
    ran = run(*arguments, "--database-url", copied(recorded, tmp_path, f"UPDATE {change}"))
    assert (ran.code, ran.out) == (2, "")
    assert words in one_error(ran.err)


@pytest.fixture
def of_nobody(recorded: Recorded, tmp_path: Path) -> str:
    """The database, with one more event at its end: of no workspace, and of a type that this version does not know."""
    columns = "id, type, schema, data, actor, recorded_at"
    values = "SELECT 'evt_newer', 'MoonRisen', 7, '{\"key\":\"k1\",\"share\":1.5}', 'me', max(recorded_at) FROM events"
    return copied(recorded, tmp_path, f"INSERT INTO events ({columns}) {values}")


def test_an_unknown_event_of_no_workspace_is_shown_as_it_is_stored(run: Run, of_nobody: str) -> None:
    last = run("tail", "--database-url", of_nobody).out.splitlines()[-1]
    assert "-  MoonRisen  key=k1 share=1.5  (me)" in last
    told = json.loads(run("tail", "--json", "--database-url", of_nobody).out.splitlines()[-1])
    exported = json.loads(run("audit", "export", "--database-url", of_nobody).out.splitlines()[-1])
    assert told == exported
    assert (told["type"], told["schema"], told["data"]) == ("MoonRisen", 7, {"key": "k1", "share": 1.5})


def test_every_reading_command_passes_over_an_unknown_event_of_no_workspace(
    run: Run, of_nobody: str, recorded: Recorded, tmp_path: Path
) -> None:
    log = tmp_path / "log.ndjson"
    for arguments in (
        ["workspaces"],
        ["restarts"],
        ["why", recorded.restart],
        ["why", recorded.pending],
        ["audit", "summary"],
        ["audit", "hot-files"],
    ):
        ran = run(*arguments, "--database-url", of_nobody)
        assert (ran.code, ran.err) == (0, ""), arguments
    assert run("audit", "export", "-o", str(log), "--database-url", of_nobody).code == 0
    said = [run("replay", "--json", "--database-url", url) for url in (recorded.url, of_nobody)]
    assert said[0].code == said[1].code
    assert json.loads(said[0].out)["differences"] == json.loads(said[1].out)["differences"]
    ran = run("audit", "verify", str(log))
    assert ran.code == 0
    assert "passed over, of types that a newer version added: 1 MoonRisen\n" in ran.out
    assert json.loads(run("audit", "verify", str(log), "--json").out)["passed_over"] == {"MoonRisen": 1}


def test_what_is_recorded_of_callers_is_not_of_a_newer_version(
    run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = {name for name, kind in EVENT_TYPES.items() if kind.__module__ == access_events.__name__}
    assert {"KeyCreated", "DataExported"} < types == log_pass._OF_CALLERS
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", sqlite_url)
    assert run("keys", "create", "--name", "ci", "--role", "writer").code == 0
    verified = run("audit", "verify", "--json")
    assert (verified.code, json.loads(verified.out)["passed_over"]) == (0, {})
