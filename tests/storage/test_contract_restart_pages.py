"""What every store promises of restart history by path, by time and by page; and that databases find it by index."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from bench.statements import recorded
from orchestrator.domain.events import Cause, ProbeSuppressed, Suppression
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.domain.state import WorkspaceState
from orchestrator.ports.store import CoreStore, EventFilter, RestartFilter
from orchestrator.storage.opening import open_store
from orchestrator.storage.sql import restarts_of_path
from orchestrator.storage.urls import database_url
from tests.storage.samples import at, event, file_written, log, put, record, requested

PATHS = ("a", "b", "c", "rare")
LONG = "d" * 4_000
"""Longer than an entry of PostgreSQL's index may be, and the same in its first 200 characters as the next."""
ALIKE = "d" * 3_999 + "e"


def lived(store: CoreStore, workspaces: int = 2, rounds: int = 60, *, seed: int = 1) -> dict[str, set[str]]:
    """Make histories with give-ups, cancelled ranges and holes; return the paths that each restart's range holds."""
    chance = random.Random(seed)
    written: dict[str, list[tuple[int, str]]] = {}
    begin: dict[str, int] = {}
    records: list[RestartProjection] = []
    for number in range(1, rounds + 1):
        workspace = f"w{chance.randrange(workspaces)}"
        some = [chance.choice(PATHS[:3]) for _ in range(chance.randrange(1, 6))]
        some += ["rare"] if number in (3, rounds // 2) else []
        some += chance.choice(([], [], [LONG], [ALIKE]))
        recorded = log(store, *(file_written(path, workspace) for path in some))
        written.setdefault(workspace, []).extend((one.position, path) for one, path in zip(recorded, some, strict=True))
        last = recorded[-1].position
        fate = chance.choice(["succeeded", "succeeded", "gave_up", "cancelled", "waived", "pending"])
        if fate in ("succeeded", "gave_up", "cancelled"):
            first = begin.get(workspace, 0) + 1
            records.append(
                record(
                    number,
                    id=f"rst_{number}",
                    workspace=workspace,
                    fleet="blue" if workspace == "w0" else "green",
                    state=RestartState(fate),
                    from_position=first,
                    to_position=last,
                    queued_position=last,
                    queued_at=at(number),
                )
            )
        if fate in ("succeeded", "cancelled", "waived"):
            begin[workspace] = last
    put(store, *(WorkspaceState(workspace=f"w{number}") for number in range(workspaces)))
    with store.write() as transaction:
        transaction.save_restarts(records)
    return {
        one.id: {path for position, path in written[one.workspace] if one.from_position <= position <= one.to_position}
        for one in records
    }


def walk(store: CoreStore, wanted: RestartFilter) -> list[RestartProjection]:
    found: list[RestartProjection] = []
    with store.read() as reader:
        while page := reader.restarts(wanted):
            found += page
            wanted = replace(wanted, before=page[-1].queued_position)
    return found


@pytest.mark.parametrize("few", [50, 1])
def test_paths_are_found_in_pages(store: CoreStore, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(restarts_of_path, "FEW_WORKSPACES", few)
    held = lived(store)
    every = walk(store, RestartFilter())
    assert len(every) == len(held)
    for path in (*PATHS, LONG, ALIKE, "never", "d" * 200):
        holding = [one for one in every if path in held[one.id]]
        for limit in (2, 1_000):
            assert walk(store, RestartFilter(path=path, limit=limit)) == holding
        for workspace, limit in (("w0", 3), ("w1", 1_000), ("nobody", 3)):
            wanted = RestartFilter(path=path, workspace=workspace, limit=limit)
            assert walk(store, wanted) == [one for one in holding if one.workspace == workspace]
    rare = [one for one in every if "rare" in held[one.id]]
    assert walk(store, RestartFilter(path="rare", limit=1)) == rare


SIDES = {
    "as they are": {},
    "the writes": {"FEW_WRITES": 1, "FEW_RESTARTS": 1, "MANY_WRITES": 1_024, "MANY_RESTARTS": 2_048},
    "the restarts": {"FEW_WRITES": 1, "FEW_RESTARTS": 1, "MANY_WRITES": 1},
    "both common": {"FEW_WRITES": 1, "FEW_RESTARTS": 1, "MANY_WRITES": 1, "MANY_RESTARTS": 1},
}
"""What is few and many, so that each side leads once."""


@pytest.mark.parametrize("sides", SIDES)
def test_paths_go_with_every_other_filter(store: CoreStore, monkeypatch: pytest.MonkeyPatch, sides: str) -> None:
    for name, bound in SIDES[sides].items():
        monkeypatch.setattr(restarts_of_path, name, bound)
    held = lived(store)
    every = walk(store, RestartFilter())
    since, until = at(20), at(45)
    for workspace in (None, "w0"):
        wanted = RestartFilter(path="a", workspace=workspace, limit=2)
        holding = [one for one in every if "a" in held[one.id] and workspace in (None, one.workspace)]
        given_up = [one for one in holding if one.state is RestartState.GAVE_UP]
        assert given_up
        assert walk(store, replace(wanted, state=RestartState.GAVE_UP)) == given_up
        assert walk(store, replace(wanted, state=RestartState.GAVE_UP, limit=1_000)) == given_up
        quiet = [one for one in holding if one.cause is Cause.QUIET]
        assert walk(store, replace(wanted, cause=Cause.QUIET)) == quiet
        blue = [one for one in holding if one.fleet == "blue"]
        assert walk(store, replace(wanted, fleet="blue")) == blue
        between = [one for one in holding if since <= one.queued_at < until]
        assert between
        assert walk(store, replace(wanted, since=since, until=until)) == between
        assert walk(store, replace(wanted, since=at(1_000))) == []
        assert walk(store, replace(wanted, until=at(0))) == []


def test_several_types_of_events_in_pages(store: CoreStore) -> None:
    probed = ProbeSuppressed(reason=Suppression.HELD, detail="no")
    log(store, requested(version=1), event(probed), requested(version=2), file_written(), event(probed))
    types = ("ProbeSuppressed", "RestartRequested")
    with store.read() as reader:
        assert [one.position for one in reader.events(EventFilter(types=types))] == [1, 2, 3, 5]
        assert [one.position for one in reader.events(EventFilter(types=types, limit=2))] == [1, 2]
        assert [one.position for one in reader.events(EventFilter(types=types, after=2, limit=2))] == [3, 5]
        assert [one.position for one in reader.events(EventFilter(types=types, to_position=2))] == [1, 2]


def explained(url: str, ask: RestartFilter | EventFilter) -> str:
    """Return how the database answers a question."""
    store = open_store(url)
    with recorded() as sent, store.read() as reader:
        if isinstance(ask, RestartFilter):
            reader.restarts(ask)
        else:
            reader.events(ask)
    store.close()
    engine = sa.create_engine(database_url(url))
    with engine.connect() as connection:
        sqlite = engine.dialect.name == "sqlite"
        if not sqlite:  # the tables are short here: a scan would be right
            connection.exec_driver_sql("SET enable_seqscan = off")
        words = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
        lines = [
            str(tuple(row))
            for statement in sent
            for row in connection.exec_driver_sql(words + statement.sql, _as_given(statement.parameters))
        ]
    engine.dispose()
    return "\n".join(lines)


def _as_given(parameters: Any) -> Any:
    return tuple(parameters) if isinstance(parameters, list) else parameters


@pytest.mark.parametrize("name", ["sqlite_url", "postgres_url"])
def test_indexes_are_used(request: pytest.FixtureRequest, name: str) -> None:
    url: str = request.getfixturevalue(name)
    store = open_store(url)
    lived(store, rounds=200)
    store.close()
    if name == "postgres_url":
        engine = sa.create_engine(database_url(url), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE")
        engine.dispose()
    by_path = explained(url, RestartFilter(path="rare", workspace="w0"))
    assert by_path.count("ix_events_path") >= 1, by_path
    anywhere = explained(url, RestartFilter(path="rare"))
    assert "ix_events_path" in anywhere, anywhere
    deep = explained(url, RestartFilter(workspace="w0", before=100, since=at(3), until=at(50)))
    assert re.search(r"ix_restarts_(workspace_)?queued_position", deep), deep
    assert "ix_restarts_queued_at" in deep, deep
    types = explained(url, EventFilter(types=("CycleFailed", "WorkspaceHeld"), limit=10))
    assert types.count("ix_events_type_position") == 2, types
    for plan in (by_path, anywhere, deep, types):
        assert "Seq Scan" not in plan, plan
        assert "SCAN events" not in plan, plan
        assert "SCAN restarts" not in plan or "USING INDEX" in plan, plan
