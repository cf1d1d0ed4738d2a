"""S10 of keys: a live one that the log did not make, or made otherwise, is found."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from orchestrator.domain import access_events as acc
from orchestrator.domain.key_words import digest_of
from orchestrator.domain.scopes import EVERYTHING, Role
from orchestrator.history.replay import replay
from orchestrator.owner_key import new_key
from orchestrator.ports.store import EventFilter, EventStore
from orchestrator.service import keys
from orchestrator.service.keys import KeyKeeper, MadeKey, WantedKey
from orchestrator.storage.opening import open_store
from orchestrator.time_ordered_ids import TimeOrderedIds
from tests.audit.verify.test_database import verify_database


@pytest.mark.parametrize("server", ["sqlite_url", "postgres_url"])
@pytest.mark.parametrize(
    ("tampering", "is_found"),
    [
        ("UPDATE access_keys SET last_used_at = created_at", False),
        ("UPDATE access_keys SET role = 'admin' WHERE name = 'kept'", True),
        ("""UPDATE access_keys SET scopes = '["keys","read"]' WHERE name = 'kept'""", True),
        ("UPDATE access_keys SET name = 'other' WHERE name = 'kept'", True),
        ("UPDATE access_keys SET expires_at = NULL WHERE name = 'kept'", True),
        ("UPDATE access_keys SET writes_per_minute = NULL WHERE name = 'kept'", True),
        ("UPDATE access_keys SET revoked_at = NULL WHERE name = 'gone'", True),
        ("UPDATE access_keys SET id = 'key_planted' WHERE name = 'kept'", True),
        (f"UPDATE access_keys SET digest = '{digest_of(new_key())}' WHERE name = 'kept'", True),
        (f"UPDATE access_keys SET digest = '{digest_of(new_key())}' WHERE name = 'gone'", False),
    ],
)
def test_a_live_key_that_no_event_made_is_found(
    request: pytest.FixtureRequest, server: str, tampering: str, is_found: bool
) -> None:
    url = request.getfixturevalue(server)
    store = open_store(url)
    keeper = KeyKeeper(store, TimeOrderedIds(), new_key=new_key)
    for name in ("kept", "gone", "replaced"):
        lasts = timedelta(days=9)
        wanted = WantedKey(name=name, role=Role.WRITER, expires_after=lasts, writes_per_minute=60)
        keeper.create(wanted, actor="me", within=EVERYTHING)
    keeper.revoke("gone", actor="me", reason="over")
    keeper.rotate("replaced", actor="me", within=EVERYTHING)
    assert replay(store).differences == ()
    tamper(url, tampering)
    found = replay(store).differences
    store.close()
    assert [one.table for one in found] == ["access_keys"] * is_found, found


def tamper(url: str, statement: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def made(store: EventStore, name: str) -> MadeKey:
    keeper = KeyKeeper(store, TimeOrderedIds(), new_key=new_key)
    return keeper.create(WantedKey(name=name, role=Role.WRITER), actor="me", within=EVERYTHING)


def test_an_auditor_who_may_only_read_finds_an_exchanged_key(postgres_url: str, reader_url: str) -> None:
    owned = open_store(postgres_url)
    one = made(owned, "ci")
    reading = open_store(reader_url)
    assert replay(reading).differences == ()
    planted = digest_of(new_key())
    tamper(postgres_url, f"UPDATE access_keys SET digest = '{planted}'")
    (found,) = replay(reading).differences
    assert (found.table, found.id) == ("access_keys", one.stored.id)
    assert planted in (found.stored or "")
    assert one.stored.digest in (found.replayed or "")
    reading.close()
    owned.close()


def test_keys_of_the_version_before_are_good(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their events hold no digest, so that nothing is compared with it; what they do hold is."""

    class KeyCreated(acc.KeyCreated, frozen=True, kw_only=True):
        SCHEMA = 1

    def before(**fields: Any) -> KeyCreated:
        fields.pop("digest")
        return KeyCreated(**fields)

    store = open_store(sqlite_url)
    with monkeypatch.context() as patch:
        patch.setattr(keys, "KeyCreated", before)
        made(store, "old")
    made(store, "new")
    with store.read() as reader:
        stored = reader.stored_events(EventFilter(types=("KeyCreated",)))
    assert [(event.schema, b"digest" in bytes(event.data)) for event in stored] == [(1, False), (2, True)]
    assert replay(store).differences == ()
    assert verify_database(sqlite_url).violations == ()
    tamper(sqlite_url, f"UPDATE access_keys SET digest = '{digest_of(new_key())}' WHERE name = 'old'")
    assert replay(store).differences == ()
    tamper(sqlite_url, "UPDATE access_keys SET role = 'admin' WHERE name = 'old'")
    assert [one.table for one in replay(store).differences] == ["access_keys"]
    store.close()
