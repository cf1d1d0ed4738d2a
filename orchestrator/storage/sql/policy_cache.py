"""The decoded policy layers of one database, kept by a process, and read again only where the log says they changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from orchestrator.domain.policy import Policies, PolicyLayer
from orchestrator.storage.sql import rows
from orchestrator.storage.sql.schema import IS_POLICY_CHANGE, NOT_A_WRITE, events, policies
from orchestrator.storage.sql.statements import ONE, Statements

_NEWEST_CHANGE = (
    sa.select(events.c.id)
    .where(IS_POLICY_CHANGE, NOT_A_WRITE)
    .order_by(events.c.position.desc())
    .limit(ONE)
    .scalar_subquery()
)


class Stamp(NamedTuple):
    """Which policies a database holds: the newest version, and the event that brought the newest change.

    The version alone would not do: a standby that is promoted without the last commits gives the same number again.
    """

    version: int | None
    change: str | None


STAMP: Sequence[sa.ColumnElement[Any]] = (
    sa.select(sa.func.max(policies.c.version)).scalar_subquery().label("policy_version"),
    _NEWEST_CHANGE.label("policy_change"),
)
"""The columns of a ``Stamp``: two look-ups in an index, to be read along with others in one statement."""
_ASK = sa.select(*STAMP)


class _Kept(NamedTuple):
    stamp: Stamp
    policies: Policies


class PolicyCache:
    """Gives the layers as they are at a statement, decoded once for each version. Safe for use by many threads.

    A thread that sees an older state of the database than another costs a second decoding and nothing else: what is
    kept is replaced as a whole, and is given only where the stamp is its own.
    """

    def __init__(self) -> None:
        self._kept = _Kept(Stamp(None, None), Policies(layers={}))

    def read(self, sql: Statements) -> Policies:
        """Return the layers of the state that ``sql`` sees now. Raises ``Unreadable``.

        Not for a transaction that has changed a layer itself: it may yet be rolled back.
        """
        return self.at(sql, Stamp(*sql.run(_ASK).one()))

    def at(self, sql: Statements, stamp: Stamp) -> Policies:
        """Return the layers that belong to a stamp that ``sql`` has just read, under the same state or lock."""
        kept = self._kept
        if kept.stamp == stamp:
            return kept.policies
        read = Policies(layers=self._layers(sql, kept, stamp))
        self._kept = _Kept(stamp, read)
        return read

    def _layers(self, sql: Statements, kept: _Kept, stamp: Stamp) -> dict[str, PolicyLayer]:
        """Return all layers, of which only the changed ones are read where the kept ones are an earlier state."""
        if _follows(sql, kept.stamp, stamp):
            newer = stored_layers(sql, policies.c.version > kept.stamp.version)
            return {**kept.policies.layers, **{layer.scope: layer for layer in newer}}
        return {layer.scope: layer for layer in stored_layers(sql, sa.true())}


def stored_layers(sql: Statements, chosen: sa.ColumnElement[bool]) -> list[PolicyLayer]:
    """Return layers as they are stored. Raises ``Unreadable``."""
    return [rows.policy_layer_of(row) for row in sql.run(sa.select(policies).where(chosen)).mappings()]


def _follows(sql: Statements, earlier: Stamp, later: Stamp) -> bool:
    """Return whether a stamp is from the same log as a later one: each change of a layer has a higher version."""
    if earlier.version is None or later.version is None or later.version < earlier.version:
        return False
    there = sa.select(sa.literal(1)).where(events.c.id == earlier.change)
    return sql.run(there).first() is not None
