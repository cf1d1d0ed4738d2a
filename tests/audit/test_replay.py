"""Promise S10, and that a broken one is found: each table edited by hand behind the log's back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain.policy import PolicyPatch
from orchestrator.history.replay import replay
from orchestrator.service.change_policy import change_policy
from orchestrator.storage.opening import open_store
from tests.history import AuditedHistory, TestClock


@pytest.fixture
def lived(sqlite_url: str) -> Iterator[AuditedHistory]:
    """A covered burst, a pending write, a removed workspace, a changed policy."""
    clock = TestClock()
    store = open_store(sqlite_url, clock)
    history = AuditedHistory(store, clock)
    history.register("ws")
    history.register("gone")
    history.write("a", "b")
    history.write("x", workspace="gone")
    history.change(cmd.Remove(reason="over"), "gone")
    history.at(15)
    history.queued()
    history.start()
    history.at(16)
    history.succeed()
    change_policy(store, history.ids, scope="fleet:blue", patch=PolicyPatch(quiet_ms=1), actor="me")
    history.write("late")
    yield history
    store.close()


def test_the_log_folds_into_what_is_stored(lived: AuditedHistory) -> None:
    seen: list[tuple[int, int]] = []
    report = replay(lived.store, lambda position, last: seen.append((position, last)))
    assert report.differences == ()
    assert (report.workspaces, report.restarts, report.policies) == (2, 1, 2)
    assert seen[-1] == (report.events, report.events)


def test_a_snapshot_that_an_older_worker_did_not_keep_is_no_difference(lived: AuditedHistory, sqlite_url: str) -> None:
    """While an upgrade rolls, the version before that table settles restarts too. Found by ``./dev chaos``."""
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as database:
        assert database.execute("DELETE FROM workspace_snapshots WHERE workspace = 'gone'").rowcount == 1
        database.commit()
    assert replay(lived.store).differences == ()


@pytest.mark.parametrize(
    ("edit", "table", "name"),
    [
        (
            "UPDATE workspaces SET folded_state = replace(folded_state, '\"fence\":1', '\"fence\":2') WHERE id = 'ws'",
            "workspaces",
            "ws",
        ),
        ("UPDATE workspaces SET due_at = NULL WHERE id = 'ws'", "workspaces", "ws"),
        ("DELETE FROM workspaces WHERE id = 'gone'", "workspaces", "gone"),
        ("UPDATE restarts SET writes = 1", "restarts", "rst_"),
        ("DELETE FROM restarts", "restarts", "rst_"),
        ("UPDATE policies SET version = 9 WHERE scope = 'fleet:blue'", "policies", "fleet:blue"),
        (
            "UPDATE workspace_snapshots SET state = replace(state, 'fence\":1', 'fence\":2') WHERE workspace = 'ws'",
            "workspace_snapshots",
            "ws at ",
        ),
        ("INSERT INTO policies SELECT 'fleet:red', policy, 7, NULL FROM policies LIMIT 1", "policies", "fleet:red"),
    ],
)
def test_an_edited_row_is_found(lived: AuditedHistory, sqlite_url: str, edit: str, table: str, name: str) -> None:
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as database:
        assert database.execute(edit).rowcount == 1
        database.commit()
    [found] = replay(lived.store).differences
    assert found.table == table
    assert found.id.startswith(name)
    assert found.stored != found.replayed


@pytest.mark.parametrize("page", [1, 2, 3, 1_000])
def test_workspaces_are_compared_page_by_page(
    history: AuditedHistory, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    added, lost = ["w0", "w2b", "w2c", "w8", "w9"], ["w1", "w3", "w4", "w7"]
    for number in range(1, 8):
        history.register(f"w{number}")
    monkeypatch.setattr("orchestrator.history.replay._PAGE", page)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as database:
        assert replay(history.store).differences == ()
        columns = [name for _, name, *_ in database.execute("PRAGMA table_info(workspaces)") if name != "id"]
        kept = ", ".join(columns)
        for name in added:
            database.execute(f"INSERT INTO workspaces (id, {kept}) SELECT ?, {kept} FROM workspaces LIMIT 1", [name])
        database.executemany("DELETE FROM workspaces WHERE id = ?", [[name] for name in lost])
        database.commit()
        found = [(one.id, one.stored is None, one.replayed is None) for one in replay(history.store).differences]
        assert found == sorted([(name, True, False) for name in lost] + [(name, False, True) for name in added])
        database.execute("DELETE FROM workspaces")
        database.commit()
    assert [one.id for one in replay(history.store).differences] == [f"w{number}" for number in range(1, 8)]
