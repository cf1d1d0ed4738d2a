"""A good log, made by the real service, and the means to break it by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from orchestrator.audit.verify.lines import parse_instant, read_lines, spell_instant
from orchestrator.audit.verify.report import Promise, Report
from orchestrator.audit.verify.run import Verification
from orchestrator.audit.verify.sealed_roots import SealCheck
from orchestrator.domain import commands as cmd
from orchestrator.domain.events import ErrorKind
from orchestrator.history.export import export
from orchestrator.ports.store import EventStore
from orchestrator.storage.opening import open_store
from tests.history import START, History, TestClock
from tests.log_lines import log_lines
from tests.memory_store.store import MemoryEventStore

Event = dict[str, Any]
TICK_US = 1_000_000


def export_of(store: EventStore) -> bytes:
    written: list[str] = []
    export(store, written.append)
    return "".join(written).encode()


def instant(seconds: float) -> str:
    return spell_instant(round((START + timedelta(seconds=seconds)).timestamp()) * 1_000_000)


class _Story:
    """One workspace's part of the good log; steps are told with their second."""

    def __init__(self, history: History, workspace: str, **policy: Any) -> None:
        self.history, self.workspace = history, workspace
        history.register(workspace, **policy)

    def write(self, at: float, *paths: str) -> _Story:
        return self._do(at, lambda: self.history.write(*paths, workspace=self.workspace))

    def tick(self, at: float) -> _Story:
        return self._do(at, lambda: self.history.tick(self.workspace))

    def start(self, at: float) -> _Story:
        return self._do(at, lambda: self.history.start(self.workspace))

    def succeed(self, at: float) -> _Story:
        return self._do(at, lambda: self.history.succeed(self.workspace))

    def fail(self, at: float, kind: ErrorKind = ErrorKind.TRANSIENT) -> _Story:
        return self._do(at, lambda: self.history.fail("no such host", self.workspace, kind))

    def probe(self, at: float) -> _Story:
        return self._do(at, lambda: self.history.probe("no answer", self.workspace))

    def manual(self, at: float) -> _Story:
        return self._do(at, lambda: self.history.request("please", workspace=self.workspace))

    def change(self, at: float, command: cmd.Hold | cmd.Release | cmd.Remove) -> _Story:
        return self._do(at, lambda: self.history.change(command, self.workspace))

    def cancel(self, at: float) -> _Story:
        restart = self.history.state(self.workspace).restart
        assert restart is not None
        return self._do(at, lambda: self.history.cancel(restart.id, "not now"))

    def restart(self, at: float) -> _Story:
        """Queue what is due, start it a second later and let it succeed."""
        return self.tick(at).start(at + 1).succeed(at + 5)

    def report_late(self, at: float, cycle: str, fence: int) -> _Story:
        command = cmd.FinishCycle(restart="rst_of_a_zombie", cycle=cycle, fence=fence, result=cmd.Success())
        return self._do(at, lambda: self.history.carry_out(self.workspace, command))

    def _do(self, at: float, action: Callable[[], object]) -> _Story:
        self.history.at(at)
        action()
        return self


def fill(history: History) -> None:
    """Everything that can happen to a workspace, one workspace after the other."""
    _Story(history, "plain").write(0, "a").write(1, "b").write(2, "c").restart(17).write(30, "d").restart(78)
    _Story(history, "retry").write(100, "a").tick(115).start(116).fail(120).start(123).succeed(130)
    gave_up = _Story(history, "gave_up").write(200, "a").tick(215).start(216).fail(220, ErrorKind.PERMANENT)
    gave_up.write(230, "b").restart(276)
    held = _Story(history, "held").change(300, cmd.Hold(reason="freeze")).write(301, "a")
    held.change(330, cmd.Release(reason="over")).restart(330)
    _Story(history, "cancelled").write(400, "a").tick(415).cancel(416)
    removed = _Story(history, "removed").write(500, "a").tick(515).start(516).write(517, "b")
    removed.change(518, cmd.Remove(reason="gone"))
    probed = _Story(history, "probed").probe(600).tick(600).start(601).probe(602).succeed(605).probe(606)
    probed.change(640, cmd.Hold(reason="freeze")).probe(641).change(642, cmd.Release(reason="over"))
    probed.write(643, "a").probe(644).restart(661)
    _Story(history, "shadow", mode="shadow").write(700, "a").tick(715).start(716)
    _Story(history, "manual").write(800, "a").restart(815).manual(825).restart(825)
    orphan = _Story(history, "orphan").write(900, "a").tick(915).start(916)
    zombie, fence = history.state("orphan").last_cycle or "", history.state("orphan").fence
    orphan.tick(946).start(947).succeed(950).report_late(951, zombie, fence)
    rules = [{"match": "*.log", "action": "record"}, {"match": "docs/**", "action": "reload", "quiet": "3s"}]
    _Story(history, "ruled", rules=rules).write(1000, "docs/a", "x.log").restart(1003)
    _Story(history, "last").write(1100, "a").restart(1115).write(1130, "b")


def make_good_log() -> bytes:
    clock = TestClock()
    history = History(MemoryEventStore(clock), clock)
    fill(history)
    return log_lines(history.store)


def make_good_database(path: Path, migrate: Callable[[str], None]) -> Path:
    url = f"sqlite:///{path}"
    migrate(url)
    clock = TestClock()
    store = open_store(url, clock)
    fill(History(store, clock))
    store.close()
    return path


class Log:
    """Events of an export that a test may change. Positions are those of the events, from 1."""

    def __init__(self, lines: bytes) -> None:
        self.events: list[Event] = [json.loads(line) for line in lines.splitlines()]

    def of(self, workspace: str, kind: str, nth: int = 0) -> Event:
        return [e for e in self.events if e["workspace"] == workspace and e["type"] == kind][nth]

    def position(self, workspace: str, kind: str, nth: int = 0) -> int:
        found: int = self.of(workspace, kind, nth)["position"]
        return found

    def data(self, workspace: str, kind: str, nth: int = 0) -> Event:
        found: Event = self.of(workspace, kind, nth)["data"]
        return found

    def drop(self, workspace: str, kind: str, nth: int = 0) -> int:
        """Take an event out, and close the gap in the workspace's versions as a forger would; positions have gaps."""
        gone = self.of(workspace, kind, nth)
        self.events.remove(gone)
        if gone["version"] is not None:
            self._shift_versions(workspace, gone["position"], -1)
        position: int = gone["position"]
        return position

    def put(self, after: Event, kind: str, /, *, version: bool = True, **data: object) -> int:
        """Put an event of the same workspace and instant after another one, and make room for its version."""
        index = self.events.index(after) + 1
        workspace = after["workspace"]
        for event in self.events[index:]:
            self._move(event)
        for event in self.events:
            self._move_ranges(event, after["position"])
        before = [e["version"] for e in self.events[:index] if e["workspace"] == workspace and e["version"]]
        made = {**after, "position": after["position"] + 1, "id": f"evt_put_{index}", "type": kind}
        made |= {"version": max(before) + 1 if version else None, "data": data}
        self.events.insert(index, made)
        if version:
            self._shift_versions(workspace, made["position"], 1)
        position: int = made["position"]
        return position

    def cut_after(self, event: Event) -> None:
        del self.events[self.events.index(event) + 1 :]

    def delay(self, event: Event, seconds: float) -> None:
        """Let this event and everything that comes at or after its instant come so much later."""
        cut = event["recorded_at"]
        for later in self.events[self.events.index(event) :]:
            for holder in (later, later["data"]):
                for name, value in holder.items():
                    is_instant = isinstance(value, str) and name.endswith(("_at", "_until"))
                    if is_instant and value >= cut:
                        holder[name] = later_by(value, seconds)

    def encode(self) -> bytes:
        return b"".join(json.dumps(event, separators=(",", ":")).encode() + b"\n" for event in self.events)

    def _shift_versions(self, workspace: str, after: int, by: int) -> None:
        for event in self.events:
            if event["workspace"] == workspace and event["position"] > after and event["version"] is not None:
                event["version"] += by

    def _move(self, event: Event) -> None:
        event["position"] += 1

    def _move_ranges(self, event: Event, after: int) -> None:
        for name in ("from_position", "to_position"):
            if event["data"].get(name, 0) > after + (name == "from_position"):
                event["data"][name] += 1


def later_by(text: str, seconds: float) -> str:
    return spell_instant(parse_instant(text) + round(seconds * 1_000_000))


def verify(lines: bytes, *, tick_us: int | None = TICK_US, seal: SealCheck | None = None) -> Report:
    verification = Verification(tick_us=tick_us, seal=seal)
    verification.read(read_lines(BytesIO(lines)))
    verification.finish()
    return verification.report("the test's log")


def broken(report: Report) -> dict[Promise, list[tuple[int, ...]]]:
    """The promises that are named, each with the positions of its findings."""
    found: dict[Promise, list[tuple[int, ...]]] = {}
    for violation in report.violations:
        found.setdefault(violation.promise, []).append(violation.positions)
    return found
