"""Make, replace and revoke the keys of callers: one commit with the event that says so (CONTRACT section 8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.access_events import KeyCreated, KeyRevoked
from orchestrator.domain.durations import parse_duration
from orchestrator.domain.events import NewEvent, Recorded
from orchestrator.domain.key_words import digest_of
from orchestrator.domain.scopes import Grants, Role, granted, parse_grants
from orchestrator.errors import Conflict, Forbidden, InvalidInput, NotFound
from orchestrator.ports.keys import StoredKey
from orchestrator.ports.store import CoreStore, Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import Unit
from orchestrator.service.announce import announce
from orchestrator.service.append import append_all

MOST_KEYS = 10_000
"""Live ones: every process keeps them all at hand."""
_BOTH_LIVE = timedelta(days=1)
_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(days=3_650)


@dataclass(frozen=True, kw_only=True)
class WantedKey:
    """What a new key is to be. ``expires_after``: from now on, None: never."""

    name: str
    role: Role
    scopes: Sequence[str] = ()
    expires_after: timedelta | None = None
    writes_per_minute: int | None = None
    reads_per_minute: int | None = None


@dataclass(frozen=True, kw_only=True)
class MadeKey:
    """A key that was made: ``key`` is shown this once, and kept nowhere."""

    key: str
    stored: StoredKey


class KeyKeeper:
    """Changes keys. ``new_key`` draws one; ``on_change`` is told after every commit."""

    def __init__(
        self, store: CoreStore, ids: Ids, *, new_key: Callable[[], str], on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._store, self._ids, self._new_key, self._on_change = store, ids, new_key, on_change

    def create(self, wanted: WantedKey, *, actor: str, within: Grants) -> MadeKey:
        """Make a key that may do no more than ``within``, which is what whoever makes it may do.

        Raises ``InvalidInput`` for its scopes, ``Forbidden``, and ``Conflict`` where a live one has that name.
        """
        grants = granted(wanted.role, wanted.scopes)
        _need_within(grants, within, actor)
        scopes, key = grants.spelled(), self._new_key()

        def step(tx: Transaction) -> tuple[StoredKey, list[Recorded]]:
            live = [one for one in tx.access_keys() if one.is_live(tx.now)]
            if any(one.name == wanted.name for one in live):
                raise Conflict(
                    f"a live key is named {wanted.name!r}: take another name, revoke it first, or replace it with "
                    f"`orchestrator keys rotate {wanted.name}`"
                )
            if len(live) >= MOST_KEYS:
                raise Conflict(f"{MOST_KEYS} keys are live, which is all that can be; revoke some")
            return self._add(tx, key, wanted, scopes, actor, replaces=None)

        return self._committed(step, "key", key)

    def rotate(self, name: str, *, actor: str, within: Grants, both_live: timedelta = _BOTH_LIVE) -> MadeKey:
        """Make the key that takes the place of a live one, which goes on for ``both_live``, or until it expires.

        Raises ``NotFound``, ``Conflict`` where two of that name are live already, and ``Forbidden`` where it may do
        more than ``within``: whoever is shown it could.
        """
        key = self._new_key()

        def step(tx: Transaction) -> tuple[StoredKey, list[Recorded]]:
            live = [one for one in tx.access_keys() if one.is_live(tx.now) and one.name == name]
            if not live:
                raise NotFound(f"no live key is named {name!r}; `orchestrator keys list` shows those that are")
            if len(live) > 1:
                raise Conflict(f"two keys named {name!r} are live already: revoke the older one first ({live[0].id})")
            (old,) = live
            _need_within(parse_grants(old.scopes), within, actor)
            until = tx.now + both_live
            ends = until if old.expires_at is None else min(until, old.expires_at)
            tx.save_key(dataclasses.replace(old, expires_at=ends))
            lasts = None if old.expires_at is None else old.expires_at - old.created_at
            wanted = WantedKey(
                name=name,
                role=Role(old.role),
                expires_after=lasts,
                writes_per_minute=old.writes_per_minute,
                reads_per_minute=old.reads_per_minute,
            )
            made = self._add(tx, key, wanted, list(old.scopes), actor, replaces=old.id)
            used_until = tx.write_budget(old.id)
            if used_until is not None:  # the limit is of the name: it does not begin anew
                tx.save_write_budget(made[0].id, used_until)
            return made

        return self._committed(step, "key", key)

    def revoke(self, key: str, *, actor: str, reason: str) -> list[StoredKey]:
        """End a key, by its id, or all of a name; return those that were live. Raises ``NotFound``."""

        def step(tx: Transaction) -> tuple[list[StoredKey], list[Recorded]]:
            named = [one for one in tx.access_keys() if key in (one.id, one.name)]
            if not named:
                raise NotFound(f"there is no key {key!r}; `orchestrator keys list` shows all")
            ended = [dataclasses.replace(one, revoked_at=tx.now) for one in named if one.is_live(tx.now)]
            for one in ended:
                tx.save_key(one)
            events = [KeyRevoked(key=one.id, name=one.name, reason=reason) for one in ended]
            return ended, append_all(tx, [self._event(event, actor) for event in events], self._ids) if events else []

        ended, recorded = self._store.commit(Unit(name="key", workspaces=(), step=step, hurried=True))
        self._on_change()
        announce(recorded)
        return ended

    def _add(
        self, tx: Transaction, key: str, wanted: WantedKey, scopes: list[str], actor: str, *, replaces: str | None
    ) -> tuple[StoredKey, list[Recorded]]:
        expires_at = None if wanted.expires_after is None else tx.now + wanted.expires_after
        stored = StoredKey(
            id=self._ids.new("key"),
            name=wanted.name,
            digest=digest_of(key),
            role=wanted.role.value,
            scopes=tuple(scopes),
            created_at=tx.now,
            created_by=actor,
            expires_at=expires_at,
            writes_per_minute=wanted.writes_per_minute,
            reads_per_minute=wanted.reads_per_minute,
        )
        created = KeyCreated(
            key=stored.id,
            name=stored.name,
            role=stored.role,
            scopes=scopes,
            expires_at=expires_at,
            replaces=replaces,
            writes_per_minute=stored.writes_per_minute,
            reads_per_minute=stored.reads_per_minute,
            digest=stored.digest,
        )
        recorded = append_all(tx, [self._event(created, actor)], self._ids)
        tx.save_key(stored)
        return stored, recorded

    def _committed(
        self, step: Callable[[Transaction], tuple[StoredKey, list[Recorded]]], name: str, key: str
    ) -> MadeKey:
        stored, recorded = self._store.commit(Unit(name=name, workspaces=(), step=step, hurried=True))
        self._on_change()
        announce(recorded)
        return MadeKey(key=key, stored=stored)

    def _event(self, data: KeyCreated | KeyRevoked, actor: str) -> NewEvent:
        return NewEvent(id=self._ids.new("evt"), workspace=None, version=None, data=data, actor=actor)


def _need_within(grants: Grants, within: Grants, actor: str) -> None:
    beyond = grants.beyond(within)
    if beyond:
        raise Forbidden(
            f"{', '.join(beyond)}: beyond the scopes that {actor} has of its own, which are "
            f"{', '.join(within.spelled())}; whoever makes a key hands on no more than that",
            needs=beyond[0],
        )


def list_keys(store: CoreStore) -> tuple[list[StoredKey], datetime]:
    """Return all keys, and the instant at which they are so."""
    with store.read() as reader:
        return reader.access_keys(), reader.clock()


def lifetime_of(text: str, *, field: str) -> timedelta:
    """Return for how long a key is to be valid, from 1 s to 10 years. Raises ``InvalidInput``."""
    longest_ms = _LONGEST // timedelta(milliseconds=1)
    lasts = timedelta(milliseconds=parse_duration(text, field=field, longest_ms=longest_ms))
    if lasts < _SHORTEST:
        raise InvalidInput(f"{field}: a key that lasts {text} would never open anything; write 90d, say", field=field)
    return lasts


def check_limit(value: int | None, name: str) -> int | None:
    """Return how much a key may ask for in a minute. Raises ``InvalidInput``."""
    if value is not None and not 1 <= value <= 1_000_000_000:
        raise InvalidInput(f"{name}: must be from 1 to 1,000,000,000 a minute; leave it out for no limit", field=name)
    return value
