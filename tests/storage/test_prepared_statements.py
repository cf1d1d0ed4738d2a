"""What a session of PostgreSQL has prepared stays prepared: planning costs more than most of what is asked."""

from __future__ import annotations

from contextlib import closing

import sqlalchemy as sa

from orchestrator.storage.opening import open_store
from orchestrator.storage.sql.reader import SqlReader

_OFTEN = 10
"""psycopg prepares what is asked five times."""


def test_a_reader_leaves_its_session_what_it_has_prepared(postgres_url: str) -> None:
    with closing(open_store(postgres_url)) as store:
        for _ in range(_OFTEN):
            with store.read() as reader:
                reader.outlook(1, 1)
        with store.read() as reader:
            assert isinstance(reader, SqlReader)
            connection = reader._sql.connection
            prepared = connection.execute(sa.text("SELECT statement FROM pg_prepared_statements")).scalars().all()
    assert any("workspaces.due_at" in statement for statement in prepared)
