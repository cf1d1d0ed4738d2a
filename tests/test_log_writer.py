"""Lines that are written beside everything else: in order, bounded, and nobody waits for who reads them."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

import pytest

from orchestrator import log_writer
from orchestrator.log_writer import LogWriter

LONG = "x" * 1_000


@dataclass
class Pipe:
    """Standard error as a pipe that nobody reads but the test."""

    reader: int
    stderr: IO[str]
    writers: list[LogWriter] = field(default_factory=list)

    def writer(self, **bounds: int) -> LogWriter:
        """A writer that says `lost N`, and is ended with the test."""
        writer = LogWriter(**bounds)
        writer.lost_line = lambda lines: f"lost {lines}\n"
        self.writers.append(writer)
        return writer

    def end(self) -> None:
        os.close(self.reader)  # what still waits is refused from now on
        for writer in self.writers:
            assert writer.flush(10)
            writer._end_thread()
            assert writer._thread is None

    def fill(self) -> int:
        """Fill it; return how much it took."""
        writer, filled = self.stderr.fileno(), 0
        os.set_blocking(writer, False)
        try:
            while True:
                filled += os.write(writer, b"-" * 512)
        except BlockingIOError:
            return filled
        finally:
            os.set_blocking(writer, True)

    def lines(self, count: int) -> list[str]:
        """Wait for so many lines and return them."""
        found = b""
        while found.count(b"\n") < count:
            found += os.read(self.reader, 65_536)
        return found.decode().splitlines()


@contextmanager
def piped() -> Iterator[Pipe]:
    """Not a fixture: between its setup and the test pytest sets standard error itself."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stderr, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        made = Pipe(reader, stderr)
        try:
            yield made
        finally:
            made.end()


def test_lines_come_in_their_order() -> None:
    with piped() as pipe:
        writer = pipe.writer()
        for number in range(100):
            writer.write(f"{number}\n")
        assert writer.flush(10)
        assert pipe.lines(100) == [str(number) for number in range(100)]


def test_who_logs_never_waits_and_what_is_lost_is_counted_in_its_place() -> None:
    with piped() as pipe:
        writer = pipe.writer(most_lines=50)
        pipe.fill()
        for number in range(500):
            writer.write(f"{number} {LONG}\n")
        assert not writer.flush(0.01)
        said, lost = [], 0
        while not lost:
            for line in os.read(pipe.reader, 1 << 20).decode().lstrip("-").splitlines():
                said.append(line.partition(" ")[0])
                lost = int(line.split()[1]) if line.startswith("lost ") else lost
        writer.write("again\n")
        assert pipe.lines(1) == ["again"]
        kept = [int(number) for number in said[:-1] if number.isdigit()]
        assert kept == list(range(500 - lost))
        assert lost >= 400


def test_characters_are_bounded_too() -> None:
    with piped() as pipe:
        writer = pipe.writer(most_characters=10_000)
        pipe.fill()
        for _ in range(1_000):
            writer.write(f"{LONG}\n")
        assert writer._characters < 10_000 + len(LONG) + 1


def test_a_terminal_that_others_made_unblocking_gets_everything() -> None:
    with piped() as pipe:
        writer = pipe.writer()
        descriptor = pipe.stderr.fileno()
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_NONBLOCK)
        for _ in range(300):
            writer.write(f"{LONG}\n")
        assert pipe.lines(300) == [LONG] * 300


def test_a_reader_that_is_gone_stops_nothing() -> None:
    with piped() as pipe:
        writer = pipe.writer()
        nowhere = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nowhere, pipe.reader)
        os.close(nowhere)
        for number in range(10):
            writer.write(f"{number}\n")
            assert writer.flush(10), "what cannot be written is not waited for"


def test_a_disk_that_was_full_tells_how_many_lines_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with piped() as pipe:
        writer = pipe.writer()
        with open("/dev/full", "w") as full:
            monkeypatch.setattr(sys, "stderr", full)
            for number in range(3):
                writer.write(f"{number}\n")
                assert writer.flush(10)
            monkeypatch.setattr(sys, "stderr", pipe.stderr)
        writer.write("3\n")
        assert pipe.lines(1) == ["lost 4"], "the one that made it try again is among them"
        writer.write("4\n")
        assert pipe.lines(1) == ["4"]


FORKS = """
import os, sys
from orchestrator.logs import configure_logs, flush_logs
import structlog, threading
configure_logs(form="json", lasting=True)
log = structlog.get_logger()
{before}
child = os.fork()
if child == 0:
    {in_child}
    log.info("child", threads=threading.active_count())
    flush_logs(20)
    os._exit(0)
os.waitpid(child, 0)
log.info("parent")
flush_logs(20)
"""


def test_a_fork_takes_no_line_twice_and_no_thread_along() -> None:
    before = 'for number in range(200): log.info("before", number=number)'
    script = FORKS.format(before=before, in_child="pass")
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=True)
    said = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line["event"] for line in said] == ["before"] * 200 + ["child", "parent"]
    assert said[-2]["threads"] == 1


def test_a_child_of_a_process_whose_log_stands_still_can_log() -> None:
    with piped() as pipe:
        pipe.fill()
        before = 'log.info("stuck")'
        script = FORKS.format(before=before, in_child="os.dup2(1, 2)")
        with subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=pipe.stderr.fileno()
        ) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["event"] == "child"
            rest = [line for line in pipe.lines(2) if "{" in line]
            assert process.wait(30) == 0
        assert [json.loads(line.lstrip("-"))["event"] for line in rest] == ["stuck", "parent"]


def test_one_thread_from_the_first_line_on() -> None:
    def threads() -> int:
        return sum(thread.name == "log" for thread in threading.enumerate())

    before = threads()
    with piped() as pipe:
        writer = pipe.writer()
        assert writer.flush()
        assert threads() == before
        for name in ("a", "b"):
            writer.write(f"{name}\n")
            assert writer.flush(10)
            assert threads() == before + 1
        assert pipe.lines(2) == ["a", "b"]


@pytest.mark.parametrize(("form", "said"), [("json", '"lines":3,"event":"log.lines_lost"'), ("console", "lines=3")])
def test_what_was_lost_is_said_as_other_lines_are(form: str, said: str) -> None:
    script = f"""
import os, sys
from orchestrator.logs import configure_logs, flush_logs
import structlog
configure_logs(form={form!r}, lasting=True)
reader, writer = os.pipe()
there = os.dup(2)
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
structlog.get_logger().info("one")
flush_logs(20)
structlog.get_logger().info("two")
flush_logs(20)
os.dup2(there, 2)
structlog.get_logger().info("three")
flush_logs(20)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=True)
    (line,) = ran.stderr.decode().splitlines()
    assert said in line
    assert "warning" in line


def test_lines_after_others_gather_and_are_all_written_without_a_wake_up_each() -> None:
    with piped() as pipe:
        writer = pipe.writer()
        writer.write("first\n")
        assert pipe.lines(1) == ["first"]
        for number in range(100):
            writer.write(f"{number}\n")
        assert pipe.lines(100) == [str(number) for number in range(100)]


def test_a_flush_does_not_wait_for_lines_to_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "_GATHER_S", 3_600)
    with piped() as pipe:
        writer = pipe.writer()
        writer.write("first\n")
        assert pipe.lines(1) == ["first"]
        writer.write("second\n")
        assert writer.flush(10)
        assert pipe.lines(1) == ["second"]
