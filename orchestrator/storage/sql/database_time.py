"""Whose clock counts, as SQL: the database server's, or the host's where there is no server.

Two readings. The *clock* is what it says. The *store's time* is max(clock, the last ``recorded_at``): the one
that decisions are made by, so that nothing goes backwards when the clock does (CONTRACT section 3).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

import sqlalchemy as sa

from orchestrator.ports.store import Clock
from orchestrator.storage.sql.column_types import Instant
from orchestrator.storage.sql.schema import events

_LAST_POSITION = sa.select(sa.func.max(events.c.position)).scalar_subquery()
LAST_RECORDED_AT = sa.select(events.c.recorded_at).where(events.c.position == _LAST_POSITION).scalar_subquery()


class HostClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Return the present instant in UTC, to the microsecond."""
        return datetime.now(UTC)


class DatabaseTime(Protocol):
    """Expressions for the two readings; each use reads anew, in a statement that is kept too."""

    def __hash__(self) -> int:
        """Return the hash by which statements are kept."""
        ...

    def clock(self) -> sa.ColumnElement[datetime]:
        """Return the clock."""
        ...

    def store_time(self) -> sa.ColumnElement[datetime]:
        """Return max(clock, the last ``recorded_at``)."""
        ...


class ServerTime:
    """PostgreSQL's own clock. Not ``now()``: that is the transaction's start, before its locks."""

    def clock(self) -> sa.ColumnElement[datetime]:
        """Return ``clock_timestamp()``, in a sub-select: a volatile call there would keep indexes from being used."""
        return sa.select(sa.func.clock_timestamp(type_=Instant())).scalar_subquery()

    def store_time(self) -> sa.ColumnElement[datetime]:
        """Return max(clock, the last ``recorded_at``)."""
        latest = sa.func.greatest(sa.func.clock_timestamp(), LAST_RECORDED_AT, type_=Instant())
        return sa.select(latest).scalar_subquery()


class HostTime:
    """A clock of this host, handed in. Read it inside the transaction."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def clock(self) -> sa.ColumnElement[datetime]:
        """Return the present instant as a value, read when the statement is run: a kept statement reads it anew."""
        return sa.bindparam(None, type_=Instant(), callable_=self._clock.now, unique=True)

    def store_time(self) -> sa.ColumnElement[datetime]:
        """Return max(clock, the last ``recorded_at``)."""
        clock = self.clock()
        return sa.func.max(clock, sa.func.coalesce(LAST_RECORDED_AT, clock), type_=Instant())
