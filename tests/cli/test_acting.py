"""The commands that act, against a real server: ``orchestrator up`` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from orchestrator.cli import key_at_hand
from orchestrator.cli.key_at_hand import FoundKey, found_key
from tests.cli.conftest import Run, Server, act, read, register, running
from tests.servers.process import free_port
from tests.system.fork_server import ForkServer
from tests.waiting import wait_until

ORCHESTRATOR = [sys.executable, "-m", "orchestrator"]


def test_register_write_and_ask_what_became_of_it(run: Run, server: Server) -> None:
    registered = register(run, server, "one", "--fleet", "blue", "--label", "tier=web", "--target", '{"delay": "0s"}')
    assert (registered["fleet"], registered["labels"]) == ("blue", {"tier": "web"})
    assert registered["policy"] == {"quiet": "10m", "max_wait": "1h"}

    name = os.fsdecode(b"caf\xe9.py")
    answer = act(run, server, "write", "one", "a.py", name, "--op", "created")
    assert (answer["accepted"], answer["rejected"]) == (2, [])
    fate = read(run, server, "why", answer["results"][1]["id"])
    assert (fate["status"], fate["path"], fate["op"]) == ("pending", "caf%E9.py", "created")


def test_restart_is_carried_out_and_explained(run: Run, server: Server) -> None:
    register(run, server, "now")
    request = act(run, server, "restart", "now", "--reason", "because I say so")["id"]
    fate = wait_until(
        lambda: (found := read(run, server, "why", request))["status"] == "covered" and found, what="it is covered"
    )

    explanation = read(run, server, "why", fate["restart"])["explanation"]
    assert re.fullmatch(r"Restarted because user:\S+ asked: because I say so\.", explanation)


def test_what_names_code_is_registered_with_the_key_of_that_up(
    run: Run, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("register", "code", "--executor", "command", "--target", '{"argv": ["true"]}', "--url", server.url)
    monkeypatch.setenv("ORCHESTRATOR_DATA", str(tmp_path))
    assert run(*words).code == 0, "the same user's commands find it by its port"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    refused = run(*words)
    assert (refused.code, "ORCHESTRATOR_OWNER_KEY" in refused.err) == (2, True)
    assert run(*words[:-1], server.url.replace("127.0.0.1", "localhost")).code == 2

    own = tmp_path / "own.key"
    assert run("keys", "owner", str(own)).code == 0
    assert own.read_text().strip() not in run("keys", "owner", str(tmp_path / "json.key"), "--json").out
    monkeypatch.setenv("ORCHESTRATOR_OWNER_KEY", str(own))
    assert "no key of this API is the one that was sent" in run(*words).err
    monkeypatch.delenv("ORCHESTRATOR_OWNER_KEY")
    assert act(run, server, *words[:-2])["executor"] == "command"


def test_the_key_goes_to_nobody_else(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATA", str(server.data))
    port = urlsplit(server.url).port
    key = FoundKey((server.data / "owner.key").read_text().strip(), os.geteuid(), port or 0)
    assert found_key("127.0.0.1", port) == found_key("localhost", port) == key
    assert key.key not in repr(key)
    assert found_key("10.0.0.5", port) is None
    assert found_key("127.0.0.1", free_port()) is None
    monkeypatch.setattr(key_at_hand, "_listeners", lambda port: {4711})  # somebody else has the port by now
    assert found_key("127.0.0.1", port) is None
    monkeypatch.setattr(key_at_hand, "_listeners", lambda port: set())  # or may take it at any moment
    assert found_key("127.0.0.1", port) is None


def test_the_key_of_an_up_that_listened_there_before_is_no_hindrance(
    run: Run, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who has tried `up` and then starts an API on the same port has its key at hand, which that API does not know."""
    assert run("keys", "owner", str(tmp_path / "owner.key")).code == 0
    (tmp_path / "url").write_text(f"{server.url}\n")
    monkeypatch.setenv("ORCHESTRATOR_DATA", str(tmp_path))

    assert run("write", "tried-before", "a", "--url", server.url).code == 0
    words = ("register", "code", "--executor", "command", "--target", '{"argv": ["true"]}', "--url", server.url)
    refused = run(*words)
    assert (refused.code, "ORCHESTRATOR_OWNER_KEY=FILE names it" in refused.err) == (2, True)


@pytest.mark.parametrize("name", [".", "..", ""])
def test_what_an_address_cannot_name_is_refused(run: Run, name: str) -> None:
    refused = run("hold", name, "--reason", "r")
    assert (refused.code, "is no id" in refused.err) == (2, True)


def test_hold_release_and_cancel(run: Run, server: Server) -> None:
    register(run, server, "two")
    assert act(run, server, "hold", "two", "--reason", "freeze", "--for", "10m")["state"] == "held"
    act(run, server, "restart", "two", "--reason", "later", "--trigger", "mutation")
    [held] = read(run, server, "workspaces", "--state", "held")["items"]
    assert (held["id"], held["hold"]["reason"], held["pending_requests"]) == ("two", "freeze", 1)
    assert act(run, server, "release", "two", "--reason", "over")["changed"] is True
    assert run("release", "two", "--url", server.url).out == "two was not held\n"

    settled = wait_until(
        lambda: read(run, server, "restarts", "--workspace", "two", "--state", "succeeded")["items"], what="a restart"
    )[0]["id"]
    ran = run("cancel", settled, "--reason", "too late", "--url", server.url)
    assert (ran.code, ran.out) == (2, "")
    assert "already settled" in ran.err


def test_policy_set_merges_replaces_and_clears(run: Run, server: Server) -> None:
    def layer(*arguments: str) -> Any:
        return act(run, server, "policy", "set", *arguments)["policy"]

    assert layer("--fleet", "red", "quiet=2s", "max_count=7") == {"quiet": "2s", "max_count": 7}
    assert layer("--fleet", "red", "quiet=3s") == {"quiet": "3s", "max_count": 7}
    assert layer("--fleet", "red", "quiet=") == {"max_count": 7}
    assert layer("--fleet", "red", "--replace", 'rules=[{"match": "docs/**", "action": "record"}]') == {
        "rules": [{"match": ["docs/**"], "action": "record"}]
    }
    register(run, server, "three", "--label", "a=b")
    assert layer("--workspace", "three", "max_wait=5s", "quiet=1s") == {"quiet": "1s", "max_wait": "5s"}
    [three] = read(run, server, "workspaces", "--label", "a=b")["items"]
    assert (three["executor"], three["policy_in_force"]["quiet"]) == ("simulated", "1s")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["restart", "nope", "--reason", "x"], "'nope' is not registered; `orchestrator workspaces` lists"),
        (["hold", "nope", "--reason", "x"], "`orchestrator register nope --executor E` makes it"),
        (["restart", "a b", "--reason", "x"], "workspace"),
        (["restart", "nope", "--reason", "x", "--trigger", "probe"], "use manual or mutation"),
        (["restart", "nope"], "Missing option '--reason'"),
        (["hold", "nope", "--reason", "x", "--until", "soon"], "'soon' is no instant"),
        (["hold", "nope", "--reason", "x", "--for", "-5m"], "--for"),
        (["cancel", "rst_nope", "--reason", "x"], "rst_nope"),
        (["register", "w", "--executor", "nope"], "'nope' is not installed"),
        (["register", "w", "--executor", "simulated", "--target", "{"], "is no JSON"),
        (["register", "w", "--executor", "simulated", "--policy", "quiet"], "is not KEY=VALUE"),
        (["register", "w", "--executor", "simulated", "--policy", "quiet=-2s"], "quiet"),
        (["policy", "set", "nope=1"], "nope"),
        (["policy", "set"], "nothing to set"),
        (["policy", "set", "--workspace", "nope", "quiet=1s"], "nope"),
        (["watch", "/nowhere", "--workspace", "w"], "/nowhere"),
        (["watch", "/usr"], "--workspace"),
        (["watch", "/usr", "--explain", "../x"], "not below"),
        (["watch", "/usr", "--workspace", "w", "--include", "!x"], "--include"),
        (["write", "a b", "x"], "workspace"),
        (["write", "nope", ""], "path"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(arguments: list[str], words: str, run: Run, server: Server) -> None:
    ran = run(*arguments, "--url", server.url)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("orchestrator: error: ")
    assert ran.err.count("\n") == 1
    assert words in ran.err


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "http://[::1"])
def test_bad_url(url: str, run: Run) -> None:
    ran = run("release", "ws", "--url", url)

    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "--url" in ran.err


def test_no_server(run: Run) -> None:
    ran = run("release", "ws", "--url", f"http://127.0.0.1:{free_port()}")

    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "start one with `orchestrator up`" in ran.err


class _Web(BaseHTTPRequestHandler):
    """A web server that is not ours: every POST is answered with a page."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_another_server(run: Run) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Web) as web:
        Thread(target=web.serve_forever, daemon=True).start()
        ran = run("release", "ws", "--url", f"http://127.0.0.1:{web.server_port}")
        web.shutdown()

    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "is that restart-orchestrator?" in ran.err


@contextmanager
def watching(url: str, folder: Path, workspace: str, *, ends_with: int = 0) -> Iterator[subprocess.Popen[str]]:
    kept = ["--data", str(folder / "agent")]  # in the folder itself: it must not report its own notes
    command = [*ORCHESTRATOR, "watch", str(folder), "--workspace", workspace, "--url", url, "--json", *kept]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "watching" in process.stderr.readline()
        yield process
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == ends_with


def test_watch_sends_each_write_and_ends_at_ctrl_c(run: Run, server: Server, tmp_path: Path) -> None:
    register(run, server, "seen")
    with watching(server.url, tmp_path, "seen") as process:
        (tmp_path / "a.py").write_text("1")
        assert process.stdout is not None
        sent = json.loads(process.stdout.readline())

    assert sent == {"workspace": "seen", "accepted": 1, "paths": ["a.py"]}
    [seen] = [item for item in read(run, server, "workspaces")["items"] if item["id"] == "seen"]
    assert seen["pending_writes"] == 1


def test_watch_drops_what_is_refused_for_good(server: Server, tmp_path: Path) -> None:
    with watching(server.url, tmp_path, "a b", ends_with=1) as process:
        (tmp_path / "a.py").write_text("1")
        assert process.stderr is not None
        assert "dropped" in process.stderr.readline()


def test_watch_says_that_its_workspace_is_not_there_and_which_are_near(
    run: Run, server: Server, tmp_path: Path
) -> None:
    register(run, server, "storefront")
    with watching(server.url, tmp_path, "storefrnt") as process:
        assert process.stderr is not None
        said = process.stderr.readline()
    assert "storefrnt is not registered" in said
    assert "near that name: storefront" in said


def test_watch_keeps_writes_until_the_server_is_there(tmp_path: Path, forks: ForkServer) -> None:
    folder, data, port = tmp_path / "watched", tmp_path / "data", free_port()
    folder.mkdir()
    data.mkdir()
    with watching(f"http://127.0.0.1:{port}", folder, "later") as process:
        (folder / "a.py").write_text("1")
        assert process.stderr is not None
        assert process.stdout is not None
        assert "no server answers" in process.stderr.readline()
        with running(data, forks, port):
            assert json.loads(process.stdout.readline())["paths"] == ["a.py"]


def test_what_watch_could_not_deliver_or_missed_is_reported_at_its_next_start(
    tmp_path: Path, forks: ForkServer
) -> None:
    folder, data, port = tmp_path / "watched", tmp_path / "data", free_port()
    folder.mkdir()
    data.mkdir()
    url = f"http://127.0.0.1:{port}"
    with watching(url, folder, "left", ends_with=1) as process:
        (folder / "held").write_text("1")
        assert process.stderr is not None
        assert "no server answers" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert "1 write not delivered; its next start reports them" in process.stderr.read()
    (folder / "between").write_text("1")
    with running(data, forks, port), watching(url, folder, "left") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["paths"] == ["between", "held"]


def test_watch_explains_what_is_ignored(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log\n")
    ran = run("watch", str(tmp_path), "--explain", "a.log", "--explain", "a.py")
    assert (ran.code, ran.err) == (0, "")
    assert "".join(ran.out.split()) == "".join(
        f"a.log: ignored: {tmp_path}/.gitignore:1: *.log a.py: watched: no rule names it".split()
    )
    told = run("watch", str(tmp_path), "--explain", "a.log", "--include", "a.log", "--json")
    assert json.loads(told.out) == {
        "path": "a.log",
        "watched": True,
        "rule": {"source": "--include", "line": 1, "text": "a.log"},
        "matches": "a.log",
        "leads_out": False,
    }


def test_reader_that_goes_away_ends_the_command_quietly(run: Run, server: Server) -> None:
    command = [*ORCHESTRATOR, "tail", "--follow", "--after", "0", "--data", str(server.data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        act(run, server, "write", "gone", "x")
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_commands_say_which_names_are_near(run: Run, server: Server) -> None:
    register(run, server, "storehouse")
    for words in (("hold", "--reason", "x"), ("release",), ("restart", "--reason", "x"), ("remove",)):
        ran = run(words[0], "storehous", *words[1:], "--url", server.url)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert "near that name: storehouse" in ran.err
        assert "`orchestrator workspaces` lists those that are" in ran.err
    ran = run("cancel", "storehous", "--reason", "x", "--url", server.url)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "`orchestrator restarts` lists those that do; near that name: storehouse" in ran.err
