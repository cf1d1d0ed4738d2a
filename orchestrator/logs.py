"""Structured logs: lines for people on a terminal, JSON for machines; no secrets, no targets."""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog


def configure_logs(*, form: str = "auto", level: str = "info") -> None:
    """Set up structlog and the standard library's logging to write to stderr.

    ``form``: ``console``, ``json``, or ``auto`` (console if stderr is a terminal).
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # the rich one prints locals, targets among them
        )
        if console
        else structlog.processors.JSONRenderer()
    )
    errors: list[structlog.typing.Processor] = [] if console else [structlog.processors.format_exc_info]
    stream = cast("TextIO", _Stderr())
    structlog.configure(
        processors=[*shared, *errors, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=stream),  # one write a line
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(_first_line)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *errors, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)


def _first_line(record: logging.LogRecord) -> bool:
    """Cut what libraries log while a broker is away to its first line: one a tick, without a stack."""
    if isinstance(record.exc_info, tuple) and _is_broker_away(record.exc_info[1]):
        record.exc_info = None
    if record.name.startswith(("celery", "kombu")):
        record.msg, record.args = record.getMessage().partition("\n")[0], ()
    return True


def _is_broker_away(error: BaseException | None) -> bool:
    """Return whether trouble with a connection is behind ``error``; beat wraps it in an error of its own."""
    from kombu.exceptions import ChannelError, KombuError  # here: a command that has no broker has no trouble with one
    from kombu.exceptions import ConnectionError as AmqpConnectionError
    from redis.exceptions import RedisError

    while error is not None:
        if isinstance(error, OSError | KombuError | RedisError | AmqpConnectionError | ChannelError):
            return True
        error = error.__cause__ or error.__context__
    return False


class _Stderr:
    """Standard error that never raises: a log that nobody can read any more must not stop a restart."""

    def write(self, text: str) -> int:
        """Write one line, or lose it: there is no other place to say so."""
        try:
            return sys.stderr.write(text)
        except (OSError, ValueError):  # its reader is gone, its disk is full, or it was closed
            return len(text)

    def flush(self) -> None:
        """Flush, or not."""
        try:
            sys.stderr.flush()
        except (OSError, ValueError):  # as above
            return
