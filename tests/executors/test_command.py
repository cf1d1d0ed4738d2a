from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.errors import (
    ExecutionCancelled,
    ExecutionError,
    PermanentError,
    ReadinessTimeout,
    TransientError,
    UnknownOutcome,
)
from orchestrator.ports.executor import Readiness, Receipt
from tests.executors.world import eventually, in_thread, order_for, processes_of
from workers.executors.bounded_output import LIMIT, BoundedOutput
from workers.executors.command import CommandExecutor

executor = CommandExecutor()


def shell(script: str, **target: object) -> dict[str, object]:
    return {"argv": ["sh", "-c", script], **target}


def test_output_of_both_streams_is_kept_in_order() -> None:
    receipt = executor.restart(order_for(executor, shell("echo one; echo two >&2; echo three")))
    assert receipt.output == "one\ntwo\nthree\n"


def test_the_child_is_told_its_order() -> None:
    names = ("WORKSPACE", "RESTART", "CYCLE", "FENCE", "REASON")
    order = order_for(executor, shell("; ".join(f'echo "$ORCHESTRATOR_{name}"' for name in names)), fence=7)
    assert executor.restart(order).output.split() == [order.workspace, order.restart, order.cycle, "7", order.reason]


def test_the_products_own_settings_stay_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", "postgresql://u:only-here@h/d")
    monkeypatch.setenv("ORCHESTRATOR_URL", "http://127.0.0.1:8321")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    output = executor.restart(order_for(executor, {"argv": ["env"], "env": {"OWN": "1"}})).output.splitlines()
    assert not any("only-here" in line for line in output)
    assert {"SOMETHING_ELSE=kept", "OWN=1", "ORCHESTRATOR_URL=http://127.0.0.1:8321"} <= set(output)


def test_argv_is_not_read_by_a_shell(tmp_path: Path) -> None:
    odd = ["printf", "%s|", "a b", "", "$HOME", "; echo x", "*", "é"]
    assert executor.restart(order_for(executor, {"argv": odd})).output == "a b||$HOME|; echo x|*|é|"
    pwd = executor.restart(order_for(executor, {"argv": ["pwd", "-P"], "cwd": str(tmp_path)})).output
    assert Path(pwd.strip()) == tmp_path.resolve()


def test_stdin_is_empty() -> None:
    assert executor.restart(order_for(executor, {"argv": ["cat"]})).output == ""


@pytest.mark.parametrize(
    ("target", "kind", "said"),
    [
        (shell("echo why; exit 75"), TransientError, "exit code 75"),
        (shell("echo why; exit 1"), UnknownOutcome, "exit code 1"),
        (shell("echo why; exit 126"), PermanentError, "exit code 126"),
        (shell("echo why; exit 127"), PermanentError, "exit code 127"),
        (shell("echo why; kill -9 $$"), UnknownOutcome, "SIGKILL"),
    ],
)
def test_how_it_ended_says_what_may_be_done(target: dict[str, object], kind: type[ExecutionError], said: str) -> None:
    with pytest.raises(ExecutionError) as failure:
        executor.restart(order_for(executor, target))
    assert type(failure.value) is kind
    assert said in str(failure.value)
    assert "why" in str(failure.value)


def test_what_cannot_be_started_is_permanent(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("true")
    for target in ({"argv": ["no-such-program"]}, {"argv": [str(plain)]}, {"argv": ["true"], "cwd": "/no/such/folder"}):
        with pytest.raises(PermanentError, match="cannot start"):
            executor.restart(order_for(executor, target))


def test_much_output_never_blocks_and_keeps_both_ends() -> None:
    output = executor.restart(order_for(executor, shell("echo first; head -c 3000000 /dev/zero; echo last"))).output
    assert output.startswith("first\n\\x00")
    assert output.endswith("\\x00last\n")
    assert "3000011 bytes in all" in output
    assert len(output.encode()) <= LIMIT


@pytest.mark.parametrize("piece", [b"a", b"\xff", b"\x00", "€".encode(), b"ab\xe2\x82"])
@pytest.mark.parametrize("count", [1, 3, 2000, 8192, 8193, 20000])
def test_bounded_output_is_valid_bounded_text(piece: bytes, count: int) -> None:
    output = BoundedOutput()
    for _ in range(count):
        output.feed(piece)
    text = output.text()
    assert len(text.encode()) <= LIMIT
    assert "\0" not in text
    whole = (piece * count).decode(errors="replace").replace("\0", "\\x00")
    assert text == whole or ("bytes in all" in text and len(whole.encode()) > LIMIT)


def test_its_own_timeout_ends_it_before_the_deadline() -> None:
    order = order_for(executor, shell("echo begun; sleep 1000", timeout="200ms"), within_s=60)
    with pytest.raises(ReadinessTimeout, match="begun"):
        executor.restart(order)
    assert processes_of(order.workspace) == []


def test_a_child_that_tidies_up_on_term_gets_its_grace() -> None:
    script = "trap 'echo tidied; exit 0' TERM; echo begun; while :; do sleep 1000; done"
    with pytest.raises(ReadinessTimeout, match="tidied"):
        executor.restart(order_for(executor, shell(script, timeout="300ms", grace="30s")))


def test_a_child_that_talks_much_on_term_is_not_blocked_by_a_full_pipe() -> None:
    script = "trap 'head -c 300000 /dev/zero; echo tidied; exit 0' TERM; while :; do sleep 1000; done"
    with pytest.raises(ReadinessTimeout, match="tidied"):
        executor.restart(order_for(executor, shell(script, timeout="300ms", grace="30s")))


def test_a_server_left_in_the_background_runs_on_and_is_named() -> None:
    order = order_for(executor, shell("sleep 1000 >/dev/null 2>&1 & echo started"))
    said = executor.restart(order).output
    (server,) = processes_of(order.workspace)
    assert said == f"left running in the background: pid {server} (sleep 1000)\nstarted\n"
    os.kill(server, signal.SIGKILL)


def test_grandchildren_that_hold_the_pipe_are_not_waited_for_and_it_is_said_that_nobody_reads_it() -> None:
    order = order_for(executor, shell("sleep 1000 & sleep 1001 & echo started; exit 0"))
    begun_s = time.monotonic()
    said = executor.restart(order).output
    assert time.monotonic() - begun_s < 2
    left = processes_of(order.workspace)
    assert len(left) == 2
    assert "(sleep 1000)" in said
    assert "(sleep 1001)" in said
    assert "lost" in said
    for pid in left:
        os.kill(pid, signal.SIGKILL)


def test_what_takes_only_a_moment_to_end_is_not_called_left() -> None:
    assert executor.restart(order_for(executor, shell("sleep 0.05 & echo done"))).output == "done\n"


def test_after_a_bad_end_what_it_left_is_ended_and_named() -> None:
    order = order_for(executor, shell("sleep 1000 & exit 3"))
    with pytest.raises(UnknownOutcome, match=r"exit code 3; ended with it: pid \d+ \(sleep 1000\)"):
        executor.restart(order)
    assert processes_of(order.workspace) == []


UNTIL_MARKED = 'until [ -e "$MARK" ]; do sleep 0.01; done'


def test_deaf_grandchildren_are_killed_after_the_grace(tmp_path: Path) -> None:
    script = f"""(trap '' TERM; : > "$MARK"; sleep 1000; sleep 1000) & {UNTIL_MARKED}; exit 3"""
    order = order_for(executor, shell(script, grace="100ms", env={"MARK": str(tmp_path / "mark")}))
    with pytest.raises(UnknownOutcome):
        executor.restart(order)
    assert processes_of(order.workspace) == []


def test_a_daemon_in_a_session_of_its_own_lives_on_and_is_not_waited_for(tmp_path: Path) -> None:
    script = f"""setsid sh -c ': > "$MARK"; exec sleep 1000' & {UNTIL_MARKED}"""
    order = order_for(executor, shell(script, env={"MARK": str(tmp_path / "mark")}))
    begun_s = time.monotonic()
    executor.restart(order)
    assert time.monotonic() - begun_s < 2
    (daemon,) = processes_of(order.workspace)
    os.kill(daemon, 9)


def test_a_stop_shortens_a_long_grace(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"trap '' TERM; : > {mark}; while :; do sleep 1000; done"
    stop = threading.Event()
    order = order_for(executor, shell(script, grace="10m", timeout="300ms"), stop=stop)
    with in_thread(lambda: executor.restart(order)) as raised:
        eventually(lambda: mark.exists() and time.monotonic() > order.deadline_s - 9.5)
        stop.set()
    assert [type(error) for error in raised] == [ReadinessTimeout]
    assert processes_of(order.workspace) == []


def test_no_descriptor_and_no_zombie_is_left() -> None:
    def open_now() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    executor.restart(order_for(executor, {"argv": ["true"]}))
    before = open_now()
    executor.restart(order_for(executor, {"argv": ["true"]}))
    for bad in ({"argv": ["no-such-program"]}, shell("exit 3"), shell("sleep 9", timeout="100ms")):
        with pytest.raises(ExecutionError):
            executor.restart(order_for(executor, bad))
    assert open_now() == before
    assert [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE] == []


def test_a_look_that_hangs_can_be_stopped(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    look = {"type": "command", "argv": ["sh", "-c", f": > {mark}; sleep 1000"], "timeout": "30s"}
    order = order_for(executor, {"argv": ["true"], "ready": look})
    with in_thread(lambda: executor.probe(order, Receipt())) as raised:
        eventually(mark.exists)
        order.stop.set()
    assert [type(error) for error in raised] == [ExecutionCancelled]
    assert processes_of(order.workspace) == []


def test_without_ready_it_is_ready_when_done() -> None:
    order = order_for(executor, {"argv": ["true"]})
    assert executor.probe(order, executor.restart(order)) is Readiness.READY
