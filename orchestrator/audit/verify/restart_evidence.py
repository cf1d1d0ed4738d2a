"""Whether events tell one restart whole, from the beginning of its range to its settlement (CONTRACT section 3).

The events are proven to be in the log and are in its order; what is asked here is whether some were left out, and
whether they agree with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from orchestrator.audit.verify.finding import Fault, Finding


class Event(msgspec.Struct, frozen=True):
    """What is needed of an event's line."""

    position: int
    workspace: str | None
    version: int | None
    type: str
    recorded_at: str
    data: msgspec.Raw


class _Write(msgspec.Struct):
    action: str


class _Naming(msgspec.Struct):
    restart: str | None = None


class _Range(msgspec.Struct):
    """``RestartQueued``, ``CycleStarted``, ``WritesWaived``: a range, and how much of it is to be answered."""

    from_position: int
    to_position: int
    writes: int
    requests: int | None = None


class _Cycle(msgspec.Struct):
    cycle: str
    writes: int | None = None


_ENDS = ("CycleSucceeded", "CycleFailed", "CycleAbandoned")
_SETTLED = ("CycleSucceeded", "RestartGaveUp", "RestartCancelled")
_TELLING = ("RestartQueued", "CycleStarted", *_ENDS, "RestartGaveUp", "RestartCancelled")

DataT = TypeVar("DataT", _Write, _Naming, _Range, _Cycle)


class _Broken(Exception):
    """The first thing that does not fit; nothing after it is judged."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def check_restart(restart: str, events: Sequence[Event]) -> list[Finding]:
    """Return what is wrong with the story of ``restart`` in these events; at most one finding, the first one."""
    try:
        own = _own(restart, events)
        _require_one_workspace(own[0], events)
        _require_versions(events)
        ranges = _require_cycles(own, restart)
        _require_beginning(ranges[0][1], events)
        ranges += _waived(own, events)
        _require_counts(ranges, events)
    except _Broken as broken:
        return [broken.finding]
    return []


def _own(restart: str, events: Sequence[Event]) -> list[Event]:
    """Return the events that tell of the restart itself; the first one is its ``RestartQueued``."""
    own = [event for event in events if event.type in _TELLING and _data(event, _Naming).restart == restart]
    if not own:
        queued = [_data(event, _Naming).restart for event in events if event.type == "RestartQueued"]
        told = ", ".join(str(name) for name in queued) or "no restart"
        raise _broken(Fault.WRONG_RESTART, f"the events tell of {told}, not of {restart}")
    if own[0].type != "RestartQueued":
        raise _broken(Fault.OMITTED, f"the story of {restart} does not begin with its RestartQueued", own[0])
    return own


def _require_one_workspace(queued: Event, events: Sequence[Event]) -> None:
    for event in events:
        if event.workspace != queued.workspace:
            message = f"an event of workspace {event.workspace!r} among those of {queued.workspace!r}"
            raise _broken(Fault.FOREIGN_EVENT, message, event)


def _require_versions(events: Sequence[Event]) -> None:
    last: Event | None = None
    for event in (event for event in events if event.version is not None):
        if last is not None and event.version != (last.version or 0) + 1:
            message = (
                f"version {event.version} follows version {last.version}: the decisions between them were left out"
            )
            raise _broken(Fault.OMITTED, message, event)
        last = event


def _require_beginning(first: _Range, events: Sequence[Event]) -> None:
    """Require the decision before the range, so that none at its beginning can be left out unseen."""
    decision = next((event for event in events if event.version is not None), None)
    if decision is None:
        raise _broken(Fault.CONTRADICTION, "no event has a version, not even the decisions", events[0])
    if decision.version != 1 and decision.position >= first.from_position:
        message = f"the range begins at {first.from_position}, and the decision before it was left out"
        raise _broken(Fault.OMITTED, message, decision)


def _require_cycles(own: Sequence[Event], restart: str) -> list[tuple[Event, _Range]]:
    """Follow the restart from queued to settled, cycle by cycle; return each range with the event that records it."""
    ranges = [(own[0], _data(own[0], _Range))]
    running: str | None = None
    settled = False
    for event in own[1:]:
        if settled or event.type == "RestartQueued":
            raise _broken(
                Fault.CONTRADICTION, f"{event.type} comes after {restart} was queued or settled before", event
            )
        if event.type == "CycleStarted":
            if running is not None:
                raise _broken(Fault.CONTRADICTION, f"a cycle starts while {running} is running", event)
            running = _data(event, _Cycle).cycle
            ranges.append((event, _grown(event, ranges[-1][1])))
        elif event.type in _ENDS:
            ranges += _ended(event, running, ranges[-1][1])
            running = None
        elif running is not None:
            raise _broken(Fault.CONTRADICTION, f"{event.type} while {running} is running", event)
        settled = event.type in _SETTLED
    if not settled:
        message = f"the last event of {restart} is {own[-1].type}: its end was left out, or had not come yet"
        raise _broken(Fault.UNSETTLED, message, own[-1])
    return ranges


def _grown(event: Event, before: _Range) -> _Range:
    found = _data(event, _Range)
    if found.from_position != before.from_position or not before.to_position <= found.to_position < event.position:
        message = (
            f"the cycle's range {found.from_position}..{found.to_position} does not go on from "
            f"{before.from_position}..{before.to_position}"
        )
        raise _broken(Fault.CONTRADICTION, message, event)
    return found


def _ended(event: Event, running: str | None, covered: _Range) -> list[tuple[Event, _Range]]:
    end = _data(event, _Cycle)
    if end.cycle != running:
        message = f"{event.type} ends {end.cycle}, while {running or 'no cycle'} is running"
        raise _broken(Fault.CONTRADICTION, message, event)
    if event.type != "CycleSucceeded" or end.writes is None:
        return []
    return [(event, _Range(covered.from_position, covered.to_position, end.writes))]


def _waived(own: Sequence[Event], events: Sequence[Event]) -> list[tuple[Event, _Range]]:
    """Return what a cancelled restart waived; the same transaction records both."""
    if own[-1].type != "RestartCancelled":
        return []
    for event in events:
        if event.type == "WritesWaived" and event.position > own[-1].position:
            return [(event, _data(event, _Range))]
    raise _broken(Fault.OMITTED, "the restart was cancelled, and the WritesWaived of its range was left out", own[-1])


def _require_counts(ranges: Sequence[tuple[Event, _Range]], events: Sequence[Event]) -> None:
    writes = [event.position for event in events if _is_answered_write(event)]
    requests = [event.position for event in events if event.type == "RestartRequested"]
    for event, span in ranges:
        _require_count(event, span, "writes", span.writes, writes)
        if span.requests is not None:
            _require_count(event, span, "requests", span.requests, requests)


def _is_answered_write(event: Event) -> bool:
    return event.type == "FileWritten" and _data(event, _Write).action != "record"


def _require_count(event: Event, span: _Range, what: str, recorded: int, positions: Sequence[int]) -> None:
    shown = sum(span.from_position <= position <= span.to_position for position in positions)
    if shown != recorded:
        fault = Fault.OMITTED if shown < recorded else Fault.CONTRADICTION
        message = (
            f"{event.type} records {recorded} {what} in {span.from_position}..{span.to_position}; "
            f"the bundle holds {shown}{': some were left out' if shown < recorded else ''}"
        )
        raise _broken(fault, message, event)


def _data(event: Event, kind: type[DataT]) -> DataT:
    try:
        return msgspec.json.decode(event.data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as wrong:
        raise _broken(
            Fault.MALFORMED, f"the data of {event.type} is not as the contract has it: {wrong}", event
        ) from None


def _broken(fault: Fault, message: str, event: Event | None = None) -> _Broken:
    at = None if event is None else event.position
    return _Broken(Finding(fault, message if at is None else f"position {at}: {message}", at))
