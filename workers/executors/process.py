"""Executor ``process``: the workspace is a child of ``orchestrator up``, ended and started again."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import ExecutionCancelled, InvalidTarget, PermanentError, ReadinessTimeout, UnknownOutcome
from orchestrator.ports.executor import Order, Readiness, Receipt
from workers.executors import target_fields as fields
from workers.executors.bounded_run import RecordedUnder
from workers.executors.order_limits import check, wait
from workers.executors.program_target import PROGRAM_FIELDS, launch_of, normalise_program
from workers.executors.readiness import look, normalise_ready
from workers.supervision.child import ChildEnd
from workers.supervision.launch import Launch
from workers.supervision.supervisor import ProcessSupervisor

DEFAULT_GRACE = "10s"
STDIN = ("null", "inherit")
RELOAD = "reload"

_OWN_FIELDS = frozenset({"ready", "once", "stdin", "reload_signal"})
_LOOK_S = 0.05


class ProcessExecutor:
    """Restarts a workspace's child through the supervisor that owns it."""

    name: str = "process"
    fenced: bool = False

    def __init__(self, supervisor: ProcessSupervisor, under: RecordedUnder | None = None) -> None:
        self._supervisor, self._under = supervisor, under or RecordedUnder()

    def normalise(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``argv``, ``env``, ``grace``, ``ready``; ``cwd``, ``stop_signal``, ``once``, ``stdin`` (``inherit``)
        and ``reload_signal`` only where they say something.
        """
        fields.refuse_unknown(target, PROGRAM_FIELDS | _OWN_FIELDS)
        normal = normalise_program(target, default_grace=DEFAULT_GRACE)
        normal["ready"] = normalise_ready(target.get("ready", {}))
        if fields.flag(target.get("once", False), "once"):
            normal["once"] = True
        if fields.one_of(target.get("stdin", STDIN[0]), STDIN, "stdin") != STDIN[0]:
            normal["stdin"] = target["stdin"]
        if target.get("reload_signal") is not None:
            normal["reload_signal"] = fields.signal_name(target["reload_signal"], "reload_signal")
        _refuse_contradictions(normal)
        return normal

    def inspect(self, order: Order) -> str | None:
        """Return ``pid:start`` of the child, or None if there is none now."""
        status = self._supervisor.status(order.workspace)
        return None if status is None else status.identity

    def restart(self, order: Order) -> Receipt:
        """End the child with its group and start another; see ``ProcessSupervisor.restart``.

        With ``once``, wait for its end too: only exit code 0 is good. A reload sends the child its ``reload_signal``.
        """
        check(order)
        if order.kind == RELOAD:
            return self._reload(order)
        receipt = self._start(order)
        return self._run_to_end(order) if order.target.get("once") else receipt

    def start(self, order: Order) -> Receipt:
        """Do the same without waiting for anything: the first start, which is no cycle."""
        return self._start(order)

    def _start(self, order: Order) -> Receipt:
        stopped = order.stop.is_set
        done = self._supervisor.restart(
            order.workspace, _launch_of(order), deadline_s=order.deadline_s, stopped=stopped
        )
        said = f"started as {self.inspect(order) or 'a child that has already ended'}"
        if done.escaped:
            said += f"; ended too, though it had left the old child's group: {', '.join(done.escaped)}"
        return Receipt(output=said)

    def _run_to_end(self, order: Order) -> Receipt:
        while (end := self._supervisor.first_end(order.workspace)) is None:
            self._refuse_if_closed(order)
            try:
                wait(order, time.monotonic() + _LOOK_S)
            except (ExecutionCancelled, ReadinessTimeout):
                self._supervisor.stop(order.workspace)
                raise
        self._refuse_if_closed(order)
        if end.exit_code != 0:
            raise UnknownOutcome(f"command {order.target['argv'][0]!r} ended with {end.said} after {end.lived_s:.1f} s")
        return Receipt(output=f"ended with exit code 0 after {end.lived_s:.1f} s")

    def _reload(self, order: Order) -> Receipt:
        name = order.target.get("reload_signal")
        if name is None:
            raise PermanentError(
                "a path rule asks for a reload, and this program has no reload_signal: start `up` with "
                "--reload-signal HUP (or what the program reloads on), or let the rule's action be restart"
            )
        before = self._supervisor.signal(order.workspace, fields.signal_number(name))
        if before is None:  # between two starts: what starts next reads its files anyway
            return self._start(order)
        wait(order, min(order.deadline_s, time.monotonic() + _interval_s(order)))
        after = self._supervisor.status(order.workspace)
        if after is None or after.identity != before or not after.is_alive:
            raise UnknownOutcome(f"the program ended on its reload signal {name}: does it handle it?")
        return Receipt(output=f"{name} was sent to {before}, which goes on")

    def probe(self, order: Order, receipt: Receipt) -> Readiness:
        """FAILED if the child has ended; else as ``ready`` says.

        With ``ready: none`` a child is ready once it has lived one ``interval``: a program
        that cannot even start (a syntax error) is then seen as failed, not as restarted; one that has ended with
        exit code 0 by then has done its work.
        """
        ready = order.target["ready"]
        check(order)
        self._refuse_if_closed(order)
        if order.target.get("once") and order.kind != RELOAD:
            return Readiness.READY
        before = self._supervisor.status(order.workspace)
        end = None if order.kind == RELOAD else self._supervisor.first_end(order.workspace)
        if end is not None:
            return self._judge(order, end)
        if before is None:
            return Readiness.FAILED
        if not before.is_alive or (ready["type"] == "none" and before.lived_s < _interval_s(order)):
            return Readiness.NOT_YET  # one that has ended is judged once all of its group has
        seen = look(ready, order, self._under)
        after = self._supervisor.status(order.workspace)
        # A child that could not bind its port dies while whoever holds the port answers the look.
        if after is None or not after.is_alive or after.identity != before.identity:
            return Readiness.FAILED if order.kind == RELOAD else Readiness.NOT_YET  # then judged at the next look
        return seen

    def _judge(self, order: Order, end: ChildEnd) -> Readiness:
        if end.exit_code == 0 and end.lived_s < _launch_of(order).done_within_s:
            return Readiness.READY
        raise UnknownOutcome(
            f"the program ended with {end.said} after {end.lived_s:.1f} s, before it was ready; it is started again "
            "meanwhile (a command that is to end is run with `up --once`)"
        )

    def _refuse_if_closed(self, order: Order) -> None:
        if self._supervisor.is_closed:
            raise ExecutionCancelled(f"the child of {order.workspace!r} is ended: its `up` stops")


def _launch_of(order: Order) -> Launch:
    ready, once = order.target["ready"], bool(order.target.get("once"))
    return dataclasses.replace(
        launch_of(order),
        inherits_stdin=order.target.get("stdin") == "inherit",
        once=once,
        done_within_s=_interval_s(order) if ready["type"] == "none" and not once else 0.0,
    )


def _interval_s(order: Order) -> float:
    return fields.seconds(order.target["ready"]["interval"])


def _refuse_contradictions(normal: Mapping[str, Any]) -> None:
    if not normal.get("once"):
        return
    if normal["ready"]["type"] != "none":
        raise InvalidTarget(
            "target field 'ready': with once a command is done when it ends; leave one out", field="ready"
        )
    if "reload_signal" in normal:
        raise InvalidTarget(
            "target field 'reload_signal': with once nothing runs that could reload", field="reload_signal"
        )
