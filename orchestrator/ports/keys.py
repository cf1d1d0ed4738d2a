"""The keys of callers: what a store keeps of them (CONTRACT section 8). A key itself is nowhere, only its digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class StoredKey:
    """A key, live or not. Instants are the database's."""

    id: str
    name: str
    """Who acts with it, in the events: ``key:NAME``. While a key is replaced, two live ones have the same."""
    digest: str
    """SHA-256 of the key, in hexadecimal digits."""
    role: str
    scopes: tuple[str, ...]
    """What it may do in all, as ``domain.scopes`` spells it."""
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    """To the minute."""
    writes_per_minute: int | None = None
    reads_per_minute: int | None = None

    def is_live(self, now: datetime) -> bool:
        """Return whether it opens anything at an instant of the database's clock."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class KeyReader(Protocol):
    """What a reader knows of keys."""

    def access_keys(self, *, digests: bool = False) -> list[StoredKey]:
        """Return all keys, by name and age, those that are over too; with ``digests`` those, else they are empty."""
        ...


class KeyChange(Protocol):
    """What a transaction changes of them: together with the event that says so."""

    def access_keys(self) -> list[StoredKey]:
        """Return all keys, as they are at this instant."""
        ...

    def save_key(self, key: StoredKey) -> None:
        """Insert a key, or replace what is kept of it."""
        ...

    def write_budget(self, key: str) -> datetime | None:
        """Return until when a key, by its id, has used up its writes, at the rate at which they come back."""
        ...

    def save_write_budget(self, key: str, used_until: datetime) -> None:
        """Keep until when a key has used up its writes."""
        ...


class KeyUses(Protocol):
    """What a store is told of the use of keys, outside of the log."""

    def note_key_uses(self, used_at: Mapping[str, datetime]) -> None:
        """Keep when keys were last used, by their ids; never an earlier instant than is kept."""
        ...
