"""Ring for a worker: a Celery message that carries a workspace id and changes nothing but latency."""

from __future__ import annotations

from celery import Celery

from orchestrator.crash_points import crash_point
from orchestrator.errors import BrokerUnavailable
from workers.app import BELL_EXPIRES_S, BROKER_ERRORS, DRAIN_TASK


class CeleryDoorbell:
    """The doorbell of production and of the embedded mode alike."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def ring(self, workspace: str) -> None:
        """Send one wake-up; it expires before the next one is sent. Raises ``BrokerUnavailable``."""
        crash_point("bell.ring")
        try:
            self._app.send_task(DRAIN_TASK, args=(workspace,), expires=BELL_EXPIRES_S, retry=False)
        except BROKER_ERRORS as error:
            raise BrokerUnavailable(f"the broker took no wake-up for {workspace}: {error}") from error
        crash_point("bell.rung")
