"""The drain loop: a slot claims the workspace that has waited longest, runs its cycle, records its end, and goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.serving import Serving
from orchestrator.domain.state import Registration
from orchestrator.errors import RolledBack, Unavailable
from orchestrator.ports.executor import Executor, Order
from orchestrator.ports.store import CoreStore, Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import DECIDES, Unit
from orchestrator.service.announce import announce
from orchestrator.service.claim import Claim, Claimer
from orchestrator.service.cycle_end import CycleEnd, Result, end_held
from orchestrator.service.earlier_cycles import earlier_cycles
from orchestrator.service.execute import Cancelled, Secrets, execute
from orchestrator.service.lease import HeldLease, LeaseBook
from orchestrator.service.shared_claims import SharedClaims

_log = structlog.get_logger("orchestrator")

_RECORD_AGAIN_S = 0.5
_RECORD_AT_STOP_S = 5.0
"""How long cycles that were cancelled may take to end and to be recorded."""
_HUNG_AFTER_S = 30.0
"""An executor that is still at work so long after its deadline hangs; its lease is left to run out."""


class Slots:
    """How many cycles a process runs at once."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """Return how many more cycles may start."""
        return self._free

    def take(self) -> bool:
        """Take a slot if one is free, without waiting: a tick must never wait behind a restart."""
        with self._lock:
            if self._free == 0:
                return False
            self._free -= 1
            return True

    def give_back(self) -> None:
        """Give a slot back."""
        with self._lock:
            self._free += 1


class Drainer:
    """The worker's side of the product, shared by all its slots."""

    def __init__(
        self,
        *,
        store: CoreStore,
        executors: Mapping[str, Executor],
        ids: Ids,
        worker: str,
        slots: int,
        jitter: Callable[[], float],
        running_most: int | None = None,
        serving: Serving | None = None,
    ) -> None:
        """``serving``: what this worker serves; None: the executors it has, in the pool ``default``."""
        self._store, self._executors, self._ids = store, executors, ids
        self.worker, self._jitter = worker, jitter
        self.running_most = running_most
        self.serving = serving or Serving(executors=frozenset(executors))
        self._claimer = Claimer(
            store=store, executors=executors, ids=ids, worker=worker, running_most=running_most, serving=self.serving
        )
        self.leases = LeaseBook()
        self._claims = SharedClaims(self._claimer, lambda end: self.leases.drop(end.lease))
        self.slots = Slots(slots)
        self.after_cycles: Callable[[], None] = lambda: None
        """Called by a slot that ran cycles, once it is free: what came meanwhile may be due before the next tick."""
        self.secrets: Secrets = lambda target: ()
        """What nobody may learn of what an executor says."""
        self._stopping, self._closed = False, threading.Event()
        self._idle = threading.Condition()
        self._busy = 0

    def drain(self) -> int:
        """Take a slot, or return; then run cycle after cycle, oldest due first, while one is due.

        Returns how many cycles were started. Which workspace rang does not matter: the database says
        which has waited longest. While the database is away nothing is started; the next bell tries again.
        """
        return self._drain_in_slot() if self.reserve(1) else 0

    def reserve(self, most: int) -> int:
        """Take up to so many free slots without waiting; return how many. None once we stop."""
        taken = 0
        with self._idle:
            while taken < most and not self._stopping and self.slots.take():
                taken += 1
            self._busy += taken
        return taken

    def start_held(self, tx: Transaction, workspace: str) -> tuple[Claim | None, list[ev.Recorded]]:
        """Start a cycle of a workspace that the transaction holds, if it may start here and now."""
        found, recorded = self._claimer.start_held(tx, workspace, 1)
        return (found if isinstance(found, Claim) else None), recorded

    def go_on(self, claims: Sequence[Claim], *, reserved: int) -> None:
        """Carry the claims out in slots that were reserved, each in a thread of its own; give the others back."""
        for claim in claims:
            self._begin(claim)
        self._give_back(reserved - len(claims))

    def take_up(self, most: int) -> None:
        """Have up to so many free slots drain, each in a thread of its own."""
        for _ in range(self.reserve(most)):
            self._begin(None)

    def _begin(self, claim: Claim | None) -> None:
        try:
            threading.Thread(target=partial(self._drain_in_slot, claim), name="slot", daemon=True).start()
        except RuntimeError as error:  # no more threads: the lease of what is claimed runs out, and the slot is free
            _log.error("slot.not_begun", workspace=claim.state.workspace if claim else None, error=str(error))
            self._give_back(1)

    def _drain_in_slot(self, claim: Claim | None = None) -> int:
        try:
            cycles = self._drain(claim)
        finally:
            self._give_back(1)
        if cycles:
            self.after_cycles()
        return cycles

    def _give_back(self, slots: int) -> None:
        for _ in range(slots):
            self.slots.give_back()
        with self._idle:
            self._busy -= slots
            self._idle.notify_all()

    def _drain(self, claim: Claim | None) -> int:
        """Run ``claim``, if there is one, and then cycle after cycle while one is due."""
        cycles, iteration, last = 0, 0, ""
        while True:
            end = None
            if claim is not None:
                cycles += 1
                iteration, last = claim.started.iteration, claim.state.workspace
                end = self._carry_out(claim)
            try:
                claim = self._next(last, iteration, end)
            except Unavailable as error:
                _log.warning("drain.skipped", error=str(error))
                break
            if claim is None:
                break
        return cycles

    def _carry_out(self, claim: Claim) -> CycleEnd | None:
        return None if claim.started.shadow else self._run(claim)

    def _next(self, last: str, iteration: int, end: CycleEnd | None) -> Claim | None:
        """Record the end of this slot's cycle, if there is one, and return what it has started after that."""
        claim = None
        if end is not None:
            try:
                claim = self._end(end, iteration)
            finally:
                self.leases.drop(end.lease)
        if claim is None and not self._stopping:
            claim = self._claims.next(last, iteration)
        return claim

    def _end(self, end: CycleEnd, iteration: int) -> Claim | None:
        """Record an end, and return a cycle that was started in the same commit, if one was."""
        if self._stopping:
            self._record(end)
            return None
        handed = self._claims.hand_over(end, iteration)
        if not handed.is_recorded:
            self._record(end, handed.failed)
        return handed.claim

    def stop_claiming(self) -> None:
        """Claim nothing more. Takes no lock: a signal handler may call it."""
        self._stopping = True

    def stop(self, *, grace_s: float) -> None:
        """Claim nothing more, give running cycles ``grace_s``, then cancel them and wait for their end.

        Takes at most ``grace_s`` and 5 s; what has not been recorded by then is left to the lease.
        """
        self._stopping = True
        if not self._wait_idle(grace_s):
            _log.warning("worker.cancelling", cycles=[lease.cycle for lease in self.leases.held()])
            self.cancel()
            self._wait_idle(_RECORD_AT_STOP_S)
        self._closed.set()

    def cancel(self) -> None:
        """Tell every running cycle to end now."""
        self._stopping = True
        self.leases.stop_all()

    def _wait_idle(self, timeout_s: float) -> bool:
        with self._idle:
            return self._idle.wait_for(lambda: self._busy == 0, timeout=timeout_s)

    def _run(self, claim: Claim) -> CycleEnd:
        """Carry out a cycle and return its end, whose lease is still held."""
        started = claim.started
        lease = HeldLease(
            workspace=claim.state.workspace,
            cycle=started.cycle,
            fence=started.fence,
            lease_ms=claim.policy.lease_ms,
            stop=threading.Event(),
            renew_until_s=time.monotonic() + claim.policy.cycle_timeout_ms / 1000 + _HUNG_AFTER_S,
        )
        self.leases.take(lease)
        try:
            if self._stopping:  # a stop that came after the claim has not seen this lease
                lease.stop.set()
            result = self._execute(claim, lease)
        except BaseException:
            self.leases.drop(lease)
            raise
        if isinstance(result, Cancelled) and not self._stopping:
            result = _lost(lease)
        return CycleEnd(workspace=claim.state.workspace, started=started, result=result, lease=lease)

    def _execute(self, claim: Claim, lease: HeldLease) -> Result:
        registration = claim.state.registration
        executor = self._executors[registration.executor if registration else ""]  # a claim asks for it
        order = Order(
            workspace=claim.state.workspace,
            restart=claim.started.restart,
            cycle=claim.started.cycle,
            fence=claim.started.fence,
            target=_target_of(registration),
            reason=f"{claim.started.writes} writes to {claim.started.files} files",
            deadline_s=lease.renew_until_s - _HUNG_AFTER_S,
            stop=lease.stop,
            kind=claim.started.kind.value,
            to_position=claim.started.to_position,
            earlier=earlier_cycles(self._store, claim),
        )
        return execute(executor, order, self._jitter, self.secrets)

    def _record(self, end: CycleEnd, failed: BaseException | None = None) -> None:
        """Record the end of a cycle; while the database is away, try again until it is back or we are closed.

        If we are closed before it is back, the lease passes and the cycle is rescued elsewhere. ``failed``: with what
        an earlier try has failed, along with others' ends and starts.
        """
        tried = failed is not None and not isinstance(failed, RolledBack)
        if failed is not None:
            _log.warning("cycle.end_not_recorded", cycle=end.started.cycle, error=str(failed))
        if tried and isinstance(failed, Unavailable) and self._closed.wait(_RECORD_AGAIN_S):
            return
        while True:
            try:
                if not (tried and self._is_recorded(end)):
                    self._finish(end)
                return
            except Unavailable as error:
                _log.warning("cycle.end_not_recorded", cycle=end.started.cycle, error=str(error))
            except Exception:  # noqa: BLE001 (trying again would not help; the lease passes, the slot goes on)
                _log.exception("cycle.end_not_recorded", workspace=end.workspace, cycle=end.started.cycle)
                return
            if self._closed.wait(_RECORD_AGAIN_S):
                return
            tried = True

    def _is_recorded(self, end: CycleEnd) -> bool:
        """Say whether an earlier try was committed and only its answer lost.

        Recorded once more, a cycle that ended in time would be told to have come too late.
        """
        with self._store.read() as reader:
            return any(end.is_own(event.data) for event in reader.events(end.records()))

    def _finish(self, end: CycleEnd) -> None:
        def step(tx: Transaction) -> list[ev.Recorded]:
            return end_held(tx, end, self._ids) or []  # without a row there is nothing that could end

        unit = Unit(name="finish", workspaces=(end.workspace,), step=step, asked=DECIDES, hurried=True)
        announce(self._store.commit(unit))


def _target_of(registration: Registration | None) -> dict[str, Any]:
    """Return what the executor acts on; the pool says who acts, and is nothing to it."""
    target = dict(registration.target) if registration else {}
    target.pop("pool", None)
    return target


def _lost(lease: HeldLease) -> cmd.Failure:
    """Return the end of a cycle that was told to stop though nobody stops: it counts towards ``max_attempts``."""
    if time.monotonic() > lease.renew_until_s:
        text = "the executor had not come back long after cycle_timeout"
        return cmd.Failure(error_kind=ev.ErrorKind.TIMEOUT, message=text, jitter=0.0)
    return cmd.Failure(error_kind=ev.ErrorKind.UNKNOWN, message="the lease was lost at work", jitter=0.0)
