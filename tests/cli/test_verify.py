"""``audit verify`` as it is called: what it prints, and its exit codes 0, 1 and 2."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from tests.audit.sealed import KEY, Sealed
from tests.audit.verify.logs import Log, make_good_database, make_good_log
from tests.cli.conftest import Ran, Run


@dataclass(frozen=True)
class Files:
    """A good log as a database and as an export, its key, a checkpoint and a bundle."""

    folder: Path
    url: str
    export: str
    key: str
    note: str
    bundle: str

    def write(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, migrate_database: Callable[[str], None]) -> Path:
    """A folder with all of it, to be copied."""
    folder = tmp_path_factory.mktemp("verify")
    make_good_database(folder / "log.db", migrate_database)
    lines = make_good_log()
    sealed = Sealed(lines.decode().splitlines())
    restart = json.loads(sealed.lines[5])["data"]["restart"]
    (folder / "export.ndjson").write_bytes(lines)
    (folder / "log.pub").write_text(KEY.public.line() + "\n")
    (folder / "checkpoint").write_text(sealed.note(90))
    (folder / "bundle.json").write_text(sealed.bundle(restart))
    return folder


@pytest.fixture
def files(tmp_path: Path, template: Path) -> Files:
    folder = tmp_path / "files"
    shutil.copytree(template, folder)
    made = ("export.ndjson", "log.pub", "checkpoint", "bundle.json")
    return Files(folder, f"sqlite:///{folder / 'log.db'}", *(str(folder / name) for name in made))


def verdicts(ran: Ran) -> dict[str, str]:
    report: dict[str, Any] = json.loads(ran.out)
    return {verdict["promise"]: verdict["verdict"] for verdict in report["promises"]}


def test_a_good_export(run: Run, files: Files) -> None:
    ran = run("audit", "verify", files.export, "--tick", "1s", "--checkpoint", files.note, "--pubkey", files.key)

    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == f"{files.export}: 99 events of 12 workspaces, positions 1 to 99"
    assert [line.split()[0] for line in lines[1:17]] == [
        *("PROMISE", "log", "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "L1", "L2", "L3", "L4")
    ]
    assert "not checked" in lines[12]
    assert all(" good " in line for number, line in enumerate(lines[2:17], 2) if number != 12)
    assert lines[-1] == "writes: 19 accepted = 14 covered + 3 waived + 1 recorded + 1 pending"


def test_a_broken_export_names_the_promise_and_the_positions(run: Run, files: Files) -> None:
    log = Log(Path(files.export).read_bytes())
    log.data("orphan", "CycleSucceeded")["fence"] = 1
    ran = run("audit", "verify", files.write("broken", log.encode()))

    assert ran.code == 1
    assert "S3       VIOLATED 1" in ran.out
    assert "\nS3 orphan at 85, 86: cycle cyc_" in ran.out


def test_json_has_all_of_it(run: Run, files: Files) -> None:
    log = Log(Path(files.export).read_bytes())
    log.data("last", "CycleSucceeded")["writes"] = 5
    report = json.loads(run("audit", "verify", files.write("broken", log.encode()), "--json").out)

    assert report["good"] is False
    assert report["sums"]["imbalance"] == -4
    [violation] = report["violations"]
    assert (violation["promise"], violation["positions"], violation["workspace"]) == ("S2", [98], "last")
    assert report["violations_left_out"] == 0


def test_a_database_is_replayed_too(run: Run, files: Files) -> None:
    good = run("audit", "verify", "--database-url", files.url, "--json")
    assert good.code == 0
    assert verdicts(good)["S10"] == "good"
    assert run("audit", "verify", files.url).code == 0

    with closing(sqlite3.connect(files.url.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE workspaces SET fence = 9, state = replace(state, '\"fence\":2', '\"fence\":9')")
        connection.commit()
    changed = run("audit", "verify", files.url, "--json")
    assert changed.code == 1
    found = json.loads(changed.out)["violations"]
    assert {violation["promise"] for violation in found} == {"S10"}
    assert ["plain" in violation["text"] for violation in found].count(True) == 1


def test_a_database_whose_password_is_a_setting_is_replayed_too(
    run: Run, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(postgres_url)
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", url.set(password=None).render_as_string())
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_PASSWORD", url.password or "asked-by-nobody: the server trusts")
    ran = run("audit", "verify", "--json")

    assert verdicts(ran)["S10"] == "good"


def test_a_log_that_the_engine_cannot_fold_is_s10_too(run: Run, files: Files) -> None:
    with closing(sqlite3.connect(files.url.removeprefix("sqlite:///"))) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute("DELETE FROM events WHERE position = 6")
        connection.commit()
    ran = run("audit", "verify", files.url, "--json")

    assert ran.code == 1
    assert verdicts(ran)["S10"] == "violated"
    assert verdicts(ran)["S9"] == "violated"


@pytest.mark.parametrize("change", [b"", b"x"])
def test_a_checkpoint_that_does_not_fit_or_cannot_be_believed(run: Run, files: Files, change: bytes) -> None:
    log = Log(Path(files.export).read_bytes())
    log.data("plain", "FileWritten")["path"] = "other"
    note = Path(files.note).read_bytes().replace(b"90\n", b"90\n" if not change else b"91\n", 1)
    ran = run(
        *("audit", "verify", files.write("broken", log.encode()), "--json"),
        *("--checkpoint", files.write("note", note), "--pubkey", files.key),
    )

    assert ran.code == 1
    assert verdicts(ran)["S8"] == "violated"


def test_a_wrong_key_is_said_so(run: Run, files: Files) -> None:
    other = files.write("other.pub", KEY.public.line().replace("log.example.com", "log.example.org").encode())
    ran = run("audit", "verify", files.export, "--checkpoint", files.note, "--pubkey", other)

    assert ran.code in (1, 2)
    assert "key" in ran.out + ran.err


def test_a_bundle_of_evidence(run: Run, files: Files) -> None:
    good = run("audit", "verify", files.bundle, "--pubkey", files.key)
    assert (good.code, good.err) == (0, "")
    assert "good: nothing in it was changed" in good.out

    changed = Path(files.bundle).read_bytes().replace(b'\\"path\\":\\"a\\"', b'\\"path\\":\\"z\\"', 1)
    bad = run("audit", "verify", files.write("changed.json", changed), "--pubkey", files.key, "--json")
    assert bad.code == 1
    assert json.loads(bad.out)["findings"][0]["fault"] == "not_included"
    assert run("audit", "verify", files.bundle).code == 2


def test_going_on_from_a_saved_state(run: Run, files: Files) -> None:
    state = str(files.folder / "state")
    each = Path(files.export).read_bytes().splitlines(keepends=True)
    first = run("audit", "verify", files.write("part", b"".join(each[:70])), "--save", state)
    assert first.code == 0

    second = run("audit", "verify", files.export, "--from", state, "--save", state, "--json")
    assert second.code == 0
    assert json.loads(second.out)["sums"]["events"] == 99
    from_database = run("audit", "verify", files.url, "--from", state, "--json")
    assert from_database.code == 0
    assert verdicts(from_database)["S10"] == "not checked"
    other = run("audit", "verify", files.write("other", b"".join(each[:20])), "--from", state)
    assert other.code == 1
    assert "not the log that the saved state is of" in other.out


def test_a_log_that_cannot_be_read_to_its_end_saves_nothing(run: Run, files: Files) -> None:
    state = files.folder / "state"
    ran = run("audit", "verify", files.write("cut", Path(files.export).read_bytes()[:-9]), "--save", str(state))

    assert ran.code == 1
    assert not state.exists()
    assert "was not written" in ran.err


def test_stdin_is_read(files: Files) -> None:
    command = [sys.executable, "-m", "orchestrator", "audit", "verify", "-"]
    with Path(files.export).open("rb") as export:
        ran = subprocess.run(command, stdin=export, capture_output=True, text=True, check=False, timeout=60)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("stdin: 99 events of 12 workspaces")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/nowhere/export"], "/nowhere/export cannot be read: No such file"),
        (["/"], "cannot be read: Is a directory"),
        (["sqlite:////nowhere/x.db"], "there is no database /nowhere/x.db"),
        (["mysql://x/y"], "only sqlite:/// and postgresql://"),
        (["{export}", "--pubkey", "/nowhere/key"], "--pubkey: /nowhere/key cannot be read"),
        (["{export}", "--pubkey", "{export}"], "--pubkey"),
        (["{export}", "--checkpoint", "{note}"], "believed only with a key"),
        (["{export}", "--checkpoint", "/nowhere/note", "--pubkey", "{key}"], "/nowhere/note cannot be read"),
        (["{export}", "--from", "/nowhere/state"], "--from: /nowhere/state cannot be read"),
        (["{export}", "--from", "{export}"], "no saved verification"),
        (["{export}", "--save", "/nowhere/state"], "--save: cannot write /nowhere/state"),
        (["{export}", "--tick", "often"], "--tick: 'often' is not a duration"),
    ],
)
def test_used_wrongly_is_one_line_and_exit_code_2(run: Run, files: Files, arguments: list[str], said: str) -> None:
    given = [argument.format(export=files.export, note=files.note, key=files.key) for argument in arguments]
    ran = run("audit", "verify", *given)

    assert ran.code == 2
    assert said in ran.err
    assert ran.err.count("\n") == 1
