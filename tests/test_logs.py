"""Log lines: for people and for machines, one each, whatever is in them and whoever reads them."""

from __future__ import annotations

import ast
import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from kombu.exceptions import ChannelError, OperationalError
from kombu.exceptions import ConnectionError as AmqpConnectionError
from redis.exceptions import ConnectionError as RedisConnectionError

from orchestrator.logs import configure_logs


@pytest.fixture(autouse=True)
def usual_logs_afterwards() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    yield
    root.handlers, root.level = before
    structlog.reset_defaults()


class Said:
    """What was written to standard error so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys, self._text = capsys, ""

    def text(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


def log() -> structlog.typing.FilteringBoundLogger:
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger("orchestrator")
    return logger


def test_json_is_one_object_a_line(said: Said) -> None:
    configure_logs(form="json")
    log().info("write.folded", path="a\nb", workspace="ws")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log().exception("tick.failed", workspace="ws")
    logging.getLogger("uvicorn").error("many\nlines %s", {"a": 1})
    first, failed, foreign = said.lines()
    assert (first["event"], first["path"], first["level"]) == ("write.folded", "a\nb", "info")
    assert str(first["timestamp"]).endswith("Z")
    assert "ValueError: first\nsecond" in str(failed["exception"])
    assert foreign["event"] == "many\nlines {'a': 1}"


@pytest.mark.parametrize(
    "odd", ["\x9b31m", "\u202e", "é", "\ud83d", "\x1b[2J", 1 << 70, {1, 2}, {"a": object}, {1: "x"}, b"\xff", 1.5, None]
)
def test_json_is_ascii_whatever_is_in_it(said: Said, odd: object) -> None:
    configure_logs(form="json")
    log().info("write.folded", odd=odd)
    text = said.text()
    assert text.isascii()
    assert text.isprintable() or text.rstrip("\n").isprintable()
    value = json.loads(text)["odd"]
    assert not isinstance(odd, str | int | float | None) or value == odd


def test_console_shows_odd_values_harmlessly(said: Said) -> None:
    configure_logs(form="console")
    log().info("write.folded", path="a\nb\x1b[2J", workspace="ws")
    assert "\x1b[2J" not in said.text()
    assert len(said.text().splitlines()) == 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_locals_in_tracebacks(said: Said, form: str) -> None:
    configure_logs(form=form)

    def broken(target: str) -> None:
        raise ValueError("no")

    secret = "".join(["hunter", "2"])
    try:
        broken(secret)
    except ValueError:
        log().exception("executor.raised")
    assert "ValueError" in said.text()
    assert "hunter2" not in said.text()


def test_auto_is_json_where_nobody_looks(said: Said) -> None:
    configure_logs()
    log().info("write.folded")
    assert said.lines()[0]["event"] == "write.folded"


def test_the_level(said: Said) -> None:
    configure_logs(form="json", level="warning")
    log().info("write.folded")
    log().warning("lease.lost")
    logging.getLogger("celery").info("chatter")
    assert [line["event"] for line in said.lines()] == ["lease.lost"]


@pytest.mark.parametrize(
    "error",
    [
        OSError("refused"),
        OperationalError("refused"),
        RedisConnectionError("refused"),
        AmqpConnectionError("refused"),
        ChannelError("refused"),
        BrokenPipeError(),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_broker_that_is_away_is_one_line(said: Said, error: Exception, wrapped: bool) -> None:
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
    [line] = said.lines()
    assert line["event"] == "Message Error: refused"
    assert "exception" not in line


def test_other_errors_keep_their_traceback(said: Said) -> None:
    configure_logs(form="json")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("celery.worker").exception("Task failed")
    assert "Traceback" in str(said.lines()[0]["exception"])


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


_SAYS = {"self._failed", "warn_once", *(f"_log.{level}" for level in ("info", "warning", "error", "exception"))}


def test_every_line_that_a_process_says_of_itself_is_on_the_page_for_two_in_the_morning() -> None:
    root = Path(__file__).resolve().parent.parent
    page = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    said: set[str] = set()
    for source in (path for part in ("orchestrator", "workers") for path in (root / part).rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in _SAYS:
                said |= {str(node.args[0].value)} if isinstance(node.args[0], ast.Constant) else set()

    assert {"tick.failed", "seal.failed", "worker.died"} <= said
    assert sorted(name for name in said if f"`{name}`" not in page) == []
