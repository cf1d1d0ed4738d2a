"""``orchestrator migrate`` and its roles."""

from __future__ import annotations

import pytest

from orchestrator.storage.opening import open_store
from tests.cli.conftest import Run
from tests.servers.postgres import APP, APP_ROLE, READER, READER_ROLE, PostgresServer, as_login


@pytest.mark.parametrize("told", ["options", "settings"])
def test_roles_are_granted_to(
    told: str, run: Run, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = postgres_server.create_database()
    url = postgres_server.url(name)
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", url)
    roles = {"--app-role": APP_ROLE, "--reader-role": READER_ROLE}
    if told == "settings":
        monkeypatch.setenv("ORCHESTRATOR_APP_ROLE", APP_ROLE)
        monkeypatch.setenv("ORCHESTRATOR_READER_ROLE", READER_ROLE)
    ran = run("migrate", *(word for pair in roles.items() for word in pair if told == "options"))
    assert (ran.code, ran.out) == (0, "Migrated; policy floor at version 1\n")
    assert run("replay", "--database-url", as_login(url, READER)).code == 0
    store = open_store(as_login(url, APP))
    store.ticked()
    store.close()
    postgres_server.drop_database(name)


def test_migrating_without_being_the_owner_is_one_line(run: Run, app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", app_url)
    ran = run("migrate", "--app-role", APP_ROLE)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert "cannot migrate: this login may not do that: " in ran.err


def test_roles_on_sqlite_are_one_line(run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("ORCHESTRATOR_READER_ROLE", READER_ROLE)
    ran = run("migrate")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert "--reader-role (ORCHESTRATOR_READER_ROLE): SQLite has no roles" in ran.err
