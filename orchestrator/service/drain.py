"""The drain loop: a slot claims the workspace that has waited longest, runs its cycle, records its end, and goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide import may_start
from orchestrator.domain.policy import Policy
from orchestrator.domain.state import WorkspaceState
from orchestrator.errors import InvalidInput, Unavailable
from orchestrator.ports import EventStore, Executor, Ids, Order, Transaction
from orchestrator.service.announce import announce
from orchestrator.service.append import Author, carry_out, policy_of
from orchestrator.service.execute import Cancelled, execute
from orchestrator.service.lease import HeldLease, LeaseBook
from orchestrator.service.tick import fold_if_due

_log = structlog.get_logger("orchestrator")

_PAGE = 50
_RECORD_AGAIN_S = 0.5
_RECORD_AGAIN_MOST_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A cycle that this worker has started and must end. ``shadow`` ones are over already."""

    state: WorkspaceState
    started: ev.CycleStarted
    policy: Policy


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
        store: EventStore,
        executors: Mapping[str, Executor],
        ids: Ids,
        worker: str,
        slots: int,
        jitter: Callable[[], float],
        running_most: int | None = None,
    ) -> None:
        self._store, self._executors, self._ids = store, executors, ids
        self.worker, self._jitter, self._running_most = worker, jitter, running_most
        self.slots = Slots(slots)
        self.leases = LeaseBook()
        self._stopping = threading.Event()
        self._idle = threading.Condition()
        self._busy = 0

    def drain(self) -> int:
        """Take a slot, or return; then run cycle after cycle, oldest due first, while one is due.

        Returns how many cycles were started. Which workspace rang does not matter: the database says
        which has waited longest.
        """
        if self._stopping.is_set() or not self.slots.take():
            return 0
        with self._idle:
            self._busy += 1
        try:
            return self._drain()
        finally:
            self.slots.give_back()
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def _drain(self) -> int:
        cycles, iteration, last = 0, 0, ""
        while not self._stopping.is_set():
            claim = self._claim_oldest(last, iteration)
            if claim is None:
                break
            iteration, last = claim.started.iteration, claim.state.workspace
            cycles += 1
            if not claim.started.shadow:
                self._run(claim)
        return cycles

    def stop(self, *, grace_s: float) -> None:
        """Claim nothing more, give running cycles ``grace_s``, then cancel them and wait for their end."""
        self._stopping.set()
        if not self._wait_idle(grace_s):
            _log.warning("worker.cancelling", cycles=[lease.cycle for lease in self.leases.held()])
            self.cancel()
            self._wait_idle(_RECORD_AGAIN_MOST_S)

    def cancel(self) -> None:
        """Tell every running cycle to end now."""
        self._stopping.set()
        self.leases.stop_all()

    def _wait_idle(self, timeout_s: float) -> bool:
        with self._idle:
            return self._idle.wait_for(lambda: self._busy == 0, timeout=timeout_s)

    def _claim_oldest(self, last: str, iteration: int) -> Claim | None:
        """Start the cycle that has waited longest; pass over fleets that are full."""
        full: set[str] = set()
        refused: set[str] = set()
        while True:
            with self._store.read() as reader:
                ready = [name for name in reader.ready_workspaces(_PAGE, except_fleets=full) if name not in refused]
            if not ready:
                return None
            for workspace in ready:
                claim = self._claim(workspace, iteration + 1 if workspace == last else 1)
                if isinstance(claim, Claim):
                    return claim
                refused.add(workspace)
                if claim is not None:
                    full.add(claim)

    def _claim(self, workspace: str, iteration: int) -> Claim | str | None:
        """Start a cycle of ``workspace``; return the claim, or the name of its fleet if that is full."""
        with self._store.write([workspace], skip_locked=True) as tx:
            stored = tx.workspace(workspace)
            if stored is None or stored.state.registration is None:
                return None
            policies = tx.policies()
            state, policy = stored.state, policy_of(stored.state, policies)
            command = self._start_command(tx, state, policy, iteration)
            if not may_start(state, policy, tx.now, command.capacity):
                free = may_start(state, policy, tx.now, cmd.Capacity())
                return stored.state.registration.fleet if free else None
            after, recorded = carry_out(tx, state, command, Author(), self._ids, policies)
        announce(recorded)
        started = recorded[0].data
        return Claim(state=after, started=started, policy=policy) if isinstance(started, ev.CycleStarted) else None

    def _start_command(self, tx: Transaction, state: WorkspaceState, policy: Policy, iteration: int) -> cmd.StartCycle:
        registration, restart = state.registration, state.restart
        executor = self._executors.get(registration.executor) if registration else None
        grown = restart is None or restart.to_position != state.last_position
        capacity = cmd.Capacity()
        if self._running_most is not None or policy.max_concurrent is not None:
            running = tx.running(registration.fleet if registration else "")
            capacity = cmd.Capacity(
                running=running.total, running_most=self._running_most, running_in_fleet=running.in_fleet
            )
        return cmd.StartCycle(
            cycle_id=self._ids.new("cyc"),
            worker=self.worker,
            iteration=iteration,
            files=tx.count_paths(state.workspace, state.from_position, state.last_position)
            if grown or restart is None
            else restart.files,
            fenced=executor.fenced if executor else False,
            capacity=capacity,
        )

    def _run(self, claim: Claim) -> None:
        started = claim.started
        lease = HeldLease(
            workspace=claim.state.workspace,
            cycle=started.cycle,
            fence=started.fence,
            lease_ms=claim.policy.lease_ms,
            stop=threading.Event(),
        )
        self.leases.take(lease)
        try:
            if self._stopping.is_set():
                lease.stop.set()
            result = self._execute(claim, lease)
            self._record(claim, result)
        finally:
            self.leases.drop(lease)

    def _execute(self, claim: Claim, lease: HeldLease) -> cmd.Success | cmd.Failure | Cancelled:
        registration = claim.state.registration
        name = registration.executor if registration else ""
        executor = self._executors.get(name)
        if executor is None:
            text = f"worker {self.worker} has no executor {name!r}; install its plug-in, or change the workspace"
            return cmd.Failure(error_kind=ev.ErrorKind.PERMANENT, message=text, jitter=0.0)
        try:  # an executor may know more fields than the version that stored the target
            target = executor.normalise(registration.target if registration else {})
        except InvalidInput as error:
            return cmd.Failure(error_kind=ev.ErrorKind.PERMANENT, message=str(error), jitter=0.0)
        order = Order(
            workspace=claim.state.workspace,
            restart=claim.started.restart,
            cycle=claim.started.cycle,
            fence=claim.started.fence,
            target=target,
            reason=f"{claim.started.writes} writes to {claim.started.files} files",
            deadline_s=time.monotonic() + claim.policy.cycle_timeout_ms / 1000,
            stop=lease.stop,
        )
        return execute(executor, order, self._jitter)

    def _record(self, claim: Claim, result: cmd.Success | cmd.Failure | Cancelled) -> None:
        """Record the end of a cycle; while the database is away, try again until it is back or we stop.

        If we stop before it is back, the lease passes and the cycle is rescued elsewhere.
        """
        wait_s = _RECORD_AGAIN_S
        while True:
            try:
                self._finish(claim, result)
                return
            except Unavailable as error:
                _log.warning("cycle.end_not_recorded", cycle=claim.started.cycle, error=str(error), again_in_s=wait_s)
                if self._stopping.wait(wait_s):
                    return
                wait_s = min(wait_s * 2, _RECORD_AGAIN_MOST_S)

    def _finish(self, claim: Claim, result: cmd.Success | cmd.Failure | Cancelled) -> None:
        started, workspace = claim.started, claim.state.workspace
        command: cmd.FinishCycle | cmd.ShutDownCycle
        if isinstance(result, Cancelled):
            command = cmd.ShutDownCycle(restart=started.restart, cycle=started.cycle, fence=started.fence)
        else:
            command = cmd.FinishCycle(restart=started.restart, cycle=started.cycle, fence=started.fence, result=result)
        with self._store.write([workspace]) as tx:
            stored = tx.workspace(workspace)
            if stored is None:
                return
            state, ended = carry_out(tx, stored.state, command, Author(), self._ids, tx.policies())
            _, folded = fold_if_due(tx, state, self._ids)
        announce([*ended, *folded])
