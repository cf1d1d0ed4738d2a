"""Celery alone, with the product's own settings: as many tasks as are asked for, none of which does anything.

Run as ``python -m bench.celery_nothing BROKER_URL TASKS SLOTS``. Prints JSON on stdout: tasks a second from the first
to the last, and CPU milliseconds a task.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from workers.app import DRAIN_TASK, create_celery
from workers.celery_threads import WorkerThread
from workers.redis_transport import TolerantChannel

_ENDS_WITHIN_S = 300.0


def main(broker_url: str, tasks: int, slots: int) -> int:
    """Send all tasks, then start a worker, and time it."""
    TolerantChannel.most_waiting = tasks  # the product's bound is for bells, which are repeated
    app = create_celery(broker_url, tick_s=1.0, slots=slots)
    app.conf.worker_concurrency = slots
    ran: list[tuple[float, float]] = []
    done = threading.Event()

    @app.task(name=DRAIN_TASK, shared=False)
    def nothing(workspace: str) -> None:
        ran.append((time.perf_counter(), time.process_time()))
        if len(ran) == tasks:
            done.set()

    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for number in range(tasks):
            nothing.apply_async((f"ws-{number:06}",), producer=producer)
    WorkerThread(app, name="nothing@bench").start()
    if not done.wait(_ENDS_WITHIN_S):
        print(f"only {len(ran)} of {tasks} tasks ran within {_ENDS_WITHIN_S:g} s", file=sys.stderr)
        return 1
    ran.sort()
    (first, cpu_first), (last, cpu_last) = ran[0], ran[-1]
    json.dump(
        {"a_second": (tasks - 1) / (last - first), "cpu_ms": (cpu_last - cpu_first) / (tasks - 1) * 1000}, sys.stdout
    )
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
