"""The keys as one process knows them: read again when what it knows is half a second old, not at every request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import structlog

from orchestrator.domain.scopes import Grants, parse_grants
from orchestrator.errors import InvalidInput, Unavailable
from orchestrator.ports.keys import StoredKey
from orchestrator.ports.store import EventStore

LOOK_AGAIN_S = 0.5
"""A key that was revoked elsewhere opens nothing from so long after on."""

_LOOKS_AT_ONCE, _LOOKS_PER_S = 10, 10.0
"""How often keys that nobody knows lead to looks: whoever guesses costs the database no more."""

_log = structlog.get_logger("orchestrator")


@dataclass(frozen=True)
class KnownKey:
    """A key, and what it may do."""

    key: StoredKey
    grants: Grants


@dataclass(frozen=True, kw_only=True)
class _Page:
    """What one look found."""

    by_digest: Mapping[str, KnownKey]
    by_id: Mapping[str, StoredKey]
    live_by_name: Mapping[str, tuple[str, ...]]
    """The ids of those that were live at the look, the oldest first."""
    now: datetime
    """The database's clock at the look."""
    looked_s: float
    edition: int = 0
    changes: object = None
    """The last change here that was over when the look began."""


_EMPTY = _Page(by_digest={}, by_id={}, live_by_name={}, now=datetime.min.replace(tzinfo=UTC), looked_s=float("-inf"))


class KeyBook:
    """Finds keys by their digests. Safe for use by many threads; one of them looks at a time."""

    def __init__(self, store: EventStore, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store, self._monotonic = store, monotonic
        self._page, self._looking = _EMPTY, threading.Lock()
        self._changes: object = None
        self._used: dict[str, datetime] = {}
        self._using = threading.Lock()
        self._looks_until_s = float("-inf")

    @property
    def is_old(self) -> bool:
        """True if nobody may be admitted by it before the next look."""
        page = self._page
        return page.changes is not self._changes or self._monotonic() - page.looked_s >= LOOK_AGAIN_S

    @property
    def edition(self) -> int:
        """Another number after each look: what was found before may be found otherwise since."""
        return self._page.edition

    def take_look(self) -> bool:
        """Return whether a key that is not known may lead to another look at once, and count that look.

        It may have been made since the last one, by another process.
        """
        now = self._monotonic()
        with self._using:
            until = max(self._looks_until_s, now) + 1 / _LOOKS_PER_S
            if until - now > _LOOKS_AT_ONCE / _LOOKS_PER_S + 1e-9:
                return False
            self._looks_until_s = until
            return True

    def look(self, *, again: bool = False) -> None:
        """Read the keys, unless somebody just did; ``again``: whoever did. Raises ``Unavailable``.

        Then note which were used, once a minute each: what cannot be noted now is noted later.
        """
        asked_s = self._monotonic()
        with self._looking:
            if not self.is_old and (not again or self._page.looked_s > asked_s):
                return
            looked_s, changes = self._monotonic(), self._changes
            with self._store.read() as reader:
                keys, now = reader.access_keys(digests=True), reader.clock()
            found = _page(keys, now, looked_s)
            self._page = replace(found, edition=self._page.edition + 1, changes=changes)
            self._note_uses()

    def forget(self) -> None:
        """Look again before the next caller is admitted: keys were changed here.

        Until then what was known is: who holds an answer is not cut off for a change of somebody else's key.
        """
        self._changes = object()  # not a number: of two threads that add to one, one may be lost

    def find(self, digest: str) -> KnownKey | None:
        """Return the key of that digest, live or not."""
        return self._page.by_digest.get(digest)

    def live_of(self, name: str) -> tuple[str, ...]:
        """Return the ids of the keys of a name that were live at the last look, the oldest first."""
        return self._page.live_by_name.get(name, ())

    def is_live(self, key: str) -> bool:
        """Return whether a key, by its id, still opens something."""
        found = self._page.by_id.get(key)
        return found is not None and found.is_live(self.now())

    def now(self) -> datetime:
        """Return the database's clock, as this process can tell it since the last look."""
        page = self._page
        return page.now if page is _EMPTY else page.now + timedelta(seconds=self._monotonic() - page.looked_s)

    def used(self, key: str) -> None:
        """Remember that a key was used now."""
        at = self.now()
        with self._using:
            self._used[key] = at

    def _note_uses(self) -> None:
        with self._using:
            used, self._used = self._used, {}
        minutes = {key: at.replace(second=0, microsecond=0) for key, at in used.items()}
        kept = {key: found.last_used_at for key, found in self._page.by_id.items()}
        newer = {key: at for key, at in minutes.items() if key in kept and (kept[key] is None or kept[key] < at)}  # type: ignore[operator]
        if not newer:
            return
        try:
            self._store.note_key_uses(newer)
        except Unavailable as error:
            _log.warning("keys.uses_not_noted", error=str(error))
            with self._using:
                self._used = newer | self._used


def _page(keys: list[StoredKey], now: datetime, looked_s: float) -> _Page:
    known = {}
    for key in keys:
        try:
            known[key.digest] = KnownKey(key, _grants(key.scopes))
        except InvalidInput as error:  # of a newer version: it opens nothing here
            _log.error("keys.not_understood", key=key.name, error=str(error))
    by_id = {key.id: key for key in keys if key.digest in known}
    live: dict[str, tuple[str, ...]] = {}
    for key in keys:
        if key.is_live(now):
            live[key.name] = (*live.get(key.name, ()), key.id)
    return _Page(by_digest=known, by_id=by_id, live_by_name=live, now=now, looked_s=looked_s)


@lru_cache(maxsize=1_000)
def _grants(scopes: tuple[str, ...]) -> Grants:
    """Return what scopes say: many keys have the same, and all are read twice a second."""
    return parse_grants(scopes)
