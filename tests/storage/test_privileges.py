"""The split of roles on a real PostgreSQL: what each role may do works, and everything else is refused.

That the whole product works as the app is shown by the store's contract, the service's tests and the production
deployment, which all connect as it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import psycopg
import pytest
from psycopg import errors, sql

from orchestrator.errors import InvalidInput, StorageUnavailable
from orchestrator.ports.store import EventFilter
from orchestrator.storage.migrate import downgrade, upgrade
from orchestrator.storage.opening import open_store
from orchestrator.storage.privileges import PRIVILEGES, VERSIONS, Roles
from orchestrator.storage.sql.schema import metadata
from tests.servers.postgres import APP, APP_ROLE, READER, READER_ROLE, SUPERUSER, PostgresServer, as_login
from tests.storage.samples import file_written, log

BOTH = Roles(app=APP_ROLE, reader=READER_ROLE)
VALUES = "'FileWritten', 1, '{}', 'me', '2026-11-23T12:00Z'"
LIKE_AN_EVENT = f"INSERT INTO events (id, type, schema, data, actor, recorded_at) VALUES ('evt_x', {VALUES})"
REFUSED_TO_ALL = [
    "UPDATE events SET data = '{}'",
    "UPDATE events SET traceparent = NULL WHERE false",
    "DELETE FROM events",
    "TRUNCATE events",
    "ALTER TABLE events DISABLE TRIGGER events_append_only",
    "ALTER TABLE events DISABLE TRIGGER ALL",
    "ALTER TABLE events ADD COLUMN note text",
    "ALTER TABLE events OWNER TO CURRENT_USER",
    "DROP TRIGGER events_append_only ON events",
    "DROP FUNCTION events_refuse_change() CASCADE",
    "CREATE OR REPLACE FUNCTION events_refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "CREATE TRIGGER mine BEFORE INSERT ON events EXECUTE FUNCTION events_take_append_lock()",
    "CREATE RULE mine AS ON INSERT TO events DO INSTEAD NOTHING",
    "DROP TABLE events",
    f"{LIKE_AN_EVENT} ON CONFLICT (id) DO UPDATE SET data = '{{}}'",
    "MERGE INTO events USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE",
    "INSERT INTO events (position, id, type, schema, data, actor, recorded_at)"
    f" OVERRIDING SYSTEM VALUE VALUES (1000, 'evt_x', {VALUES})",
    "SELECT setval('events_position_seq', 1)",
    "ALTER SEQUENCE events_position_seq RESTART",
    "SET session_replication_role = replica",
    "CREATE TABLE mine (id int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    f"SET ROLE {SUPERUSER}",
    "UPDATE alembic_version SET version_num = '0'",
    "DELETE FROM workspaces",
    "DELETE FROM restarts",
    "DELETE FROM policies",
    "DELETE FROM checkpoints",
    "UPDATE checkpoints SET note = ''",
    "UPDATE checkpoints SET root = '', exported_at = NULL",
    "DELETE FROM merkle_tiles",
    "UPDATE workspace_snapshots SET state = ''",
    "UPDATE idempotency_keys SET answer = ''",
]
REFUSED_TO_READER = [
    LIKE_AN_EVENT,
    *(f"INSERT INTO {table} DEFAULT VALUES" for table in metadata.tables),
    "SELECT * FROM idempotency_keys",
    "UPDATE workspaces SET fence = 0",
    "SELECT 1 FROM workspaces FOR UPDATE",
    "UPDATE heartbeats SET at = now()",
    "UPDATE counters SET position = 0",
    "UPDATE verifications SET violations = ''",
    "DELETE FROM idempotency_keys",
    "LOCK TABLE events IN SHARE MODE",
]


@dataclass
class Owned:
    """An empty database of its own owner, who is no superuser, and the URL for the owner."""

    server: PostgresServer
    name: str
    owner: str

    @property
    def url(self) -> str:
        return as_login(self.server.url(self.name), self.owner)

    def run(self, words: str) -> None:
        """Run a statement as superuser in this database."""
        with self.server.connect(self.name) as connection:
            connection.execute(words)


@pytest.fixture
def owned(postgres_server: PostgresServer) -> Iterator[Owned]:
    name = postgres_server.create_database()
    found = Owned(server=postgres_server, name=name, owner=f"owner_of_{name}")
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE ROLE {found.owner} LOGIN")
        connection.execute(f"ALTER DATABASE {name} OWNER TO {found.owner}")
    yield found
    postgres_server.drop_database(name)
    with postgres_server.connect() as connection:
        connection.execute(f"DROP ROLE {found.owner}")


def session(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def refused(url: str, statements: list[str]) -> None:
    """Fail unless each statement is refused for want of a privilege, and for nothing else."""
    with session(url) as connection:
        for statement in statements:
            with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
                connection.execute(sql.SQL(statement))


def privileges_of(owned: Owned) -> list[tuple[object, ...]]:
    """Return every grant on tables and columns of the database, as the catalog has it."""
    asks = (
        "SELECT grantee, table_name, NULL, privilege_type FROM information_schema.role_table_grants"
        " WHERE table_schema = 'public' AND grantee <> %(owner)s UNION SELECT grantee, table_name, column_name,"
        " privilege_type FROM information_schema.column_privileges"
        " WHERE table_schema = 'public' AND grantee <> %(owner)s ORDER BY 1, 2, 3, 4"
    )
    with owned.server.connect(owned.name) as connection:
        return connection.execute(asks, {"owner": owned.owner}).fetchall()


def test_every_table_has_its_privileges_declared(owned: Owned) -> None:
    upgrade(owned.url)
    with owned.server.connect(owned.name) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert {name for (name,) in found} == set(PRIVILEGES)
    assert set(PRIVILEGES) == {*metadata.tables, VERSIONS}


@pytest.mark.parametrize("login", [APP, READER])
def test_nobody_but_the_owner_changes_the_log_or_what_guards_it(postgres_url: str, login: str) -> None:
    store = open_store(as_login(postgres_url, APP))
    [event] = log(store, file_written("a"))
    with session(as_login(postgres_url, login)) as own:
        own.execute("GRANT ALL ON events TO CURRENT_USER")  # PostgreSQL only warns that this granted nothing
    refused(as_login(postgres_url, login), REFUSED_TO_ALL)
    with store.read() as reader:
        assert reader.events(EventFilter()) == [event]
    assert [one.position for one in log(store, file_written("b"))] == [event.position + 1]
    store.close()


def test_a_reader_writes_nothing(reader_url: str) -> None:
    refused(reader_url, REFUSED_TO_READER)
    store = open_store(reader_url)
    store.check()
    for write in (lambda: log(store, file_written()), store.ticked):
        with pytest.raises(StorageUnavailable, match=r"may not do that: permission denied.*orchestrator migrate"):
            write()
    store.close()


def test_grants_are_brought_to_the_same_state_at_every_migrate(owned: Owned) -> None:
    upgrade(owned.url, BOTH)
    first = privileges_of(owned)
    assert (APP_ROLE, "events", "data", "INSERT") in first
    owned.run(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {APP_ROLE}, {READER_ROLE}")
    owned.run(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {APP_ROLE}, {READER_ROLE}")
    owned.run(f"GRANT UPDATE (data) ON events TO {READER_ROLE}")
    owned.run(f"REVOKE SELECT ON workspaces FROM {APP_ROLE}")
    upgrade(owned.url, BOTH)
    upgrade(owned.url, BOTH)
    assert privileges_of(owned) == first
    refused(as_login(owned.url, APP), ["SELECT nextval('events_position_seq')"])


def test_an_upgrade_that_is_told_no_role_lets_the_app_go_on(owned: Owned) -> None:
    """Revision 0005: whoever appends foretells positions, and has to see the last one for that."""
    upgrade(owned.url, BOTH)
    downgrade(owned.url, "0004")
    owned.run(f"REVOKE ALL ON SEQUENCE events_position_seq FROM {APP_ROLE}")
    upgrade(owned.url)
    with closing(open_store(as_login(owned.url, APP))) as store:
        log(store, file_written())
    refused(as_login(owned.url, READER), ["SELECT last_value FROM events_position_seq"])


def test_a_missing_role_is_made_where_the_owner_may(owned: Owned) -> None:
    names = Roles(app=f'an "odd" %s :name of {owned.name}', reader=f"reader_of_{owned.name}")
    with pytest.raises(InvalidInput, match=r'a DBA must run: CREATE ROLE "an ""odd"" %s :name of \w+" NOLOGIN;'):
        upgrade(owned.url, names)
    with owned.server.connect(owned.name) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    owned.run(f"ALTER ROLE {owned.owner} CREATEROLE")
    upgrade(owned.url, names)
    with owned.server.connect(owned.name) as connection:
        made = connection.execute(
            "SELECT rolcanlogin, has_table_privilege(oid, 'workspaces', 'UPDATE') FROM pg_roles"
            " WHERE rolname = ANY(%s) ORDER BY rolname",
            ([names.app, names.reader],),
        ).fetchall()
        assert made == [(False, True), (False, False)]
        for name in (names.app, names.reader):
            assert name is not None
            connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def test_closed_doors_are_opened(owned: Owned) -> None:
    owned.run("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    owned.run(f"REVOKE ALL ON DATABASE {owned.name} FROM PUBLIC")
    upgrade(owned.url, BOTH)
    for login in (APP, READER):
        store = open_store(as_login(owned.url, login))
        store.check()
        store.close()


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("GRANT DELETE ON events TO PUBLIC", "more than it should: DELETE on events; "),
        ("GRANT UPDATE (note) ON checkpoints TO PUBLIC", "UPDATE on checkpoints"),
        ("GRANT UPDATE ON SEQUENCE events_position_seq TO PUBLIC", "UPDATE on the sequence"),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", "CREATE in schema public"),
    ],
)
def test_a_role_that_may_more_for_another_reason_is_refused(owned: Owned, before: str, words: str) -> None:
    upgrade(owned.url)
    owned.run(before)
    with pytest.raises(InvalidInput, match=words):
        upgrade(owned.url, BOTH)
    assert {grantee for grantee, *_ in privileges_of(owned)} <= {"PUBLIC"}


def test_a_role_that_can_act_as_the_owner_is_refused(owned: Owned) -> None:
    for role in (owned.owner, SUPERUSER):
        with pytest.raises(InvalidInput, match=f"'{role}' can act as the owner of the log"):
            upgrade(owned.url, Roles(app=role))


@pytest.mark.parametrize("name", ["", "public", "none", "pg_monitor", "a\nb", "a\0", "n" * 64])
def test_names_that_no_role_can_have(owned: Owned, name: str) -> None:
    with pytest.raises(InvalidInput, match="--reader-role"):
        upgrade(owned.url, Roles(reader=name))


def test_twins_and_sqlite_are_refused(owned: Owned, sqlite_url: str) -> None:
    with pytest.raises(InvalidInput, match="--reader-role: 'one' is the app's role already"):
        upgrade(owned.url, Roles(app="one", reader="one"))
    with pytest.raises(InvalidInput, match=r"--app-role \(ORCHESTRATOR_APP_ROLE\): SQLite has no roles"):
        upgrade(sqlite_url, Roles(app=APP_ROLE))
