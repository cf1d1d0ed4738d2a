"""Who may do what on PostgreSQL: the owner migrates, the app serves, the reader looks (OWASP ASVS 5.0, 13.2.2, 16.4.2).

``PRIVILEGES`` is the whole of it. ``orchestrator migrate`` brings both roles to exactly that, in the transaction of
the upgrade, and fails where a role may do more for another reason: a split that does not hold is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from orchestrator.errors import InvalidInput, StorageUnavailable
from orchestrator.storage.sql.schema import KEPT_SUMS, checkpoints, events
from orchestrator.storage.urls import POSTGRESQL

VERSIONS = "alembic_version"
"""Alembic's own table: every process reads from it whether the schema is the one it was written for."""

_LONGEST_NAME = 63  # bytes; PostgreSQL cuts what is longer, without a word that reaches us
_NAMES_OF_THE_SERVER = ("public", "none")  # even in quotes, GRANT takes "public" for everybody
_MAINTAIN_SINCE = (17,)
_SEQUENCE = "SELECT pg_get_serial_sequence('events', 'position')"
_EFFECTIVE = """
    SELECT relname, verb, attname FROM pg_class
        JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped,
        unnest(CAST(:of_columns AS text[])) AS verb
    WHERE relnamespace = CAST(quote_ident(current_schema()) AS regnamespace) AND relname = ANY(:tables)
        AND has_column_privilege(:role, pg_class.oid, attnum, verb)
    UNION ALL
    SELECT relname, verb, NULL FROM pg_class, unnest(CAST(:of_tables AS text[])) AS verb
    WHERE relnamespace = CAST(quote_ident(current_schema()) AS regnamespace) AND relname = ANY(:tables)
        AND has_table_privilege(:role, pg_class.oid, verb)
"""
"""What a role can do in effect: by its own grants, those of roles it inherits from, and those of everybody."""


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The roles to bring to their privileges; None: left as it is."""

    app: str | None = None
    reader: str | None = None


NO_ROLES = Roles()


@dataclass(frozen=True, kw_only=True)
class Granted:
    """The privileges on one table: what is done -> the columns it may be done to; empty: the whole table."""

    app: Mapping[str, tuple[str, ...]]
    reader: Mapping[str, tuple[str, ...]]


def _whole(*verbs: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(verbs, ())


_LOOK = _whole("SELECT")
_KEEP = Granted(app=_whole("SELECT", "INSERT", "UPDATE"), reader=_LOOK)
_COME_AND_GO = Granted(app=_whole("SELECT", "INSERT", "UPDATE", "DELETE"), reader=_LOOK)
_ALL_BUT_POSITION = tuple(column.name for column in events.c if column is not events.c.position)

PRIVILEGES: Mapping[str, Granted] = {
    # Not the position: INSERT ... OVERRIDING SYSTEM VALUE could choose one that readers have passed.
    "events": Granted(app={"SELECT": (), "INSERT": _ALL_BUT_POSITION}, reader=_LOOK),
    "workspaces": _KEEP,  # UPDATE is what SELECT ... FOR UPDATE needs too
    "leases": _COME_AND_GO,
    "registrations": _KEEP,
    "workspace_labels": Granted(app=_whole("SELECT", "INSERT", "DELETE"), reader=_LOOK),  # by the triggers of those
    "restarts": _KEEP,
    "policies": _KEEP,
    # Answers are never changed and are forgotten after a day; they are the callers' own, no part of the evidence.
    "idempotency_keys": Granted(app=_whole("SELECT", "INSERT", "DELETE"), reader={}),
    "heartbeats": _KEEP,
    "counters": _KEEP,
    # A signed head is never changed: only when its sinks had it is noted later.
    "checkpoints": Granted(app={"SELECT": (), "INSERT": (), "UPDATE": (checkpoints.c.exported_at.name,)}, reader=_LOOK),
    "merkle_tiles": _KEEP,  # the last tile of a level grows
    "workspace_snapshots": Granted(app=_whole("SELECT", "INSERT"), reader=_LOOK),
    "file_counts": _KEEP,
    **{table.name: _KEEP for table in KEPT_SUMS},
    "verifications": _KEEP,
    "workers": _COME_AND_GO,
    "executors_away": _COME_AND_GO,
    "access_keys": _KEEP,  # the digests too: the log has them, and an auditor compares
    VERSIONS: Granted(app=_LOOK, reader=_LOOK),
}
"""Each table, with what the code does to it and no more. A table that is missing here fails a test."""


def check_roles(roles: Roles, dialect: str) -> None:
    """Raise ``InvalidInput`` for roles on SQLite, for names that PostgreSQL would take for another, and for twins."""
    named = {"--app-role": roles.app, "--reader-role": roles.reader}
    for option, name in named.items():
        if name is None:
            continue
        if dialect != POSTGRESQL:
            setting = f"ORCHESTRATOR_{option.removeprefix('--').replace('-', '_').upper()}"
            raise InvalidInput(f"{option} ({setting}): SQLite has no roles; leave it out, and protect the file itself")
        reserved = name in _NAMES_OF_THE_SERVER or name.startswith("pg_")
        if reserved or not name.isprintable() or not 0 < len(name.encode()) <= _LONGEST_NAME:
            raise InvalidInput(
                f"{option}: {name!r} cannot be a role's name; take another of 1 to {_LONGEST_NAME} bytes"
            )
    if roles.app is not None and roles.app == roles.reader:
        raise InvalidInput(f"--reader-role: {roles.reader!r} is the app's role already; name another one")


def grant(connection: sa.Connection, roles: Roles) -> None:
    """Bring the roles to exactly ``PRIVILEGES``, in the connection's transaction; a missing one is made, NOLOGIN.

    Raises ``InvalidInput`` where a role is missing and may not be made, and where one may do more than this.
    """
    for name, app in ((roles.app, True), (roles.reader, False)):
        if name is None:
            continue
        _refuse_who_is_not_the_owner(connection)
        wanted = {table: one.app if app else one.reader for table, one in PRIVILEGES.items()}
        _Role(connection, name, wanted, foretells=app).settle()


def _refuse_who_is_not_the_owner(connection: sa.Connection) -> None:
    """Raise ``StorageUnavailable``: PostgreSQL only warns whoever grants what is not his, and grants nothing."""
    owns = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'events'::regclass"
    if not connection.execute(sa.text(owns)).scalar_one():
        raise StorageUnavailable(
            "this login may not do that: only the owner of the log's tables can grant; migrate with the owner's login"
        )


class _Role:
    """One role and what it shall be able to do, table by table."""

    def __init__(
        self,
        connection: sa.Connection,
        name: str,
        wanted: Mapping[str, Mapping[str, tuple[str, ...]]],
        *,
        foretells: bool,
    ) -> None:
        """``foretells``: it may see the last position that was drawn. To draw one takes no privilege but INSERT."""
        self._connection, self._name, self._wanted, self._foretells = connection, name, wanted, foretells

    def settle(self) -> None:
        """Make the role if it is missing, grant, and look whether that is all."""
        if not self._exists():
            self._create()
        self._refuse_owner()
        self._open_doors()
        for table, wanted in self._wanted.items():
            self._grant(table, wanted)
        positions = f"ON SEQUENCE {self._ask(_SEQUENCE)}"
        self._change(f"REVOKE ALL {positions}", "FROM")
        if self._foretells:
            self._change(f"GRANT SELECT {positions}", "TO")
        self._refuse_more()

    def _exists(self) -> bool:
        return bool(self._ask("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)"))

    def _create(self) -> None:
        words = f"CREATE ROLE {_quoted(self._name)} NOLOGIN"
        if not self._ask("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"):
            raise InvalidInput(
                f"there is no role {self._name!r} and this login may not make one; a DBA must run: {words};"
            )
        try:
            with self._connection.begin_nested():
                self._run(words)
        except (exc.ProgrammingError, exc.IntegrityError):
            if not self._exists():  # else another database's migration has just made it: roles are the cluster's
                raise

    def _refuse_owner(self) -> None:
        """Refuse who could act as the log's owner: no grant binds it. A superuser counts as a member of every role."""
        owns = "SELECT pg_has_role(:role, relowner, 'MEMBER') FROM pg_class WHERE oid = 'events'::regclass"
        if self._ask(owns):
            raise InvalidInput(
                f"the role {self._name!r} can act as the owner of the log, so no grant binds it (a superuser, the"
                " migrating login itself, or a member of it); name a role of its own"
            )

    def _open_doors(self) -> None:
        """Grant the way to the tables where everybody has not got it anyway."""
        schema, database = self._ask("SELECT current_schema()"), self._ask("SELECT current_database()")
        if not self._ask("SELECT has_schema_privilege(:role, :name, 'USAGE')", name=schema):
            self._change(f"GRANT USAGE ON SCHEMA {_quoted(schema)}", "TO")
        if not self._ask("SELECT has_database_privilege(:role, :name, 'CONNECT')", name=database):
            self._change(f"GRANT CONNECT ON DATABASE {_quoted(database)}", "TO")

    def _grant(self, table: str, wanted: Mapping[str, tuple[str, ...]]) -> None:
        on = f"ON TABLE {_quoted(table)}"
        self._change(f"REVOKE ALL {on}", "FROM")  # takes the columns' privileges along
        for verb, columns in wanted.items():
            listed = f" ({', '.join(map(_quoted, columns))})" if columns else ""
            self._change(f"GRANT {verb}{listed} {on}", "TO")

    def _change(self, words: str, direction: str) -> None:
        self._run(f"{words} {direction} {_quoted(self._name)}")

    def _run(self, words: str) -> None:
        self._connection.exec_driver_sql(words.replace("%", "%%"))  # a name may hold what the driver takes for a value

    def _refuse_more(self) -> None:
        """Raise ``InvalidInput`` where the role can do what was not granted: through another role, or as everybody."""
        more = [f"{verb} on {table}" for table, verb in self._excess()]
        if self._ask("SELECT has_schema_privilege(:role, current_schema(), 'CREATE')"):
            more.append(f"CREATE in schema {self._ask('SELECT current_schema()')}")
        if self._ask(f"SELECT has_sequence_privilege(:role, ({_SEQUENCE}), 'UPDATE')"):
            more.append("UPDATE on the sequence of positions")
        if more:
            raise InvalidInput(
                f"the role {self._name!r} may do more than it should: {', '.join(more)}; it has that through PUBLIC or"
                " a role it is a member of: revoke it there, or name another role"
            )

    def _excess(self) -> list[tuple[str, str]]:
        """Return (table, verb) of everything that the role can do, to any column, and that was not granted."""
        maintain = (self._connection.dialect.server_version_info or ()) >= _MAINTAIN_SINCE
        given = {
            "role": self._name,
            "tables": list(self._wanted),
            "of_columns": ["SELECT", "INSERT", "UPDATE", "REFERENCES"],
            "of_tables": ["DELETE", "TRUNCATE", "TRIGGER", *(("MAINTAIN",) if maintain else ())],
        }
        found = self._connection.execute(sa.text(_EFFECTIVE), given)
        more = {(table, verb) for table, verb, column in found if not self._covers(table, verb, column)}
        return sorted(more)

    def _covers(self, table: str, verb: str, column: str | None) -> bool:
        columns = self._wanted[table].get(verb)
        return columns is not None and (not columns or column in columns)

    def _ask(self, words: str, **given: str) -> Any:
        # Parameters that a statement does not name are an error: only what is in it is handed over.
        named = {name: value for name, value in {"role": self._name, **given}.items() if f":{name}" in words}
        return self._connection.execute(sa.text(words), named).scalar_one()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
