"""Structured logs: lines for people on a terminal, JSON for machines; no secrets, no targets."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO, cast

import msgspec
import structlog

from orchestrator.log_writer import AT_AN_END_S, LogWriter, write_text


def configure_logs(*, form: str = "auto", level: str = "info", lasting: bool = False) -> None:
    """Set up structlog and the standard library's logging to write to stderr.

    ``form``: ``console``, ``json``, or ``auto`` (console if stderr is a terminal). ``lasting``: the process runs until
    it is told to stop, so nothing of it may wait for who reads its log; ``flush_logs`` at its end.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [structlog.contextvars.merge_contextvars, _stamp]
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # the rich one prints locals, targets among them
        )
        if console
        else structlog.processors.JSONRenderer(serializer=_spelled)
    )
    errors: list[structlog.typing.Processor] = [] if console else [structlog.processors.format_exc_info]
    stream = cast("TextIO", _Beside() if lasting else _AtOnce())
    spelled = structlog.wrap_logger(structlog.ReturnLogger(), processors=[*shared, *errors, render])
    _WRITER.lost_line = lambda lines: f"{spelled.warning('log.lines_lost', lines=lines)}\n"
    structlog.configure(
        processors=[*shared, *errors, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=stream),  # one write a line
        cache_logger_on_first_use=lasting,
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


_LEVELS = {"warn": "warning", "exception": "error"}


def _stamp(logger: object, level: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Say how loud a line is and when it was written; structlog's own two processors take three times as long."""
    line["level"] = _LEVELS.get(level, level)
    line["timestamp"] = f"{datetime.now(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    return line


def _spelled(line: object, **how: object) -> str:
    """Return a line as JSON in ASCII: others' characters must not speak to a terminal, nor half of a pair end a line.

    json.dumps does that, and takes ten times as long as msgspec for a line that is ASCII anyway.
    """
    try:
        text = _encode(line)
    except (TypeError, ValueError, OverflowError):
        text = b"\xff"
    if text.isascii():
        return text.decode()
    return json.dumps(line, default=repr, separators=(",", ":"))


_encode = msgspec.json.Encoder(enc_hook=repr).encode


def _first_line(record: logging.LogRecord) -> bool:
    """Cut what libraries log while a broker is away to its first line: one a tick, without a stack."""
    if isinstance(record.exc_info, tuple) and _is_broker_away(record.exc_info[1]):
        record.exc_info = None
    if record.name.startswith(("celery", "kombu")):
        record.msg, record.args = record.getMessage().partition("\n")[0], ()
    return True


def _is_broker_away(error: BaseException | None) -> bool:
    """Return whether trouble with a connection is behind ``error``; beat wraps it in an error of its own."""
    from billiard.exceptions import RestartFreqExceeded  # here: a command that has no broker has no trouble with one
    from kombu.exceptions import ChannelError, KombuError
    from kombu.exceptions import ConnectionError as AmqpConnectionError
    from redis.exceptions import RedisError

    # The last one: Celery's of a broker that took its connections and dropped them, five times within a second.
    trouble = (OSError, KombuError, RedisError, AmqpConnectionError, ChannelError, RestartFreqExceeded)
    while error is not None:
        if isinstance(error, trouble):
            return True
        error = error.__cause__ or error.__context__
    return False


class _AtOnce:
    """Standard error that never raises: a log that nobody can read any more must not stop a restart."""

    def write(self, text: str) -> int:
        """Write one line, or lose it: there is no other place to say so."""
        write_text(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: each line is flushed."""


class _Beside:
    """Standard error, written to by ``LogWriter``."""

    def write(self, text: str) -> int:
        """Hand over one line."""
        return _WRITER.write(text)

    def flush(self) -> None:
        """Do nothing: nobody waits for a log line."""


_WRITER = LogWriter()


def flush_logs(within_s: float = AT_AN_END_S) -> None:
    """Wait until what was logged is written, but no longer than that: for an end, and before an error is printed."""
    _WRITER.flush(within_s)
