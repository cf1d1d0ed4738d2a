"""docs/operations.md, "Backup and restore", step by step: dump, loss, restore, what the seals say, a lawful go-on."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import StorageUnavailable
from orchestrator.service.record import AutoRegistration, Write, record_writes
from orchestrator.storage.opening import open_store
from orchestrator.time_ordered_ids import TimeOrderedIds
from tests.cli.conftest import Run
from tests.servers.postgres import APP, APP_ROLE, READER, READER_ROLE, SUPERUSER, PostgresServer, as_login

NEWEST_FIRST = "*.checkpoint"


@dataclass
class Installation:
    """A database, how it is backed up and restored, and the logins that are for writing and reading it."""

    app: str
    reader: str
    dump: Callable[[], None]
    restore: Callable[[], None]


@pytest.fixture
def on_sqlite(sqlite_url: str, tmp_path: Path) -> Installation:
    file, copy = Path(sqlite_url.removeprefix("sqlite:///")), tmp_path / "copy.db"

    def backed_up(source: Path, target: Path) -> None:
        with closing(sqlite3.connect(source)) as there:
            there.execute("VACUUM INTO ?", (str(target),))

    def restore() -> None:
        for path in file.parent.glob(f"{file.name}*"):
            path.unlink()
        shutil.copyfile(copy, file)

    return Installation(sqlite_url, sqlite_url, lambda: backed_up(file, copy), restore)


@pytest.fixture
def on_postgres(
    postgres_url: str, postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> Installation:
    name, copy = postgres_url.rpartition("/")[2], tmp_path / "copy.dump"

    def program(named: str, *words: str, user: str = SUPERUSER) -> subprocess.CompletedProcess[bytes]:
        connection = ["-h", "127.0.0.1", "-p", str(postgres_server.port), "-U", user]
        return subprocess.run(
            [postgres_server.programs / named, *connection, *words], capture_output=True, check=False, timeout=100
        )

    def dump() -> None:
        refused = program("pg_dump", "-Fc", "-d", name, "-f", str(tmp_path / "refused"), user=READER)
        assert b"permission denied" in refused.stderr
        dumped = program("pg_dump", "-Fc", "-d", name, "-f", str(copy))
        assert dumped.returncode == 0, dumped.stderr

    def restore() -> None:
        postgres_server.drop_database(name)
        with postgres_server.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        restored = program("pg_restore", "--no-privileges", "-d", name, str(copy))
        assert restored.returncode == 0, restored.stderr
        with pytest.raises(StorageUnavailable, match="may not do that"):
            written(as_login(postgres_url, APP), "no grants yet")
        migrate()

    def migrate() -> None:
        monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", postgres_url)
        migrated = run("migrate", "--app-role", APP_ROLE, "--reader-role", READER_ROLE)
        assert migrated.code == 0, migrated.err

    migrate()
    return Installation(as_login(postgres_url, APP), as_login(postgres_url, READER), dump, restore)


def written(url: str, path: str) -> None:
    with closing(open_store(url)) as store:
        auto = AutoRegistration(executor="simulated")
        record_writes(store, [Write(workspace="ws", path=path)], actor="me", ids=TimeOrderedIds(), auto=auto)


@pytest.mark.parametrize("of", ["on_sqlite", "on_postgres"])
def test_a_lawful_restore_as_operations_says(
    request: pytest.FixtureRequest, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    here: Installation = request.getfixturevalue(of)
    key, old, new = tmp_path / "seal.key", tmp_path / "old", tmp_path / "new"
    monkeypatch.setenv("ORCHESTRATOR_SEAL_KEY", str(key))
    monkeypatch.setenv("ORCHESTRATOR_CHECKPOINT_DIR", str(old))
    assert run("audit", "keys", "new", str(key)).code == 0

    def seal() -> Any:
        monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", here.app)
        return run("audit", "checkpoint", "--seal", "--json")

    def verified(note: Path, pubkey: Path) -> tuple[int, str, str]:
        monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", here.reader)
        words = ("audit", "verify", "--checkpoint", str(note), "--pubkey", str(pubkey))
        verdicts = {one["promise"]: one for one in json.loads(run(*words, "--json").out)["promises"]}
        ran = run(*words)
        return ran.code, verdicts["S8"]["verdict"], ran.out

    for number in range(3):
        written(here.app, f"before-{number}")
    assert seal().code == 0
    here.dump()
    for number in range(2):
        written(here.app, f"lost-{number}")
    assert seal().code == 0
    first, newest = sorted(old.glob(NEWEST_FIRST))
    sealed, kept = int(newest.stem), int(first.stem)
    pubkey = tmp_path / "old.pub"
    shutil.copyfile(key.with_suffix(".pub"), pubkey)
    assert verified(newest, pubkey)[:2] == (0, "good")

    here.restore()

    code, verdict, said = verified(newest, pubkey)
    assert (code, verdict) == (1, "violated")
    assert f"{sealed} events are sealed, but the log ends after {kept}: its tail is missing" in said
    assert verified(first, pubkey)[:2] == (0, "good"), "what there was before the dump is proven still"

    written(here.app, "after the restore")
    refused = seal()
    assert refused.code == 1
    assert "the database was cut, restored or altered" in refused.err
    assert sorted(old.glob(NEWEST_FIRST)) == [first, newest], "what the folder holds is not contradicted"

    monkeypatch.setenv("ORCHESTRATOR_CHECKPOINT_DIR", str(new))
    assert seal().code == 0
    begun = max(new.glob(NEWEST_FIRST))
    assert verified(begun, pubkey)[:2] == (0, "good")
    assert verified(newest, pubkey)[:2] == (1, "violated"), "the key has signed two histories"

    assert run("audit", "keys", "rotate", str(key)).code == 0
    written(here.app, "after the rotation")
    assert seal().code == 0
    both = max(new.glob(NEWEST_FIRST))
    rotated = key.with_suffix(".pub")
    assert (verified(both, pubkey)[:2], verified(both, rotated)[:2]) == ((0, "good"), (0, "good"))
    key.write_text("".join(line for line in key.read_text().splitlines(keepends=True)[1:]))
    key.chmod(0o600)
    written(here.app, "with the new key alone")
    assert seal().code == 0
    last = max(new.glob(NEWEST_FIRST))
    assert (verified(last, rotated)[:2], verified(last, pubkey)[:2]) == ((0, "good"), (1, "violated"))


@pytest.mark.parametrize("of", ["on_sqlite", "on_postgres"])
def test_keys_are_again_as_they_were(
    request: pytest.FixtureRequest, run: Run, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    here: Installation = request.getfixturevalue(of)

    def in_force() -> list[str]:
        monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", here.app)
        listed = json.loads(run("keys", "list", "--json").out)["items"]
        return [one["name"] for one in listed if one["revoked_at"] is None]

    in_force()
    assert run("keys", "create", "--name", "before", "--role", "writer").code == 0
    here.dump()
    assert run("keys", "revoke", "before").code == 0
    assert run("keys", "create", "--name", "after", "--role", "writer").code == 0
    assert in_force() == ["after"]
    here.restore()
    assert in_force() == ["before"]
