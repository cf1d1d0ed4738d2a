"""What reads shows no secret, also where an earlier version has stored one; what is written is closed to others."""

from __future__ import annotations

from pathlib import Path

from orchestrator.domain.policy import PolicyPatch
from orchestrator.domain.state import Registration
from orchestrator.service.append import Author
from orchestrator.service.operate import Operator
from orchestrator.storage.opening import open_store
from orchestrator.time_ordered_ids import TimeOrderedIds
from tests.cli.conftest import Recorded, Run

SECRET = "s3cr3t-of-the-test"


def test_an_old_plain_secret_is_masked(run: Run, sqlite_url: str) -> None:
    target = {"argv": ["true"], "env": {"API_TOKEN": SECRET, "PLAIN": "seen"}}
    registration = Registration(fleet="default", labels={}, executor="command", target=target, policy=PolicyPatch())
    store = open_store(sqlite_url)
    Operator(store, TimeOrderedIds()).register("old", registration, Author(actor="local:ann"))
    store.close()
    for command in (["workspaces", "old", "--json"], ["workspaces", "old", "--at", "0s", "--json"], ["tail", "--json"]):
        ran = run(*command, "--database-url", sqlite_url)
        assert (ran.code, "seen" in ran.out, SECRET in ran.out + ran.err) == (0, True, False), command
    for command in (["workspaces", "old"], ["tail"]):
        ran = run(*command, "--database-url", sqlite_url)
        assert (ran.code, SECRET in ran.out + ran.err) == (0, False)


def test_what_is_written_is_closed_to_others(run: Run, recorded: Recorded, tmp_path: Path) -> None:
    export, state = tmp_path / "log.ndjson", tmp_path / "state"
    export.write_text("of an earlier run")
    export.chmod(0o644)
    assert run("audit", "export", "--database-url", recorded.url, "-o", str(export)).code == 0
    assert run("audit", "verify", str(export), "--save", str(state)).code == 0
    assert [file.stat().st_mode & 0o777 for file in (export, state)] == [0o600, 0o600]
