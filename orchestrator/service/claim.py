"""Claiming: which cycle a free slot starts next. Decided under the row's lock, committed before anything is done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import structlog

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide import is_served, may_start
from orchestrator.domain.policy import Policies, Policy, PolicyPatch
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.serving import Serving
from orchestrator.domain.state import Registration, WorkspaceState
from orchestrator.errors import TimedOut, Unavailable
from orchestrator.ports.executor import Executor
from orchestrator.ports.store import CoreStore, Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import DECIDES, Unit
from orchestrator.service.announce import announce
from orchestrator.service.append import BY_ITSELF, carry_out
from orchestrator.service.passed_over import Lost

_log = structlog.get_logger("orchestrator")

_PAGE = 50


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A cycle that this worker has started and must end. ``shadow`` ones are over already."""

    state: WorkspaceState
    started: ev.CycleStarted
    policy: Policy


class Refusal(Enum):
    """Why a workspace that looked ready was not claimed."""

    NOT_READY = "not_ready"
    NOT_SERVED = "not_served"
    """It is another worker's: this one has not its executor, or is not in its pool."""
    BUSY = "busy"
    """Another transaction holds its row."""
    FLEET_FULL = "fleet_full"
    ALL_FULL = "all_full"
    DEFECT = "defect"
    """Its decision raised; that is logged."""
    SLOW = "slow"
    """The database ended what was asked of it, as it took too long; that is logged."""


@dataclass
class _Search:
    """What one search has found out: full fleets, and the workspaces that were refused."""

    full: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    busy: list[str] = field(default_factory=list)


class Claimer:
    """Starts cycles in the name of one worker. ``running_most`` bounds the cycles of all workers together."""

    def __init__(
        self,
        *,
        store: CoreStore,
        executors: Mapping[str, Executor],
        ids: Ids,
        worker: str,
        running_most: int | None,
        serving: Serving,
    ) -> None:
        self._store, self._executors, self._ids, self._serving = store, executors, ids, serving
        self._worker, self._running_most = worker, running_most
        self._lost = Lost()

    def claim_oldest(self, last: str = "", iteration: int = 0) -> Claim | None:
        """Start the cycle that has waited longest; pass over fleets that are full, and rows that others hold.

        Where nothing may start that costs one statement, however much waits for its fleet. Rows that others hold are
        waited for where nothing else could be started. ``last`` is the workspace that the caller has drained,
        ``iteration`` times, before this. Raises ``StorageUnavailable``: what may have been claimed is rescued.
        """

        def iteration_of(workspace: str) -> int:
            return iteration + 1 if workspace == last else 1

        search = _Search(refused=self._lost.slow.resting())
        while ready := self._ready(search):
            for workspace in ready:
                found = self._claim(workspace, iteration_of(workspace), skip_locked=True)
                if isinstance(found, Claim):
                    return found
                if found[0] is Refusal.ALL_FULL:
                    return None
                self._note(search, workspace, *found)
                if found[0] is Refusal.FLEET_FULL:
                    break  # the next page leaves the whole fleet out
        held_long = self._lost.held.resting()
        for workspace in [name for name in search.busy if name not in held_long]:
            found = self._claim(workspace, iteration_of(workspace), skip_locked=False)
            if isinstance(found, Claim):
                return found
        return None

    def _ready(self, search: _Search) -> list[str]:
        with self._store.read() as reader:
            found = reader.ready_workspaces(
                _PAGE + len(search.refused),
                except_fleets=search.full,
                serving=self._serving,
                running_most=self._running_most,
            )
        return [name for name in found if name not in search.refused]

    def _note(self, search: _Search, workspace: str, refusal: Refusal, fleet: str) -> None:
        search.refused.add(workspace)
        if refusal is Refusal.BUSY:
            search.busy.append(workspace)
        if refusal is Refusal.FLEET_FULL:
            search.full.add(fleet)

    def _claim(self, workspace: str, iteration: int, *, skip_locked: bool) -> Claim | tuple[Refusal, str]:
        """Start a cycle of ``workspace``, or say why not, and in which fleet it is."""
        started_s = time.monotonic()
        try:
            return self._start(workspace, iteration, skip_locked=skip_locked)
        except TimedOut as error:
            lost = self._lost.slow if skip_locked else self._lost.held
            lost.add(workspace, took_s=time.monotonic() - started_s)
            _log.warning("claim.passed_over", workspace=workspace, error=str(error))
            return Refusal.SLOW, ""
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 (one workspace's defect must not keep a slot from every other one)
            _log.exception("claim.failed", workspace=workspace)
            return Refusal.DEFECT, ""

    def _start(self, workspace: str, iteration: int, *, skip_locked: bool) -> Claim | tuple[Refusal, str]:

        def step(tx: Transaction) -> tuple[Claim | tuple[Refusal, str], list[ev.Recorded]]:
            return self._start_held(tx, workspace, iteration)

        unit = Unit(
            name="claim",
            workspaces=(workspace,),
            step=step,
            asked=DECIDES,
            passes_over=skip_locked,
            hurried=True,
        )
        found, recorded = self._store.commit(unit)
        announce(recorded)
        return found

    def _start_held(
        self, tx: Transaction, workspace: str, iteration: int
    ) -> tuple[Claim | tuple[Refusal, str], list[ev.Recorded]]:
        stored = tx.workspace(workspace)
        if stored is None:
            return (Refusal.BUSY, ""), []
        state, registration = stored.state, stored.state.registration
        policies = tx.policies()
        policy = policy_in_force(state, policies)
        if registration is None or not is_served(state, self._serving):
            return (Refusal.NOT_SERVED, ""), []
        if not may_start(state, policy, tx.now, cmd.UNBOUNDED):
            return (Refusal.NOT_READY, ""), []
        capacity = self._capacity(tx, registration, policy)
        if not may_start(state, policy, tx.now, capacity):
            return (self._full(registration, policies, capacity), registration.fleet), []
        command = self._start_command(tx, state, registration, iteration, capacity)
        after, recorded = carry_out(tx, state, command, BY_ITSELF, self._ids, policies)
        started = recorded[0].data if recorded else None
        if not isinstance(started, ev.CycleStarted):
            return (Refusal.NOT_READY, ""), recorded
        return Claim(state=after, started=started, policy=policy), recorded

    def _capacity(self, tx: Transaction, registration: Registration, policy: Policy) -> cmd.Capacity:
        if self._running_most is None and policy.max_concurrent is None:
            return cmd.UNBOUNDED
        running = tx.running(registration.fleet)
        return cmd.Capacity(running=running.total, running_most=self._running_most, running_in_fleet=running.in_fleet)

    def _full(self, registration: Registration, policies: Policies, capacity: cmd.Capacity) -> Refusal:
        """Say what is full. A bound that is the workspace's own says nothing of the others in its fleet."""
        if capacity.running_most is not None and capacity.running >= capacity.running_most:
            return Refusal.ALL_FULL
        most = policies.in_force(registration.fleet, PolicyPatch()).max_concurrent
        return Refusal.FLEET_FULL if most is not None and capacity.running_in_fleet >= most else Refusal.NOT_READY

    def _start_command(
        self, tx: Transaction, state: WorkspaceState, registration: Registration, iteration: int, capacity: cmd.Capacity
    ) -> cmd.StartCycle:
        executor, restart = self._executors.get(registration.executor), state.restart
        if restart is not None and restart.to_position == state.last_position:
            files = restart.files
        else:
            files = tx.count_paths(state.workspace, state.from_position, state.last_position, state.waits_since)
        return cmd.StartCycle(
            cycle_id=self._ids.new("cyc"),
            worker=self._worker,
            iteration=iteration,
            files=files,
            fenced=executor.fenced if executor else False,
            capacity=capacity,
            serving=self._serving,
        )
