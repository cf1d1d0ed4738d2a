"""No question of the audit scans the log: every statement that one takes is recorded while it is asked, and explained.

Export, replay and verification read the log by its primary key, and are no questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from bench.databases import copy_to_postgres
from bench.log_files import Wanted, sqlite_file
from bench.questions import Question, questions, subjects
from bench.statements import Statement, asked, driver
from orchestrator.storage.opening import open_store
from orchestrator.storage.urls import database_url
from tests.servers.postgres import PostgresServer
from tests.storage.plans import plan_of, scans

EVENTS = 20_000
SUBJECTS = 5


@pytest.fixture(scope="module")
def sqlite_log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a SQLite database with a generated log, analysed."""
    folder = tmp_path_factory.mktemp("plans")
    return f"sqlite:///{sqlite_file(Wanted(count=EVENTS, folder=folder, fresh=False, say=lambda text: None))}"


@pytest.fixture(scope="module")
def postgres_log(sqlite_log: str, postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The URL of a PostgreSQL database with the same log, analysed."""
    name = postgres_server.create_database(postgres_template)
    with postgres_server.connect(name) as connection:
        copy_to_postgres(Path(str(database_url(sqlite_log).database)), connection)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


def taken(url: str) -> dict[str, list[Statement]]:
    """Return the statements of each question, by its name."""
    with closing(open_store(url)) as store, driver(url) as cursor:

        def statements(question: Question) -> list[Statement]:
            return [
                statement
                for subject in question.of
                for statement in asked(store, partial(lambda of, reader: question.ask(reader, of), subject))
            ]

        return {question.name: statements(question) for question in questions(subjects(cursor, SUBJECTS))}


@pytest.mark.parametrize("log", ["sqlite_log", "postgres_log"])
def test_no_question_scans_the_log(log: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue(log)

    for name, statements in taken(url).items():
        assert statements, f"{name!r} asked nothing"
        for statement in {statement.sql: statement for statement in statements}.values():
            plan = plan_of(url, statement)
            assert not scans(plan, "events"), f"{name!r} scans the log:\n{statement.sql}\n{plan}"


@pytest.mark.parametrize("log", ["sqlite_log", "postgres_log"])
def test_a_scan_is_seen(log: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue(log)

    assert scans(plan_of(url, Statement("SELECT * FROM events WHERE length(data) > 90", ())), "events")
    assert not scans(plan_of(url, Statement("SELECT * FROM events WHERE position = 7", ())), "events")
