"""Executor ``process``: the workspace is a child of ``orchestrator up``, ended and started again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.ports.executor import Order, Readiness, Receipt
from workers.executors import target_fields as fields
from workers.executors.bounded_run import RecordedUnder
from workers.executors.order_limits import check
from workers.executors.program_target import PROGRAM_FIELDS, launch_of, normalise_program
from workers.executors.readiness import look, normalise_ready
from workers.supervision.supervisor import ProcessSupervisor

DEFAULT_GRACE = "10s"


class ProcessExecutor:
    """Restarts a workspace's child through the supervisor that owns it."""

    name: str = "process"
    fenced: bool = False

    def __init__(self, supervisor: ProcessSupervisor, under: RecordedUnder | None = None) -> None:
        self._supervisor, self._under = supervisor, under or RecordedUnder()

    def normalise(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``argv``, ``env``, ``grace``, ``ready``, and ``cwd`` where given."""
        fields.refuse_unknown(target, PROGRAM_FIELDS | {"ready"})
        normal = normalise_program(target, default_grace=DEFAULT_GRACE)
        normal["ready"] = normalise_ready(target.get("ready", {}))
        return normal

    def inspect(self, order: Order) -> str | None:
        """Return ``pid:start`` of the child, or None if there is none now."""
        status = self._supervisor.status(order.workspace)
        return None if status is None else status.identity

    def restart(self, order: Order) -> Receipt:
        """End the child with its group and start another; see ``ProcessSupervisor.restart``."""
        check(order)
        stopped = order.stop.is_set
        self._supervisor.restart(order.workspace, launch_of(order), deadline_s=order.deadline_s, stopped=stopped)
        return Receipt(output=f"started as {self.inspect(order) or 'a child that has already ended'}")

    def probe(self, order: Order, receipt: Receipt) -> Readiness:
        """FAILED if the child has ended; else as ``ready`` says.

        With ``ready: none`` a child is ready once it has lived one ``interval``: a program
        that cannot even start (a syntax error) is then seen as failed, not as restarted.
        """
        ready = order.target["ready"]
        check(order)
        before = self._supervisor.status(order.workspace)
        if before is None or not before.is_alive:
            return Readiness.FAILED
        if ready["type"] == "none" and before.lived_s < fields.seconds(ready["interval"]):
            return Readiness.NOT_YET
        seen = look(ready, order, self._under)
        after = self._supervisor.status(order.workspace)
        # A child that could not bind its port dies while whoever holds the port answers the look.
        if after is None or not after.is_alive or after.identity != before.identity:
            return Readiness.FAILED
        return seen
