from __future__ import annotations

import fcntl
import json
import multiprocessing
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import (
    ExecutionCancelled,
    ExecutionError,
    PermanentError,
    ReadinessTimeout,
    TransientError,
    UnknownOutcome,
)
from tests.executors.world import eventually, in_thread, order_for, unique_workspace
from workers.executors.act_ledger import MemoryActLedger
from workers.executors.simulated import SimulatedExecutor

ACT_IN_ANOTHER_PROCESS = """
import sys, threading, time
from orchestrator.ports.executor import Order
from workers.executors.simulated import SimulatedExecutor
ledger, workspace, acts = sys.argv[1], sys.argv[2], int(sys.argv[3])
executor = SimulatedExecutor()
target = executor.normalise({"ledger": ledger, "delay": sys.argv[4]})
for number in range(acts):
    executor.restart(Order(workspace=workspace, restart="r", cycle=f"c{number}", fence=1, target=target, reason="",
                           deadline_s=time.monotonic() + 60, stop=threading.Event()))
"""


def another_process(ledger: Path, workspace: str, acts: int, delay: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", ACT_IN_ANOTHER_PROCESS, str(ledger), workspace, str(acts), delay])


def acts_in(ledger: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []


def test_an_act_is_one_line_with_a_utc_instant(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.ndjson"
    executor = SimulatedExecutor()
    order = order_for(executor, {"ledger": str(ledger)})
    executor.restart(order)
    (act,) = acts_in(ledger)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", act.pop("at"))
    assert act == {"workspace": order.workspace, "cycle": order.cycle, "fence": order.fence}
    assert executor.inspect(order) == order.cycle


def test_the_act_comes_before_the_delay(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.ndjson"
    executor = SimulatedExecutor()
    order = order_for(executor, {"ledger": str(ledger), "delay": "30s"}, within_s=60)
    with in_thread(lambda: executor.restart(order)) as raised:
        eventually(lambda: len(acts_in(ledger)) == 1)
        order.stop.set()
    assert [type(error) for error in raised] == [ExecutionCancelled]


@pytest.mark.parametrize("in_file", [True, False])
def test_failures_then_hangs_then_success(tmp_path: Path, in_file: bool) -> None:
    workspace = unique_workspace()
    executor = SimulatedExecutor()
    target: dict[str, Any] = {"fail_first": 2, "hang_first": 1}
    if in_file:
        target["ledger"] = str(tmp_path / "ledger.ndjson")

    def outcome() -> type[ExecutionError] | None:
        try:
            executor.restart(order_for(executor, target, workspace=workspace, within_s=0.2))
        except ExecutionError as error:
            return type(error)
        return None

    assert [outcome() for _ in range(5)] == [UnknownOutcome, UnknownOutcome, ReadinessTimeout, None, None]
    executor.restart(order_for(executor, {"delay": 0}))  # another workspace counts for itself


@pytest.mark.parametrize(
    ("error_kind", "raised"),
    [("transient", TransientError), ("permanent", PermanentError), ("unknown", UnknownOutcome)],
)
def test_error_kind(error_kind: str, raised: type[ExecutionError]) -> None:
    executor = SimulatedExecutor()
    with pytest.raises(ExecutionError, match="fail_first=1") as failure:
        executor.restart(order_for(executor, {"fail_first": 1, "error_kind": error_kind}))
    assert type(failure.value) is raised


@pytest.mark.parametrize("in_file", [True, False])
def test_a_lower_fence_is_refused_and_is_no_act(tmp_path: Path, in_file: bool) -> None:
    ledger = tmp_path / "ledger.ndjson"
    executor = SimulatedExecutor()
    target = {"ledger": str(ledger)} if in_file else {}
    workspace = unique_workspace()
    winner = order_for(executor, target, workspace=workspace, fence=8)
    executor.restart(winner)
    with pytest.raises(PermanentError, match=r"fence 7 .* fence 8"):
        executor.restart(order_for(executor, target, workspace=workspace, fence=7))
    assert executor.inspect(winner) == winner.cycle
    executor.restart(order_for(executor, target, workspace=workspace, fence=8))  # tried again inside the cycle
    executor.restart(order_for(executor, target, fence=1))  # another workspace has fences of its own
    assert not in_file or [act["fence"] for act in acts_in(ledger)] == [8, 8, 1]


def test_a_killed_workers_acts_count(tmp_path: Path) -> None:
    ledger, workspace = tmp_path / "ledger.ndjson", unique_workspace()
    with another_process(ledger, workspace, 1, "1h") as victim:
        eventually(lambda: len(acts_in(ledger)) == 1)
        victim.kill()
    executor = SimulatedExecutor()
    executor.restart(order_for(executor, {"ledger": str(ledger), "fail_first": 1}, workspace=workspace))


def test_threads_and_processes_share_a_ledger_without_a_torn_line(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.ndjson"
    executor = SimulatedExecutor()
    with another_process(ledger, "other", 40, "0s") as other:
        orders = [order_for(executor, {"ledger": str(ledger)}, workspace="mine", fence=1) for _ in range(40)]
        with ThreadPoolExecutor(4) as pool:
            receipts = list(pool.map(executor.restart, orders))
        assert other.wait(20) == 0
    assert {receipt.output for receipt in receipts} == {f"act {n} on mine under fence 1" for n in range(1, 41)}
    assert sorted(act["workspace"] for act in acts_in(ledger)) == ["mine"] * 40 + ["other"] * 40


def hold_lock(path: str, held: Any) -> None:
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        held.set()
        threading.Event().wait(60)


def test_a_frozen_holder_of_the_lock_does_not_hold_up_a_stop_or_the_deadline(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.ndjson"
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    holder = context.Process(target=hold_lock, args=(str(ledger), held))
    holder.start()
    try:
        assert held.wait(20)
        executor = SimulatedExecutor()
        order = order_for(executor, {"ledger": str(ledger)}, within_s=0.2)
        with pytest.raises(ReadinessTimeout):
            executor.restart(order)
        assert time.monotonic() - order.deadline_s < 1
        assert acts_in(ledger) == []
    finally:
        holder.kill()
        holder.join()


def test_a_ledger_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    executor = SimulatedExecutor()
    with pytest.raises(PermanentError, match="no-such-folder/ledger"):
        executor.restart(order_for(executor, {"ledger": str(tmp_path / "no-such-folder/ledger")}))
    broken = tmp_path / "broken"
    broken.write_text('{"workspace": "ws", "cyc')
    with pytest.raises(PermanentError, match=r"line 1 .* move the file away"):
        executor.restart(order_for(executor, {"ledger": str(broken)}, workspace="ws"))


def test_names_that_contain_each_other_are_not_mixed_up(tmp_path: Path) -> None:
    executor = SimulatedExecutor()
    target = {"ledger": str(tmp_path / "ledger")}
    orders = {name: order_for(executor, target, workspace=name) for name in ("ws", "ws-1", "s")}
    for order in orders.values():
        executor.restart(order)
    assert {name: executor.inspect(order) for name, order in orders.items()} == {
        name: order.cycle for name, order in orders.items()
    }


def test_memory_is_bounded() -> None:
    ledger = MemoryActLedger(most=3)
    executor = SimulatedExecutor()
    for name in ("a", "b", "c", "a", "d"):
        ledger.act(order_for(executor, {}, workspace=name), lambda: None)
    assert [ledger.last_cycle(name) is not None for name in "abcd"] == [True, False, True, True]
