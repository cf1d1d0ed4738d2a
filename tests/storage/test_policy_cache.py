"""Policy layers are decoded once for each version; what is kept is never given for another state of the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

from orchestrator.domain.policy import PolicyLayer, PolicyPatch, Rule
from orchestrator.history.replay import replay
from orchestrator.ports.store import EventStore
from orchestrator.service.change_policy import change_policy
from orchestrator.service.record import Write, record_writes
from orchestrator.storage.opening import open_store
from orchestrator.storage.sql import rows
from orchestrator.storage.urls import database_url
from tests.service.world import IDS, SIMULATED

FLEETS = 40


@dataclass
class Decoded:
    """The scopes of the layers that were made of rows."""

    scopes: list[str] = field(default_factory=list)


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(url: str) -> Iterator[EventStore]:
    with closing(open_store(url)) as opened:
        yield opened


@pytest.fixture
def other(url: str) -> Iterator[EventStore]:
    """The same database, as another process sees it."""
    with closing(open_store(url)) as opened:
        yield opened


@contextmanager
def decoding() -> Iterator[Decoded]:
    """Note which layers any store decodes inside the block."""
    noted, decode = Decoded(), rows.policy_layer_of

    def note(row: sa.RowMapping) -> PolicyLayer:
        noted.scopes.append(row["scope"])
        return decode(row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "policy_layer_of", note)
        yield noted


def change(store: EventStore, scope: str, quiet_ms: int) -> PolicyLayer:
    rules = (Rule(match=(f"{scope}/**",)),)
    return change_policy(store, IDS, scope=scope, patch=PolicyPatch(quiet_ms=quiet_ms, rules=rules), actor="me")


def layers(store: EventStore) -> dict[str, int | None]:
    """Return what both ways of reading give, which must be the same."""
    with store.read() as reader:
        kept, lying = dict(reader.policies().layers), {layer.scope: layer for layer in reader.policy_layers()}
    assert kept == lying
    with store.write() as transaction:
        assert transaction.policies().layers == lying
    return {scope: layer.policy.quiet_ms for scope, layer in kept.items()}


def write(store: EventStore) -> None:
    record_writes(store, [Write(workspace="ws", path="p")], actor="me", ids=IDS, auto=SIMULATED)


def test_a_write_decodes_nothing_of_other_fleets(store: EventStore) -> None:
    for number in range(FLEETS):
        change(store, f"fleet:f{number}", number)
    write(store)
    with decoding() as noted:
        write(store)
        write(store)
    assert noted.scopes == []


def test_only_the_changed_layer_is_decoded_again(store: EventStore, other: EventStore) -> None:
    for number in range(FLEETS):
        change(other, f"fleet:f{number}", number)
    write(store)
    change(other, "fleet:f7", 70_000)
    with decoding() as noted:
        write(store)
    assert noted.scopes == ["fleet:f7"]
    assert layers(store) == layers(other)


def test_what_another_process_changes_holds_at_the_next_transaction(store: EventStore, other: EventStore) -> None:
    for number in range(1, 20):
        change(other if number % 2 else store, f"fleet:f{number % 3}", number)
        assert layers(store) == layers(other)


def test_a_change_that_is_rolled_back_is_not_kept(store: EventStore, other: EventStore) -> None:
    before = change(store, "default", 1)
    undone = PolicyLayer(scope="default", policy=PolicyPatch(quiet_ms=2), version=before.version + 1)

    def change_and_fail() -> None:
        with store.write() as transaction:
            transaction.save_policy(undone)
            assert transaction.policies().layers["default"] == undone
            raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        change_and_fail()
    assert layers(store) == {"default": 1}
    change(other, "default", 3)
    assert layers(store) == {"default": 3}


def test_a_reader_of_an_earlier_state_sees_that_state(store: EventStore, other: EventStore) -> None:
    change(store, "default", 1)
    with other.read() as early:
        early.last_position()  # its state is that of its first statement
        change(store, "default", 2)
        assert layers(other) == {"default": 2}
        assert early.policies().layers["default"].policy.quiet_ms == 1
    assert layers(other) == {"default": 2}


def test_a_version_that_is_given_again_after_a_failover_is_another_one(store: EventStore, url: str) -> None:
    """A standby without the last commits is promoted: it gives the same version again, by another event."""
    first = change(store, "default", 1)
    lost = change(store, "fleet:a", 2)
    assert layers(store) == {"default": 1, "fleet:a": 2}
    take_back(url, first.version)
    assert layers(store) == {"default": 1}
    assert change(store, "fleet:b", 3).version == lost.version
    assert layers(store) == {"default": 1, "fleet:b": 3}


def test_a_failover_between_two_looks_of_a_process(store: EventStore, other: EventStore, url: str) -> None:
    first = change(store, "default", 1)
    change(store, "fleet:a", 2)
    assert layers(other) == {"default": 1, "fleet:a": 2}
    take_back(url, first.version)
    change(store, "fleet:b", 3)
    change(store, "fleet:c", 4)
    assert layers(other) == {"default": 1, "fleet:b": 3, "fleet:c": 4}


def test_a_replay_reads_what_lies_there(store: EventStore, url: str) -> None:
    change(store, "default", 1)
    assert layers(store) == {"default": 1}
    engine = sa.create_engine(database_url(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE policies SET policy = '{\"quiet_ms\":2}'")
    engine.dispose()
    assert [(one.table, one.id) for one in replay(store).differences] == [("policies", "default")]


def take_back(url: str, version: int) -> None:
    """Leave the database as if the changes after ``version`` had never arrived there."""
    engine = sa.create_engine(database_url(url))
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("DROP TRIGGER events_refuse_delete")
        else:
            connection.exec_driver_sql("ALTER TABLE events DISABLE TRIGGER ALL")
        events = "DELETE FROM events WHERE type = 'PolicyChanged' AND position > (SELECT min(position) FROM events) "
        connection.exec_driver_sql(events)
        connection.execute(sa.text("DELETE FROM policies WHERE version > :version"), {"version": version})
    engine.dispose()
