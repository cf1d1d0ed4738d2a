"""Checkpoints and tiles in a SQL database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import RowMapping

from orchestrator.domain.encoding import canonical_json
from orchestrator.ports.sealing import COUNTED_MOST, SealState, StoredCheckpoint, Tile
from orchestrator.storage.sql.column_types import Instant
from orchestrator.storage.sql.many_rows import upsert_many
from orchestrator.storage.sql.rows import Row
from orchestrator.storage.sql.schema import checkpoints, counters, events, merkle_tiles
from orchestrator.storage.sql.statements import Statements

_FAILURES = "seal_failures"
"""The row of ``counters``: its position is how many there were, its sums are why the last one was."""


class SqlSeals:
    """``Seals`` over ``Statements``."""

    def __init__(self, sql: Statements) -> None:
        self._sql = sql

    def newest(self) -> StoredCheckpoint | None:
        """Return the checkpoint of the largest tree."""
        found = self.checkpoints(before=None, limit=1)
        return found[0] if found else None

    def checkpoints(self, *, before: int | None, limit: int) -> list[StoredCheckpoint]:
        """Return a page of checkpoints, newest first, those of trees smaller than ``before``."""
        page = sa.select(checkpoints).order_by(checkpoints.c.tree_size.desc()).limit(limit)
        if before is not None:
            page = page.where(checkpoints.c.tree_size < before)
        return [_checkpoint_of(row) for row in self._sql.run(page).mappings()]

    def unexported(self, *, after: int, limit: int) -> list[StoredCheckpoint]:
        """Return checkpoints that some sink lacks, oldest first, those of trees larger than ``after``."""
        lacking = sa.select(checkpoints).where(checkpoints.c.exported_at.is_(None), checkpoints.c.tree_size > after)
        page = lacking.order_by(checkpoints.c.tree_size).limit(limit)
        return [_checkpoint_of(row) for row in self._sql.run(page).mappings()]

    def tiles(self, level: int, indexes: Collection[int]) -> list[Tile]:
        """Return those of a level's tiles that there are."""
        some = sa.select(merkle_tiles).where(merkle_tiles.c.level == level, merkle_tiles.c.tile.in_(sorted(indexes)))
        return [_tile_of(row) for row in self._sql.run(some.order_by(merkle_tiles.c.tile)).mappings()]

    def tile_holding(self, position: int) -> Tile | None:
        """Return the tile of level 0 that has the event at ``position``; None if it is not sealed."""
        leaves = sa.text("level = 0")  # spelled as the partial index is, or SQLite does not see that it fits
        first = (
            sa.select(merkle_tiles)
            .where(leaves, merkle_tiles.c.last_position >= position)
            .order_by(merkle_tiles.c.last_position)
            .limit(1)
        )
        row = self._sql.run(first).mappings().one_or_none()
        return None if row is None else _tile_of(row)

    def positions(self, first_position: int, to_position: int) -> list[int]:
        """Return the positions of a range that have an event; meant for ranges inside of a tile."""
        of_range = sa.select(events.c.position).where(events.c.position.between(first_position, to_position))
        return list(self._sql.run(of_range.order_by(events.c.position)).scalars())

    def state(self) -> SealState:
        """Return how far the log is sealed."""
        newest = self.newest()
        after = newest.position if newest is not None else 0
        unsealed, since = self._unsealed(after)
        lacking = sa.select(sa.func.count(), sa.func.min(checkpoints.c.sealed_at, type_=Instant()))
        unexported, unexported_since = self._sql.run(lacking.where(checkpoints.c.exported_at.is_(None))).one()
        failed = sa.select(counters.c.position, counters.c.sums).where(counters.c.name == _FAILURES)
        failures, why = self._sql.run(failed).one_or_none() or (0, '""')
        return SealState(
            newest=newest,
            unsealed=unsealed,
            unsealed_since=since,
            unexported=unexported,
            unexported_since=unexported_since,
            failures=failures,
            failed_because=msgspec.json.decode(why, type=str),
        )

    def _unsealed(self, after: int) -> tuple[int, datetime | None]:
        later = sa.select(events.c.position).where(events.c.position > after)
        counted = sa.select(sa.func.count()).select_from(later.limit(COUNTED_MOST).subquery())
        first = sa.select(events.c.recorded_at).where(events.c.position > after).order_by(events.c.position).limit(1)
        return self._sql.run(counted).scalar_one(), self._sql.run(first).scalar_one_or_none()


def insert_checkpoint(sql: Statements, checkpoint: StoredCheckpoint, tiles: Sequence[Tile]) -> None:
    """Store a checkpoint and its tiles. Raises ``Conflict`` if the previous one is followed by another already."""
    # The checkpoint first: a second sealer waits at its unique values, and writes no tile.
    sql.run(sa.insert(checkpoints), [_checkpoint_row(checkpoint)])
    upsert_many(sql, merkle_tiles, [_tile_row(tile) for tile in tiles])


def mark_exported(sql: Statements, tree_size: int, now: datetime) -> None:
    """Note when every sink had the checkpoints up to that size."""
    lacking = (checkpoints.c.tree_size <= tree_size) & checkpoints.c.exported_at.is_(None)
    sql.run(sa.update(checkpoints).where(lacking).values(exported_at=now))


def note_failure(sql: Statements, reason: str) -> None:
    """Count a failure, and keep why."""
    first = sql.insert(counters).values(name=_FAILURES, position=1, sums=canonical_json(reason))
    again = {"position": counters.c.position + 1, "sums": first.excluded.sums}
    sql.run(first.on_conflict_do_update(index_elements=["name"], set_=again))


def _checkpoint_row(checkpoint: StoredCheckpoint) -> Row:
    return {
        "tree_size": checkpoint.tree_size,
        "position": checkpoint.position,
        "root": checkpoint.root,
        "note": checkpoint.note,
        "previous_size": checkpoint.previous_size,
        "consistency": canonical_json(checkpoint.consistency),
        "sealed_at": checkpoint.sealed_at,
        "exported_at": checkpoint.exported_at,
    }


def _checkpoint_of(row: RowMapping) -> StoredCheckpoint:
    columns: dict[str, Any] = dict(row)
    return StoredCheckpoint(**columns | {"consistency": msgspec.json.decode(row["consistency"], type=tuple[str, ...])})


def _tile_row(tile: Tile) -> Row:
    return {
        "level": tile.level,
        "tile": tile.index,
        "hashes": tile.hashes,
        "first_position": tile.first_position,
        "last_position": tile.last_position,
    }


def _tile_of(row: RowMapping) -> Tile:
    return Tile(
        level=row["level"],
        index=row["tile"],
        hashes=row["hashes"],
        first_position=row["first_position"],
        last_position=row["last_position"],
    )
