"""Checkpoints and tiles in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice

from orchestrator.errors import Conflict
from orchestrator.ports.sealing import COUNTED_MOST, SealState, StoredCheckpoint, Tile
from tests.memory_store.log import MemoryLog


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """What is sealed, as one value; ``checkpoints`` by size."""

    checkpoints: tuple[StoredCheckpoint, ...] = ()
    tiles: Mapping[tuple[int, int], Tile] = field(default_factory=dict)
    failures: int = 0
    failed_because: str = ""

    def with_checkpoint(self, checkpoint: StoredCheckpoint, tiles: Sequence[Tile]) -> Sealed:
        """Return it with one more checkpoint. Raises ``Conflict`` if the previous one is followed already."""
        if any(checkpoint.previous_size == known.previous_size for known in self.checkpoints):
            raise Conflict(f"another checkpoint follows that of {checkpoint.previous_size} events already")
        changed = {(tile.level, tile.index): tile for tile in tiles}
        return replace(self, checkpoints=(*self.checkpoints, checkpoint), tiles={**self.tiles, **changed})

    def with_exported(self, tree_size: int, now: datetime) -> Sealed:
        """Return it with the checkpoints up to that size marked as exported."""
        marked = (
            replace(one, exported_at=now) if one.tree_size <= tree_size and one.exported_at is None else one
            for one in self.checkpoints
        )
        return replace(self, checkpoints=tuple(marked))

    def with_failure(self, reason: str) -> Sealed:
        """Return it with one more failure."""
        return replace(self, failures=self.failures + 1, failed_because=reason)


class MemorySeals:
    """``Seals`` over what is sealed and the log below ``length``."""

    def __init__(self, log: MemoryLog, length: int, sealed: Sealed) -> None:
        self._log, self._length, self._sealed = log, length, sealed

    def newest(self) -> StoredCheckpoint | None:
        """Return the checkpoint of the largest tree."""
        return self._sealed.checkpoints[-1] if self._sealed.checkpoints else None

    def checkpoints(self, *, before: int | None, limit: int) -> list[StoredCheckpoint]:
        """Return a page of checkpoints, newest first, those of trees smaller than ``before``."""
        newest_first = reversed(self._sealed.checkpoints)
        return list(islice((one for one in newest_first if before is None or one.tree_size < before), limit))

    def unexported(self, *, after: int, limit: int) -> list[StoredCheckpoint]:
        """Return checkpoints that some sink lacks, oldest first, those of trees larger than ``after``."""
        lacking = (one for one in self._sealed.checkpoints if one.exported_at is None and one.tree_size > after)
        return list(islice(lacking, limit))

    def tiles(self, level: int, indexes: Collection[int]) -> list[Tile]:
        """Return those of a level's tiles that there are."""
        keys = [(level, index) for index in sorted(indexes)]
        return [self._sealed.tiles[key] for key in keys if key in self._sealed.tiles]

    def tile_holding(self, position: int) -> Tile | None:
        """Return the tile of level 0 that has the event at ``position``; None if it is not sealed."""
        ends = {tile.last_position or 0: tile for (level, _), tile in self._sealed.tiles.items() if level == 0}
        return min(((last, tile) for last, tile in ends.items() if last >= position), default=(0, None))[1]

    def positions(self, first_position: int, to_position: int) -> list[int]:
        """Return the positions of a range that have an event: all of them, up to the last one."""
        return list(range(first_position, min(to_position, self._length) + 1))

    def state(self) -> SealState:
        """Return how far the log is sealed."""
        newest = self.newest()
        after = newest.position if newest is not None else 0
        lacking = [one for one in self._sealed.checkpoints if one.exported_at is None]
        return SealState(
            newest=newest,
            unsealed=min(self._length - after, COUNTED_MOST),
            unsealed_since=self._log.at(after + 1).recorded_at if after < self._length else None,
            unexported=len(lacking),
            unexported_since=lacking[0].sealed_at if lacking else None,
            failures=self._sealed.failures,
            failed_because=self._sealed.failed_because,
        )
