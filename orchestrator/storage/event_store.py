"""``EventStore`` over a SQL database: what PostgreSQL and SQLite share. Their own files add engine, locks and clock.

Lock order, always (DESIGN section 3): workspace rows in id order, the append lock, then one instant is read.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace

from orchestrator.crash_points import crash_point
from orchestrator.domain.encoding import canonical_json
from orchestrator.domain.serving import SeenWorker, Serving
from orchestrator.errors import RolledBack, StorageUnavailable
from orchestrator.ports.inquiries import FILE_COUNTS, FileWrites
from orchestrator.ports.sealing import StoredCheckpoint, Tile
from orchestrator.ports.store import LOG_SUMS, Counters, Reader
from orchestrator.ports.sums import SUMS, SumsToAdd
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import AnswerT, Asked, Tell, Unit
from orchestrator.ports.verification import StoredVerification
from orchestrator.ports.workspaces import Renewed
from orchestrator.storage.committing import Committing, OneByOne
from orchestrator.storage.revisions import check_current
from orchestrator.storage.sql import answers, checkpoints, file_writes, kept_sums, lease_renewal, presence
from orchestrator.storage.sql import keys as access
from orchestrator.storage.sql.column_types import Instant
from orchestrator.storage.sql.database_time import LAST_RECORDED_AT, DatabaseTime
from orchestrator.storage.sql.policy_cache import STAMP, PolicyCache, Stamp
from orchestrator.storage.sql.prepared import Prepared
from orchestrator.storage.sql.queue import TICK
from orchestrator.storage.sql.reader import SqlReader
from orchestrator.storage.sql.schema import NOT_A_WRITE, counters, events, heartbeats, workspaces
from orchestrator.storage.sql.statements import Statements
from orchestrator.storage.sql.told import tell
from orchestrator.storage.sql.transaction import Instants, SqlTransaction
from orchestrator.storage.sql.verification import save_verification
from orchestrator.storage.sql.workspace_rows import Found, RegistrationMoved, found_of, to_lock, unreadable

_MOST_TRIES = 20
_REGISTERING = ("WorkspaceRegistered", "WorkspaceChanged")
_IDS_AT_ONCE = 10_000

Held = dict[str, Found]
Locking = Callable[[Statements], SqlTransaction | None]


class SqlEventStore(ABC):
    """The log, the workspaces' rows and the read models in one SQL database. Safe for use by many threads."""

    def __init__(self, engine: sa.Engine, reserve: sa.Engine, time: DatabaseTime) -> None:
        """``reserve`` has a connection for leases alone: slow readers that hold all others must not cost one."""
        self._engine, self._reserve = engine, reserve
        self._time = time
        self._policies = PolicyCache()
        self._latest = Prepared(lambda _: self._select_latest())
        self.committing: Committing = OneByOne(self)
        """How units are committed: one by one, until a process that has many at a time says otherwise."""

    @abstractmethod
    def _writing(self, *, reserved: bool = False) -> AbstractContextManager[Statements]:
        """Open a writing transaction: commit at the end, roll back at an error. ``reserved``: see ``__init__``."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Statements]:
        """Open a reading transaction that sees one state of the database throughout."""

    @abstractmethod
    def _take_append_lock(self, sql: Statements) -> None:
        """Wait until no other transaction is appending."""

    @property
    @abstractmethod
    def _last_position(self) -> sa.ColumnElement[int]:
        """Return the last position that was drawn, committed or not: the next event's is one more."""

    @abstractmethod
    def _check_settings(self, sql: Statements) -> None:
        """Raise ``StorageUnavailable`` where the database would not keep what it promised."""

    @abstractmethod
    def _check_writable(self, sql: Statements) -> None:
        """Raise ``StorageUnavailable`` where the database takes no writes at all."""

    def commit(self, unit: Unit[AnswerT]) -> AnswerT:
        """Carry out a unit and return its answer once it is committed, alone or together with others that wait."""
        return self.committing.commit(unit)

    def submit(self, unit: Unit[Any], tell: Tell) -> None:
        """Do what ``commit`` does without waiting for it."""
        self.committing.submit(unit, tell)

    def write(
        self,
        workspaces: Collection[str] = (),
        *,
        skip_locked: bool = False,
        asked: Collection[Asked] = (),
        deciding: Collection[str] = (),
    ) -> AbstractContextManager[Transaction]:
        """Open a writing transaction that holds these workspaces' rows, existing or not yet.

        What its steps will ask for, and ``deciding`` the rows about which they will decide, is read before the append
        lock is taken.
        """
        wanted = sorted(set(workspaces))
        return self._transaction(lambda sql: self._hold_named(sql, wanted, skip_locked, asked, deciding))

    @contextmanager
    def _changing(self, *, reserved: bool = False) -> Iterator[Statements]:
        """Open a writing transaction for what is beside the log: no append lock, no event."""
        crash_point("change.begin")
        with self._writing(reserved=reserved) as sql:
            yield sql
            crash_point("change.commit")
        crash_point("change.committed")

    @contextmanager
    def _transaction(self, locking: Locking) -> Iterator[Transaction]:
        for _ in range(_MOST_TRIES):
            crash_point("write.begin")
            with self._writing() as sql:
                transaction = locking(sql)
                if transaction is not None:
                    crash_point("write.locked")
                    yield transaction
                    if sql.failure is not None:  # nothing can be written any more
                        raise _refused_by(sql.failure) from sql.failure
                    transaction.flush()
                    crash_point("write.commit", transaction.appended)
            if transaction is not None:
                crash_point("write.committed", transaction.appended)
                return
        raise StorageUnavailable("other transactions keep adding rows to those that are to be locked; try again")

    def _hold_named(
        self,
        sql: Statements,
        wanted: list[str],
        skip_locked: bool,
        asked: Collection[Asked],
        deciding: Collection[str],
    ) -> SqlTransaction | None:
        """Lock rows, or return None if a missing one was added before the append lock was ours."""
        held: Held = {}
        for start in range(0, len(wanted), _IDS_AT_ONCE):
            held |= self._lock(sql, wanted[start : start + _IDS_AT_ONCE], skip_locked=skip_locked)
        told = tell(sql, held, asked, deciding)
        self._take_append_lock(sql)
        self._place_old(sql, held)
        missing = [workspace for workspace in wanted if workspace not in held]
        existing: set[str] = set()
        for start in range(0, len(missing), _IDS_AT_ONCE):
            some = workspaces.c.id.in_(missing[start : start + _IDS_AT_ONCE])
            existing.update(sql.run(sa.select(workspaces.c.id).where(some)).scalars())
        if existing and not skip_locked:
            return None
        return SqlTransaction(sql, held, set(missing) - existing, self._instants(sql), told, self._policies)

    def _lock(self, sql: Statements, wanted: Sequence[str], *, skip_locked: bool) -> Held:
        held: Held = {}
        for row in sql.ask(to_lock[skip_locked], names=wanted) if wanted else ():
            try:
                held[row["id"]] = found_of(row)
            except RegistrationMoved:
                held[row["id"]] = self._found_again(sql, row["id"])
        return held

    def _found_again(self, sql: Statements, workspace: str) -> Found:
        """Read a locked row once more: PostgreSQL had read its registration before it waited for the row."""
        try:
            return found_of(sql.ask(to_lock[False], names=[workspace])[0])
        except RegistrationMoved as error:
            raise unreadable(workspace, error) from None

    def _place_old(self, sql: Statements, held: Held) -> None:
        """Find the registrations of rows of the old shape, which do not say where they stand in the log.

        ``registrations`` is exact up to the position that the migration filled it to; older versions that go on beside
        this one write theirs into the row alone.
        """
        old = [name for name, found in held.items() if found.is_old]
        if not old:
            return
        filled = sa.select(counters.c.position).where(counters.c.name == "registrations").scalar_subquery()
        later = sa.select(events.c.workspace, sa.func.max(events.c.position)).where(
            events.c.type.in_(_REGISTERING), NOT_A_WRITE, events.c.position > filled, events.c.workspace.in_(old)
        )
        for workspace, position in sql.run(later.group_by(events.c.workspace)):
            stored = held[workspace].stored
            state = replace(stored.state, registration_position=position)
            held[workspace] = replace(held[workspace], stored=replace(stored, state=state))

    def _select_latest(self) -> sa.Select[*tuple[Any, ...]]:
        last = sa.type_coerce(LAST_RECORDED_AT, Instant()).label("last_recorded_at")
        position = self._last_position.label("last_position")
        return sa.select(self._time.clock().label("clock"), last, position, *STAMP)

    def _instants(self, sql: Statements) -> Instants:
        """Read what only whoever appends may change, in one statement, after the last lock.

        The clock, the last ``recorded_at``, the last position and which policies are stored.
        """
        (row,) = sql.ask(self._latest)
        clock, last, position, *stamp = row.values()
        behind = timedelta() if last is None or last <= clock else last - clock
        behind_ms = behind // timedelta(milliseconds=1)
        return Instants(
            now=clock + behind, clock_behind_ms=behind_ms, last_position=position or 0, policies=Stamp(*stamp)
        )

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """Open a reading transaction."""
        with self._reading() as sql:
            yield SqlReader(sql, self._time, self._policies)

    def renew_leases(self, held: Mapping[str, tuple[int, int]]) -> Renewed:
        """Renew leases, given as workspace -> (fence, lease in ms), all in one statement that waits for no row."""
        beside = self._renew(lease_renewal.BESIDE, held)
        rest = {name: held[name] for name in held if name not in beside.kept and name not in beside.held_up}
        in_rows = self._renew(lease_renewal.IN_ROWS, rest)
        return Renewed(kept={*beside.kept, *in_rows.kept}, held_up={*beside.held_up, *in_rows.held_up})

    def _renew(self, place: lease_renewal.Place, held: Mapping[str, tuple[int, int]]) -> Renewed:
        if not held:
            return Renewed()
        with self._changing(reserved=True) as sql:
            return lease_renewal.renew(sql, self._time, place, held)

    def note_worker(self, name: str, host: str, serving: Serving, slots: int) -> None:
        """Note that a worker is there now, and what it serves."""
        with self._changing(reserved=True) as sql:
            now: datetime = sql.run(sa.select(self._time.clock())).scalar_one()
            presence.note_worker(sql, SeenWorker(name=name, host=host, serving=serving, slots=slots, seen_at=now))

    def note_key_uses(self, used_at: Mapping[str, datetime]) -> None:
        """Keep when keys were last used, by their ids."""
        with self._changing() as sql:
            access.note_uses(sql, used_at)

    def ticked(self) -> None:
        """Note that a tick ended now; where another holds that row it is noting one too, and is not waited for."""
        free = sa.select(heartbeats.c.name).where(heartbeats.c.name == TICK).with_for_update(skip_locked=True)
        with self._changing() as sql:
            mark = sa.update(heartbeats).where(heartbeats.c.name.in_(free)).values(at=self._time.clock())
            if sql.run(mark).rowcount == 0:
                first = sql.insert(heartbeats).values(name=TICK, at=self._time.clock())
                sql.run(first.on_conflict_do_nothing())

    def save_counters(self, kept: Counters, *, expected_position: int) -> bool:
        """Keep the sums if the kept ones still are at ``expected_position``; return whether they were."""
        with self._changing() as sql:
            return _keep(sql, LOG_SUMS, kept, expected_position)

    def add_file_counts(self, files: Sequence[FileWrites], *, position: int, expected_position: int) -> bool:
        """Add newer writes to the kept counts if those still are at ``expected_position``; return whether they were."""
        with self._changing() as sql:
            # The counters' row first: it is the lock that two followers meet at.
            if not _keep(sql, FILE_COUNTS, Counters(position=position, sums={}), expected_position):
                return False
            file_writes.add_counts(sql, files)
            return True

    def add_sums(self, new: SumsToAdd) -> bool:
        """Add to the kept sums if those still are at ``new.after``; return whether they were."""
        with self._changing() as sql:
            if not _keep(sql, SUMS, Counters(position=new.position, sums={}), new.after):
                return False
            kept_sums.add_sums(sql, new)
            return True

    def save_verification(self, found: StoredVerification, *, expected_position: int | None) -> bool:
        """Keep a verification if the kept one still is at ``expected_position``; return whether it was."""
        with self._changing() as sql:
            return save_verification(sql, found, expected_position)

    def forget_answers(self, before: datetime) -> int:
        """Delete idempotency answers remembered before that instant; return how many. Each piece is committed by
        itself, and then others' turn comes: on SQLite nobody writes while one is deleted.
        """
        forgotten = 0
        while True:
            with self._changing() as sql:
                piece = answers.forget_some(sql, before)
            forgotten += piece
            if piece < answers.AT_ONCE:
                return forgotten
            time.sleep(answers.PAUSE_S)

    def save_checkpoint(self, checkpoint: StoredCheckpoint, tiles: Sequence[Tile]) -> None:
        """Store a checkpoint and the tiles that it changed, all or nothing. Raises ``Conflict`` for a second one."""
        with self._changing() as sql:
            checkpoints.insert_checkpoint(sql, checkpoint, tiles)

    def mark_exported(self, tree_size: int) -> None:
        """Note that every sink has the checkpoints up to that size."""
        with self._changing() as sql:
            checkpoints.mark_exported(sql, tree_size, sql.run(sa.select(self._time.clock())).scalar_one())

    def note_seal_failure(self, reason: str) -> None:
        """Count a seal or an export that failed, and keep why."""
        with self._changing() as sql:
            checkpoints.note_failure(sql, reason)

    def check(self, *, reads_only: bool = False) -> None:
        """Raise ``StorageUnavailable`` or ``MigrationsPending`` unless the store can serve."""
        with self._reading() as sql:
            sql.run(sa.select(1))
            self._check_settings(sql)
            if not reads_only:
                self._check_writable(sql)
            check_current(sql.connection)

    def close(self) -> None:
        """Commit what waits, then release connections and files."""
        self.committing.close()
        self._engine.dispose()
        self._reserve.dispose()


def _refused_by(failure: Exception) -> StorageUnavailable:
    """Return what a transaction ends with in which a statement failed.

    Whoever asked sees whether that took too long, and whether the database is away altogether.
    """
    kind = type(failure) if isinstance(failure, StorageUnavailable) else RolledBack
    return kind(f"the transaction was rolled back, as a statement of it had failed: {failure}")


def _keep(sql: Statements, name: str, kept: Counters, expected_position: int) -> bool:
    values = {"position": kept.position, "sums": canonical_json(kept.sums)}
    as_expected = (counters.c.name == name) & (counters.c.position == expected_position)
    if sql.run(sa.update(counters).where(as_expected).values(**values)).rowcount == 1:
        return True
    if expected_position != 0:
        return False
    first = sql.insert(counters).values(name=name, **values).on_conflict_do_nothing()
    return sql.run(first.returning(counters.c.name)).first() is not None
