"""``orchestrator demo``: the incident, played against a real child process: 17 files saved in a burst, one restart."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import IO

from rich.text import Text

from orchestrator.cli.terminal.options import Json
from orchestrator.cli.terminal.output import emit_json, note, say, show, terminal
from orchestrator.cli.terminal.timeline import draw
from orchestrator.domain.encoding import format_instant
from orchestrator.domain.explain import counted
from orchestrator.domain.restart_projection import SETTLED, RestartProjection
from orchestrator.domain.state import Phase
from orchestrator.errors import OrchestratorError
from orchestrator.history.restart_story import RestartStory
from orchestrator.history.views import restart_view, story_view
from orchestrator.history.why import why
from orchestrator.ports.store import EventFilter, EventStore, RestartFilter
from orchestrator.storage.opening import open_store

WORKSPACE = "demo"
FILES = 17
_BURST_S = 3.0
_NUMBERS = ("--quiet", "1s", "--max-wait", "6s", "--min-interval", "3s")
_UP_WITHIN_S = 30.0
_RESTARTED_WITHIN_S = 30.0
_STOP_WITHIN_S = 16.0
_LOOK_EVERY_S = 0.1
_WIDEST = 100
_URL = re.compile(r"http://127\.0\.0\.1:\d+")

_SERVER = """\
import http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")
http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer).serve_forever()
"""


class DemoFailed(OrchestratorError):
    """The demo did not get as far as its restart; the text says where it stopped."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """What happened: all restarts, the first one's story, and when the writes that it answers for came."""

    restarts: list[RestartProjection]
    story: RestartStory
    writes: list[datetime]


class _Interruption:
    """Ctrl-C, and SIGTERM like it: kept too, as Python drops an exception that comes while something is destroyed."""

    def __init__(self) -> None:
        self._came = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._come)

    def _come(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` if one came, wherever its own was dropped."""
        if self._came:
            raise KeyboardInterrupt


def demo(*, as_json: Json = False) -> None:
    """Save 17 files in a burst beside a running server, and show that it restarts once, and why."""
    interruption = _Interruption()
    with tempfile.TemporaryDirectory(prefix="orchestrator-demo-") as folder:
        played = _play(Path(folder))
    interruption.check()
    if as_json:
        emit_json(
            {
                "restarts": len(played.restarts),
                "writes": len(played.writes),
                "written_at": [format_instant(at) for at in played.writes],
                "explanation": played.story.explanation,
                "restart": story_view(played.story),
                "all_restarts": [restart_view(record) for record in played.restarts],
            }
        )
        return
    console = terminal()
    ascii_only = not console.encoding.lower().startswith("utf")
    width = min(console.width, _WIDEST)
    show(Text(""), *draw(played.story, played.writes, width=width, ascii_only=ascii_only), Text(""))
    say(f"{counted(len(played.writes), 'write')}, {counted(len(played.restarts), 'restart')}.")
    say(played.story.explanation)


def _play(folder: Path) -> Played:
    watched, data = folder / WORKSPACE, folder / "data"
    watched.mkdir()
    note("starting `orchestrator up --watch` with a small HTTP server as its command ...")
    with _running_up(watched, data, folder / "up.log") as up:
        note(f"up at {up.url}; saving {FILES} files within {_BURST_S:g} s ...")
        _save_burst(watched)
        note("saved; waiting for the restart ...")
        store = open_store(f"sqlite:///{data / 'orchestrator.db'}")
        try:
            _wait_until_settled(store, up)
            return _played(store)
        finally:
            store.close()


@dataclass(frozen=True)
class _RunningUp:
    process: subprocess.Popen[str]
    url: str
    log: Path

    def check(self) -> None:
        """Raise ``DemoFailed`` if `up` has ended."""
        if self.process.poll() is not None:
            raise DemoFailed(f"`orchestrator up` ended with exit code {self.process.returncode}: {_end_of(self.log)}")


@contextmanager
def _running_up(watched: Path, data: Path, log: Path) -> Iterator[_RunningUp]:
    command = [sys.executable, "-m", "orchestrator", "up", "--data", str(data), "--port", "0"]
    command += ["--watch", str(watched), "--workspace", WORKSPACE, *_NUMBERS, "--", sys.executable, "-c", _SERVER]
    with log.open("w") as errors:
        # A session of its own: a Ctrl-C in the terminal reaches the demo alone, which then ends `up` in order.
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")},
        )
    try:
        yield _RunningUp(process, _wait_for_url(process, log), log)
    finally:
        _end(process)


def _wait_for_url(process: subprocess.Popen[str], log: Path) -> str:
    """Return the URL of the banner; everything that `up` prints is read to its end, so that it never blocks."""
    found: list[str] = []
    seen = threading.Event()
    assert process.stdout is not None  # noqa: S101 (asked for above)
    threading.Thread(target=_read_banner, args=(process.stdout, found, seen), daemon=True).start()
    seen.wait(_UP_WITHIN_S)
    if not found:
        raise DemoFailed(f"`orchestrator up` printed no URL within {_UP_WITHIN_S:g} s: {_end_of(log)}")
    return found[0]


def _read_banner(stream: IO[str], found: list[str], seen: threading.Event) -> None:
    for line in stream:
        match = _URL.search(line)
        if match and not found:
            found.append(match.group())
            seen.set()
    seen.set()


def _save_burst(folder: Path) -> None:
    pause_s = _BURST_S / (FILES - 1)
    for number in range(FILES):
        # Put in place whole, as editors save: what is created and then filled may be seen as two writes.
        saved = folder.with_name(f"{folder.name}.saved")
        saved.write_text(f"VERSION = {time.time_ns()}\n")
        saved.replace(folder / f"module_{number:02}.py")
        if number < FILES - 1:
            time.sleep(pause_s)


def _wait_until_settled(store: EventStore, up: _RunningUp) -> None:
    """Wait until every write is in and nothing waits or runs any more."""
    until_s = time.monotonic() + _RESTARTED_WITHIN_S
    while time.monotonic() < until_s:
        up.check()
        with store.read() as reader:
            stored = reader.workspace(WORKSPACE)
            restarts = reader.restarts(RestartFilter(workspace=WORKSPACE))
        idle = stored is not None and stored.state.phase is Phase.IDLE
        if idle and restarts and all(record.state in SETTLED for record in restarts):
            return
        time.sleep(_LOOK_EVERY_S)
    raise DemoFailed(f"the server was not restarted within {_RESTARTED_WITHIN_S:g} s: {_end_of(up.log)}")


def _played(store: EventStore) -> Played:
    with store.read() as reader:
        restarts = reader.restarts(RestartFilter(workspace=WORKSPACE))
        first = restarts[-1]
        wanted = EventFilter(
            after=first.from_position - 1, to_position=first.to_position, workspace=WORKSPACE, types=("FileWritten",)
        )
        writes = [event.recorded_at for event in reader.events(wanted)]
        return Played(restarts=restarts, story=why(reader, first.id), writes=writes)


def _end(process: subprocess.Popen[str]) -> None:
    """End `up` in order; a second signal makes it end its child and itself at once."""
    for number, within_s in ((signal.SIGTERM, _STOP_WITHIN_S), (signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0)):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            continue


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").split()
    return " ".join(lines)[-500:] or "it said nothing"
