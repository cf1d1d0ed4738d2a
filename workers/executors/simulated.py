"""Executor ``simulated``: restarts nothing, plays a script of delays, failures and hangs, and records each act."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import ExecutionError, PermanentError, TransientError, UnknownOutcome
from orchestrator.ports.executor import Order, Readiness, Receipt
from workers.executors import target_fields as fields
from workers.executors.act_ledger import ActLedger, FileActLedger, MemoryActLedger
from workers.executors.order_limits import check, wait

_LOCK_LOOK_S = 0.005
_KINDS: dict[str, type[ExecutionError]] = {
    "transient": TransientError,
    "permanent": PermanentError,
    "unknown": UnknownOutcome,
}


class SimulatedExecutor:
    """Acts at once (one line in the ledger), then takes ``delay``, as a restart that tears down first would.

    The first ``fail_first`` acts of a workspace fail with ``error_kind``, the next
    ``hang_first`` hang until the deadline or a stop, all later ones succeed. Acts are counted
    in the ``ledger`` file, so that a killed worker's count too; without one, in this process.
    A fence lower than one that has acted is refused.
    """

    name: str = "simulated"
    fenced: bool = True
    harmless_fields: frozenset[str] = frozenset({"delay", "fail_first", "hang_first", "error_kind"})
    """All but ``ledger``, which is a path."""

    def __init__(self) -> None:
        self._memory = MemoryActLedger()

    def normalise(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``delay``, ``fail_first``, ``hang_first``, ``error_kind``, and ``ledger`` where given."""
        fields.refuse_unknown(target, self.harmless_fields | {"ledger"})
        normal: dict[str, Any] = {
            "delay": fields.duration(target.get("delay", "0s"), "delay"),
            "fail_first": fields.count(target.get("fail_first", 0), "fail_first"),
            "hang_first": fields.count(target.get("hang_first", 0), "hang_first"),
            "error_kind": fields.one_of(target.get("error_kind", "unknown"), _KINDS, "error_kind"),
        }
        if "ledger" in target:
            normal["ledger"] = fields.text(target["ledger"], "ledger")
        return normal

    def inspect(self, order: Order) -> str | None:
        """Return the cycle that acted last on the workspace."""
        return self._ledger(order).last_cycle(order.workspace)

    def restart(self, order: Order) -> Receipt:
        """Act, then do what the script says comes next for this workspace."""
        check(order)
        before = self._ledger(order).act(order, lambda: wait(order, time.monotonic() + _LOCK_LOOK_S))
        return self._play(order, before)

    def probe(self, order: Order, receipt: Receipt) -> Readiness:
        """Return READY: the delay is all that a simulated restart waits for."""
        return Readiness.READY

    def _ledger(self, order: Order) -> ActLedger:
        path = order.target.get("ledger")
        return self._memory if path is None else FileActLedger(path)

    def _play(self, order: Order, before: int) -> Receipt:
        fail_first, hang_first = order.target["fail_first"], order.target["hang_first"]
        if fail_first <= before < fail_first + hang_first:
            wait(order, math.inf)
        wait(order, time.monotonic() + fields.seconds(order.target["delay"]))
        act = before + 1
        if act <= fail_first:
            kind = _KINDS[order.target["error_kind"]]
            raise kind(f"act {act} on {order.workspace!r} fails: its target says fail_first={fail_first}")
        return Receipt(output=f"act {act} on {order.workspace} under fence {order.fence}")
