"""Every filter of every list costs few statements, none of which reads a table from end to end."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from bench.statements import asked, change, recorded
from orchestrator.domain import events as ev
from orchestrator.domain.policy import Action
from orchestrator.domain.restart_projection import RestartState
from orchestrator.domain.state import Phase
from orchestrator.ports.store import EventStore, Reader, RestartFilter
from orchestrator.ports.transaction import StoredAnswer
from orchestrator.ports.workspaces import WorkspaceFilter
from orchestrator.storage.opening import open_store
from orchestrator.storage.sql import answers
from orchestrator.storage.sql.schema import registrations, restarts, workspaces
from tests.storage.plans import kept_plan_of, plan_of, scans
from tests.storage.samples import at, file_written, log, put, record, state

WORKSPACES = 110
RESTARTS = 200
COPIES = 200
MOST_STATEMENTS = 5


def restart_filters() -> list[RestartFilter]:
    """Every combination of filters but none at all."""
    found = []
    for workspace, fleet, settled, cause, path in product(
        (None, "ws-0"), (None, "blue"), (None, RestartState.GAVE_UP), (None, ev.Cause.PROBE), (None, "a", "never")
    ):
        of = RestartFilter(workspace=workspace, fleet=fleet, path=path, limit=50)
        found.append(dataclasses.replace(of, state=settled, cause=cause))
    return [
        *found[1:],
        RestartFilter(since=at(10), until=at(900), path="a"),
        RestartFilter(state=RestartState.SUCCEEDED),
    ]


def workspace_filters() -> list[WorkspaceFilter]:
    phases = (None, Phase.IDLE, Phase.RUNNING, Phase.RETRYING, Phase.UNCLAIMABLE)
    labels = (None, ("team", "x"), ("team", "nobody"))
    return [
        WorkspaceFilter(phase=phase, fleet=fleet, label=label)
        for phase, fleet, label in product(phases, (None, "blue", "nobody"), labels)
    ]


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def full(url: str) -> str:
    """A database with many workspaces, and many restarts of one of them: all have succeeded, each with a write of a."""
    with closing(open_store(url)) as store:
        fill(store)
    later = {name: f"{name} + 1000 * n" for name in ("queued_position", "from_position", "to_position")}
    more = [copies(restarts, id="id || '-' || n", **later), copies(workspaces, id="'z' || id || '-' || n")]
    change(url, [*more, copies(registrations, workspace="'z' || workspace || '-' || n"), "ANALYZE"])
    return url


def copies(table: sa.Table, most: int = COPIES, /, **changed: str) -> str:
    """Return the statement that puts so many more of each row into a table."""
    names = [column.name for column in table.columns]
    chosen = ", ".join(changed.get(name, name) for name in names)
    numbers = f"WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {most})"
    return f"{numbers} INSERT INTO {table.name} ({', '.join(names)}) SELECT {chosen} FROM {table.name}, number"


def fill(store: EventStore) -> None:
    put(store, *(state(f"ws-{number}", "blue", {"team": "x"}) for number in range(WORKSPACES)))
    written = log(store, *(file_written("a", "ws-0") for _ in range(RESTARTS)))
    with store.write() as transaction:
        transaction.save_restarts(
            [
                record(
                    number,
                    id=f"rst_{number}",
                    workspace="ws-0",
                    fleet="blue",
                    state=RestartState.SUCCEEDED,
                    from_position=one.position,
                    to_position=one.position,
                    queued_position=one.position,
                    queued_at=at(number),
                )
                for number, one in enumerate(written, 1)
            ]
        )


ASKED: dict[str, Callable[[Reader], object]] = {
    **{str(one): partial(lambda wanted, reader: reader.restarts(wanted), one) for one in restart_filters()},
    **{str(one): partial(lambda wanted, reader: reader.workspaces(wanted), one) for one in workspace_filters()},
}


def test_no_filter_costs_many_statements_or_scans(full: str) -> None:
    with closing(open_store(full)) as store:
        taken = {name: asked(store, ask) for name, ask in ASKED.items()}
    seen: set[str] = set()
    for name, sent in taken.items():
        assert len(sent) <= MOST_STATEMENTS, f"{name}: {len(sent)} statements"
        for statement in sent:
            if statement.sql in seen:
                continue
            seen.add(statement.sql)
            plan = plan_of(full, statement)
            for table in ("restarts", "events", "workspaces", "registrations", "workspace_labels"):
                assert not scans(plan, table), f"{name} scans {table}:\n{statement.sql}\n{plan}"


def test_a_kept_plan_reads_a_page_of_a_large_workspace_and_of_a_small_fleet(postgres_url: str) -> None:
    """It expects as much of each as of an average one: it sorted all of the one, and sought the other among all."""
    later = {name: f"{name} + 1000 * n" for name in ("queued_position", "from_position", "to_position")}
    others = {"workspace": "id || '-' || n", "fleet": "'green'", "id": "'other-' || id || '-' || n"}
    with closing(open_store(postgres_url)) as store:
        fill(store)
        more = [copies(restarts, 120, **later, **others), copies(restarts, 20, **later, id="id || '-' || n")]
        change(postgres_url, [*more, "ANALYZE"])
        pages = (RestartFilter(limit=50), RestartFilter(before=10**9, until=at(900), limit=50), RestartFilter(after=0))
        for page, column in product(pages, ("workspace", "fleet")):
            of = ("ws-0", None) if column == "workspace" else (None, "blue")
            wanted = dataclasses.replace(page, workspace=of[0], fleet=of[1], limit=50)
            [statement] = asked(store, partial(lambda wanted, reader: reader.restarts(wanted), wanted))
            plan = kept_plan_of(postgres_url, statement)
            assert re.search(rf"Index Scan (Backward )?using ix_restarts_{column}_queued_position ", plan), plan
            assert "Sort Key: restarts.queued" not in plan, plan
        of_kind = RestartFilter(fleet="blue", state=RestartState.SUCCEEDED)
        [statement] = asked(store, lambda reader: reader.restarts(of_kind))
    plan = kept_plan_of(postgres_url, statement)
    assert plan.count("using ix_restarts_fleet_state_cause_queued_position ") == len(ev.Cause), plan


def test_labels_follow_every_registration(store: EventStore) -> None:
    """Whoever writes it: they are kept by the database."""

    def labelled(key: str, value: str) -> list[str]:
        with store.read() as reader:
            return [one.state.workspace for one in reader.workspaces(WorkspaceFilter(label=(key, value)))]

    put(store, state("a", "", {"team": "x", "odd \"'": "ü"}), state("b", "", {"team": "x"}))
    assert labelled("team", "x") == ["a", "b"]
    put(store, replace(state("a", "", {"team": "y"}), registration_position=2))
    assert (labelled("team", "x"), labelled("team", "y"), labelled("odd \"'", "ü")) == (["b"], ["a"], [])


def test_the_writes_of_a_restart_are_one_statement_whatever_was_recorded_before(url: str) -> None:
    with closing(open_store(url)) as store:
        log(store, *(file_written("r", "ws-1", Action.RECORD) for _ in range(300)))
        [first, *_] = log(store, file_written("b", "ws-1"), file_written("r", "ws-1", Action.RECORD))
        [last] = log(store, file_written("c", "ws-1"))
        about = record(
            9_999,
            workspace="ws-1",
            from_position=1,
            to_position=last.position,
            opened_at=first.recorded_at,
        )
        taken = asked(store, lambda reader: reader.restart_writes(about, after=0, limit=2))
        with store.read() as reader:
            both = [one.position for one in reader.restart_writes(about, after=0, limit=9)]
            later = [one.position for one in reader.restart_writes(about, after=first.position, limit=9)]
    assert (both, later) == ([first.position, last.position], [last.position])
    assert len(taken) == 1
    assert not scans(plan_of(url, taken[0]), "events")


def test_old_answers_go_in_pieces(url: str) -> None:
    """On SQLite nobody writes while one is deleted: 600,000 at once stopped everybody for seconds."""
    pieces = 2 * answers.AT_ONCE + 1
    with closing(open_store(url)) as store:
        with store.write() as transaction:
            for number in range(pieces):
                transaction.remember("me", str(number), StoredAnswer(fingerprint="f", answer="{}"))
        with recorded() as sent:
            assert store.forget_answers(datetime.now(UTC) + timedelta(days=1)) == pieces
    deletes = [one for one in sent if one.sql.startswith("DELETE")]
    assert len(deletes) == 3
    if url.startswith("sqlite"):  # PostgreSQL has no statistics yet
        assert "ix_idempotency_keys_remembered_at" in plan_of(url, deletes[0])
