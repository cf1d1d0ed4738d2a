"""What sealing needs of a store, as values and Protocols: checkpoints, and the tiles of the tree they sign.

The tree (RFC 9162) holds one leaf for each event, by position. It is kept as tiles of 256 hashes, so that a proof
reads a few rows however long the log is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

COUNTED_MOST = 100_000
"""A scrape counts no more unsealed events than this; the count stands still there."""


@dataclass(frozen=True, kw_only=True)
class StoredCheckpoint:
    """A signed head of the tree: its first ``tree_size`` events, of which the last is at ``position``.

    ``root`` and the hashes of ``consistency`` (the proof that the tree of ``previous_size`` is its beginning) are
    base64; ``note`` is the signed text as it is exported. ``exported_at`` None: some sink lacks it.
    """

    tree_size: int
    position: int
    root: str
    note: str
    previous_size: int
    consistency: tuple[str, ...]
    sealed_at: datetime
    exported_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Tile:
    """256 hashes of one level of the tree, fewer in a level's last one; positions are those of level 0's events."""

    level: int
    index: int
    hashes: bytes
    first_position: int | None = None
    last_position: int | None = None


@dataclass(frozen=True, kw_only=True)
class SealState:
    """How far the log is sealed. ``unsealed`` stops counting at ``COUNTED_MOST``; the reason is the last failure's."""

    newest: StoredCheckpoint | None
    unsealed: int
    unsealed_since: datetime | None
    unexported: int
    unexported_since: datetime | None
    failures: int
    failed_because: str


class Seals(Protocol):
    """Reads what is sealed, in the transaction of the reader it belongs to."""

    def newest(self) -> StoredCheckpoint | None:
        """Return the checkpoint of the largest tree."""
        ...

    def checkpoints(self, *, before: int | None, limit: int) -> list[StoredCheckpoint]:
        """Return a page of checkpoints, newest first, those of trees smaller than ``before``."""
        ...

    def unexported(self, *, after: int, limit: int) -> list[StoredCheckpoint]:
        """Return checkpoints that some sink lacks, oldest first, those of trees larger than ``after``."""
        ...

    def tiles(self, level: int, indexes: Collection[int]) -> list[Tile]:
        """Return those of a level's tiles that there are."""
        ...

    def tile_holding(self, position: int) -> Tile | None:
        """Return the tile of level 0 that has the event at ``position``; None if it is not sealed."""
        ...

    def positions(self, first_position: int, to_position: int) -> list[int]:
        """Return the positions of a range that have an event; meant for ranges inside of a tile."""
        ...

    def state(self) -> SealState:
        """Return how far the log is sealed."""
        ...


class Sink(Protocol):
    """A place that takes checkpoints, where the owner of the database cannot change them."""

    name: str
    """What an error calls it."""

    def put(self, checkpoint: StoredCheckpoint) -> None:
        """Take a checkpoint; the same one again changes nothing. Raises ``SinkUnavailable``."""
        ...


class SealStore(Protocol):
    """Writes what is sealed. Neither takes the append lock: sealing never keeps a write waiting."""

    def save_checkpoint(self, checkpoint: StoredCheckpoint, tiles: Sequence[Tile]) -> None:
        """Store a checkpoint and the tiles that it changed, all or nothing.

        Raises ``Conflict`` if another checkpoint follows the one of ``previous_size`` already.
        """
        ...

    def mark_exported(self, tree_size: int) -> None:
        """Note that every sink has the checkpoints up to that size."""
        ...

    def note_seal_failure(self, reason: str) -> None:
        """Count a seal or an export that failed, and keep why."""
        ...
