"""What ``up`` is told of its command, and what it refuses before it starts anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.commands.program_options import parse_ready, program_options
from orchestrator.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "ready"),
    [
        ("none", {"type": "none"}),
        ("tcp:8000", {"type": "tcp", "port": 8000}),
        ("tcp:localhost:8000", {"type": "tcp", "host": "localhost", "port": 8000}),
        ("tcp:[::1]:8000", {"type": "tcp", "host": "::1", "port": 8000}),
        ("http://127.0.0.1:8000/up", {"type": "http", "url": "http://127.0.0.1:8000/up"}),
        ("command:./is up 'a b'", {"type": "command", "argv": ["./is", "up", "a b"]}),
    ],
)
def test_ready_is_said_in_one_word(text: str, ready: dict[str, Any]) -> None:
    assert parse_ready(text) == ready


@pytest.mark.parametrize("text", ["", "8000", "tcp:", "tcp:port", "command:", "command:'open", "udp:8000"])
def test_another_ready_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(InvalidInput, match="--ready"):
        parse_ready(text)


def test_only_what_was_given_is_a_field() -> None:
    nothing: dict[str, Any] = dict.fromkeys(("ready", "grace", "stop_signal", "reload_signal", "stdin", "once"))
    assert program_options(env=[], **nothing) == {}
    assert program_options(env=["A=1", "B=x=y", "C="], **{**nothing, "once": False}) == {
        "env": {"A": "1", "B": "x=y", "C": ""},
        "once": False,
    }
    with pytest.raises(InvalidInput, match="NAME=VALUE"):
        program_options(env=["A"], **nothing)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--watch", "{0}", "--watch", "{1}", "--", "true"], "orchestrator watch OTHER"),
        (["--grace", "3s"], "need --watch"),
        (["--watch", "{0}", "--stop-signal", "KILL", "--", "true"], "--stop-signal"),
        (["--watch", "{0}", "--ready", "tcp:99999", "--", "true"], "--ready"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(given: list[str], said: str, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    words = [word.format(*folders) for word in given]
    # A process of its own: `up` takes over signals and logs of the one that it runs in.
    command = [sys.executable, "-m", "orchestrator", "up", "--data", str(tmp_path / "data"), "--port", "0", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert said in ended.stderr.splitlines()[-1]
