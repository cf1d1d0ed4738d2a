"""Chores asked for far more often than beat does: a seal every ten seconds would be too rare to be hit by a fault."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from workers.app import BROKER_ERRORS, CHORE_TASK, create_celery


@contextmanager
def frequent_chores(broker_url: str, *names: str, every_s: float = 0.5) -> Iterator[None]:
    """Ask for each chore again and again, as a very quick beat would; a broker that is away is asked the next time."""
    celery, over = create_celery(broker_url, tick_s=1.0, slots=1), threading.Event()

    def ask() -> None:
        while not over.wait(every_s):
            for name in names:
                try:
                    celery.send_task(CHORE_TASK, args=(name,), expires=5, retry=False)
                except BROKER_ERRORS:
                    continue

    asking = threading.Thread(target=ask, name="chores", daemon=True)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join(10)
        celery.close()
