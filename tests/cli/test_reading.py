"""The commands that read: each with ``--json`` too, on real data, and with one line for every error."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer.main

from orchestrator.cli import app
from orchestrator.storage.migrate import downgrade
from tests.cli.conftest import Recorded, Run

RUN_FOR_EVER = {"up", "api", "worker", "beat", "migrate"}
STREAMED = {"tail", "audit export"}
"""Their JSON is a line for each event."""
SEALED = {"audit checkpoint", "audit evidence"}
"""They need a log that is sealed: see ``test_sealing``."""
KEYS = {f"keys {name}" for name in ("create", "list", "revoke", "rotate")}
"""They change the database: see ``test_keys``."""


def commands(group: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command by its words, however deep."""
    root: Any = typer.main.get_command(app) if group is None else group
    for word, command in root.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name}{word} ")
        else:
            yield f"{name}{word}", command


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


COMMANDS = dict(commands())
_FROM_DATABASE = {name for name, command in COMMANDS.items() if "--database-url" in options_of(command)}
READING = sorted(_FROM_DATABASE - SEALED - KEYS - {"policy test"})


def test_walk_finds_what_the_contract_names() -> None:
    rows = {"workspaces", "restarts", "why", "tail", "policy show", "replay"}
    audit = {"export", "failures", "hot-files", "storms", "summary", "verify"}
    assert set(READING) == rows | {f"audit {name}" for name in audit}
    assert {*READING, *SEALED, *KEYS, "policy test"} == _FROM_DATABASE


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - RUN_FOR_EVER))
def test_every_command_takes_json(name: str) -> None:
    assert "--json" in options_of(COMMANDS[name])


@pytest.mark.parametrize("name", READING)
def test_every_reading_command_prints_json_and_text(name: str, run: Run, recorded: Recorded) -> None:
    arguments = [*name.split(), *([recorded.restart] if name == "why" else []), "--database-url", recorded.url]
    as_json, as_text = run(*arguments, "--json"), run(*arguments)

    assert (as_json.code, as_json.err) == (0, "")
    assert as_json.out.count("\n") >= 1
    for line in as_json.out.splitlines() if name in STREAMED else [as_json.out]:
        assert isinstance(json.loads(line), dict)
    assert (as_text.code, as_text.err) == (0, "")
    assert as_text.out.strip()
    assert "\x1b" not in as_text.out


def read(run: Run, recorded: Recorded, *arguments: str) -> Any:
    ran = run(*arguments, "--json", "--database-url", recorded.url)
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def test_workspaces_filters(run: Run, recorded: Recorded) -> None:
    def ids(*arguments: str) -> list[str]:
        return [item["id"] for item in read(run, recorded, "workspaces", *arguments)["items"]]

    assert ids() == ["held", "ws"]
    assert ids("--state", "held") == ["held"]
    assert ids("--fleet", "blue") == ["ws"]
    assert ids("--label", "tier=web") == ["held", "ws"]
    assert ids("--label", "tier=db") == []


def test_restarts_filters(run: Run, recorded: Recorded) -> None:
    def ids(*arguments: str) -> list[str]:
        return [item["id"] for item in read(run, recorded, "restarts", *arguments)["items"]]

    assert ids() == [recorded.restart]
    assert ids("--workspace", "held") == []
    assert ids("--path", "src/a.py") == [recorded.restart]
    assert ids("--path", "src/nope.py") == []
    assert ids("--cause", "quiet", "--state", "succeeded") == [recorded.restart]
    assert ids("--since", "2026-11-23T14:02:06Z") == [recorded.restart]
    assert ids("--until", "2026-11-23T14:02:06Z") == []
    assert ids("--since", "2026-11-23T15:02:07+01:00") == []


def test_why_of_a_restart_begins_with_its_sentence(run: Run, recorded: Recorded) -> None:
    ran = run("why", recorded.restart, "--database-url", recorded.url)

    assert ran.out.splitlines()[0] == (
        "Restarted because 3 writes to 3 files by 1 actor at 14:02:01; the window closed by quiet after 5 s."
    )
    assert "src/[b].py" in ran.out
    assert "\\x1b[31m" in ran.out


def test_why_of_a_write(run: Run, recorded: Recorded) -> None:
    covered = read(run, recorded, "why", recorded.covered)
    assert (covered["status"], covered["restart"], covered["waited_ms"]) == ("covered", recorded.restart, 7_000)
    assert read(run, recorded, "why", recorded.pending)["due_at"] == "2026-11-23T14:03:09.000000Z"

    ran = run("why", recorded.covered, "--database-url", recorded.url)
    assert ran.out.startswith(f"Covered by {recorded.restart} (cycle ")
    assert f"{recorded.restart}: Restarted because 3 writes" in ran.out


def test_tail_chooses_its_events(run: Run, recorded: Recorded) -> None:
    def types(*arguments: str) -> list[str]:
        ran = run("tail", *arguments, "--json", "--database-url", recorded.url)
        assert ran.code == 0
        return [json.loads(line)["type"] for line in ran.out.splitlines()]

    assert types("-n", "2") == ["CycleSucceeded", "FileWritten"]
    assert types("--workspace", "held") == ["WorkspaceRegistered", "WorkspaceHeld"]
    assert types("--type", "CycleStarted", "--type", "RestartQueued") == ["RestartQueued", "CycleStarted"]
    assert len(types("--after", "0")) == 11
    assert types("--after", "999") == []
    assert types("-n", "0") == []


def test_policy_show_names_the_layers(run: Run, recorded: Recorded) -> None:
    own = read(run, recorded, "policy", "show", "--workspace", "ws")
    assert (own["scope"], own["policy"]) == ("workspace:ws", {"quiet": "5s"})
    assert (own["in_force"]["quiet"], own["from"]["quiet"], own["from"]["settle"]) == ("5s", "workspace", "settings")
    assert read(run, recorded, "policy", "show", "--fleet", "red")["policy"] == {}
    assert read(run, recorded, "policy", "show")["in_force"]["quiet"] == "15s"


def test_export_to_a_file_equals_the_one_to_stdout(run: Run, recorded: Recorded, tmp_path: Path) -> None:
    file = tmp_path / "log.ndjson"
    summary = read(run, recorded, "audit", "export", "--output", str(file))
    stdout = run("audit", "export", "--database-url", recorded.url)

    assert summary == {"events": 11, "file": str(file)}
    assert file.read_text() == stdout.out
    assert [json.loads(line)["position"] for line in stdout.out.splitlines()] == list(range(1, 12))
    after = run("audit", "export", "--after", "9", "--workspace", "ws", "--database-url", recorded.url)
    assert len(after.out.splitlines()) == 2


def test_policy_check(run: Run, tmp_path: Path) -> None:
    good, bad, broken = tmp_path / "good.toml", tmp_path / "bad.json", tmp_path / "broken.toml"
    good.write_text('quiet = 2\nmax_count = 5\n[[rules]]\nmatch = "docs/**"\naction = "record"\n')
    bad.write_text('{"quiet": "-2s"}')
    broken.write_bytes(b"quiet = \xff")

    assert run("policy", "check", str(good)).out == (
        'quiet = "2s"\nmax_count = 5\nrules = [{match = ["docs/**"], action = "record"}]\n'
    )
    assert json.loads(run("policy", "check", str(good), "--json").out)["quiet"] == "2s"
    for file, words in ((bad, "policy.quiet"), (broken, "is no TOML")):
        ran = run("policy", "check", str(file))
        assert (ran.code, ran.out) == (1, "")
        assert words in one_error(ran.err)
    assert run("policy", "check", str(tmp_path / "none.toml")).code == 2


def one_error(printed: str) -> str:
    assert printed.startswith("orchestrator: error: ")
    assert printed.endswith("\n")
    assert printed.count("\n") == 1
    return printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["why", "rst_nope"], "'rst_nope' does not exist"),
        (["why", "evt_nope"], "'evt_nope' does not exist"),
        (["why", "ws"], "neither a restart"),
        (["tail", "--after", "x"], "--after': Input should be a valid integer"),
        (["tail", "--after", "-1"], "greater than or equal to 0"),
        (["tail", "--type", "Nope"], "there is no event type 'Nope'"),
        (["restarts", "--since", "yesterday"], "'yesterday' is no instant"),
        (["restarts", "--since", "2026-11-23T12:00:00"], "is no instant"),
        (["restarts", "--limit", "0"], "greater than or equal to 1"),
        (["workspaces", "--state", "asleep"], "'asleep' is not one of"),
        (["workspaces", "--label", "tier"], "'tier' is not KEY=VALUE"),
        (["policy", "show", "--workspace", "nope"], "'nope' is not registered"),
        (["policy", "show", "--workspace", "ws", "--fleet", "blue"], "not both"),
        (["audit", "export", "--output", "/nowhere/x"], "cannot write /nowhere/x"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(arguments: list[str], words: str, run: Run, recorded: Recorded) -> None:
    ran = run(*arguments, "--database-url", recorded.url)

    assert (ran.code, ran.out) == (2, "")
    assert words in one_error(ran.err)


def test_databases_that_cannot_be_read(run: Run, tmp_path: Path, sqlite_url: str) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"this is no database" * 500)
    downgrade(sqlite_url)
    for url, words in (
        (f"sqlite:///{tmp_path}/none.db", "there is no database"),
        (f"sqlite:///{garbage}", "not a database"),
        (sqlite_url, "orchestrator migrate"),
        ("postgresql://127.0.0.1:1/none", "does not serve"),
        ("mysql://127.0.0.1/none", "not supported"),
        ("nonsense", "cannot be read"),
    ):
        ran = run("workspaces", "--database-url", url)
        assert (ran.code, ran.out) == (2, ""), url
        assert words in one_error(ran.err)
    assert not (tmp_path / "none.db").exists()


def test_data_folder_is_read_when_no_database_is_named(
    run: Run, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("workspaces", "--data", str(recorded.data)).code == 0
    monkeypatch.setenv("ORCHESTRATOR_DATA", str(recorded.data))
    assert run("workspaces").code == 0
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", f"sqlite:///{recorded.data}/none.db")
    assert "none.db" in run("workspaces", "--data", str(recorded.data)).err


@pytest.mark.parametrize("arguments", [[], ["policy"], ["audit"]])
def test_no_command_prints_the_help_and_is_wrong_use(arguments: list[str], run: Run) -> None:
    ran = run(*arguments)

    assert ran.code == 2
    assert "Usage:" in ran.err


@pytest.mark.parametrize("arguments", [["nope"], ["why"], ["why", "rst_1", "--nope"], ["policy", "nope"]])
def test_usage_errors_are_one_line(arguments: list[str], run: Run) -> None:
    ran = run(*arguments)

    assert (ran.code, ran.out) == (2, "")
    assert "--help" in one_error(ran.err)


def test_version_and_help(run: Run) -> None:
    assert run("--version").out.startswith("restart-orchestrator ")
    assert "Commands:" in run("--help").out


def test_replay_of_an_edited_table_exits_with_1(run: Run, recorded: Recorded, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with (
        closing(sqlite3.connect(recorded.data / "orchestrator.db")) as source,
        closing(sqlite3.connect(copy)) as edited,
    ):
        source.backup(edited)
        edited.execute("UPDATE restarts SET writes = 99")
        edited.commit()
    ran = run("replay", "--database-url", f"sqlite:///{copy}")
    assert ran.code == 1
    assert "1 stored row differs" in ran.out
    assert recorded.restart in ran.out


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("workspacs",), "Did you mean 'workspaces'?"),
        (("audit", "verfy"), "Did you mean 'verify'?"),
        (("workspaces", "--jsn"), "--json"),
        (("restarts", "--state", "runing"), "Did you mean 'running'?"),
        (("write", "ws", "x", "--op", "Modifed"), "Did you mean 'modified'?"),
        (("tail", "--type", "FileWriten"), "Did you mean 'FileWritten'?"),
        (("up", "--quite", "2s"), "--quiet"),
    ],
)
def test_a_mistyped_word_is_one_line_with_the_nearest_one(arguments: tuple[str, ...], meant: str, run: Run) -> None:
    ran = run(*arguments)

    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert meant in ran.err
    assert "Value error" not in ran.err
