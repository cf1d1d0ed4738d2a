"""Structured logs: lines for people on a terminal, JSON for machines; no secrets, no targets."""

from __future__ import annotations

import logging
import sys

import structlog
from kombu.exceptions import KombuError


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
    structlog.configure(
        processors=[*shared, *errors, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
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
    if isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], OSError | KombuError):
        record.exc_info = None
    if record.name.startswith(("celery", "kombu")):
        record.msg, record.args = record.getMessage().partition("\n")[0], ()
    return True
