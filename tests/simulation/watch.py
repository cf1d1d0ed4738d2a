"""Looks on at every commit: what a row says must be what the log says, read by code that is not the engine's.

``history.replay`` folds the log with the product's own ``evolve``: a rule that is wrong there is wrong on both sides.
The verifier's ledger is written anew from the contract; it is compared here with each row that a commit has changed,
at that commit. So an instant that is too late is found like one that is too early, also under faults, where lateness
has its excuse.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import msgspec

from orchestrator.audit.verify import due
from orchestrator.audit.verify.event_data import RestartQueued
from orchestrator.audit.verify.ledger import Workspace
from orchestrator.audit.verify.lines import Envelope, Unreadable, microseconds, parse_instant
from orchestrator.audit.verify.log_pass import Verifier
from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.ports.recomputation import Recomputation
from orchestrator.ports.store import CoreReader, EventFilter
from orchestrator.ports.workspaces import StoredWorkspace
from tests.simulation.hub import SECOND

_HUNG = 30 * SECOND
_FROZEN = 150 * SECOND
"""The longest that a process may stand still between its claim and the count of its cycle's time."""


class Away(msgspec.Struct):
    """What is said to be served by nobody."""

    executor: str
    pool: str
    since: datetime


_decode_away = msgspec.json.Decoder(Away).decode


class Watch:
    """One run's onlooker. ``broken`` is told the promise, what is wrong and a sentence; of each thing once."""

    def __init__(self, tick: int, broken: Callable[[str, str, str], None]) -> None:
        self.verifier = Verifier(tick_us=tick)
        self.policies = self.verifier.policies
        self.unreadable: Unreadable | None = None
        self.limits: dict[str, tuple[int, int]] = {}
        """By cycle: when it was started, and its ``cycle_timeout``, both in microseconds of simulated time."""
        self.said_away: Callable[[Away], None] = lambda said: None
        self._broken = broken
        self._rows: dict[str, StoredWorkspace] = {}
        self._behind: Sequence[Recomputation] = ()
        self._paths: dict[str, list[tuple[int, str]]] = defaultdict(list)

    def committed(self, reader: CoreReader, names: Collection[str], now: int, *, all_rows: bool) -> None:
        """Take what a commit has added, and compare the rows that it may have changed."""
        taken, written = self.verifier.ledger.position, set[str | None]()
        if self.unreadable is not None:
            return
        try:
            if reader.last_position() != taken:
                for event in reader.stored_events(EventFilter(after=taken, limit=1_000_000)):
                    self._take(event, now)
                    written.add(event.workspace)
        except Unreadable as error:
            self.unreadable = error
            return
        self._behind = reader.recomputations()
        for name in names:
            row, known = reader.workspace(name), self.verifier.ledger.workspaces.get(name)
            if row is None or known is None:
                continue
            if name in written or all_rows:
                self._compare(row, known)
            elif row is not self._rows.get(name):  # a renewal writes a row and no event
                self._follow_lease(row, known, now, microseconds(reader.clock()))
            self._rows[name] = row

    def renewed(self, held: Mapping[str, tuple[int, int]], kept: Collection[str]) -> None:
        """Take a renewal: the leases of the cycles that run under the fences given, and no others (S3)."""
        for name, (fence, _) in held.items():
            known = self.verifier.ledger.workspaces.get(name)
            open_one = known.restart.open if known is not None and known.restart is not None else None
            mine = open_one is not None and open_one.fence == fence
            if mine != (name in kept):
                what = "is refused its renewal" if mine else "is renewed, and is not the current one"
                self._tell("S3", f"{name} lease {fence}", f"the lease of {name} under fence {fence} {what}")

    def _take(self, event: StoredEvent, now: int) -> None:
        ledger, name = self.verifier.ledger, event.workspace or ""
        known = ledger.workspaces.get(name)
        if event.type == "FileWritten" and known is not None:
            self._check_decision(known, event)
        self.verifier.take(Envelope(*msgspec.structs.astuple(event)))
        if event.type == "ExecutorAway":
            self.said_away(_decode_away(event.data))
        if event.type == "CycleAbandoned":
            self._check_rescue(name, event)
        if event.type in ("RestartQueued", "CycleStarted"):
            self._check_files(name, event)
        if event.type == "CycleStarted":
            self._check_start(ledger.workspaces[name], event, now)

    def _check_decision(self, known: Workspace, event: StoredEvent) -> None:
        """A caller is answered what became of its write (CONTRACT section 5)."""
        data = msgspec.json.decode(bytes(event.data))
        waits = known.restart is not None and known.restart.open is None
        asked = known.manual_at is not None or known.mutation_at is not None or known.probe_at is not None
        if data["action"] == "record":
            right = "recorded"
        elif known.held_position:
            right = "held"
        else:
            self._paths[known.id].append((event.position, data["path"]))
            right = "folded" if waits or asked or len(known.times) > known.folded else "opened_window"
        if right == "held":
            self._paths[known.id].append((event.position, data["path"]))
        if data["decision"] != right:
            self._tell("answer", event.id, f"{event.id} was answered {data['decision']}, and is {right}")

    def _check_rescue(self, name: str, event: StoredEvent) -> None:
        """S3: a cycle is given up for its lease only once that has passed, as it was renewed last."""
        data = msgspec.json.decode(bytes(event.data))
        lease = self._rows[name].lease if name in self._rows else None
        if data["reason"] != "lease_expired" or lease is None or lease.cycle != data["cycle"]:
            return
        early_us = microseconds(lease.until) - parse_instant(event.recorded_at)
        if early_us > 0:
            text = f"{lease.cycle} is abandoned, and its lease was renewed: it had {early_us / SECOND:g} s left"
            self._tell("S3", f"rescue of {lease.cycle}", text)

    def _check_files(self, name: str, event: StoredEvent) -> None:
        """S5: the count of files is that of the range."""
        data = msgspec.json.decode(bytes(event.data))
        first, last = data["from_position"], data["to_position"]
        self._paths[name] = [(position, path) for position, path in self._paths[name] if position >= first]
        files = len({path for position, path in self._paths[name] if position <= last})
        if data["files"] != files:
            self._tell("S5", event.id, f"{event.type} at {event.position} counts {data['files']} files of {files}")

    def _check_start(self, known: Workspace, event: StoredEvent, now: int) -> None:
        """No more cycles of a fleet than ``max_concurrent``; and from here on the cycle's time counts."""
        in_force = self.policies.in_force(known)
        if in_force is None:
            return
        most, everybody = in_force.numbers.max_concurrent, self.verifier.ledger.workspaces.values()
        live = sum(
            one.restart is not None and one.restart.open is not None for one in everybody if one.fleet == known.fleet
        )
        if most is not None and live > most:
            text = f"{live} cycles of fleet {known.fleet} run at position {event.position}, {most} may"
            self._tell("capacity", event.id, text)
        if known.restart is not None and known.restart.open is not None:
            self.limits[known.restart.open.id] = (now, (in_force.numbers.cycle_timeout_ms or 0) * SECOND // 1000)

    def _compare(self, row: StoredWorkspace, known: Workspace) -> None:
        for what, stored, right in self._differences(row, known):
            if stored != right:
                self._tell("S10", f"{known.id} {what}", f"{known.id} has {what} {stored}, by the log it is {right}")

    def _differences(self, row: StoredWorkspace, known: Workspace) -> Iterator[tuple[str, object, object]]:
        """Yield what a row says beside what it must be."""
        state, restart = row.state, known.restart
        cycle = restart.open if restart is not None else None
        yield "version", state.version, known.version
        yield "registered", state.registered, known.registered
        yield "fence", state.fence, known.fence
        yield "settled_to", state.settled_to, known.settled_to
        yield "pending writes", state.pending_writes, len(known.writes)
        yield "pending requests", state.pending_requests, len(known.requests)
        yield "last_start_at", _us(state.last_start_at), known.last_start
        yield "last_end_at", _us(state.last_end_at), known.last_end
        yield "next_try_at", _us(state.next_try_at), known.next_try_at
        yield "give_ups", state.give_ups, known.give_ups
        yield "hold", state.hold is not None, bool(known.held_position)
        yield "held until", _us(state.hold.until) if state.hold is not None else None, known.held_until
        yield "restart", state.restart.id if state.restart else None, restart.id if restart else None
        if state.restart is not None and restart is not None:
            yield "attempts", state.restart.cycles, restart.cycles
            yield "attempts spent", state.restart.spent, restart.spent
            yield "to_position", state.restart.to_position, restart.to_position
        yield "cycle", state.cycle.id if state.cycle else None, cycle.id if cycle else None
        yield "ready_at", *_ready_at(state.ready_at, known)
        yield "due_at", *self._due_at(row.due_at, known)

    def _due_at(self, stored: datetime | None, known: Workspace) -> tuple[int | None, int | None]:
        """Return the due instant that a row stores, and the right one."""
        at = _us(stored)
        if known.restart is not None or known.held_position or not known.registered:
            return at, None
        in_force = self.policies.in_force(known)
        if in_force is None:
            return at, at
        numbers = cast("RestartQueued", in_force.numbers)  # of a queued restart only its numbers are read
        found = due.window_due(known, numbers)
        if at is not None and found is not None and self._is_behind(known):
            return at, at
        if at is not None and at in {late for late, _ in due.due_after_change(known, numbers)}:
            return at, at
        return at, found[0] if found is not None else None

    def _is_behind(self, known: Workspace) -> bool:
        """Return whether a window need not follow a changed policy yet."""
        scopes = ("settings", "default", f"fleet:{known.fleet}")
        return any(one.scope in scopes and known.id > one.to for one in self._behind)

    def _follow_lease(self, row: StoredWorkspace, known: Workspace, now: int, clock: int) -> None:
        """A renewal gives the lease that the start gave, and none comes after the cycle's time is long over."""
        held, open_one = row.lease, known.restart.open if known.restart is not None else None
        if held is None or open_one is None or held.cycle not in self.limits:
            return
        began, timeout = self.limits[held.cycle]
        lease = open_one.lease_until - open_one.started_at
        given = microseconds(held.until) - max(clock, self.verifier.ledger.at)
        if given != lease:
            text = f"the lease of {held.cycle} is renewed for {given / SECOND:g} s; it began with {lease / SECOND:g} s"
            self._tell("S3", held.cycle, text)
        if now > began + timeout + _HUNG + _FROZEN:
            text = f"the lease of {held.cycle} is renewed {(now - began) / SECOND:.0f} s after its start"
            self._tell("L2", held.cycle, f"{text}, with a cycle_timeout of {timeout / SECOND:.0f} s")

    def _tell(self, promise: str, what: str, text: str) -> None:
        self._broken(promise, what, text)


def _ready_at(stored: datetime | None, known: Workspace) -> tuple[Any, Any]:
    """Return from when a worker may start by the row, and by the log."""
    at, restart = _us(stored), known.restart
    if restart is None or restart.open is not None or known.held_position or not known.registered:
        return at, None
    if restart.cycles == 0:  # ready when it is queued; the row keeps when it was due
        return at is not None and at <= restart.ready_at, True
    return at, restart.ready_at


def _us(at: datetime | None) -> int | None:
    return None if at is None else microseconds(at)
