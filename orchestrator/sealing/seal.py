"""One seal: the events since the last checkpoint become leaves of the tree, and its new head is signed and stored.

Nothing here waits for the append lock or keeps anybody from it: the log only grows, so it is read page by page, and
what was committed meanwhile belongs to the next seal.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.audit.verify.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from orchestrator.audit.verify.merkle import consistency_proof, leaf_hashes
from orchestrator.audit.verify.signed_note import NoteRefused, SigningKey
from orchestrator.audit.verify.tiles import (
    EMPTY,
    TILE_WIDTH,
    Grown,
    LoadTile,
    RightEdge,
    TileDamaged,
    append,
    load_edge,
    subtree_hashes,
)
from orchestrator.domain.canonical_line import canonical_line
from orchestrator.errors import SealRefused
from orchestrator.ports.sealing import Seals, StoredCheckpoint, Tile
from orchestrator.ports.store import EventFilter, EventStore, Reader

MOST_EVENTS = 100_000
"""Under one checkpoint, so that a backlog of any length is sealed in flat memory and a killed sealer loses little."""

_PAGE = 2_000


@dataclass(frozen=True, kw_only=True)
class Signing:
    """Who signs: every key of the key file, and the log's name. ``origin`` None: the name of the first key."""

    keys: Sequence[SigningKey]
    origin: str | None = None
    trust_stored: bool = False
    """True to go on from a checkpoint that none of the keys has signed: the old key is lost, a person has checked."""


@dataclass(frozen=True, kw_only=True)
class _Base:
    """What a seal goes on from: the last checkpoint's tree, and where its last leaf tile begins in the log."""

    edge: RightEdge
    position: int
    partial_from: int | None
    origin: str


@dataclass(kw_only=True)
class _Leaves:
    hashes: list[bytes]
    positions: list[int]


def load_tile(seals: Seals) -> LoadTile:
    """Return the look-up of stored tiles that trees and proofs are made from."""

    def load(level: int, number: int) -> bytes:
        found = seals.tiles(level, [number])
        return found[0].hashes if found else b""

    return load


def seal_next(store: EventStore, signing: Signing, *, most: int = MOST_EVENTS) -> StoredCheckpoint | None:
    """Seal the next ``most`` events at most; return the checkpoint, or None if nothing came since the last one.

    Raises ``Conflict`` if another sealer was first, which is harmless; ``SealRefused`` where the stored tree or
    checkpoint is not the one that was sealed; ``StorageUnavailable``.
    """
    try:
        with store.read() as reader:
            base = _base(reader.seals, signing)
        leaves = _read(store, base.position, most)
        if not leaves.hashes:
            return None
        grown = append(base.edge, leaves.hashes)
        with store.read() as reader:
            sealed = _signed(reader, base, grown, leaves.positions[-1], signing)
    except TileDamaged as error:
        raise SealRefused(f"the tree of the last checkpoint cannot be read: {error}; {_ADVICE}") from None
    store.save_checkpoint(sealed, _tiles(base, grown, leaves.positions))
    return sealed


def _base(seals: Seals, signing: Signing) -> _Base:
    newest = seals.newest()
    if newest is None:
        return _Base(edge=EMPTY, position=0, partial_from=None, origin=signing.origin or signing.keys[0].name)
    edge = load_edge(newest.tree_size, load_tile(seals))
    if _base64(edge.root()) != newest.root:
        raise SealRefused(
            f"the stored tiles of the last checkpoint ({newest.tree_size} events) have another root than it"
            f" says; {_ADVICE}"
        )
    partial = seals.tiles(0, [newest.tree_size // TILE_WIDTH])
    return _Base(
        edge=edge,
        position=newest.position,
        partial_from=partial[0].first_position if partial else None,
        origin=_origin(newest, signing),
    )


_ADVICE = (
    "compare the log with a checkpoint that was exported: orchestrator audit verify DATABASE --checkpoint FILE"
    " --pubkey FILE"
)


def _origin(newest: StoredCheckpoint, signing: Signing) -> str:
    """Return the log's name, which never changes.

    Going on from whatever is stored would let who can write to the database have a forged tree signed with our key.
    """
    try:
        keys = [key.public for key in signing.keys]
        found = open_checkpoint(newest.note, keys)
    except NoteRefused as error:
        if not signing.trust_stored:
            raise SealRefused(
                f"the last checkpoint ({newest.tree_size} events) is not signed with our key: {error}. If the key was"
                " replaced on purpose, seal once with `orchestrator audit checkpoint --seal --trust-stored`;"
                f" else {_ADVICE}"
            ) from None
        return signing.origin or signing.keys[0].name
    if (found.size, found.position, _base64(found.root)) != (newest.tree_size, newest.position, newest.root):
        raise SealRefused(f"the last checkpoint's note and its row ({newest.tree_size} events) differ; {_ADVICE}")
    if signing.origin not in (None, found.origin):
        raise SealRefused(
            f"the log's checkpoints name it {found.origin!r}, and ORCHESTRATOR_ORIGIN says {signing.origin!r}: a log"
            " has one name for ever; unset the variable, or set it back"
        )
    return found.origin


def _read(store: EventStore, after: int, most: int) -> _Leaves:
    """Read and hash events in pages, each in a reading transaction of its own."""
    leaves = _Leaves(hashes=[], positions=[])
    while len(leaves.hashes) < most:
        size = min(_PAGE, most - len(leaves.hashes))
        with store.read() as reader:
            page = reader.stored_events(EventFilter(after=after, limit=size))
        leaves.hashes += leaf_hashes(map(canonical_line, page))
        leaves.positions += [event.position for event in page]
        if len(page) < size:
            break
        after = page[-1].position
    return leaves


def _signed(reader: Reader, base: _Base, grown: Grown, position: int, signing: Signing) -> StoredCheckpoint:
    stored = load_tile(reader.seals)

    def load(level: int, number: int) -> bytes:
        return grown.changed.get((level, number)) or stored(level, number)

    size, sealed_at = grown.edge.size, reader.clock()
    head = Checkpoint(origin=base.origin, size=size, root=grown.root, position=position, sealed_at=sealed_at)
    proof = consistency_proof(base.edge.size, size, subtree_hashes(load))
    return StoredCheckpoint(
        tree_size=size,
        position=position,
        root=_base64(grown.root),
        note=sign_checkpoint(head, signing.keys),
        previous_size=base.edge.size,
        consistency=tuple(_base64(node) for node in proof),
        sealed_at=sealed_at,
    )


def _tiles(base: _Base, grown: Grown, positions: Sequence[int]) -> list[Tile]:
    """Return the changed tiles as they are stored; those of leaves know the positions of their events."""
    return [_tile(base, level, number, hashes, positions) for (level, number), hashes in grown.changed.items()]


def _tile(base: _Base, level: int, number: int, hashes: bytes, positions: Sequence[int]) -> Tile:
    if level:
        return Tile(level=level, index=number, hashes=hashes)
    first = number * TILE_WIDTH - base.edge.size
    last = min(first + TILE_WIDTH, len(positions)) - 1
    return Tile(
        level=level,
        index=number,
        hashes=hashes,
        first_position=base.partial_from if first < 0 else positions[first],
        last_position=positions[last],
    )


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode()
