"""procrastinate: a job with the workspace as lock and queueing lock, put off by the quiet time."""

from __future__ import annotations

import asyncio
import sys
import time

import procrastinate
import psycopg
from driving import JOB_S, JOBS_AT_ONCE, QUIET_S, SERVER, JobLog, drive, ready

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=SERVER, min_size=16, max_size=24))
log = JobLog(sys.argv[2] if sys.argv[1] == "worker" else "/dev/null")


@app.task(name="restart")
async def restart(workspace: str) -> None:
    """Take as long as every peer's job."""
    began = time.monotonic_ns()
    await asyncio.sleep(JOB_S)
    log.done(workspace, began)


async def send(workspace: str) -> None:
    """Put a job off, or be told that one waits."""
    put_off = {"milliseconds": int(QUIET_S * 1000)}
    try:
        await restart.configure(lock=workspace, queueing_lock=workspace, schedule_in=put_off).defer_async(
            workspace=workspace
        )
    except procrastinate.exceptions.AlreadyEnqueued:
        return


async def main() -> None:
    """Carry out the verb."""
    if sys.argv[1] == "reset":
        with psycopg.connect(SERVER, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
    async with app.open_async():
        if sys.argv[1] == "reset":
            await app.schema_manager.apply_schema_async()
        elif sys.argv[1] == "worker":
            ready()
            await app.run_worker_async(concurrency=JOBS_AT_ONCE, fetch_job_polling_interval=0.1, wait=True)
        else:
            await drive(send, sys.argv[2], sys.argv[3])


asyncio.run(main())
