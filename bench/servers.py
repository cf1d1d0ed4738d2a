"""The servers of a run: started by it, ended with it, and durable, as the ones of an operator are."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.servers.postgres import PostgresServer, new_postgres
from tests.servers.programs import find_postgres, find_redis, runnable
from tests.servers.redis import RedisServer

_PAGE_BYTES = 8192


class NotDurable(Exception):
    """A server's settings differ from those that a run promises."""


class AppendingRedis(RedisServer):
    """Redis that keeps what it was told in a file, synced each second (``everysec``) or before it answers."""

    def __init__(self, program: Path, folder: Path, *, fsync: str) -> None:
        super().__init__(program, folder)
        self._fsync = fsync

    def command(self) -> list[str]:
        """Return the command line."""
        words = super().command()
        words[words.index("--appendonly") + 1] = "yes"
        return [*words, "--appendfsync", self._fsync]


@contextmanager
def durable_postgres() -> Iterator[PostgresServer]:
    """Yield a PostgreSQL with its own defaults: every commit waits for the disk."""
    with runnable(find_postgres(os.environ)) as programs, new_postgres(programs, durable=True) as server:
        with server.connect() as connection:
            for name in ("fsync", "synchronous_commit", "full_page_writes"):
                found = connection.execute(f"SHOW {name}").fetchone()
                if found != ("on",):
                    raise NotDurable(f"{name} is {found}: what is measured on it would not outlive a power cut")
        yield server


@contextmanager
def durable_redis(*, fsync: str = "everysec") -> Iterator[AppendingRedis]:
    """Yield an empty Redis that appends to a file, see ``AppendingRedis``."""
    with TemporaryDirectory(prefix="bench-redis-") as folder:
        server = AppendingRedis(find_redis(os.environ), Path(folder), fsync=fsync)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def syncs_a_second(folder: Path, *, rounds: int = 300) -> float:
    """Return how many single pages a second this disk writes and syncs, one after the other: the floor of a commit."""
    took_s = []
    with (folder / "synced").open("wb", buffering=0) as file:
        for _ in range(rounds):
            began = time.perf_counter()
            file.write(b"x" * _PAGE_BYTES)
            os.fdatasync(file.fileno())
            took_s.append(time.perf_counter() - began)
    (folder / "synced").unlink()
    return 1 / median(took_s)
