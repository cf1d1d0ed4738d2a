"""A process with Celery's beat and worker and nothing behind them: a line on stdout for every tick."""

from __future__ import annotations

import sys
import threading

from orchestrator.logs import configure_logs
from workers.app import TICK_TASK, create_celery
from workers.celery_threads import BeatThread, WorkerThread


def main(broker_url: str) -> None:
    """Tick until killed."""
    configure_logs(form="json")
    app = create_celery(broker_url, tick_s=0.2, slots=1)

    @app.task(name=TICK_TASK, shared=False)
    def tick() -> None:
        sys.stdout.write("tick\n")
        sys.stdout.flush()

    parts = WorkerThread(app, name="ticking@host"), BeatThread(app)
    for part in parts:
        part.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
