"""What reads shows no secret, also where an earlier version has stored one."""

from __future__ import annotations

from orchestrator.domain.policy import PolicyPatch
from orchestrator.domain.state import Registration
from orchestrator.service.append import Author
from orchestrator.service.operate import Operator
from orchestrator.storage.opening import open_store
from orchestrator.time_ordered_ids import TimeOrderedIds
from tests.cli.conftest import Run

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
