"""Wake-ups that were never asked for: every workspace's bell, rung twice, again and again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.errors import BrokerUnavailable
from workers.app import create_celery
from workers.doorbell import CeleryDoorbell


@dataclass
class Rung:
    """How many bells were rung beside the product's own."""

    count: int = 0


@contextmanager
def doubled_bells(broker_url: str, workspaces: Sequence[str], *, every_s: float = 0.05) -> Iterator[Rung]:
    """Ring for all of ``workspaces``, twice each, every 50 ms: more than every message of the product's own twice."""
    celery = create_celery(broker_url, tick_s=1.0, slots=1)
    doorbell, rung, over = CeleryDoorbell(celery), Rung(), threading.Event()

    def ring() -> None:
        while not over.wait(every_s):
            for workspace in workspaces:
                try:
                    doorbell.ring(workspace)
                    doorbell.ring(workspace)
                except BrokerUnavailable:
                    continue  # its connection is cut, or of a broker that was restarted: the next one is new
                rung.count += 2

    ringing = threading.Thread(target=ring)
    ringing.start()
    try:
        yield rung
    finally:
        over.set()
        ringing.join()
        celery.close()
