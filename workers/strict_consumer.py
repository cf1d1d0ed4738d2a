"""Celery's consumer, which hands on only messages of this product and believes only their task and its argument.

A queue is open to whoever reaches the broker. Of a message that is ours in shape everything else is taken away before
Celery sees it: callbacks, chords, limits, a start in the future, and ``expires`` too. That one is an instant of the
sender's clock held against the worker's: a worker whose clock was more than 2 s ahead of beat's took no tick at all
and said nothing (measured). RabbitMQ drops what is too old by its own clock; Redis delivers it, and a tick or bell
too many finds nothing left to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from typing import Any, cast

import msgspec
import structlog
from celery.worker.consumer import Consumer
from kombu.log import get_logger
from kombu.message import Message

from workers.app import CHORE_TASK, DRAIN_TASK, TICK_TASK

ARGUMENTS = {TICK_TASK: 0, DRAIN_TASK: 1, CHORE_TASK: 1}
"""Our tasks, and how many arguments each takes; all are text."""

_SHOWN = 200
_log = structlog.get_logger("orchestrator")
_celery_log = get_logger("celery.worker.consumer")
_decode_body = msgspec.json.Decoder(tuple[list[str], dict[str, Any], Any]).decode


class StrictConsumer(Consumer):
    """Rejects what is foreign with one line in the log; a dead-letter exchange of the broker gets it, if it has one."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], Any]:
        """Return Celery's handler of messages behind the check."""
        handle: Callable[[Message], Any] = super().create_task_handler(*args, **kwargs)
        errors: tuple[type[Exception], ...] = cast("Any", self).connection_errors
        served: Container[str] = cast("Any", self).app.tasks

        def handle_ours(message: Any) -> None:
            why = strip(message)
            if why is None and message.headers["task"] not in served:  # Celery logs that with a stack
                why = f"its task is {message.headers['task']}, which this process does not carry out"
            if why is None:
                handle(message)
                return
            _log.warning("message.refused", why=why)
            message.reject_log_error(_celery_log, errors)

        return handle_ours


def strip(message: Any) -> str | None:
    """Take away all of a kombu message but its id, task and argument; or return why it is none of ours."""
    headers = message.headers
    if not isinstance(headers, dict) or not isinstance(message.delivery_info, dict):
        return "it has no headers"
    task, id_ = headers.get("task"), headers.get("id")
    if not isinstance(task, str) or task not in ARGUMENTS:
        return f"its task is {repr(task)[:_SHOWN]}"
    if not isinstance(id_, str):
        return f"its id is {repr(id_)[:_SHOWN]}"
    if message.content_type != "application/json":
        return f"its content type is {repr(message.content_type)[:_SHOWN]}"
    try:
        args, kwargs, _ = _decode_body(message.body or b"")
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return f"its body is not readable: {error}"
    if len(args) != ARGUMENTS[task] or kwargs:
        return f"{task} takes {ARGUMENTS[task]} arguments, not {len(args)} and {len(kwargs)} named ones"
    message.headers = {"lang": "py", "task": task, "id": id_, "root_id": id_}
    message.content_encoding = "utf-8"
    message.body = json.dumps([args, {}, {}]).encode()
    return None
