"""The program of ``up --watch``: every way out of ``up`` ends it, in order, and what is set of it is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.system.client import Answer
from tests.system.deployment import STOPS_WITHIN_S, Embedded, running
from tests.system.fork_server import ForkServer
from tests.system.processes import ORCHESTRATOR
from tests.system.watching import WORKSPACE, Watching
from tests.waiting import wait_until

# Says when it is started and told to end, and needs a while for that.
ORDERLY = """
import os, signal, sys, time
def say(what):
    with open(sys.argv[1], "a") as file:
        file.write(what + "\\n")
def end(*_):
    say("told")
    time.sleep(2.5)
    say("ended")
    os._exit(0)
signal.signal(signal.SIGTERM, end)
say(f"start {os.getpid()}")
while True:
    signal.pause()
"""


class Orderly(Embedded):
    """``up --watch`` over a program that takes longer to end than an impatient supervisor would wait."""

    def start(self) -> None:
        (self.folder / "site").mkdir()
        super().start()

    def start_up(self, *more: str) -> object:  # type: ignore[override]
        given = ["--watch", str(self.folder / "site"), *more, "--"]
        up = super().start_up(*given, sys.executable, "-c", ORDERLY, str(self.said_in))
        wait_until(lambda: self.said, what="the program has started")
        return up

    @property
    def said_in(self) -> Path:
        return self.folder / "said"

    @property
    def said(self) -> list[str]:
        return self.said_in.read_text().splitlines() if self.said_in.exists() else []


def test_a_closed_terminal_ends_the_server_and_frees_its_port(system_folder: Path, forks: ForkServer) -> None:
    folder = system_folder / "hung-up"
    folder.mkdir()
    with running(Watching(folder, forks=forks)) as watching:
        up = watching.processes["up"]
        for _ in range(2):  # from the terminal and from the shell: the second is no wish for haste
            up.signal(signal.SIGHUP)
        assert up.wait(STOPS_WITHIN_S) == 0
        assert watching.living == []


def test_a_stop_that_the_program_was_told_too_gives_it_its_grace_and_starts_no_other(
    system_folder: Path, forks: ForkServer
) -> None:
    folder = system_folder / "orderly"
    folder.mkdir()
    with running(Orderly(folder, forks=forks)) as deployment:
        workspace = deployment.register(delay="4s")
        deployment.write(workspace, "a")
        deployment.await_running(workspace)
        pid = int(deployment.said[0].split()[1])
        up = deployment.processes["up"]
        up.signal(signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
        assert up.wait(STOPS_WITHIN_S) == 0
        assert [line.split()[0] for line in deployment.said if line != "told"] == ["start", "ended"]


def test_nobody_who_reads_the_banner_ends_up_and_its_program(system_folder: Path) -> None:
    folder = system_folder / "unread"
    watched = folder / "site"
    watched.mkdir(parents=True)
    mark = folder / "pid"
    program = ["sh", "-c", f"echo $$ >{mark}; exec sleep 1000"]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [ORCHESTRATOR, "up", "--data", str(folder / "data"), "--port", "0", "--watch", str(watched), "--", *program],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    os.close(writer)
    assert ended.returncode == 2
    assert "nobody reads standard output" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not mark.exists() or not Path(f"/proc/{mark.read_text().strip()}").exists()


def test_what_was_put_and_given_outlives_the_next_up_in_one_workspace(system_folder: Path, forks: ForkServer) -> None:
    folder = system_folder / "kept"
    folder.mkdir()
    with running(Watching(folder, forks=forks)) as watching:
        target: Answer = {**watching.client.get(f"/v1/workspaces/{WORKSPACE}")["target"], "grace": "3s"}
        target["env"] = {"SET": "by put"}
        watching.client.register(WORKSPACE, {"executor": "process", "target": target, "labels": {"team": "a"}})
        reload = {"rules": [{"match": ["*.conf"], "action": "reload"}]}
        asked = {"executor": "process", "target": target, "policy": reload}
        refused = watching.client.http.put(f"/v1/workspaces/{WORKSPACE}", json=asked)
        assert (refused.status_code, "reload_signal" in refused.text) == (422, True)
        asked["target"] = {**target, "reload_signal": "HUP"}
        watching.client.register(WORKSPACE, {**asked, "labels": {"team": "a"}})
        _again(watching, "--stop-signal", "INT", "--env", "GIVEN=too", "--ready", f"tcp:{watching.port}")
        _again(watching)

        found = watching.client.get("/v1/workspaces")["items"]
        assert [item["id"] for item in found] == [WORKSPACE]
        assert found[0]["labels"] == {"team": "a", "directory": str(watching.watched)}
        kept = found[0]["target"]
        assert (kept["grace"], kept["stop_signal"], kept["ready"]["type"]) == ("3s", "INT", "tcp")
        assert kept["reload_signal"] == "HUP"
        assert kept["env"] == {"SET": "by put", "GIVEN": "too"}

        command = {"executor": "command", "target": {"argv": ["true"]}, "labels": {"team": "b"}}
        watching.client.register(WORKSPACE, command)
        _again(watching)
        (only,) = watching.client.get("/v1/workspaces")["items"]
        assert (only["id"], only["executor"], only["labels"]["team"]) == (WORKSPACE, "process", "b")
        assert len(watching.living) == 1


def _again(watching: Watching, *more: str) -> None:
    watching.processes["up"].signal(signal.SIGTERM)
    assert watching.processes["up"].wait(STOPS_WITHIN_S) == 0
    assert watching.living == []
    watching.start_up(*more)
