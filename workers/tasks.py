"""The Celery tasks, each a doorbell to the service: what they do is decided again from the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from celery import Celery

from orchestrator.crash_points import crash_point
from orchestrator.errors import Unavailable
from orchestrator.ports.store import CoreStore, Doorbell, Ids
from orchestrator.service.absence import note_absences
from orchestrator.service.drain import Drainer
from orchestrator.service.passed_over import Lost
from orchestrator.service.tick import Looked, look
from workers.app import CHORE_TASK, DRAIN_TASK, TICK_TASK
from workers.chores import Chores

_log = structlog.get_logger("orchestrator")

_ANSWERS_KEPT = timedelta(days=7)
"""How long an Idempotency-Key is honoured."""

_ABSENCES_EVERY = 10
"""Where restarts wait and none may start, a tick asks so seldom who is there: nobody could take them anyway."""

_SHARE_OF_TICK = 0.9
"""A tick sleeps inside its interval until the next due instant, and ends before the next tick comes."""


class Ticker:
    """Carries out ticks. One at a time in a process: a second one finds the first at work and returns."""

    def __init__(self, store: CoreStore, doorbell: Doorbell, ids: Ids, drainer: Drainer, *, tick_s: float) -> None:
        self._store, self._doorbell, self._ids, self._drainer = store, doorbell, ids, drainer
        self._tick_s = tick_s
        self._ticks = 0
        self._lost = Lost()
        self._at_work = threading.Lock()
        self._stopping = threading.Event()

    def tick(self) -> None:
        """Look, and look again at each instant inside the interval at which something comes due; then drain.

        A tick is a bell too. Measured with two workers on Redis: it serves them in turn, so that the one with
        a free slot was sent every tick and the full one every bell, and nothing started for 15 s.
        """
        if not self._at_work.acquire(blocking=False):
            return
        rung = 0
        try:
            looks = self._tick(time.monotonic() + self._tick_s * _SHARE_OF_TICK)
            rung = sum(looked.rung for looked in looks)
            self._note_absences(looks)
        except Unavailable as error:
            _log.warning("tick.skipped", error=str(error))
        finally:
            self._at_work.release()
        if rung:
            self._drainer.drain()

    def _tick(self, until_s: float) -> list[Looked]:
        looks: list[Looked] = []
        while not self._stopping.is_set():
            looks.append(self._look())
            wait_s = _until(looks[-1])
            if wait_s is None or time.monotonic() + wait_s > until_s or self._stopping.wait(wait_s):
                break
        return looks

    def _look(self) -> Looked:
        drainer = self._drainer
        return look(
            self._store,
            self._doorbell,
            self._ids,
            free_slots=lambda: drainer.slots.free,
            running_most=drainer.running_most,
            lost=self._lost,
        )

    def _note_absences(self, looks: Sequence[Looked]) -> None:
        """Say what nobody serves: only where a restart waits, or something is away."""
        self._ticks += 1
        due = self._ticks % _ABSENCES_EVERY == 0
        if any(looked.away or looked.rung or (looked.waits and due) for looked in looks):
            note_absences(self._store, self._ids, tick=timedelta(seconds=self._tick_s))

    def forget_answers(self) -> None:
        """Delete idempotency answers that nobody will ask for again."""
        try:
            with self._store.read() as reader:
                now: datetime = reader.clock()
            forgotten = self._store.forget_answers(now - _ANSWERS_KEPT)
        except Unavailable as error:
            _log.warning("forget.skipped", error=str(error))
        else:
            _log.info("idempotency.forgotten", answers=forgotten)

    def stop(self) -> None:
        """End a tick that sleeps."""
        self._stopping.set()


def _until(looked: Looked) -> float | None:
    if looked.next_at is None:
        return None
    return max(0.005, (looked.next_at - looked.now).total_seconds())


def register_tasks(app: Celery, ticker: Ticker, drainer: Drainer, chores: Chores | None = None) -> None:
    """Give the Celery app its three tasks. Shared ones would serve every other app of the process too."""
    beside = chores or Chores({})

    @app.task(name=TICK_TASK, shared=False)
    def tick() -> None:
        crash_point("message.taken")
        ticker.tick()

    @app.task(name=DRAIN_TASK, shared=False)
    def drain(workspace: str) -> None:
        crash_point("message.taken")
        drainer.drain()

    @app.task(name=CHORE_TASK, shared=False)
    def chore(name: str) -> None:
        crash_point("message.taken")
        beside.run(name)
