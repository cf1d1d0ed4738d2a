"""The demo: the incident against a real child process, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

DEMO = [sys.executable, "-m", "orchestrator", "demo"]


def test_demo_restarts_once_and_says_why(tmp_path: Path) -> None:
    elsewhere = {"ORCHESTRATOR_DATABASE_URL": "postgresql://127.0.0.1:1/none", "ORCHESTRATOR_POLICY_QUIET": "1h"}
    environment = {**os.environ, **elsewhere, "TMPDIR": str(tmp_path)}
    ran = subprocess.run([*DEMO, "--json"], capture_output=True, text=True, env=environment, timeout=60, check=False)

    assert ran.returncode == 0, ran.stderr
    played = json.loads(ran.stdout)
    assert (played["restarts"], played["writes"]) == (1, 17)
    assert played["explanation"].startswith("Restarted because 17 writes to 17 files by 1 actor between ")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_demo_cleans_up(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        assert "starting" in process.stderr.readline()
        assert "saving" in process.stderr.readline()
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130

    assert len(children) >= 2
    assert [child for child in children if child.is_running()] == []
    assert list(tmp_path.iterdir()) == []
