"""The keys of callers in a SQL database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa

from orchestrator.domain.encoding import canonical_json
from orchestrator.ports.keys import StoredKey
from orchestrator.storage.sql.rows import Row
from orchestrator.storage.sql.schema import access_keys
from orchestrator.storage.sql.statements import Statements

_KEPT = [access_keys.c[name] for name in StoredKey.__dataclass_fields__]
_scopes = msgspec.json.Decoder(tuple[str, ...]).decode


def read_keys(sql: Statements, *, digests: bool) -> list[StoredKey]:
    """Return all keys, by name and age; without ``digests`` those are empty."""
    kept = [column for column in _KEPT if digests or column is not access_keys.c.digest]
    listed = sa.select(*kept).order_by(access_keys.c.name, access_keys.c.created_at, access_keys.c.id)
    return [_key_of(row) for row in sql.run(listed).mappings()]


def key_row(key: StoredKey) -> Row:
    """Return the columns of a key. When it was last used is not among them: it is noted beside the log."""
    row = {name: getattr(key, name) for name in StoredKey.__dataclass_fields__ if name != "last_used_at"}
    return {**row, "scopes": canonical_json(list(key.scopes))}


def note_uses(sql: Statements, used_at: Mapping[str, datetime]) -> None:
    """Keep when keys were last used, in the order of their ids; never an earlier instant than is kept."""
    for key, at in sorted(used_at.items()):
        kept = access_keys.c.last_used_at
        older = (access_keys.c.id == key) & (kept.is_(None) | (kept < at))
        sql.run(sa.update(access_keys).where(older).values(last_used_at=at))


def read_budget(sql: Statements, key: str) -> datetime | None:
    """Return until when a key has used up its writes; whoever asks holds the append lock."""
    at: datetime | None = sql.run(
        sa.select(access_keys.c.writes_used_until).where(access_keys.c.id == key)
    ).scalar_one_or_none()
    return at


def save_budget(sql: Statements, key: str, used_until: datetime) -> None:
    """Keep until when a key has used up its writes."""
    sql.run(sa.update(access_keys).where(access_keys.c.id == key).values(writes_used_until=used_until))


def with_changes(keys: Sequence[StoredKey], changed: Mapping[str, StoredKey]) -> list[StoredKey]:
    """Return keys as they are after changes that are not written yet."""
    after = {key.id: key for key in keys} | dict(changed)
    return sorted(after.values(), key=lambda key: (key.name, key.created_at, key.id))


def _key_of(row: sa.RowMapping) -> StoredKey:
    return StoredKey(**{"digest": "", **row, "scopes": _scopes(row["scopes"])})
