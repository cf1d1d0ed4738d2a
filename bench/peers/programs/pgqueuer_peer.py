"""pgqueuer: a job with the workspace as key; a further one is passed over while it waits or runs."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta

import asyncpg
from driving import JOB_S, JOBS_AT_ONCE, QUIET_S, SERVER, JobLog, drive, ready
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries


async def work(log: JobLog) -> None:
    """Carry jobs out until the end."""
    pool = await asyncpg.create_pool(SERVER, min_size=4, max_size=8)
    queue = PgQueuer(AsyncpgPoolDriver(pool))

    @queue.entrypoint("restart")
    async def restart(job: object) -> None:
        began = time.monotonic_ns()
        await asyncio.sleep(JOB_S)
        log.done(job.payload.decode(), began)

    ready()
    often = timedelta(seconds=0.1)
    await queue.run(dequeue_timeout=often, batch_size=JOBS_AT_ONCE, max_concurrent_tasks=2 * JOBS_AT_ONCE)


async def main() -> None:
    """Carry out the verb."""
    if sys.argv[1] == "reset":
        connection = await asyncpg.connect(SERVER)
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await Queries(AsyncpgDriver(connection)).install()
        await connection.close()
    elif sys.argv[1] == "worker":
        await work(JobLog(sys.argv[2]))
    else:
        queries = Queries(AsyncpgPoolDriver(await asyncpg.create_pool(SERVER, min_size=16, max_size=16)))
        put_off = timedelta(seconds=QUIET_S)

        async def send(workspace: str) -> None:
            key = {"dedupe_key": workspace, "on_conflict": "skip"}
            await queries.enqueue("restart", workspace.encode(), execute_after=put_off, **key)

        await drive(send, sys.argv[2], sys.argv[3])


asyncio.run(main())
