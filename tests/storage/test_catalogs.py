"""The migrations and the tables in code come to the same database, in the words of its own catalog.

Alembic compares neither the WHERE of a partial index nor CHECKs, collations, identities and storage options.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestrator.storage.sql.schema import metadata
from orchestrator.storage.urls import database_url
from tests.servers.postgres import PostgresServer

VERSIONS = "alembic_version"
"""Alembic's own table is in no metadata."""

OF_POSTGRES = f"""
    SELECT 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> '{VERSIONS}'
    UNION ALL
    SELECT 'constraint ' || conname, pg_get_constraintdef(pg_constraint.oid) || ' valid: ' || convalidated
    FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
    WHERE relnamespace = 'public'::regnamespace AND relname <> '{VERSIONS}'
    UNION ALL
    SELECT 'column ' || relname || '.' || attname, concat_ws(' ', format_type(atttypid, atttypmod), collname,
        CASE WHEN attnotnull THEN 'not null' END, 'identity:' || attidentity, 'generated:' || attgenerated,
        pg_get_expr(adbin, adrelid))
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid LEFT JOIN pg_collation ON pg_collation.oid = attcollation
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
        AND relname <> '{VERSIONS}'
    UNION ALL
    SELECT 'table ' || relname, coalesce(array_to_string(reloptions, ' '), '') FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> '{VERSIONS}'
"""
OF_SQLITE = f"""
    SELECT type || ' ' || name, sql FROM sqlite_master
    WHERE type = 'index' AND sql IS NOT NULL AND tbl_name <> '{VERSIONS}'
    UNION ALL
    SELECT 'column ' || m.name || '.' || c.name, printf('%s notnull %d default %s key %d hidden %d', c.type, c."notnull",
        c.dflt_value, c.pk, c.hidden)
    FROM sqlite_master AS m JOIN pragma_table_xinfo(m.name) AS c WHERE m.type = 'table' AND m.name <> '{VERSIONS}'
    UNION ALL
    SELECT 'key ' || m.name || ' ' || group_concat(x.name || ' ' || coalesce(x.coll, '')), l."unique" || l.partial || l.origin
    FROM sqlite_master AS m JOIN pragma_index_list(m.name) AS l JOIN pragma_index_xinfo(l.name) AS x
    WHERE m.type = 'table' AND m.name <> '{VERSIONS}' GROUP BY m.name, l.name
"""
CHECKS = f"SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql LIKE '%CHECK%' AND name <> '{VERSIONS}'"
COUNTED = "SELECT name, sql LIKE '%AUTOINCREMENT%' FROM sqlite_master WHERE type = 'table'"


def catalog(url: str, *, make: bool) -> dict[str, str]:
    """Return what the database says of itself; ``make``: after the tables in code are created in it."""
    engine = sa.create_engine(database_url(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        if make:
            metadata.create_all(connection)
        if engine.dialect.name != "sqlite":
            return {name: said for name, said in connection.execute(sa.text(OF_POSTGRES))}
        found = {name: " ".join(said.split()) for name, said in connection.execute(sa.text(OF_SQLITE))}
        for name, said in connection.execute(sa.text(CHECKS)):
            found[f"checks of {name}"] = (
                " ".join(said[said.index("CONSTRAINT ck") :].split()).split(", ")[0].rstrip(" )")
            )
        for name, counted in connection.execute(sa.text(COUNTED)):
            if name not in (VERSIONS, "sqlite_sequence"):
                found[f"counted {name}"] = str(counted)
        return found


def differences(one: dict[str, str], other: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Return what is not the same in both."""
    return {name: (one.get(name), other.get(name)) for name in one | other if one.get(name) != other.get(name)}


def test_sqlite(sqlite_url: str, tmp_path: Path) -> None:
    migrated, made = catalog(sqlite_url, make=False), catalog(f"sqlite:///{tmp_path}/made.db", make=True)
    assert differences(migrated, made) == {}
    assert "WHERE" in migrated["index ix_events_waiver"]


def test_postgres(postgres_url: str, postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database()
    migrated, made = catalog(postgres_url, make=False), catalog(postgres_server.url(name), make=True)
    postgres_server.drop_database(name)
    assert differences(migrated, made) == {}
    assert "WHERE" in migrated["index ix_events_waiver"]
    assert "identity:a" in migrated["column events.position"]


@pytest.mark.parametrize(
    "change",
    [
        "DROP INDEX ix_events_waiver; CREATE INDEX ix_events_waiver ON events (workspace, position)",
        "ALTER TABLE events DROP CONSTRAINT ck_events_source_of_source_id",
        'ALTER TABLE workspaces ALTER COLUMN id TYPE text COLLATE "default"',
        "ALTER TABLE events ALTER COLUMN position SET GENERATED BY DEFAULT",
        "ALTER TABLE workspaces RESET (fillfactor)",
    ],
)
def test_a_difference_that_alembic_does_not_see_is_seen(postgres_url: str, change: str) -> None:
    before = catalog(postgres_url, make=False)
    engine = sa.create_engine(database_url(postgres_url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        for words in change.split("; "):
            connection.execute(sa.text(words))
    assert differences(before, catalog(postgres_url, make=False))
