"""Making the evidence of one restart; ``audit.verify.evidence`` says what a bundle holds, and checks it offline.

Everything is looked up: decisions by their version, writes by their range, leaves by the tile that has their position.
So a bundle costs what it holds, whatever the log's length.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import cache

import msgspec

from orchestrator.audit.verify.evidence import Exhibit, write_bundle
from orchestrator.audit.verify.merkle import HASH_SIZE, inclusion_proof, leaf_hash
from orchestrator.audit.verify.tiles import TILE_WIDTH, TileDamaged, subtree_hashes
from orchestrator.domain import events as ev
from orchestrator.domain.canonical_line import StoredEvent, canonical_line
from orchestrator.domain.policy import Action
from orchestrator.domain.restart_projection import SETTLED, RestartProjection
from orchestrator.errors import Conflict, NotFound, NotSealedYet, SealRefused
from orchestrator.ports.sealing import Seals, Tile
from orchestrator.ports.store import EventFilter, Reader
from orchestrator.sealing.seal import load_tile

MOST_EVENTS = 10_000
"""In one bundle, which is then about 13 MB; as many as the policy's ``max_count`` folds by default."""

_PAGE = 500
_FEW = 8
"""Decisions of a first look; most restarts have no more on either side."""

_SETTLED = tuple(kind.type_name() for kind in (ev.CycleSucceeded, ev.RestartGaveUp, ev.RestartCancelled))
_WRITTEN = ev.FileWritten.type_name()


class _Of(msgspec.Struct):
    """What is needed of an event's data."""

    restart: str | None = None
    action: str | None = None
    to_position: int = 0


def make_bundle(reader: Reader, restart: str) -> str:
    """Return the evidence of a restart, under the newest checkpoint.

    Raises ``NotFound``; ``NotSealedYet`` while it is not settled, or not sealed; ``SealRefused`` where an event is not
    the one that was sealed; ``Conflict`` for a restart that is too long for a bundle.
    """
    record = reader.restart(restart)
    if record is None:
        raise NotFound(f"restart {restart!r} does not exist; GET /v1/restarts lists those that do")
    try:
        events = _events(reader, record)
    except msgspec.MsgspecError as error:
        raise SealRefused(f"the log around {restart} was altered, or is of a newer version: {error}") from None
    newest = reader.seals.newest()
    if newest is None or newest.position < events[-1].position:
        raise NotSealedYet(f"{restart} is settled and not sealed yet; ask again after the next seal, within some 10 s")
    try:
        exhibits = list(_exhibits(reader.seals, events, newest.tree_size))
    except TileDamaged as error:
        raise SealRefused(f"the tree that proves {restart} was altered: {error}") from None
    origin = newest.note.partition("\n")[0]
    return write_bundle(origin, restart, newest.note, exhibits)


def _events(reader: Reader, record: RestartProjection) -> list[StoredEvent]:
    """Return the decisions around the range and up to the settlement, and the writes it answers, by position."""
    if record.writes > MOST_EVENTS:
        raise _too_long(record)
    queued = next(iter(reader.stored_events(EventFilter(after=record.queued_position - 1, limit=1))), None)
    if queued is None or queued.version is None or queued.position != record.queued_position:
        raise SealRefused(f"the event that queued {record.id}, at position {record.queued_position}, was taken away")
    decisions = [*_before(reader, record, queued.version), *_until_settled(reader, record, queued.version)]
    # A removal waives the writes that came after the cycle's start too.
    last = max(record.to_position, _of(decisions[-1]).to_position)
    writes = _writes(reader, record, last, MOST_EVENTS - len(decisions))
    return sorted([*decisions, *writes], key=lambda event: event.position)


def _writes(reader: Reader, record: RestartProjection, last: int, most: int) -> list[StoredEvent]:
    """Return the writes from the range's begin to position ``last`` that ask for something."""
    after, found = record.from_position - 1, list[StoredEvent]()
    while after < last:
        wanted = EventFilter(after=after, to_position=last, workspace=record.workspace, types=(_WRITTEN,), limit=_PAGE)
        page = reader.stored_events(wanted)
        found += [event for event in page if _of(event).action != Action.RECORD.value]
        if len(found) > most:
            raise _too_long(record)
        after = page[-1].position if len(page) == _PAGE else last
    return found


def _before(reader: Reader, record: RestartProjection, version: int) -> list[StoredEvent]:
    """Return the decisions before the ``RestartQueued`` of that version, back to the one before the range."""
    found, size = list[StoredEvent](), _FEW
    while version > 1 and (not found or found[0].position >= record.from_position):
        first, size = max(1, version - min(size, _PAGE)), size * 4
        page = reader.stored_decisions(record.workspace, first, version - first)
        found = [*(event for event in page if (event.version or 0) < version), *found]
        version = first
        if len(found) > MOST_EVENTS:
            raise _too_long(record)
    earlier = sum(event.position < record.from_position for event in found)
    return found[max(0, earlier - 1) :]


def _until_settled(reader: Reader, record: RestartProjection, version: int) -> list[StoredEvent]:
    """Return the decisions from the ``RestartQueued`` to the settlement, to ``WritesWaived`` where it was cancelled."""
    found, size = list[StoredEvent](), _FEW
    ends_with: str | None = None
    while page := reader.stored_decisions(record.workspace, version, min(size, _PAGE)):
        for event in page:
            found.append(event)
            if event.type == ends_with:
                return found
            if ends_with is None and event.type in _SETTLED and _of(event).restart == record.id:
                if event.type != ev.RestartCancelled.type_name():
                    return found
                ends_with = ev.WritesWaived.type_name()
        version, size = (page[-1].version or version) + 1, size * 4
        if len(found) > MOST_EVENTS:
            raise _too_long(record)
    if record.state in SETTLED:
        raise SealRefused(f"the decision that settled {record.id} ({record.state.value}) was taken away")
    raise NotSealedYet(f"{record.id} is {record.state.value}; there is evidence of it once it is settled")


def _too_long(record: RestartProjection) -> Conflict:
    return Conflict(
        f"{record.id} has more than the {MOST_EVENTS} events of a bundle; export the log and verify all of it against a"
        " checkpoint: orchestrator audit export, orchestrator audit verify FILE --checkpoint FILE --pubkey FILE"
    )


def _exhibits(seals: Seals, events: list[StoredEvent], size: int) -> Iterator[Exhibit]:
    leaves, subtree = _Leaves(seals), cache(subtree_hashes(load_tile(seals)))  # neighbours share most of their proofs
    for event in events:
        line = canonical_line(event)
        index = leaves.index(event.position, leaf_hash(line))
        yield Exhibit(index, line.decode(), inclusion_proof(index, size, subtree))


class _Leaves:
    """Finds the leaves of events; neighbours are found in the tile of the one before."""

    def __init__(self, seals: Seals) -> None:
        self._seals = seals
        self._tile: Tile | None = None
        self._positions: list[int] = []

    def index(self, position: int, leaf: bytes) -> int:
        """Return the index of the leaf. Raises ``SealRefused`` if the tree has another one for that position."""
        if self._tile is None or not self._positions or not self._positions[0] <= position <= self._positions[-1]:
            self._tile = self._seals.tile_holding(position)
            first, last = (self._tile.first_position, self._tile.last_position) if self._tile else (None, None)
            self._positions = self._seals.positions(first or 0, last or 0)
        rank = bisect_left(self._positions, position)
        hashes = self._tile.hashes if self._tile else b""
        if hashes[rank * HASH_SIZE : (rank + 1) * HASH_SIZE] != leaf or self._tile is None:
            raise SealRefused(
                f"the event at position {position} is not the one that was sealed; verify the log against an exported"
                " checkpoint"
            )
        return self._tile.index * TILE_WIDTH + rank


def _of(event: StoredEvent) -> _Of:
    return msgspec.json.decode(event.data, type=_Of)
