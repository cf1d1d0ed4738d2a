"""Celery on Redis: a task for each write (``plain``), or kept to one by celery-singleton or celery-once."""

from __future__ import annotations

import sys
import time

import redis
from celery import Celery
from celery.signals import worker_ready
from celery_once import QueueOnce
from celery_singleton import Singleton
from driving import JOB_S, JOBS_AT_ONCE, KIND, QUIET_S, SERVER, JobLog, drive_blocking, ready

app = Celery("peers", broker=SERVER, backend=SERVER)
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    singleton_lock_expiry=60,
    ONCE={"backend": "celery_once.backends.Redis", "settings": {"url": SERVER, "default_timeout": 60}},
)
log = JobLog(sys.argv[2] if sys.argv[1] == "worker" else "/dev/null")


def job(workspace: str) -> None:
    """Take as long as every peer's job."""
    began = time.monotonic_ns()
    time.sleep(JOB_S)
    log.done(workspace, began)


@app.task(name="plain")
def plain(workspace: str) -> None:
    """Restart at each write: the incident."""
    job(workspace)


@app.task(name="singleton", base=Singleton, unique_on="workspace")
def singleton(workspace: str) -> None:
    """Restart unless one waits or runs."""
    job(workspace)


@app.task(name="once", base=QueueOnce, once={"graceful": True, "keys": ["workspace"]})
def once(workspace: str) -> None:
    """Restart unless one waits or runs."""
    job(workspace)


@worker_ready.connect
def _ready(**_: object) -> None:
    ready()


def main() -> None:
    """Carry out the verb."""
    if sys.argv[1] == "reset":
        redis.Redis.from_url(SERVER).flushall()
    elif sys.argv[1] == "worker":
        quietly = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR"]
        app.worker_main(["worker", "-P", "threads", "-c", str(JOBS_AT_ONCE), *quietly])
    else:
        task = {"plain": plain, "singleton": singleton, "once": once}[KIND]
        later = {} if KIND == "plain" else {"countdown": QUIET_S}
        send = lambda workspace: task.apply_async(kwargs={"workspace": workspace}, **later)  # noqa: E731
        drive_blocking(send, sys.argv[2], sys.argv[3])


main()
