"""Secrets of a target: read when the worker acts, seen by the program alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ExecutionError, InvalidTarget, PermanentError, TransientError, UnknownOutcome
from tests.executors.world import order_for
from workers.executors.bounded_output import LIMIT, BoundedOutput
from workers.executors.command import CommandExecutor
from workers.executors.secret_references import values_behind

SECRET = "s3cr3t-of-the-test"
PRINTS = {"argv": ["/bin/sh", "-c", 'test "$TOKEN" = "$1" && echo "it is $TOKEN"', "sh", SECRET]}


@pytest.mark.parametrize("kind", ["env", "file"])
def test_the_program_has_the_value_and_what_is_kept_of_its_output_has_not(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_WORKER", SECRET)
    (tmp_path / "token").write_text(f"{SECRET}\n")
    reference = {"env": "OF_THE_WORKER"} if kind == "env" else {"file": str(tmp_path / "token")}
    executor = CommandExecutor()
    order = order_for(executor, PRINTS | {"env": {"TOKEN": reference}})
    assert order.target["env"] == {"TOKEN": reference}
    assert executor.restart(order).output == "it is ***\n"


def test_a_failure_does_not_tell_it_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_WORKER", SECRET)
    executor = CommandExecutor()
    target = {"argv": ["/bin/sh", "-c", 'echo "bad $TOKEN" >&2; exit 1'], "env": {"TOKEN": {"env": "OF_THE_WORKER"}}}
    with pytest.raises(UnknownOutcome, match=r"bad \*\*\*") as raised:
        executor.restart(order_for(executor, target))
    assert SECRET not in str(raised.value)


def test_a_file_that_is_exchanged_is_read_anew(tmp_path: Path) -> None:
    executor, file = CommandExecutor(), tmp_path / "token"
    target = {"argv": ["/bin/sh", "-c", "echo ${#TOKEN}"], "env": {"TOKEN": {"file": str(file)}}}
    file.write_text("first")
    order = order_for(executor, target)
    assert executor.restart(order).output == "5\n"
    file.write_text("the second")
    assert executor.restart(order).output == "10\n"


@pytest.mark.parametrize(
    ("reference", "kind", "said"),
    [
        ({"env": "NOBODY_SET_THIS"}, PermanentError, "this worker has no variable NOBODY_SET_THIS"),
        ({"file": "DIR/missing"}, TransientError, "cannot read .*/missing: No such file"),
        ({"file": "DIR"}, PermanentError, "Is a directory"),
        ({"file": "DIR/binary"}, PermanentError, "is not UTF-8"),
        ({"file": "DIR/nul"}, PermanentError, "holds a NUL"),
        ({"file": "DIR/long"}, PermanentError, "longer than"),
    ],
)
def test_what_cannot_be_resolved_is_said_without_a_value(
    reference: dict[str, str], kind: type[ExecutionError], said: str, tmp_path: Path
) -> None:
    for name, content in (("binary", b"\xff\xfe-secret"), ("nul", b"secret\0"), ("long", b"secret" * 20_000)):
        (tmp_path / name).write_bytes(content)
    named = {name: value.replace("DIR", str(tmp_path)) for name, value in reference.items()}
    executor = CommandExecutor()
    with pytest.raises(kind, match=f"'env.TOKEN'.*{said}") as raised:
        executor.restart(order_for(executor, {"argv": ["true"], "env": {"TOKEN": named}}))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"env": "ORCHESTRATOR_DATABASE_URL"},
        {"env": "orchestrator_broker_url"},
        {"env": "a-b"},
        {"env": ""},
        {"env": 1},
        {"file": "relative"},
        {"file": ""},
        {"env": "A", "file": "/b"},
        {"vault": "A"},
        {},
    ],
)
def test_a_wrong_reference_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidTarget, match=r"env\.TOKEN") as raised:
        CommandExecutor().normalise({"argv": ["true"], "env": {"TOKEN": wrong}})
    assert raised.value.field.startswith("env.TOKEN")


def test_a_wrong_kind_of_value_is_not_repeated() -> None:
    with pytest.raises(InvalidTarget, match=r"env\.PASSWORD") as raised:
        CommandExecutor().normalise({"argv": ["true"], "env": {"PASSWORD": [SECRET]}})
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("begins", range(LIMIT // 2 - 60, LIMIT // 2 - 20))
def test_no_part_of_a_secret_is_left_where_long_output_is_cut(begins: int) -> None:
    output = BoundedOutput([SECRET])
    output.feed(b"." * begins + SECRET.encode() + b"." * (3 * LIMIT) + SECRET.encode() + b"." * begins)
    text = output.text()
    assert len(text.encode()) <= LIMIT
    assert not any(letter in text.partition("[...")[0] for letter in SECRET)


def test_a_secret_of_several_lines_is_masked_line_by_line() -> None:
    output = BoundedOutput(["line one of it\nline two of it\n\n}"])
    output.feed(b"got: line two of it }\n")
    assert output.text() == "got: *** }\n"


@pytest.mark.parametrize("before_it", ["", "." * 55])
def test_what_runs_on_is_named_without_it(before_it: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command line has the value, also where the name is cut in the middle of it."""
    monkeypatch.setenv("OF_THE_WORKER", SECRET)
    left = f'sh -c "sleep 1000; : {before_it}$TOKEN" & exit 3'
    target = {"argv": ["/bin/sh", "-c", left], "env": {"TOKEN": {"env": "OF_THE_WORKER"}}, "grace": "100ms"}
    executor = CommandExecutor()
    with pytest.raises(UnknownOutcome, match=r"ended with it: pid \d+ \(sh -c sleep 1000") as raised:
        executor.restart(order_for(executor, target))
    assert SECRET[:5] not in str(raised.value)


def test_values_of_any_target_are_those_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_WORKER", SECRET)
    (tmp_path / "token").write_text("of a file\n")
    target = {
        "secret": {"file": str(tmp_path / "token")},
        "list": [{"env": "OF_THE_WORKER"}, {"env": "NOBODY_SET_THIS"}],
        "missing": {"file": str(tmp_path / "missing")},
        "folder": {"file": str(tmp_path)},
    }
    assert values_behind(target) == ("of a file", SECRET)
    assert values_behind({"delay": "1s"}) == ()
