"""The log straight from a database, by SQL of its own, as the lines that an export of it would have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from orchestrator.audit.verify.lines import Line, Unreadable, parse_line

_PAGE = 2_000
_PAGE_SQL = sa.text(
    "SELECT position, id, workspace, version, type, schema, recorded_at, occurred_at, actor, source, source_id,"
    " correlation_id, causation_id, data FROM events"
    " WHERE position > :after AND position <= :last ORDER BY position LIMIT :most"
)
_LAST_SQL = sa.text("SELECT coalesce(max(position), 0) FROM events")


class SourceUnavailable(Exception):
    """The database cannot be read at all: no such file, no server, no log in it."""


class _Row(msgspec.Struct):
    position: Any
    id: Any
    workspace: Any
    version: Any
    type: Any
    schema: Any
    recorded_at: Any
    occurred_at: Any
    actor: Any
    source: Any
    source_id: Any
    correlation_id: Any
    causation_id: Any
    data: msgspec.Raw


_NO_URL = "that is no database URL; write sqlite:///FILE or postgresql://..., a password in it percent-encoded"
_encode_row = msgspec.json.Encoder().encode


class Database:
    """A log in SQLite or PostgreSQL, read only. Close it after use."""

    def __init__(self, url: str) -> None:
        """Open the database of a ``sqlite:///`` or ``postgresql://`` URL. Raises ``SourceUnavailable``."""
        try:
            parsed = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError):
            raise SourceUnavailable(_NO_URL) from None
        backend = parsed.get_backend_name()
        if backend != "sqlite" and url.count("@") > 1:
            raise SourceUnavailable(_NO_URL)  # the rest of a password would be taken for the host
        if backend == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        elif backend != "sqlite":
            raise SourceUnavailable(f"{backend}: only sqlite:/// and postgresql:// can be read")
        elif not parsed.database or not Path(parsed.database).is_file():
            raise SourceUnavailable(f"there is no database {parsed.database}")
        self.name = parsed.render_as_string(hide_password=True)
        self._engine = sa.create_engine(parsed, isolation_level="AUTOCOMMIT")

    def last_position(self) -> int:
        """Return the newest position. Raises ``SourceUnavailable``."""
        return int(self._all(_LAST_SQL, {})[0][0])

    def lines(self, after: int, last: int, progress: Callable[[int], object] = lambda position: None) -> Iterator[Line]:
        """Yield the events after one position up to another, each with its canonical bytes.

        Every page is a statement of its own, so nothing stays open; the log only grows. Raises
        ``SourceUnavailable``, and ``Unreadable`` for a row that is no event.
        """
        while after < last:
            page = self._all(_PAGE_SQL, {"after": after, "last": last, "most": _PAGE})
            for row in page:
                yield _line(row)
            after = page[-1][0] if len(page) == _PAGE else last
            progress(after)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def _all(self, statement: sa.TextClause, values: dict[str, int]) -> list[Any]:
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(statement, values).all())
        except sa.exc.SQLAlchemyError as error:
            said = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            raise SourceUnavailable(f"{self.name} cannot be read: {said}") from None


def _line(row: Any) -> Line:
    what = f"the row at position {row[0]}"
    try:
        text = row[13].encode() if isinstance(row[13], str) else b"null"
        values = [*row[:6], *map(_spelled, row[6:8]), *row[8:13], msgspec.Raw(text)]
        line = _encode_row(_Row(*values))
    except (msgspec.MsgspecError, TypeError, UnicodeError) as error:
        raise Unreadable(f"{what} is no event: {error}") from None
    return line, parse_line(line, what)


def _spelled(at: datetime | str | None) -> str | None:
    """SQLite keeps the spelling itself, PostgreSQL an instant."""
    if at is None or isinstance(at, str):
        return at
    return at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
