"""``orchestrator up``: what it supervises, how it starts on what a killed one left, and how it stops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.state import Phase
from tests.system.deployment import STOPS_WITHIN_S, Embedded, running
from tests.system.fork_server import ForkServer
from tests.system.processes import ORCHESTRATOR
from tests.system.watching import WORKSPACE, Watching, alive
from tests.waiting import wait_until

ENDED_AT_ONCE = 130


def _one_line(output: str) -> str:
    (line,) = output.strip().splitlines()
    return line


@pytest.fixture(scope="module")
def interrupted(system_folder: Path, forks: ForkServer) -> Iterator[tuple[Embedded, str, Future[float]]]:
    """An ``up`` that got Ctrl-C during a restart of 300 s, while the tests of this file run; how long it took."""
    folder = system_folder / "interrupted"
    folder.mkdir()
    with running(Embedded(folder, forks=forks)) as deployment, ThreadPoolExecutor(1) as watch:
        workspace = deployment.register(delay="300s")
        deployment.write(workspace, "a")
        deployment.await_running(workspace)
        up = deployment.processes["up"]
        began = time.monotonic()
        up.signal(signal.SIGINT)

        def ended() -> float:
            assert up.wait(STOPS_WITHIN_S + 10) == 0, up.tail()
            return time.monotonic() - began

        assert isinstance(deployment, Embedded)
        yield deployment, workspace, watch.submit(ended)


@pytest.fixture(scope="module")
def watching(system_folder: Path, interrupted: object, forks: ForkServer) -> Iterator[Watching]:
    """One ``up --watch`` for the tests of this file; each leaves it running."""
    folder = system_folder / "watching"
    folder.mkdir()
    deployment = Watching(folder, forks=forks)
    with running(deployment):
        yield deployment
    assert deployment.living == [], "a supervised process outlived up"


def test_17_files_saved_in_a_burst_restart_the_server_once_and_why_explains_it(watching: Watching) -> None:
    names = [f"page{number}.html" for number in range(17)]
    before = watching.await_server()

    watching.save(*names)

    after = watching.await_server(but=before)
    history = watching.settled_server(restarts=1)
    assert watching.pids == [before, after]
    (queued,) = history.queued
    assert queued.files == 17
    assert {write.data.path for write in history.writes if isinstance(write.data, ev.FileWritten)} == set(names)
    explained = _orchestrator("why", queued.restart, "--data", str(watching.data))
    assert explained.returncode == 0, explained.stderr
    assert "17 files" in explained.stdout


def test_a_server_that_dies_by_itself_is_reported_and_started_again(watching: Watching) -> None:
    victim = watching.await_server()
    covered = len(watching.history(WORKSPACE).queued)

    os.kill(victim, signal.SIGKILL)

    watching.await_server(but=victim)
    history = watching.settled_server(restarts=covered)
    assert history.of(ev.ProcessExited)[-1].signal == signal.SIGKILL
    assert len(watching.living) == 1


def test_up_killed_and_started_again_loses_nothing_leaves_no_orphan_and_the_port_free(watching: Watching) -> None:
    orphan = watching.await_server()
    known, covered = len(watching.history(WORKSPACE).writes), len(watching.history(WORKSPACE).queued)
    watching.save("a.html", "b.html")
    wait_until(lambda: len(watching.history(WORKSPACE).writes) >= known + 2, what="the files are reported")

    watching.processes["up"].kill()
    assert watching.living == [orphan]
    watching.start_up()

    history = watching.settled_server(restarts=covered + 1)
    assert history.pending == []
    assert not alive(orphan)
    assert watching.living == [watching.await_server()]


def test_a_plain_up_starts_no_program_that_an_earlier_one_left(system_folder: Path, forks: ForkServer) -> None:
    folder = system_folder / "plain"
    folder.mkdir()
    with running(Watching(folder, forks=forks)) as watching:
        watching.processes["up"].signal(signal.SIGTERM)
        watching.processes["up"].wait(STOPS_WITHIN_S)
        Embedded.start_up(watching)
        begun = watching.pids
        watching.write(WORKSPACE, "left.txt")
        wait_until(lambda: watching.state(WORKSPACE).phase is Phase.QUEUED, what="its window is folded")
        other = watching.register()
        watching.write(other, "a")
        watching.settled(other, restarts=1)
        assert (watching.pids, watching.history(WORKSPACE).starts) == (begun, [])

        watching.processes["up"].signal(signal.SIGTERM)
        watching.processes["up"].wait(STOPS_WITHIN_S)
        watching.start_up()
        watching.settled_server(restarts=1)

        registered = watching.client.get(f"/v1/workspaces/{WORKSPACE}")
        watching.client.register(
            WORKSPACE, {"executor": "process", "target": registered["target"], "labels": {"a": "b"}}
        )
        watching.write(WORKSPACE, "more.txt")
        watching.settled_server(restarts=2)


def test_a_second_up_on_the_same_data_says_so_in_one_line(watching: Watching) -> None:
    second = _orchestrator("up", "--data", str(watching.data), "--port", "0")

    assert second.returncode == 2
    assert str(watching.data) in _one_line(second.stderr)
    assert f"pid {watching.processes['up'].pid}" in second.stderr
    assert second.stdout == ""


def test_a_port_that_is_taken_is_said_in_one_line(watching: Watching, tmp_path: Path) -> None:
    port = str(watching.port)

    refused = _orchestrator("up", "--data", str(tmp_path / "other"), "--port", port)

    assert refused.returncode == 2
    assert port in _one_line(refused.stderr)


def test_a_second_ctrl_c_ends_up_and_the_server_at_once(watching: Watching) -> None:
    workspace = watching.register(delay="300s")
    watching.write(workspace, "a")
    cut_off = watching.await_running(workspace)
    up, server = watching.processes["up"], watching.await_server()

    up.signal(signal.SIGINT)
    up.await_output(re.compile("process.stopping"))
    up.signal(signal.SIGINT)

    assert up.wait(2) == ENDED_AT_ONCE
    wait_until(lambda: not alive(server), what="the server has ended")
    watching.start_up()
    rescued = watching.await_running(workspace, after=cut_off)
    assert (rescued.start.restart, rescued.start.attempt) == (cut_off.start.restart, 2)
    watching.client.remove(workspace)


def test_ctrl_c_during_a_restart_of_300_s_ends_within_15_s_and_records_it(
    watching: Watching, interrupted: tuple[Embedded, str, Future[float]]
) -> None:
    deployment, workspace, ended = interrupted

    assert ended.result(STOPS_WITHIN_S + 10) < STOPS_WITHIN_S

    (cycle,) = deployment.history(workspace).cycles
    assert isinstance(cycle.end, ev.CycleAbandoned)
    assert cycle.end.reason is ev.Abandonment.SHUTDOWN


def _orchestrator(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ORCHESTRATOR, *args], capture_output=True, text=True, timeout=30, check=False)
