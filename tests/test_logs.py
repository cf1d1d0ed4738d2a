"""Log lines: for people and for machines, one each, whatever is in them and whoever reads them."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

from orchestrator.logs import configure_logs


@pytest.fixture(autouse=True)
def usual_logs_afterwards() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    yield
    root.handlers, root.level = before
    structlog.reset_defaults()


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    return written


def log() -> structlog.typing.FilteringBoundLogger:
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger("orchestrator")
    return logger


def test_json_is_one_object_a_line(stderr: io.StringIO) -> None:
    configure_logs(form="json")
    log().info("write.folded", path="a\nb", workspace="ws")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log().exception("tick.failed", workspace="ws")
    logging.getLogger("uvicorn").error("many\nlines %s", {"a": 1})
    first, failed, foreign = [json.loads(line) for line in stderr.getvalue().splitlines()]
    assert (first["event"], first["path"], first["level"]) == ("write.folded", "a\nb", "info")
    assert first["timestamp"].endswith("Z")
    assert "ValueError: first\nsecond" in failed["exception"]
    assert foreign["event"] == "many\nlines {'a': 1}"


def test_console_shows_odd_values_harmlessly(stderr: io.StringIO) -> None:
    configure_logs(form="console")
    log().info("write.folded", path="a\nb\x1b[2J", workspace="ws")
    assert "\x1b[2J" not in stderr.getvalue()
    assert len(stderr.getvalue().splitlines()) == 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_locals_in_tracebacks(stderr: io.StringIO, form: str) -> None:
    configure_logs(form=form)

    def broken(target: str) -> None:
        raise ValueError("no")

    try:
        broken("hunter2")
    except ValueError:
        log().exception("executor.raised")
    assert "ValueError" in stderr.getvalue()
    assert "hunter2" not in stderr.getvalue().replace('broken("hunter2")', "")


def test_auto_is_json_where_nobody_looks(stderr: io.StringIO) -> None:
    configure_logs()
    log().info("write.folded")
    assert json.loads(stderr.getvalue())["event"] == "write.folded"


def test_the_level(stderr: io.StringIO) -> None:
    configure_logs(form="json", level="warning")
    log().info("write.folded")
    log().warning("lease.lost")
    logging.getLogger("celery").info("chatter")
    assert [json.loads(line)["event"] for line in stderr.getvalue().splitlines()] == ["lease.lost"]


@pytest.mark.parametrize(
    "error", [OSError("refused"), OperationalError("refused"), RedisConnectionError("refused"), BrokenPipeError()]
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_broker_that_is_away_is_one_line(stderr: io.StringIO, error: Exception, wrapped: bool) -> None:
    configure_logs(form="json")
    try:
        try:
            raise error
        except Exception as inner:
            if wrapped:
                raise RuntimeError("could not apply the task") from inner
            raise
    except Exception:
        logging.getLogger("celery.beat").error("Message Error: %s\n%s", "refused", "a stack", exc_info=True)
    [line] = [json.loads(line) for line in stderr.getvalue().splitlines()]
    assert line["event"] == "Message Error: refused"
    assert "exception" not in line


def test_other_errors_keep_their_traceback(stderr: io.StringIO) -> None:
    configure_logs(form="json")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("celery.worker").exception("Task failed")
    assert "Traceback" in json.loads(stderr.getvalue())["exception"]


class _Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_log_that_nobody_can_read_stops_nothing(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(sys, "stderr", _Gone())
    configure_logs(form=form)
    log().info("cycle.started")
    logging.getLogger("celery").error("lost")
    closed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", closed)
    configure_logs(form=form)
    closed.close()
    log().info("cycle.started")
