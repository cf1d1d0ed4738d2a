"""Celery's own worker and beat as threads of our process; signals stay ours.

Measured: the synchronous consumer blocks up to 2 s in ``drain_events``, so a stop drains the pool and leaves the
consumer's daemon thread to the end of the process.
"""

from __future__ import annotations

import threading
from typing import Any, cast

import structlog
from celery import Celery
from celery.beat import Scheduler, Service
from celery.concurrency.base import BasePool
from celery.worker import WorkController
from celery.worker.request import Request

from orchestrator.crash_points import crash_point
from workers.strict_consumer import StrictConsumer

_log = structlog.get_logger("orchestrator")


class _Controller(WorkController):
    """Celery's worker, which drops what still arrives once its pool is closed; Celery calls that unrecoverable."""

    closing = False

    def _process_task(self, req: Request) -> None:
        crash_point("message.received")
        try:
            req.execute_using_pool(cast("BasePool", self.pool))
        except RuntimeError:
            if not self.closing:
                raise


class WorkerThread:
    """The Celery worker of this process."""

    def __init__(self, app: Celery, *, name: str) -> None:
        self._ready = threading.Event()
        app.set_default()  # Celery's pool threads look tasks up in the process's default app, not in the worker's
        self._controller = _Controller(
            app=app,
            hostname=name,
            pool_cls="threads",
            consumer_cls=StrictConsumer,
            concurrency=app.conf.worker_concurrency,
            ready_callback=lambda consumer: self._ready.set(),
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        self._thread = threading.Thread(target=self._run, name="celery-worker", daemon=True)

    def start(self) -> None:
        """Begin consuming; a broker that is away is tried again until it is there."""
        self._thread.start()

    def await_ready(self, timeout_s: float) -> bool:
        """Wait until the consumer has reached the broker; return whether it has."""
        return self._ready.wait(timeout_s)

    @property
    def alive(self) -> bool:
        """False once Celery's worker has ended, which it does only by a defect."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Wait for the tasks under way and take no more. Every task must have been told to end before."""
        self._controller.closing = True
        pool = cast("BasePool | None", self._controller.pool)
        if pool is not None:
            pool.stop()

    def _run(self) -> None:
        try:
            self._controller.start()
        except BaseException:
            _log.exception("worker.died")
            raise


class _Scheduler(Scheduler):
    """Celery's in-memory schedule, with a crash point on each side of what it sends."""

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Send the message of an entry that is due."""
        crash_point("beat.fire")
        sent = super().apply_async(*args, **kwargs)
        crash_point("beat.fired")
        return sent


class BeatThread:
    """Celery's beat of this process: in-memory schedule, no file, no pid."""

    def __init__(self, app: Celery) -> None:
        self._service = Service(app, scheduler_cls=_Scheduler)
        self._thread = threading.Thread(target=self._run, name="celery-beat", daemon=True)

    def start(self) -> None:
        """Begin firing ticks; a broker that is away is tried again until it is there."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False once beat has ended."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Fire no more."""
        self._service.stop(wait=False)

    def _run(self) -> None:
        try:
            self._service.start(embedded_process=False)
        except BaseException:
            _log.exception("beat.died")
            raise
