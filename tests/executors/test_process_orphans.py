"""What a killed ``up`` leaves behind, and what the next one makes of it: real owners, killed with SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.executors.conftest import Exits
from tests.executors.world import DEAF, eventually, processes_with, record
from workers.supervision.supervisor import ProcessSupervisor

OWNER = """
import os, sys, threading, time
from pathlib import Path
from workers.supervision.launch import Launch
from workers.supervision.supervisor import ProcessSupervisor
supervisor = ProcessSupervisor(Path(sys.argv[1]), print)
launch = Launch(argv=sys.argv[2:], env=dict(os.environ), grace_s=0.3)
supervisor.restart("ws", launch, deadline_s=time.monotonic() + 10)
print("started", flush=True)
threading.Event().wait()
"""
GATE_OWNER = """
import os, sys, threading
from workers.supervision.launch import Launch
from workers.supervision.gate import spawn_gated
gated = spawn_gated(Launch(argv=["sh", "-c", ': > "$MARK"; sleep 1000'], env=dict(os.environ), grace_s=1), output=None)
print(gated.process.pid, flush=True)
threading.Event().wait()
"""


def killed_owner(script: str, tag: str, *args: str, then: Callable[[], bool] = lambda: True, **env: str) -> str:
    """Run a script until it has said a line and ``then`` holds; kill it with SIGKILL; return the line."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *args], stdout=subprocess.PIPE, env={**os.environ, "TAG": tag, **env}
    ) as owner:
        assert owner.stdout is not None
        line = owner.stdout.readline().decode().strip()
        eventually(then)
        owner.kill()
    return line


def test_a_killed_owners_group_is_ended_by_the_next_one(tmp_path: Path, exits: Exits, tag: str) -> None:
    mark = tmp_path / "mark"
    folder = tmp_path / "process"
    killed_owner(OWNER, tag, str(folder), "sh", "-c", DEAF, then=mark.exists, MARK=str(mark))
    assert len(processes_with("TAG", tag)) == 2
    ProcessSupervisor(folder, exits).close()
    assert processes_with("TAG", tag) == []
    assert list(folder.iterdir()) == []


def test_orphans_whose_leader_has_gone_are_known_by_their_token(tmp_path: Path, exits: Exits, tag: str) -> None:
    folder = tmp_path / "process"
    killed_owner(
        OWNER, tag, str(folder), "sh", "-c", "sleep 1000 & wait", then=lambda: len(processes_with("TAG", tag)) == 3
    )
    leader = record(tmp_path, "ws")["pid"]
    assert isinstance(leader, int)
    os.kill(leader, signal.SIGKILL)
    eventually(lambda: len(processes_with("TAG", tag)) == 1)
    ProcessSupervisor(folder, exits).close()
    assert processes_with("TAG", tag) == []


@pytest.mark.parametrize("field", ["start_ticks", "boot_id"])
def test_a_stranger_with_the_recorded_pid_is_left_alone(tmp_path: Path, exits: Exits, tag: str, field: str) -> None:
    folder = tmp_path / "process"
    killed_owner(OWNER, tag, str(folder), "sleep", "1000")
    (stranger,) = processes_with("TAG", tag)
    path = folder / "ws.json"
    written = record(tmp_path, "ws")
    changed = {field: 1 if field == "start_ticks" else "another", "token": "not the stranger's"}
    path.write_text(json.dumps({**written, **changed}))
    ProcessSupervisor(folder, exits).close()
    assert processes_with("TAG", tag) == [stranger]
    assert not path.exists()
    os.kill(stranger, signal.SIGKILL)
    eventually(lambda: processes_with("TAG", tag) == [])


def test_a_broken_record_does_not_keep_up_from_starting(tmp_path: Path, exits: Exits) -> None:
    for name, content in (("torn", b'{"pid": 1'), ("empty", b""), ("bytes", b"\xff"), ("typed", b'{"pid": "1"}')):
        (tmp_path / f"{name}.json").write_bytes(content)
    ProcessSupervisor(tmp_path, exits).close()
    assert list(tmp_path.iterdir()) == []


def test_an_owner_killed_before_the_record_leaves_no_child(tmp_path: Path, tag: str) -> None:
    mark = tmp_path / "mark"
    killed_owner(GATE_OWNER, tag, MARK=str(mark))
    eventually(lambda: processes_with("TAG", tag) == [])
    assert not mark.exists()
