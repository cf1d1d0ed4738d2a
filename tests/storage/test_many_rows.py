"""Rows of one commit on SQLite: all of them, in their order, in a statement for each 64."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from orchestrator.storage.sql.column_types import Instant
from orchestrator.storage.sql.many_rows import ManyRows
from orchestrator.storage.sql.statements import Statements
from tests.sent_statements import statements

TABLE = sa.Table("kept", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("at", Instant))
FIRST = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 1_000])
def test_all_rows_are_written_in_their_order_sixty_four_a_statement(count: int) -> None:
    engine = sa.create_engine("sqlite://")
    rows = [{"id": number, "at": FIRST + timedelta(seconds=number) if number % 2 else None} for number in range(count)]
    with engine.begin() as connection:
        TABLE.create(connection)
        with statements() as sent:
            ManyRows(Statements(connection)).insert(TABLE, rows)
        found = connection.execute(sa.select(TABLE).order_by(sa.text("rowid"))).mappings().all()
    assert [dict(row) for row in found] == rows
    assert len(sent) == -(-count // 64)


def test_a_row_with_the_same_key_is_replaced_in_a_list_too() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        TABLE.create(connection)
        batch = ManyRows(Statements(connection))
        batch.insert(TABLE, [{"id": number, "at": None} for number in range(70)])
        batch.upsert(TABLE, [{"id": number, "at": FIRST} for number in range(5, 75)])
        found = {row.id: row.at for row in connection.execute(sa.select(TABLE))}
    assert found == {number: FIRST if number >= 5 else None for number in range(75)}
