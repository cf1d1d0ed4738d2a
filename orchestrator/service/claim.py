"""Claiming: which cycle a free slot starts next. Decided under the row's lock, committed before anything is done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

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
from orchestrator.service.cycle_end import CycleEnd, end_held
from orchestrator.service.passed_over import Lost

_log = structlog.get_logger("orchestrator")

_LOOKED_AT_LEAST = 8
"""So many ready workspaces are looked at, however few are wanted: some may be refused."""


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


Claimed = Claim | tuple[Refusal, str]
"""A cycle, or why there is none and in which fleet."""
NO_ITERATIONS: Mapping[str, int] = MappingProxyType({})


@dataclass
class _Search:
    """What one search has started and found out: full fleets, and the workspaces that were refused."""

    iterations: Mapping[str, int]
    claims: list[Claim] = field(default_factory=list)
    is_all_full: bool = False
    full: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    busy: list[str] = field(default_factory=list)


@dataclass
class EndedAndStarted:
    """What one commit came to. ``recorded`` has one entry for each end: False where its row was busy."""

    recorded: list[bool] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    events: list[ev.Recorded] = field(default_factory=list)


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
        self._finds_enough = False
        """Whether the last look found as many ready workspaces as were wanted: there may be more."""

    def claim_oldest(self, most: int = 1, iterations: Mapping[str, int] = NO_ITERATIONS) -> list[Claim]:
        """Start up to ``most`` cycles, those that have waited longest; pass over full fleets and rows that others hold.

        Where nothing may start that costs one statement, however much waits for its fleet. Rows that others hold are
        waited for where nothing else could be started. ``iterations``: workspaces that were drained just before this,
        and how often in a row. Raises ``StorageUnavailable`` where nothing is known to be started; what may have been
        is rescued. What is started is returned though the rest failed: its lease would be nobody's.
        """
        search = _Search(refused=self._lost.slow.resting(), iterations=iterations)
        try:
            self._search(search, most)
        except Unavailable as error:
            if not search.claims:
                raise
            _log.warning("claim.cut_short", claimed=len(search.claims), wanted=most, error=str(error))
        return search.claims

    def end_and_start(
        self, ends: Sequence[CycleEnd], most: int, iterations: Mapping[str, int], *, others_look: bool = False
    ) -> EndedAndStarted:
        """Record ends, then start those that have waited longest, up to ``most`` cycles, in one commit.

        Where the last look found too little nobody looks before, unless ``others_look``: slots beside those that end,
        which would wait for this commit and look then. Who finds nothing looks once more afterwards.
        An end whose row another transaction holds is left out, and one cycle less is started for it. Full fleets that
        these ends make room in are left to ``claim_oldest``, as is what these ends fold: what may start is read before.
        Raises whatever any part raises; then nothing is stored, or with ``StorageUnavailable`` nobody knows.
        """
        search = _Search(refused=self._lost.slow.resting(), iterations=iterations)
        ready = self._ready(search, most)[:most] if self._finds_enough or others_look else []

        def step(tx: Transaction) -> EndedAndStarted:
            return self._end_and_start_held(tx, ends, ready, most, iterations)

        unit = Unit(
            name="end_and_start",
            workspaces=tuple(dict.fromkeys([*(end.workspace for end in ends), *ready])),
            step=step,
            asked=DECIDES,
            passes_over=True,
            hurried=True,
            weight=len(ends) + len(ready),
        )
        done = self._store.commit(unit)
        announce(done.events)
        return done

    def _end_and_start_held(
        self,
        tx: Transaction,
        ends: Sequence[CycleEnd],
        ready: Sequence[str],
        most: int,
        iterations: Mapping[str, int],
    ) -> EndedAndStarted:
        done = EndedAndStarted()
        for end in ends:
            ended = end_held(tx, end, self._ids)
            done.recorded.append(ended is not None)
            done.events += ended or []
        wanted = most - done.recorded.count(False)
        for workspace in ready:
            if len(done.claims) == wanted:
                break
            found, started = self.start_held(tx, workspace, iterations.get(workspace, 0) + 1)
            done.claims += [found] if isinstance(found, Claim) else []
            done.events += started
        return done

    def _search(self, search: _Search, most: int) -> None:
        while len(search.claims) < most and (ready := self._ready(search, most - len(search.claims))):
            self._claim_some(ready[: most - len(search.claims)], search)
            if search.is_all_full:
                return
        if not search.claims:
            self._claim_held(search)

    def _claim_held(self, search: _Search) -> None:
        """Wait for the rows that others hold, one after the other, until a cycle could be started."""
        held_long = self._lost.held.resting()
        for workspace in [name for name in search.busy if name not in held_long]:
            found = self._claim(workspace, search, skip_locked=False)
            if isinstance(found, Claim):
                search.claims.append(found)
                return

    def _ready(self, search: _Search, wanted: int) -> list[str]:
        with self._store.read() as reader:
            found = reader.ready_workspaces(
                max(wanted, _LOOKED_AT_LEAST) + len(search.refused),
                except_fleets=search.full,
                serving=self._serving,
                running_most=self._running_most,
            )
        ready = [name for name in found if name not in search.refused]
        self._finds_enough = len(ready) >= wanted
        return ready

    def _note(self, search: _Search, workspace: str, found: Claimed) -> None:
        if isinstance(found, Claim):
            search.claims.append(found)
            return
        refusal, fleet = found
        search.refused.add(workspace)
        search.is_all_full = search.is_all_full or refusal is Refusal.ALL_FULL
        if refusal is Refusal.BUSY:
            search.busy.append(workspace)
        if refusal is Refusal.FLEET_FULL:
            search.full.add(fleet)

    def _claim_some(self, workspaces: Sequence[str], search: _Search) -> None:
        """Start cycles of these workspaces in one unit; where that fails, of each alone: a defect is its own."""
        if len(workspaces) > 1:
            try:
                for workspace, found in self._start(workspaces, search, skip_locked=True).items():
                    self._note(search, workspace, found)
                return
            except TimedOut as error:
                _log.warning("claim.split", workspaces=len(workspaces), error=str(error))
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001 (whose it is is found and logged one by one)
                _log.warning("claim.split", workspaces=len(workspaces), error=repr(error))
        for workspace in workspaces:
            self._note(search, workspace, self._claim(workspace, search, skip_locked=True))

    def _claim(self, workspace: str, search: _Search, *, skip_locked: bool) -> Claimed:
        """Start a cycle of ``workspace``, or say why not, and in which fleet it is."""
        started_s = time.monotonic()
        try:
            return self._start([workspace], search, skip_locked=skip_locked)[workspace]
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

    def _start(self, workspaces: Sequence[str], search: _Search, *, skip_locked: bool) -> dict[str, Claimed]:

        def step(tx: Transaction) -> tuple[dict[str, Claimed], list[ev.Recorded]]:
            claimed: dict[str, Claimed] = {}
            recorded: list[ev.Recorded] = []
            for workspace in workspaces:
                iteration = search.iterations.get(workspace, 0) + 1
                claimed[workspace], added = self.start_held(tx, workspace, iteration)
                recorded += added
            return claimed, recorded

        unit = Unit(
            name="claim",
            workspaces=tuple(workspaces),
            step=step,
            asked=DECIDES,
            passes_over=skip_locked,
            hurried=True,
            weight=len(workspaces),
        )
        found, recorded = self._store.commit(unit)
        announce(recorded)
        return found

    def start_held(self, tx: Transaction, workspace: str, iteration: int) -> tuple[Claimed, list[ev.Recorded]]:
        """Start a cycle of a workspace that the transaction holds, or say why not."""
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
