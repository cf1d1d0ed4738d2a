"""S10 of keys: a live one that the log did not make, or made otherwise, is found."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from orchestrator.domain.scopes import EVERYTHING, Role
from orchestrator.history.replay import replay
from orchestrator.owner_key import new_key
from orchestrator.service.keys import KeyKeeper, WantedKey
from orchestrator.storage.opening import open_store
from orchestrator.time_ordered_ids import TimeOrderedIds


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
    ],
)
def test_a_live_key_that_no_event_made_is_found(
    request: pytest.FixtureRequest, server: str, tampering: str, is_found: bool
) -> None:
    url, ids = request.getfixturevalue(server), TimeOrderedIds()
    store = open_store(url)
    keeper = KeyKeeper(store, ids, new_key=new_key)
    for name in ("kept", "gone", "replaced"):
        lasts = timedelta(days=9)
        wanted = WantedKey(name=name, role=Role.WRITER, expires_after=lasts, writes_per_minute=60)
        keeper.create(wanted, actor="me", within=EVERYTHING)
    keeper.revoke("gone", actor="me", reason="over")
    keeper.rotate("replaced", actor="me", within=EVERYTHING)
    assert replay(store).differences == ()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(tampering))
    engine.dispose()
    found = replay(store).differences
    store.close()
    assert [one.table for one in found] == ["access_keys"] * is_found, found
