"""The acts of the simulated executor: how many, under which fence, and who acted last. In a file or in memory."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from orchestrator.errors import ExecutionError, PermanentError, TransientError
from orchestrator.ports.executor import Order

_MOST_WORKSPACES = 10_000
_PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EIO})


@dataclass(frozen=True, kw_only=True)
class Acts:
    """What has been done to one workspace."""

    count: int = 0
    highest_fence: int = 0
    last_cycle: str | None = None

    def then(self, order: Order) -> Acts:
        """Return the acts with one more. Raises ``PermanentError`` if the order's fence is stale."""
        if order.fence < self.highest_fence:
            raise PermanentError(
                f"fence {order.fence} of cycle {order.cycle} is stale: {order.workspace!r} "
                f"was already restarted under fence {self.highest_fence}"
            )
        return replace(self, count=self.count + 1, highest_fence=order.fence, last_cycle=order.cycle)


class ActLedger(Protocol):
    """Where acts are kept."""

    def act(self, order: Order, pause: Callable[[], None]) -> int:
        """Record one act and return how many came before it.

        ``pause`` waits a moment and raises when the order must end.
        Raises ``PermanentError``, with nothing recorded, if a higher fence has acted.
        """
        ...

    def last_cycle(self, workspace: str) -> str | None:
        """Return the cycle of the workspace's last act."""
        ...


class MemoryActLedger:
    """Of this process only, and only of the 10,000 workspaces that acted last."""

    def __init__(self, most: int = _MOST_WORKSPACES) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._acts: OrderedDict[str, Acts] = OrderedDict()

    def act(self, order: Order, pause: Callable[[], None]) -> int:
        """See ``ActLedger``."""
        with self._lock:
            before = self._acts.get(order.workspace, Acts())
            self._acts[order.workspace] = before.then(order)
            self._acts.move_to_end(order.workspace)
            while len(self._acts) > self._most:
                self._acts.popitem(last=False)
        return before.count

    def last_cycle(self, workspace: str) -> str | None:
        """See ``ActLedger``."""
        with self._lock:
            return self._acts.get(workspace, Acts()).last_cycle


class FileActLedger:
    """An NDJSON file that any number of processes share. Nothing is kept in memory.

    One line an act, ``{workspace, cycle, fence, at}``, written in one write under the file's lock
    and synced before the act counts as done (CONTRACT section 7).
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def act(self, order: Order, pause: Callable[[], None]) -> int:
        """See ``ActLedger``. A file that cannot be used is a ``PermanentError``, a full disk a ``TransientError``."""
        try:
            with self._locked(pause) as ledger:
                before = self._acts_of(order.workspace, ledger)
                before.then(order)
                _append(ledger, order)
        except OSError as error:
            raise self._unusable(error) from error
        return before.count

    def last_cycle(self, workspace: str) -> str | None:
        """See ``ActLedger``."""
        try:
            with open(self._path, "rb") as file:
                return self._acts_of(workspace, file.fileno()).last_cycle
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error

    @contextmanager
    def _locked(self, pause: Callable[[], None]) -> Iterator[int]:
        ledger = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _try_lock(ledger):  # never a blocking lock: its holder may be a frozen process
                pause()
            yield ledger
        finally:
            os.close(ledger)

    def _acts_of(self, workspace: str, ledger: int) -> Acts:
        acts = Acts()
        needle = json.dumps({"workspace": workspace})[1:-1].encode()
        with open(ledger, "rb", closefd=False) as file:
            file.seek(0)
            for number, line in enumerate(file, start=1):
                if needle in line:
                    acts = self._with_line(acts, line, number)
        return acts

    def _with_line(self, acts: Acts, line: bytes, number: int) -> Acts:
        try:
            entry = json.loads(line)
            fence, cycle = int(entry["fence"]), str(entry["cycle"])
        except (ValueError, KeyError, TypeError) as error:
            raise PermanentError(
                f"line {number} of the ledger {self._path!r} is not an act ({error}); move the file away"
            ) from error
        return Acts(count=acts.count + 1, highest_fence=max(acts.highest_fence, fence), last_cycle=cycle)

    def _unusable(self, error: OSError) -> ExecutionError:
        kind = TransientError if error.errno in _PASSING else PermanentError
        return kind(f"the ledger {self._path!r} cannot be used: {error.strerror}; correct the target's ledger")


def _try_lock(ledger: int) -> bool:
    try:
        fcntl.flock(ledger, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _append(ledger: int, order: Order) -> None:
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    entry = {"workspace": order.workspace, "cycle": order.cycle, "fence": order.fence, "at": at}
    line = json.dumps(entry).encode() + b"\n"
    size = os.fstat(ledger).st_size
    if os.write(ledger, line) != len(line):
        os.ftruncate(ledger, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(ledger)
