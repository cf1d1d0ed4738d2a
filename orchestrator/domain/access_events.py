"""The events of who may do what and who did: keys, refusals, reads, exports. None is about a workspace.

Their data is what CONTRACT section 8 promises; what holds of all events is said in ``events``.
"""

from __future__ import annotations

from datetime import datetime

from orchestrator.domain.events import EventData


class KeyCreated(EventData, frozen=True, kw_only=True):
    """A caller's key was made. The key itself is nowhere; ``scopes`` is all that it may do."""

    SCHEMA = 2
    OMITTED = frozenset({"digest"})

    key: str
    name: str
    role: str
    scopes: list[str]
    expires_at: datetime | None
    replaces: str | None = None
    """The key that it takes the place of, which goes on until it is revoked or expires."""
    writes_per_minute: int | None = None
    reads_per_minute: int | None = None
    digest: str | None = None
    """SHA-256 of the key, in hexadecimal digits, so that a stored one that was exchanged for another is seen.

    It may be shown to whoever reads the log: of 160 random bits nobody guesses back, and it opens nothing itself.
    None: made by a version that did not write it down (schema 1).
    """


class KeyRevoked(EventData, frozen=True, kw_only=True):
    """A caller's key opens nothing any more."""

    key: str
    name: str
    reason: str


class AccessDenied(EventData, frozen=True, kw_only=True):
    """Requests that were refused for who sent them, summed by caller, reason and minute."""

    caller: str
    """``key:NAME`` where the key is known, also if it is over; ``unauthenticated`` otherwise."""
    reason: str
    """``no_key``, ``malformed``, ``unknown``, ``expired``, ``revoked``, ``scope``, ``cross_origin`` or ``rate``."""
    what: str
    """The first request's method and route, as the description of the API spells it."""
    needs: str | None
    """The scope that was missing."""
    count: int
    first_at: datetime
    last_at: datetime


class ReadsCounted(EventData, frozen=True, kw_only=True):
    """What a key has read in a minute: how many requests of each kind."""

    reads: dict[str, int]
    first_at: datetime
    last_at: datetime


class DataExported(EventData, frozen=True, kw_only=True):
    """Somebody was given a part of the log, a bundle of evidence, or the list of keys."""

    what: str
    """``export``, ``evidence`` or ``keys``."""
    filter: dict[str, str]
