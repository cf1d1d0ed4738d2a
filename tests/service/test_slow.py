"""What takes too long, and a row that is held for long, stop nobody else: neither looks nor claims."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest

from bench.statements import change, plain_url, recorded
from orchestrator.domain.events import CycleAbandoned, CycleStarted, RestartQueued
from orchestrator.errors import StorageUnavailable, TimedOut
from orchestrator.ports.store import CoreStore, EventStore
from orchestrator.service import passed_over
from orchestrator.service.passed_over import Lost, PassedOver
from orchestrator.service.tick import look
from orchestrator.storage.opening import open_store
from tests.service.away import away
from tests.service.test_tick import register
from tests.service.world import IDS, Bell, Scripted, drainer, events, write

SLOW = """
CREATE FUNCTION be_slow() RETURNS trigger AS $$
BEGIN
  IF NEW.workspace LIKE 'slow%' THEN PERFORM pg_sleep(20); END IF;
  RETURN NEW;
END $$ LANGUAGE plpgsql
"""
TRIGGER = "CREATE TRIGGER be_slow BEFORE INSERT ON restarts FOR EACH ROW EXECUTE FUNCTION be_slow()"


class Now:
    """A clock that stands where the test puts it."""

    at_s = 0.0

    def monotonic(self) -> float:
        return self.at_s


@pytest.fixture
def limited(app_url: str) -> Iterator[EventStore]:
    """A store whose statements, and their waits for a row, are ended soon."""
    options = "-c%20statement_timeout%3D400ms%20-c%20lock_timeout%3D200ms"
    with closing(open_store(f"{app_url}?options={options}")) as store:
        yield store


@contextmanager
def slow(url: str) -> Iterator[None]:
    """Let whatever is recorded of a restart of a workspace ``slow...`` take longer than any limit."""
    change(url, [SLOW, TRIGGER])
    try:
        yield
    finally:
        change(url, ["DROP TRIGGER be_slow ON restarts", "DROP FUNCTION be_slow"])


def due(store: CoreStore, *workspaces: str) -> None:
    for name in workspaces:
        register(store, name, quiet=0, min_interval=0)
        write(store, name, "a")


def queued(store: CoreStore) -> int:
    return len(events(store, RestartQueued))


def test_a_slow_window_stops_no_other(
    limited: EventStore, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    due(limited, "slow", *(f"ws-{number}" for number in range(5)))
    lost = Lost()
    with slow(postgres_url):
        looked = look(limited, Bell(), IDS, free_slots=lambda: 1, lost=lost)
        assert (looked.changed, looked.failed) == (5, 1)
        assert "tick.passed_over" in capsys.readouterr().out
        with recorded() as sent:
            assert look(limited, Bell(), IDS, free_slots=lambda: 1, lost=lost).failed == 0
        assert len(sent) == 1, "it is left alone for a while"
        due(limited, "later")
        assert look(limited, Bell(), IDS, free_slots=lambda: 1, lost=lost).changed == 1
    assert look(limited, Bell(), IDS, free_slots=lambda: 1).changed == 1


def test_many_slow_ones_end_a_look_and_not_the_next(
    limited: EventStore, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    due(limited, *(f"slow-{number}" for number in range(5)), "ws")
    lost = Lost()
    with slow(postgres_url):
        with pytest.raises(TimedOut):
            look(limited, Bell(), IDS, free_slots=lambda: 1, lost=lost)
        assert capsys.readouterr().out.count("tick.passed_over") == 3
        assert look(limited, Bell(), IDS, free_slots=lambda: 1, lost=lost).changed == 1


def test_a_database_that_is_away_is_asked_once(
    limited: EventStore, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    due(limited, *(f"ws-{number}" for number in range(5)))
    with away(postgres_url), pytest.raises(StorageUnavailable):
        look(limited, Bell(), IDS, free_slots=lambda: 1)
    assert "tick." not in capsys.readouterr().out
    assert look(limited, Bell(), IDS, free_slots=lambda: 1).changed == 5


def test_a_lock_that_all_wait_for_is_no_windows_fault(
    limited: EventStore, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    due(limited, "a", "b")
    with psycopg.connect(plain_url(postgres_url)) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(7311423940867843)")
        with pytest.raises(StorageUnavailable, match="lock of all appends"):
            look(limited, Bell(), IDS, free_slots=lambda: 1)
    assert "tick." not in capsys.readouterr().out


def test_a_lease_whose_row_is_held_stops_no_other(limited: EventStore, postgres_url: str) -> None:
    due(limited, "held", "ws")
    look(limited, Bell(), IDS, free_slots=lambda: 1)
    worker = drainer(limited, Scripted(), slots=1)
    claim = worker._claims.next()
    assert claim is not None
    held = claim.state.workspace
    change(postgres_url, ["UPDATE leases SET until = now() - interval '1 minute'"])
    due(limited, "another")
    with psycopg.connect(plain_url(postgres_url)) as holder:
        holder.execute(f"SELECT 1 FROM leases WHERE workspace = '{held}' FOR UPDATE")
        assert look(limited, Bell(), IDS, free_slots=lambda: 1).changed == 1
    assert look(limited, Bell(), IDS, free_slots=lambda: 1).changed == 1
    assert len(events(limited, CycleAbandoned)) == 1


def test_a_row_that_was_waited_for_in_vain_is_not_waited_for_again_at_once(
    limited: EventStore, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    due(limited, "held")
    lost = Lost()
    with psycopg.connect(plain_url(postgres_url)) as holder:
        holder.execute("SELECT 1 FROM workspaces WHERE id = 'held' FOR UPDATE")
        for _ in range(3):
            assert look(limited, Bell(), IDS, free_slots=lambda: 1, lost=lost).changed == 0
    assert capsys.readouterr().out.count("tick.passed_over") == 1
    assert look(limited, Bell(), IDS, free_slots=lambda: 1, lost=lost).changed == 1, "looked at it is, as ever"


def test_a_start_that_takes_too_long_stops_no_other(
    limited: EventStore, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    due(limited, "slow", "ws")
    assert look(limited, Bell(), IDS, free_slots=lambda: 1).changed == 2
    worker = drainer(limited, Scripted())
    with slow(postgres_url):
        assert worker.drain() == 1
        assert worker.drain() == 0
    assert capsys.readouterr().out.count("claim.passed_over") == 1
    assert [started.worker for started in events(limited, CycleStarted, "ws")] == ["host:1"]


def test_a_row_that_is_held_for_long_keeps_no_slot_from_the_next(limited: EventStore, postgres_url: str) -> None:
    due(limited, "held-a", "held-b")
    assert look(limited, Bell(), IDS, free_slots=lambda: 1).changed == 2
    worker = drainer(limited, Scripted())
    with (
        psycopg.connect(plain_url(postgres_url)) as first,
        psycopg.connect(plain_url(postgres_url)) as second,
    ):
        first.execute("SELECT 1 FROM workspaces WHERE id = 'held-a' FOR UPDATE")
        second.execute("SELECT 1 FROM workspaces WHERE id = 'held-b' FOR UPDATE")
        assert worker.drain() == 0, "both are passed over, and neither raises"
        second.rollback()
        assert worker.drain() == 1
    assert len(events(limited, CycleStarted, "held-b")) == 1


def test_what_is_passed_over_rests_the_longer_the_longer_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Now()
    monkeypatch.setattr(passed_over, "time", now)
    passed = PassedOver()
    passed.add("short", took_s=0.25)
    passed.add("long", took_s=5)
    passed.add("for ever", took_s=1_000)
    rests = []
    for now.at_s in (0, 2, 3, 49, 51, 299, 301):
        rests.append(sorted(passed.resting()))
    assert rests == [["for ever", "long", "short"]] * 2 + [["for ever", "long"]] * 2 + [["for ever"]] * 2 + [[]]
