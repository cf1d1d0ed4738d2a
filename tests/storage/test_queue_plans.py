"""What a look, a bell and a poll ask reads no more the more workspaces there are that wait for their time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from bench.statements import Statement, asked, change
from orchestrator.domain.serving import Serving
from orchestrator.ports.store import EventStore, Reader
from orchestrator.storage.opening import open_store
from tests.storage.plans import plan_of, scans
from tests.storage.samples import put, state, unsettled

WORKSPACES = 3_000
READY = 20
SERVING = Serving(executors=frozenset({"simulated", "command"}), pools=frozenset({"default", "host"}))

ASKED: dict[str, Callable[[Reader], object]] = {
    "outlook": lambda reader: reader.outlook(100, 8),
    "due": lambda reader: reader.due_workspaces(100),
    "ready": lambda reader: reader.ready_workspaces(50),
    "ready for a worker": lambda reader: reader.ready_workspaces(50, serving=SERVING),
    "next instant": lambda reader: reader.next_instant(),
    "waiting for": lambda reader: reader.waiting_for(),
    "unclaimable": lambda reader: reader.unclaimable(),
}


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    """A database of many workspaces, each with an open window that is due later."""
    url: str = request.getfixturevalue(request.param)
    later = datetime.now(UTC) + timedelta(hours=1)
    with closing(open_store(url)) as store:
        put(store, *(state(f"ws-{number:05}") for number in range(WORKSPACES)), due_at=later)
    return url


def some_ready(store: EventStore) -> None:
    since = datetime.now(UTC) - timedelta(minutes=1)
    put(store, *(state(f"ready-{number:05}", restart=unsettled(since)) for number in range(READY)))


@pytest.mark.parametrize("ready", [False, True], ids=["idle", "some ready"])
def test_nothing_scans_the_workspaces(url: str, ready: bool) -> None:
    with closing(open_store(url)) as store:
        if ready:
            some_ready(store)
        change(url, ["ANALYZE"])
        taken = [(name, statement) for name, ask in ASKED.items() for statement in asked(store, ask)]
    for name, statement in taken:
        plan = plan_of(url, statement)
        for table in ("workspaces", "registrations"):
            assert not scans(plan, table), f"{name!r} scans {table}:\n{statement.sql}\n{plan}"


def test_a_scan_of_them_is_seen(url: str) -> None:
    change(url, ["ANALYZE"])
    passed = Statement("SELECT id FROM workspaces WHERE version < 0", ())
    assert scans(plan_of(url, passed), "workspaces")


def test_an_outlook_is_one_statement(url: str) -> None:
    with closing(open_store(url)) as store:
        assert len(asked(store, ASKED["outlook"])) == 1
