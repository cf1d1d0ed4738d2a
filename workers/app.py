"""Celery, and its settings only. Every setting has its measured reason; change none without a new measurement.

- Early ack, prefetch 1: at-least-once comes from the database. Late ack makes celery 5.7.0's worker exit
  when Redis goes away during a task, and a visibility timeout shorter than a restart starts it twice.
- Threads: 16 slots cost 52 MB against 780 MB of a pre-forking pool. They ignore Celery's time limits, so
  deadlines sit in the executors, with the lease behind them.
- No results, no ETA, no countdown: due times live in the table.
- ``polling_interval`` 0.05 s for ``memory://``: its default of 1.0 drowned at 13 tasks a second.
- Cancelling long tasks at a lost connection concerns late-acked ones, of which there are none; False only warns.
- ``expires`` is for brokers that drop what is too old by their own clock; workers do not look at it. Redis is none of
  them: there ``redis_transport`` keeps the newest messages only.
- Beat's schedules count on monotonic time: a wall clock that was set back an hour stopped every tick for that hour.
- ``socket_timeout``, ``read_timeout``, ``write_timeout``: without them one frozen broker blocks a publisher for 45 s
  (Redis) or for ever (RabbitMQ). ``max_retries`` there: without it kombu tries to connect for ever inside a publish.
- No reduced prefetch after a lost connection: celery 5.7.0 restores it by ``basic.qos`` from the thread that takes a
  task, on the consumer's own connection. Measured on RabbitMQ: two threads read it, frames were torn (4 of 16 losses),
  and a worker that waited for the rest of one was deaf until RabbitMQ closed the connection 15 s later.
- RabbitMQ: a durable queue, because 4.3 refuses transient ones that are shared, with transient messages, because a
  wake-up is not worth a disk. Every message expires, so that the queue is bounded while no worker runs.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from textwrap import shorten
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from celery.schedules import schedule
from kombu import Connection
from kombu.exceptions import ChannelError, KombuError
from kombu.exceptions import ConnectionError as AmqpConnectionError
from kombu.transport import TRANSPORT_ALIASES

from orchestrator.errors import BrokerUnavailable

TICK_TASK = "orchestrator.tick"
DRAIN_TASK = "orchestrator.drain"
CHORE_TASK = "orchestrator.chore"

CHORES_EVERY_S = {"seal": 10.0, "count_files": 10.0, "keep_sums": 10.0, "verify": 60.0, "forget_answers": 3600.0}
"""What workers do beside restarts, and how often one of them does it."""

BELL_EXPIRES_S = 5
"""A bell that was not taken by then is not needed: the tick has rung again."""

QUEUE = "orchestrator"
"""The one queue; on RabbitMQ its exchange has the same name."""

BROKER_ERRORS = (KombuError, AmqpConnectionError, ChannelError, OSError)
"""A broker's trouble. RabbitMQ's refusals (a wrong password, a missing virtual host) are no ``KombuError``."""

HEARTBEAT_S = 5
"""A worker that hears nothing from RabbitMQ for twice that connects again. Less would take a busy one for dead."""

_SAID_MOST = 200
"""Characters of what a broker says of its trouble: it stands in one line of `/readyz` and of `doctor`."""

_EXTRA_THREADS = 3
"""Beside the slots: one for a tick, one for a bell that finds every slot taken, one for chores."""

_REDIS_SCHEMES = ("redis", "rediss")
_REDIS_OPTIONS = {
    "visibility_timeout": 3600,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "max_retries": 1,
    "interval_start": 0.1,  # kombu's own 2 s would pass in every tick of an outage
}

_AMQP_OPTIONS = {"read_timeout": 5, "write_timeout": 5, "max_retries": 1, "interval_start": 0.1}


class SteadyConnection(Connection):
    """A connection that is tried again every second. Celery's waits grow to 30 s, and no tick comes meanwhile."""

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Connect, trying again as kombu does, but without waiting longer each time."""
        return super().ensure_connection(*args, **{"interval_start": 1, "interval_step": 0, **kwargs})


class _Amqp(AMQP):
    Connection = SteadyConnection


def _every(seconds: float) -> schedule:
    """Return a schedule that no step of the wall clock stops or hurries."""
    began, began_s = datetime.now(UTC), time.monotonic()
    return schedule(seconds, nowfun=lambda: began + timedelta(seconds=time.monotonic() - began_s))


def _chore(name: str, every_s: float) -> dict[str, Any]:
    return {
        "task": CHORE_TASK,
        "args": (name,),
        "schedule": _every(every_s),
        "options": {"expires": min(60.0, every_s)},
    }


def create_celery(broker_url: str, *, tick_s: float, slots: int) -> Celery:
    """Return the Celery app of this process. Nothing is connected yet."""
    # By name: a pool of connections is of kombu's own class, whatever the class of the app's (seen in kombu 5.7.0).
    TRANSPORT_ALIASES.update(dict.fromkeys(_REDIS_SCHEMES, "workers.redis_transport:TolerantTransport"))
    app = Celery("orchestrator", broker=_with_host(broker_url), amqp=_Amqp, set_as_current=False)
    app.conf.update(
        broker_transport_options=_transport_options(broker_url),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_heartbeat=HEARTBEAT_S,
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        task_default_queue=QUEUE,
        task_default_delivery_mode="transient",
        task_serializer="json",
        accept_content=["json"],
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1},
        worker_prefetch_multiplier=1,
        worker_enable_prefetch_count_reduction=False,
        worker_pool="threads",
        worker_concurrency=slots + _EXTRA_THREADS,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        beat_scheduler="celery.beat:Scheduler",
        beat_max_loop_interval=tick_s,
        timezone="UTC",
        beat_schedule={
            "tick": {"task": TICK_TASK, "schedule": _every(tick_s), "options": {"expires": max(2.0, 2 * tick_s)}},
            **{name: _chore(name, every_s) for name, every_s in CHORES_EVERY_S.items()},
        },
    )
    return app


def check_broker(app: Celery) -> None:
    """Raise ``BrokerUnavailable`` unless the broker answers within a few seconds."""
    with app.connection_for_write(connect_timeout=2) as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=1, timeout=3)
        except BROKER_ERRORS as error:
            said = shorten(str(error), _SAID_MOST, placeholder=" ...")  # Redis' DENIED is a page of advice
            raise BrokerUnavailable(f"the broker at {safe_url(app)} does not answer: {said}") from error


def safe_url(app: Celery) -> str:
    """Return the broker's URL without its password."""
    return str(app.connection_for_write().as_uri())


def _with_host(broker_url: str) -> str:
    """Name a host where the transport has none; kombu warns at every connection otherwise."""
    return "memory://localhost/" if broker_url == "memory://" else broker_url


def _transport_options(broker_url: str) -> dict[str, Any]:
    if broker_url.startswith("memory://"):
        return {"polling_interval": 0.05}
    if broker_url.startswith(("amqp", "pyamqp")):
        return dict(_AMQP_OPTIONS)
    return dict(_REDIS_OPTIONS) if broker_url.startswith(("redis", "valkey", "unix")) else {}
