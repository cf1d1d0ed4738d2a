"""kombu's Redis transport, which outlives what is no message at all, and whose queue is bounded.

Redis knows no expiry of one message: while beat ran and no worker did, the queue grew by 110 MB a day.

kombu's own ends the worker at the first text in the queue that it cannot read: one LPUSH of anything by anybody ended
every worker in turn (measured with kombu 5.7.0).
"""

from __future__ import annotations

from typing import Any

import structlog
from kombu.transport import redis, virtual
from kombu.utils.json import dumps

_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What reading an envelope raises: it is no JSON, or JSON of another shape. Errors of Redis are none of these."""

_log = structlog.get_logger("orchestrator")


MOST_WAITING = 1_000
"""So many messages are kept, some 0.7 MB: no less than a tick and its bells, and all of them are repeated."""


class _Message(virtual.Message):
    """A message. That one could be made means that its envelope was read."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        super().__init__(payload, channel=channel, **kwargs)
        if channel is not None:
            channel.reading = False


class TolerantChannel(redis.Channel):
    """Drops, with one line in the log, what cannot be read. It has left the queue by then. Bounds the queue."""

    Message = _Message
    most_waiting = MOST_WAITING
    reading = False
    """Whether an error comes from reading an envelope, or from whoever was handed the message."""

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        """Put a message into the queue, and drop the oldest ones that are more than ``most_waiting``."""
        bound: Any = self  # the stubs leave out what follows
        key = bound._q_for_pri(queue, bound._get_message_priority(message, reverse=False))
        with bound.conn_or_acquire() as client, client.pipeline() as together:
            together.lpush(key, dumps(message))
            together.ltrim(key, 0, self.most_waiting - 1)
            together.execute()

    def _brpop_read(self, **options: Any) -> Any:
        self.reading = True
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # the stubs leave it out
        except _UNREADABLE as error:
            if not self.reading:
                raise
            _log.warning("message.refused", why=f"its envelope is not readable: {error!r}")
            return True


class TolerantTransport(redis.Transport):
    """kombu's, with these channels."""

    Channel = TolerantChannel
