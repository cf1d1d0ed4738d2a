"""The core's store in memory: the same contract without a database, for the simulator and quick tests.

No mock: it passes the contract suite, as far as the core goes; what auditors ask it does not answer. A commit copies
what it changes (the rows of all workspaces, say), which suits thousands of them; nothing outlives the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta

from msgspec.structs import replace

from orchestrator.domain.serving import SeenWorker, Serving
from orchestrator.errors import RolledBack, StorageUnavailable
from orchestrator.ports.store import Clock, CoreReader
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import AnswerT, Asked, Unit
from orchestrator.ports.workspaces import Renewed
from orchestrator.storage.committing import OneByOne
from orchestrator.storage.sql.database_time import HostClock
from tests.memory_store.content import Content
from tests.memory_store.log import MemoryLog
from tests.memory_store.reader import MemoryReader
from tests.memory_store.transaction import MemoryTransaction

_WRITER_WAITS_S = 5.0


class _OneWriter:
    """The lock of everybody who writes; whoever waits for it too long is told so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=_WRITER_WAITS_S):
            raise StorageUnavailable(f"other writers kept the store for {_WRITER_WAITS_S:g} s; try again")

    def __exit__(self, *raised: object) -> None:
        self._lock.release()


class MemoryEventStore:
    """``CoreStore`` in this process' memory. Safe for use by many threads: one writes, any number read."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or HostClock()
        self._log = MemoryLog()
        self._content = Content()
        self.present: Callable[[], list[SeenWorker]] | None = None
        """Who is there, where a test says it and nobody notes it."""
        self._writing = _OneWriter()

    def commit(self, unit: Unit[AnswerT]) -> AnswerT:
        """Carry out a unit in a transaction of its own."""
        return OneByOne(self).commit(unit)

    def write(
        self,
        workspaces: Collection[str] = (),
        *,
        skip_locked: bool = False,
        asked: Collection[Asked] = (),
        deciding: Collection[str] = (),
    ) -> AbstractContextManager[Transaction]:
        """Open a writing transaction. One lock is everybody's, so ``skip_locked`` finds nothing to skip."""
        return self._transaction(set(workspaces))

    @contextmanager
    def _transaction(self, wanted: Collection[str]) -> Iterator[Transaction]:
        with self._writing:
            try:
                transaction = MemoryTransaction(self._log, self._content, wanted, self._clock.now())
                yield transaction
                if transaction.failure is not None:
                    raise RolledBack("the transaction had failed and was rolled back") from transaction.failure
                self._content = transaction.committed()
            finally:
                self._log.truncate(self._content.length)

    def read(self) -> AbstractContextManager[CoreReader]:
        """Open a reading transaction."""
        return nullcontext(MemoryReader(self._log, self._content, self._clock, self.present))

    def renew_leases(self, held: Mapping[str, tuple[int, int]]) -> Renewed:
        """Renew leases, given as workspace -> (fence, lease in ms). One lock is everybody's: none is held up."""
        with self._writing:
            now = self._content.store_time(self._clock.now())
            renewed = {}
            for name, (fence, lease_ms) in held.items():
                stored = self._content.workspaces.get(name)
                if stored is not None and stored.lease is not None and stored.lease.fence == fence:
                    lease = replace(stored.lease, until=now + timedelta(milliseconds=lease_ms))
                    renewed[name] = replace(stored, lease=lease)
            self._content = replace(self._content, workspaces={**self._content.workspaces, **renewed})
            return Renewed(kept=set(renewed))

    def note_worker(self, name: str, host: str, serving: Serving, slots: int) -> None:
        """Note that a worker is there now, and what it serves."""
        with self._writing:
            seen = SeenWorker(name=name, host=host, serving=serving, slots=slots, seen_at=self._clock.now())
            self._content = replace(self._content, workers={**self._content.workers, name: seen})

    def ticked(self) -> None:
        """Note that a tick ended now."""
        with self._writing:
            self._content = replace(self._content, last_tick_at=self._clock.now())

    def forget_answers(self, before: datetime) -> int:
        """Delete idempotency answers remembered before that instant; return how many."""
        with self._writing:
            kept = {key: value for key, value in self._content.answers.items() if value.at >= before}
            forgotten = len(self._content.answers) - len(kept)
            self._content = replace(self._content, answers=kept)
            return forgotten

    def check(self, *, reads_only: bool = False) -> None:
        """Do nothing: memory is always there and has no migrations."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
