from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.errors import ExecutionCancelled, PermanentError, ReadinessTimeout
from tests.executors.conftest import Exits
from tests.executors.world import DEAF, eventually, in_thread, launch, processes_with, record, sleeper, soon
from workers.supervision.group import process_stat
from workers.supervision.keeper import Backoff
from workers.supervision.supervisor import ProcessSupervisor

QUICK = Backoff(first_s=0.05, longest_s=0.4)


def keeper_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("keeper ")]


def is_alive(supervisor: ProcessSupervisor, workspace: str) -> bool:
    status = supervisor.status(workspace)
    return status is not None and status.is_alive


def pid_of(supervisor: ProcessSupervisor, workspace: str) -> int:
    status = supervisor.status(workspace)
    assert status is not None
    return int(status.identity.split(":")[0])


def test_the_record_names_the_child_and_goes_with_it(supervisor: ProcessSupervisor, tmp_path: Path, tag: str) -> None:
    supervisor.restart("ws", sleeper(tag), deadline_s=soon())
    pid = pid_of(supervisor, "ws")
    stat = process_stat(pid)
    assert stat is not None
    written = record(tmp_path, "ws")
    assert (written["pid"], written["start_ticks"]) == (pid, stat.start_ticks)
    supervisor.stop("ws")
    assert list((tmp_path / "process").iterdir()) == []
    assert supervisor.status("ws") is None
    assert keeper_threads() == []


def test_a_restart_replaces_the_whole_group(supervisor: ProcessSupervisor, exits: Exits, tag: str) -> None:
    for _ in range(3):
        supervisor.restart("ws", launch(tag, "sh", "-c", "sleep 1000 & sleep 1000"), deadline_s=soon())
        eventually(lambda: len(processes_with("TAG", tag)) == 3)
    supervisor.restart("other", sleeper(tag), deadline_s=soon())
    assert len(processes_with("TAG", tag)) == 4
    assert exits.seen == []


def test_a_child_that_ends_is_reported_and_started_again_with_backoff(
    supervisor: ProcessSupervisor, exits: Exits, tag: str
) -> None:
    supervisor.restart("ws", launch(tag, "sh", "-c", "exit 7"), deadline_s=soon())
    eventually(lambda: len(exits.seen) >= 5)
    assert exits.seen[:5] == [("ws", 7, None, pause_ms) for pause_ms in (50, 100, 200, 400, 400)]


def test_a_signal_is_reported_and_a_long_life_starts_the_backoff_over(
    supervisor: ProcessSupervisor, exits: Exits, tag: str
) -> None:
    supervisor.restart("ws", sleeper(tag), deadline_s=soon())
    for _ in range(2):
        os.kill(pid_of(supervisor, "ws"), signal.SIGKILL)
        eventually(lambda: not is_alive(supervisor, "ws"))
        eventually(lambda: is_alive(supervisor, "ws"))
    lived = supervisor.status("ws")
    assert lived is not None
    eventually(lambda: (status := supervisor.status("ws")) is not None and status.lived_s > QUICK.longest_s)
    os.kill(pid_of(supervisor, "ws"), signal.SIGTERM)
    eventually(lambda: len(exits.seen) == 3)
    assert exits.seen == [("ws", None, 9, 50), ("ws", None, 9, 100), ("ws", None, 15, 50)]


def test_a_restart_overtakes_the_backoff(tmp_path: Path, exits: Exits, tag: str) -> None:
    supervisor = ProcessSupervisor(tmp_path, exits, backoff=Backoff(first_s=3600, longest_s=3600))
    supervisor.restart("ws", launch(tag, "false"), deadline_s=soon())
    eventually(lambda: len(exits.seen) == 1 and supervisor.status("ws") is None)
    supervisor.restart("ws", sleeper(tag), deadline_s=soon())
    assert is_alive(supervisor, "ws")
    supervisor.close()


def test_what_a_dead_leader_left_in_its_group_is_ended_before_the_next_start(
    supervisor: ProcessSupervisor, exits: Exits, tag: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = f"import signal,socket; s=socket.create_server(('127.0.0.1',{port})); s.accept(); signal.pause()"
    # Exits when its server is up; without the end of the group the second server could not bind.
    script = f'"$PY" -c "$SERVER" & until "$PY" -c "import socket; socket.create_connection((\'127.0.0.1\',{port}))"'
    given = launch(tag, "sh", "-c", f"{script} 2>/dev/null; do :; done; exit 5", PY=sys.executable, SERVER=server)
    supervisor.restart("ws", given, deadline_s=soon())
    eventually(lambda: len(exits.seen) >= 3, within_s=20)
    assert {exit_code for _, exit_code, _, _ in exits.seen} == {5}
    supervisor.stop("ws")


def test_a_reporter_that_fails_does_not_stop_the_respawn(tmp_path: Path, tag: str) -> None:
    calls: list[str] = []

    def failing(workspace: str, code: int | None, signum: int | None, pause_ms: int) -> None:
        calls.append(workspace)
        raise RuntimeError("the database is away")

    supervisor = ProcessSupervisor(tmp_path, failing, backoff=QUICK)
    supervisor.restart("ws", launch(tag, "false"), deadline_s=soon())
    eventually(lambda: len(calls) >= 3)
    supervisor.close()


def test_a_program_that_went_away_is_tried_again(
    supervisor: ProcessSupervisor, exits: Exits, tmp_path: Path, tag: str
) -> None:
    program = tmp_path / "program"
    program.symlink_to("/bin/sleep")
    supervisor.restart("ws", launch(tag, str(program), "1000"), deadline_s=soon())
    program.unlink()
    os.kill(pid_of(supervisor, "ws"), signal.SIGKILL)
    eventually(lambda: len(exits.seen) >= 2)
    assert exits.seen[:2] == [("ws", None, 9, 50), ("ws", 127, None, 100)]
    program.symlink_to("/bin/sleep")
    eventually(lambda: is_alive(supervisor, "ws"))


def test_past_the_deadline_a_deaf_child_is_killed_and_the_new_one_started(
    supervisor: ProcessSupervisor, tmp_path: Path, tag: str
) -> None:
    mark = tmp_path / "mark"
    supervisor.restart("ws", launch(tag, "sh", "-c", DEAF, grace_s=3600, MARK=str(mark)), deadline_s=soon())
    eventually(mark.exists)
    with pytest.raises(ReadinessTimeout):
        supervisor.restart("ws", sleeper(tag), deadline_s=soon(0.3))
    assert is_alive(supervisor, "ws")
    assert processes_with("TAG", tag) == [pid_of(supervisor, "ws")]


def test_close_ends_children_within_their_grace_and_leaves_no_thread(tmp_path: Path, exits: Exits, tag: str) -> None:
    supervisor = ProcessSupervisor(tmp_path / "process", exits, backoff=QUICK)
    marks = [tmp_path / name for name in ("one", "two")]
    for mark in marks:
        given = launch(tag, "sh", "-c", DEAF, grace_s=0.3, MARK=str(mark))
        supervisor.restart(mark.name, given, deadline_s=soon())
    supervisor.restart("polite", sleeper(tag), deadline_s=soon())
    eventually(lambda: all(mark.exists() for mark in marks))
    begun_s = time.monotonic()
    supervisor.close()
    assert 0.3 <= time.monotonic() - begun_s < 1.5
    assert processes_with("TAG", tag) == []
    assert keeper_threads() == []
    assert exits.seen == []
    with pytest.raises(ExecutionCancelled):
        supervisor.restart("polite", sleeper(tag), deadline_s=soon())
    supervisor.close()


def test_close_may_shorten_a_grace(tmp_path: Path, exits: Exits, tag: str) -> None:
    supervisor = ProcessSupervisor(tmp_path / "process", exits, backoff=QUICK)
    mark = tmp_path / "mark"
    supervisor.restart("ws", launch(tag, "sh", "-c", DEAF, grace_s=3600, MARK=str(mark)), deadline_s=soon())
    eventually(mark.exists)
    begun_s = time.monotonic()
    supervisor.close(grace_s=0.2)
    assert time.monotonic() - begun_s < 1.5
    assert processes_with("TAG", tag) == []


def test_close_during_a_restart_and_during_a_backoff(tmp_path: Path, exits: Exits, tag: str) -> None:
    supervisor = ProcessSupervisor(tmp_path / "process", exits, backoff=Backoff(first_s=3600))
    mark = tmp_path / "mark"
    supervisor.restart("deaf", launch(tag, "sh", "-c", DEAF, grace_s=3600, MARK=str(mark)), deadline_s=soon())
    supervisor.restart("dead", launch(tag, "false"), deadline_s=soon())
    eventually(lambda: mark.exists() and len(exits.seen) == 1)
    with in_thread(lambda: supervisor.restart("deaf", sleeper(tag), deadline_s=soon(60))) as raised:
        supervisor.close(grace_s=0.2)
    assert [type(error) for error in raised] == [ExecutionCancelled]
    assert keeper_threads() == []


def test_kill_now_during_a_slow_close_ends_it(tmp_path: Path, exits: Exits, tag: str) -> None:
    supervisor = ProcessSupervisor(tmp_path / "process", exits, backoff=QUICK)
    mark = tmp_path / "mark"
    supervisor.restart("ws", launch(tag, "sh", "-c", DEAF, grace_s=3600, MARK=str(mark)), deadline_s=soon())
    eventually(mark.exists)
    with in_thread(supervisor.close) as raised:
        eventually(lambda: supervisor._closed)
        supervisor.kill_now()
    assert raised == []
    assert processes_with("TAG", tag) == []
    assert keeper_threads() == []


def test_a_record_that_cannot_be_written_means_no_child(tmp_path: Path, exits: Exits, tag: str) -> None:
    folder = tmp_path / "process"
    supervisor = ProcessSupervisor(folder, exits)
    (folder / "ws.tmp").mkdir()
    with pytest.raises(Exception, match="cannot record the child of 'ws'"):
        supervisor.restart("ws", sleeper(tag), deadline_s=soon())
    assert processes_with("TAG", tag) == []
    supervisor.close()


def test_restarts_leave_no_descriptor_zombie_or_thread(tmp_path: Path, exits: Exits, tag: str) -> None:
    supervisor = ProcessSupervisor(tmp_path, exits, backoff=QUICK)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(3):
        supervisor.restart(f"ws-{number}", sleeper(tag), deadline_s=soon())
        supervisor.restart(f"ws-{number}", sleeper(tag), deadline_s=soon())
        with pytest.raises(PermanentError):
            supervisor.restart(f"ws-{number}", launch(tag, "no-such-program"), deadline_s=soon())
        supervisor.stop(f"ws-{number}")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert keeper_threads() == []
    assert [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE] == []
    supervisor.close()
