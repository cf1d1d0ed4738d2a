"""The reading commands against a running server's API: what they print is what they print from its database."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli.commands.act import WRITES_A_REQUEST
from tests.cli.conftest import Run, Server, act, register, running
from tests.servers.process import free_port
from tests.system.fork_server import ForkServer
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, forks: ForkServer) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("told"), forks) as server:
        yield server


def ids_of(run: Run, told: Server) -> tuple[str, str, str]:
    """Make a covered request, a pending write and a held workspace; return a restart and two ids."""
    register(run, told, "ws", "--fleet", "blue", "--label", "tier=web")
    register(run, told, "held", "--policy", 'rules=[{"match": ["*.md"], "action": "record"}]')
    act(run, told, "hold", "held", "--reason", "freeze")
    act(run, told, "policy", "set", "--fleet", "blue", "max_count=7")
    request = act(run, told, "restart", "ws", "--reason", "now")["id"]
    found = wait_until(
        lambda: (fate := act(run, told, "why", request))["status"] == "covered" and fate, what="it is covered"
    )
    name = os.fsdecode(b"caf\xe9.py")
    written = act(run, told, "write", "ws", "a.py", name, "docs/x.md")["results"][0]["id"]
    return found["restart"], request, written


def test_a_server_tells_what_its_database_says(
    run: Run, told: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    restart, request, written = ids_of(run, told)
    moment = act(run, told, "why", written)["recorded_at"]
    commands: list[tuple[str, ...]] = [
        ("workspaces",),
        ("workspaces", "ws"),
        ("workspaces", "ws", "--state", "held"),
        ("workspaces", "--label", "tier=web", "--fleet", "blue"),
        ("workspaces", "--state", "held", "--at", moment),
        ("restarts",),
        ("restarts", "--workspace", "ws", "--since", "1h", "--cause", "manual", "--limit", "1"),
        ("restarts", "--path", os.fsdecode(b"caf\xe9.py")),
        ("why", restart),
        ("why", request),
        ("why", written),
        ("tail",),
        ("tail", "-n", "2"),
        ("tail", "-n", "1000", "--workspace", "ws"),
        ("tail", "--type", "FileWritten", "--type", "RestartQueued", "-n", "2"),
        ("tail", "--after", "3"),
        ("policy", "show"),
        ("policy", "show", "--fleet", "blue"),
        ("policy", "show", "--workspace", "held"),
    ]
    as_json = [(*words, "--json") for words in commands[::2]]
    for words in (*commands, *as_json):
        from_database = run(*words, "--data", str(told.data))
        assert (from_database.code, from_database.err) == (0, ""), words
        assert run(*words, "--url", told.url) == from_database, words
    monkeypatch.setenv("ORCHESTRATOR_URL", told.url)
    monkeypatch.setenv("ORCHESTRATOR_DATA", str(tmp_path))
    assert json.loads(run("workspaces", "ws", "--json").out)["items"][0]["id"] == "ws"
    assert "there is no database" in run("workspaces", "--data", str(tmp_path)).err
    assert "not both" in run("workspaces", "--data", str(tmp_path), "--url", told.url).err


def test_all_pages_are_read(run: Run, told: Server) -> None:
    register(run, told, "many")
    act(run, told, "write", "many", *(f"{number}.py" for number in range(WRITES_A_REQUEST + 200)))

    for words in (("-n", "1100"), ("--after", "0")):
        of_many = ("tail", "--workspace", "many", "--json", *words)
        from_database = run(*of_many, "--data", str(told.data))
        assert from_database.out.count("\n") >= 1100
        assert run(*of_many, "--url", told.url) == from_database


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("workspaces", "nobody"), "'nobody' is not registered; `orchestrator workspaces` lists"),
        (("workspaces", "ws", "--at", "2020-01-01T00:00:00Z"), "did not exist at 2020"),
        (("workspaces", "--at", "2999-01-01T00:00:00Z"), "future"),
        (("why", "rst_nope"), "rst_nope"),
        (("why", "evt_nope"), "evt_nope"),
        (("policy", "show", "--workspace", "nobody"), "nobody"),
    ],
)
def test_bad_questions_are_one_line(run: Run, told: Server, arguments: tuple[str, ...], words: str) -> None:
    ran = run(*arguments, "--url", told.url)

    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert words in ran.err


def test_no_server_to_read_from(run: Run) -> None:
    ran = run("workspaces", "--url", f"http://127.0.0.1:{free_port()}")

    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "no server answers" in ran.err
