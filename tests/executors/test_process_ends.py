"""What an end of a child takes with it, and what is never started again."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.errors import PermanentError, TransientError
from tests.executors.conftest import Exits
from tests.executors.test_process_supervisor import is_alive, pid_of
from tests.executors.world import eventually, launch, processes_with, sleeper, soon
from workers.supervision.group import live_members, process_stat
from workers.supervision.keeper import Backoff
from workers.supervision.supervisor import ProcessSupervisor

# The main thread ends; another works on until TERM, and tidies up for a while.
HEADLESS = """
import ctypes, os, signal, sys, threading, time
def work():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    open(sys.argv[1], "w").write("up")
    signal.sigwait({signal.SIGTERM})
    time.sleep(0.3)
    open(sys.argv[1], "w").write("tidied up")
    os._exit(0)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_what_left_the_group_is_ended_with_the_child_and_named(
    supervisor: ProcessSupervisor, exits: Exits, tag: str
) -> None:
    supervisor.restart("ws", launch(tag, "sh", "-c", "setsid sleep 1001 & sleep 1000"), deadline_s=soon())
    eventually(lambda: len(processes_with("TAG", tag)) == 3)
    (escaped,) = set(processes_with("TAG", tag)) - set(live_members(pid_of(supervisor, "ws")))
    done = supervisor.restart("ws", sleeper(tag), deadline_s=soon())
    assert done.escaped == [f"pid {escaped} (sleep 1001)"]
    assert processes_with("TAG", tag) == [pid_of(supervisor, "ws")]
    assert exits.seen == []


def test_a_program_whose_main_thread_has_ended_lives_and_gets_its_grace(
    supervisor: ProcessSupervisor, tmp_path: Path, tag: str
) -> None:
    mark = tmp_path / "mark"
    supervisor.restart("ws", launch(tag, sys.executable, "-c", HEADLESS, str(mark)), deadline_s=soon())
    pid = pid_of(supervisor, "ws")
    eventually(lambda: (stat := process_stat(pid)) is not None and stat.state == "Z" and mark.exists())
    assert is_alive(supervisor, "ws")
    supervisor.stop("ws")
    assert mark.read_text() == "tidied up"


def test_the_next_supervisor_ends_one_whose_main_thread_has_ended(tmp_path: Path, exits: Exits, tag: str) -> None:
    folder, mark = tmp_path / "process", tmp_path / "mark"
    first = ProcessSupervisor(folder, exits)
    first.restart("ws", launch(tag, sys.executable, "-c", HEADLESS, str(mark)), deadline_s=soon())
    pid = pid_of(first, "ws")
    eventually(lambda: (stat := process_stat(pid)) is not None and stat.state == "Z" and mark.exists())
    ProcessSupervisor(folder, exits).close()
    assert mark.read_text() == "tidied up"
    first.close()


def test_after_the_first_signal_nothing_is_started_and_no_end_is_reported(
    tmp_path: Path, exits: Exits, tag: str
) -> None:
    supervisor = ProcessSupervisor(tmp_path / "process", exits, backoff=Backoff(first_s=0.01))
    supervisor.restart("ws", sleeper(tag), deadline_s=soon())
    supervisor.start_no_more()
    os.kill(pid_of(supervisor, "ws"), signal.SIGTERM)
    eventually(lambda: supervisor.status("ws") is None)
    threading.Event().wait(0.1)  # ten times the pause after which it would be started again
    assert supervisor.status("ws") is None
    supervisor.close()
    assert exits.seen == []


def test_a_program_that_is_missing_at_its_restart_comes_back_with_its_file(
    supervisor: ProcessSupervisor, tmp_path: Path, tag: str
) -> None:
    program = tmp_path / "program"
    program.symlink_to("/bin/sleep")
    given = launch(tag, str(program), "1000")
    supervisor.restart("ws", given, deadline_s=soon())
    program.unlink()
    with pytest.raises(TransientError, match="it ran before"):
        supervisor.restart("ws", given, deadline_s=soon())
    program.symlink_to("/bin/sleep")
    eventually(lambda: is_alive(supervisor, "ws"))
    with pytest.raises(PermanentError):
        supervisor.restart("ws", launch(tag, "no-such-program"), deadline_s=soon())


def test_it_reads_nothing_unless_it_is_to_inherit_our_input(
    supervisor: ProcessSupervisor, tmp_path: Path, tag: str
) -> None:
    reader, writer = os.pipe()
    ours = os.dup(0)
    os.dup2(reader, 0)
    try:
        os.write(writer, b"a line\n")
        for inherits in (False, True):
            said = tmp_path / f"said-{inherits}"
            given = launch(tag, "sh", "-c", f"read line; echo got $line >{said}.new; mv {said}.new {said}; sleep 1000")
            supervisor.restart("ws", dataclasses.replace(given, inherits_stdin=inherits), deadline_s=soon())
            eventually(said.exists)
            assert said.read_text().split()[1:] == (["a", "line"] if inherits else [])
    finally:
        os.dup2(ours, 0)
        for number in (ours, reader, writer):
            os.close(number)
