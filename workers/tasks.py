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

_GOES_ON = 1.25
"""How many ticks long the last tick to come is good for. Longer than one, so that there is no gap in which nobody looks
before the next comes, late by what the broker and a busy machine take; not by much, as two workers that are sent ticks
in turn both look meanwhile.
"""

_RESTS_S = 0.005
"""How long a look that changed nothing is not repeated: what is due may be another transaction's to change."""


class Ticker:
    """Carries out ticks. One at a time in a process: the next one relieves it, and goes on until then, or a bound."""

    def __init__(self, store: CoreStore, doorbell: Doorbell, ids: Ids, drainer: Drainer, *, tick_s: float) -> None:
        self._store, self._doorbell, self._ids, self._drainer = store, doorbell, ids, drainer
        self._tick_s = tick_s
        self._ticks = 0
        self._lost = Lost()
        self._changed = threading.Condition()
        self._at_work: object | None = None
        """The tick that is at work."""
        self._stopping = False
        self._came = 0
        self._until_s = 0.0

    def tick(self) -> None:
        """Look, and look again at each instant at which something comes due, until the next tick comes.

        Where one is at work already, that one looks at once and goes on in this one's stead.
        """
        own = object()
        if self._takes_over(own):
            try:
                self._look_in_turn()
            except Unavailable as error:
                _log.warning("tick.skipped", error=str(error))
            finally:
                with self._changed:
                    self._at_work = None if self._at_work is own else self._at_work

    def _takes_over(self, own: object) -> bool:
        """Return whether nobody is at work, and this tick is from now on; else have whoever is go on."""
        with self._changed:
            self._go_on()
            self._at_work = self._at_work or own
            return self._at_work is own

    def look_again(self) -> bool:
        """Have whoever is at work look at once, as at a tick; return False where nobody is."""
        with self._changed:
            if self._at_work is None:
                return False
            self._go_on()
            return True

    def _go_on(self) -> None:
        self._came += 1
        self._until_s = time.monotonic() + self._tick_s * _GOES_ON
        self._changed.notify_all()

    def _look_in_turn(self) -> None:
        """Look again and again. A look is a bell too, for the slots of this process.

        Measured with two workers on Redis: it serves them in turn, so that the one with a free slot was sent every tick
        and the full one every bell, and nothing started for 15 s.
        """
        looks: list[Looked] = []
        came, goes_on = self._came, True
        while goes_on and not self._stopping:
            looks.append(self._look())
            self._drainer.take_up(looks[-1].rung)
            goes_on = self._sleep(_until(looks[-1]), came)
            if not goes_on or self._came != came:
                came = self._came
                self._note_absences(looks)
                looks = []

    def _sleep(self, wait_s: float | None, came: int) -> bool:
        """Wait for so long, or for the next tick; return False, being relieved, where this one is not good for that.

        A tick that comes is looked for at once: what is new since then may be due before what is slept for.
        """
        with self._changed:
            ends_s = None if wait_s is None else time.monotonic() + wait_s
            if self._came == came and ends_s is not None and ends_s <= self._until_s:
                self._changed.wait_for(lambda: self._came != came or self._stopping, timeout=wait_s)
            elif self._came == came:
                self._at_work = None  # under the same lock as the look: a tick that comes from now on begins anew
                return False
            return True

    def _look(self) -> Looked:
        drainer = self._drainer
        return look(
            self._store,
            self._doorbell,
            self._ids,
            free_slots=lambda: drainer.slots.free,
            running_most=drainer.running_most,
            lost=self._lost,
            own_slots=drainer,
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
        with self._changed:
            self._stopping = True
            self._changed.notify_all()


def _until(looked: Looked) -> float | None:
    if looked.next_at is None:
        return None
    least_s = 0.0 if looked.changed else _RESTS_S  # what comes due while there is something to do waits for that only
    return max(least_s, (looked.next_at - looked.now).total_seconds() - looked.since_s)


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
