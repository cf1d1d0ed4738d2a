"""The record of access: who was refused what, and what keys have read, summed by minute (CONTRACT section 8).

Sums, as whoever is refused chooses how often: a log that grows with each refusal is a weapon. A process that is killed
loses the sums of its last minute; what is exported, and what is changed, is recorded by itself, before it is answered.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.domain.access_events import AccessDenied, DataExported, ReadsCounted
from orchestrator.domain.events import EventData, NewEvent, Recorded
from orchestrator.ports.store import CoreStore, Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import Unit
from orchestrator.service.announce import announce
from orchestrator.service.append import append_all

MOST_KINDS = 1_000
"""Different refusals in a minute; from there on they are counted under ``MORE``."""
MORE = "others"
_MOST_CHARACTERS = 200


@dataclass
class _Denied:
    what: str
    count: int
    first_at: datetime
    last_at: datetime


@dataclass
class _Reads:
    first_at: datetime
    last_at: datetime
    kinds: Counter[str] = field(default_factory=Counter)


_Refusal = tuple[str, str, str | None]
"""Caller, reason, the scope that was missing."""


class AccessRecord:
    """Sums up until they are flushed. Safe for use by many threads."""

    def __init__(self, store: CoreStore, ids: Ids) -> None:
        self._store, self._ids = store, ids
        self._lock = threading.Lock()
        self._denied: dict[_Refusal, _Denied] = {}
        self._reads: dict[str, _Reads] = {}

    def denied(self, caller: str, reason: str, what: str, needs: str | None, at: datetime) -> None:
        """Count a refusal. ``what``: method and path; the first one of a sum is kept."""
        with self._lock:
            refusal: _Refusal = (caller, reason, needs)
            if refusal not in self._denied and len(self._denied) >= MOST_KINDS:
                refusal = (MORE, MORE, None)
            found = self._denied.get(refusal)
            if found is None:
                self._denied[refusal] = _Denied(_printable(what), 1, at, at)
            else:
                found.count, found.last_at = found.count + 1, at

    def read(self, actor: str, kind: str, at: datetime) -> None:
        """Count a read of somebody with a key."""
        with self._lock:
            found = self._reads.setdefault(actor, _Reads(at, at))
            found.kinds[kind] += 1
            found.last_at = at

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to flush."""
        return not (self._denied or self._reads)

    def flush(self) -> list[Recorded]:
        """Append the sums as events; return them. Raises ``Unavailable``; the sums are then kept for the next time."""
        with self._lock:
            denied, self._denied = self._denied, {}
            reads, self._reads = self._reads, {}
        events = [*_denials(denied), *_counts(reads)]
        try:
            return self._append(events) if events else []
        except BaseException:
            self._put_back(denied, reads)
            raise

    def exported(self, actor: str, what: str, chosen: Mapping[str, str]) -> None:
        """Record that somebody is given data, before they are. Raises ``Unavailable``."""
        self._append([(actor, DataExported(what=what, filter=dict(chosen)))])

    def _append(self, events: list[tuple[str, EventData]]) -> list[Recorded]:
        new = [
            NewEvent(id=self._ids.new("evt"), workspace=None, version=None, data=data, actor=actor)
            for actor, data in events
        ]

        def step(tx: Transaction) -> list[Recorded]:
            return append_all(tx, new, self._ids)

        recorded = self._store.commit(Unit(name="access", workspaces=(), step=step))
        announce(event for event in recorded if isinstance(event.data, DataExported))
        return recorded

    def _put_back(self, denied: Mapping[_Refusal, _Denied], reads: Mapping[str, _Reads]) -> None:
        with self._lock:
            for refusal, one in denied.items():
                later = self._denied.setdefault(refusal, _Denied(one.what, 0, one.first_at, one.last_at))
                later.what, later.count, later.first_at = one.what, later.count + one.count, one.first_at
            for actor, read in reads.items():
                counted = self._reads.setdefault(actor, _Reads(read.first_at, read.last_at))
                counted.kinds += read.kinds
                counted.first_at = read.first_at


def _denials(denied: Mapping[_Refusal, _Denied]) -> list[tuple[str, EventData]]:
    return [
        (
            caller,
            AccessDenied(
                caller=caller,
                reason=reason,
                what=one.what,
                needs=needs,
                count=one.count,
                first_at=one.first_at,
                last_at=one.last_at,
            ),
        )
        for (caller, reason, needs), one in sorted(denied.items(), key=lambda item: item[1].first_at)
    ]


def _counts(reads: Mapping[str, _Reads]) -> list[tuple[str, EventData]]:
    return [
        (actor, ReadsCounted(reads=dict(sorted(one.kinds.items())), first_at=one.first_at, last_at=one.last_at))
        for actor, one in sorted(reads.items())
    ]


def _printable(what: str) -> str:
    """Return it so that it can stand in the log: callers choose it."""
    return "".join(letter if letter.isprintable() else "?" for letter in what[:_MOST_CHARACTERS])
