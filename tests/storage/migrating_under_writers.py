"""A lane of its own, too long for the suite: `python -m tests.storage.migrating_under_writers [EVENTS]`.

A PostgreSQL database at revision 0001 with 2,000,000 writes, 20,000 workspaces and 40,000 restarts is migrated to the
newest schema while two writers go on as the version of that revision did. No write may wait longer than 100 ms for the
migration: the longest one is compared with the longest of the same writers while nothing is migrated.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import closing

import psycopg

from bench.statements import plain_url
from orchestrator.storage import migrate
from tests.servers.postgres import new_postgres
from tests.servers.programs import find_postgres, runnable
from tests.waiting import wait_until

MOST_MS = 100.0
EVENTS = 2_000_000
WRITERS = 2
BESIDE = 1_000
_WRITE = """
    INSERT INTO events (id, workspace, type, schema, subject, data, actor, recorded_at)
    SELECT 'evt_' || gen_random_uuid(), 'w' || mod(i, 500), 'FileWritten', 1, 'src/app/' || mod(i, 5000) || '.py',
        '{"action":"restart","decision":"folded","digest":null,"op":"modified","path":"x","size":null}', 'ci',
        clock_timestamp() FROM generate_series(1, %s) AS i
"""
_WORKSPACES = """
    INSERT INTO workspaces (id, fleet, version, phase, state, pending_count, pending_requests, fence)
    SELECT 'w' || i, 'f', 0, 'idle', '{"registration":null}', 0, 0, 0 FROM generate_series(0, 19999) AS i
"""
_TOUCH = "UPDATE workspaces SET pending_count = pending_count + 1 WHERE id = 'w' || %s"
_RESTARTS = """
    INSERT INTO restarts (id, workspace, fleet, state, cause, kind, edge, from_position, to_position, writes, requests,
        files, queued_position, attempts, quiet_ms, max_wait_ms, max_count, min_interval_ms, policy_version, opened_at,
        due_at, queued_at, shadow)
    SELECT 'rst_' || i, 'w' || mod(i, 500), 'f', 'succeeded', 'quiet', 'restart', 'trailing', i, i, 1, 0, 1, i, 1, 1, 1,
        1, 1, 1, now(), now(), now(), false FROM generate_series(1, 40000) AS i
"""


class Writers:
    """Writes, each a transaction of an event and its workspace, and how long the longest took."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)]
        self.took_ms: list[float] = []

    def __enter__(self) -> Writers:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        with closing(psycopg.connect(self._url)) as connection:
            while not self._stop.wait(0.005):
                began_s = time.monotonic()
                with connection.transaction():
                    connection.execute(_TOUCH, (number,))
                    connection.execute(_WRITE, (1,))
                self.took_ms.append(1_000 * (time.monotonic() - began_s))


def main(count: int) -> int:
    """Return 1 where a write waited for the migration for too long."""
    with runnable(find_postgres(os.environ)) as programs, new_postgres(programs) as server:
        url = server.url(server.create_database())
        migrate.upgrade(url)
        migrate.downgrade(url, "0001")
        with closing(psycopg.connect(plain_url(url), autocommit=True)) as connection:
            for words, values in ((_WRITE, (count,)), (_WORKSPACES, ()), (_RESTARTS, ())):
                connection.execute(words, values)
            connection.execute("VACUUM ANALYZE")
        with Writers(plain_url(url)) as usual:
            wait_until(lambda: len(usual.took_ms) >= BESIDE, what="writes", timeout_s=100)
        with Writers(plain_url(url)) as writers:
            began_s = time.monotonic()
            migrate.upgrade(url)
            lasted_s = time.monotonic() - began_s
        longest, beside = max(writers.took_ms), max(usual.took_ms)
        sys.stdout.write(
            f"{count} events migrated in {lasted_s:.1f} s; the longest of {len(writers.took_ms)} writes meanwhile took"
            f" {longest:.0f} ms, of {len(usual.took_ms)} while nothing was migrated {beside:.0f} ms\n"
        )
        migrate.check_schema(url)
        return int(longest - beside > MOST_MS)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS))
