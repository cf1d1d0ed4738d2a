"""Defects planted around the core: claims, leases, bells, records, executors, the store."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from weakref import WeakKeyDictionary

import msgspec

from orchestrator.domain import commands as cmd
from orchestrator.domain import decide
from orchestrator.domain import events as ev
from orchestrator.domain.due import due
from orchestrator.domain.policy import Policies, Policy
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.serving import Need, Patience, SeenWorker, Serving, absences
from orchestrator.domain.state import UnsettledRestart, WorkspaceState
from orchestrator.errors import Unavailable
from orchestrator.ports.executor import Executor, Order, Receipt
from orchestrator.ports.recomputation import Recomputation
from orchestrator.ports.store import CoreStore, Ids
from orchestrator.ports.transaction import Running, StoredAnswer, Transaction
from orchestrator.ports.unit import Unit
from orchestrator.ports.workspaces import OpenCycle, Outlook, StoredWorkspace, WorkspaceFilter
from orchestrator.service import absence, append, claim, dead_worker, drain, execute, lease, recompute, tick
from orchestrator.service.append import Author
from orchestrator.service.cycle_end import CycleEnd
from orchestrator.service.rule_matching import Matching, Rules
from tests.memory_store import log as memory_log
from tests.memory_store.content import Content
from tests.memory_store.reader import MemoryReader
from tests.memory_store.transaction import MemoryTransaction
from tests.simulation.database import SimulatedStore
from tests.simulation.planting import Planting
from workers.executors.act_ledger import Acts

replace = msgspec.structs.replace
_ready, _start, _started, _act = claim.Claimer._ready, claim.Claimer._start, decide._started, execute._act
_carry_out, _look_out, _unique_keys = append.carry_out, tick._look_out, memory_log._unique_keys
_is_by = Matching.is_by
_committed, _recompute_unit = MemoryTransaction.committed, recompute._unit
_ready_workspaces, _has_room = MemoryReader.ready_workspaces, MemoryReader._has_room


def living_called_dead(planting: Planting) -> None:
    def cycles_of(store: CoreStore, worker: str) -> list[OpenCycle]:
        with store.read() as reader:
            rows = reader.workspaces(WorkspaceFilter(removed=True))
        running = [(row.state, row.state.cycle) for row in rows]
        return [
            OpenCycle(workspace=state.workspace, cycle=cycle.id, fence=state.fence)
            for state, cycle in running
            if cycle is not None
        ]

    planting.name(dead_worker, "_cycles_of", cycles_of)


def claims_without_executor(planting: Planting) -> None:
    planting.name(claim, "is_served", lambda state, serving: True)
    planting.name(decide, "is_served", lambda state, serving: True)

    def ready(
        reader: MemoryReader,
        limit: int,
        *,
        except_fleets: Collection[str] = (),
        serving: Serving | None = None,
        running_most: int | None = None,
    ) -> list[str]:
        return _ready_workspaces(reader, limit, except_fleets=except_fleets, running_most=running_most)

    planting.name(MemoryReader, "ready_workspaces", ready)


def away_though_served(planting: Planting) -> None:
    def found(
        waiting: Mapping[Need, datetime],
        workers: Collection[SeenWorker],
        away: Collection[Need],
        now: datetime,
        patience: Patience,
    ) -> list[ev.ExecutorAway | ev.ExecutorBack]:
        return absences(waiting, [], away, now, patience)

    planting.name(absence, "absences", found)


def no_fence_at_executor(planting: Planting) -> None:
    def then(acts: Acts, order: Order) -> Acts:
        return Acts(count=acts.count + 1, highest_fence=order.fence, last_cycle=order.cycle)

    planting.name(Acts, "then", then)


def cursor_before_lock(planting: Planting) -> None:
    seen: dict[str, int] = {}

    def ready(claimer: claim.Claimer, search: Any, wanted: int) -> list[str]:
        found = _ready(claimer, search, wanted)
        store = claimer._store
        if isinstance(store, SimulatedStore):
            with store.memory.read() as reader:
                for name in found:
                    row = reader.workspace(name)
                    seen[name] = row.state.last_position if row else 0
        return found

    def started(
        state: WorkspaceState, restart: UnsettledRestart, command: cmd.StartCycle, policy: Policy, now: datetime
    ) -> ev.CycleStarted:
        return replace(_started(state, restart, command, policy, now), to_position=seen[state.workspace])

    planting.name(claim.Claimer, "_ready", ready)
    planting.name(decide, "_started", started)


def no_re_send(planting: Planting) -> None:
    rung: WeakKeyDictionary[object, set[str]] = WeakKeyDictionary()

    def look_out(
        store: SimulatedStore, bells: tick._Bells, seen: Mapping[str, tick.Seen], resting: Collection[str]
    ) -> Outlook:
        """Ring once for each restart, when it has just been queued."""
        known = rung.setdefault(store, set())
        with store.memory.read() as reader:
            for name in reader.ready_workspaces(100):
                row = reader.workspace(name)
                restart = row.state.restart if row else None
                if restart is not None and restart.id + str(restart.cycles) in known:
                    bells.rung.add(name)
                elif restart is not None:
                    known.add(restart.id + str(restart.cycles))
        rung_before = set(bells.rung)
        outlook = _look_out(store, bells, seen, resting)
        bells.rung -= rung_before
        return outlook

    planting.name(tick, "_look_out", look_out)


def wall_clock_of_worker(planting: Planting) -> None:
    def carry_out(
        tx: Transaction, state: WorkspaceState, command: cmd.Command, author: Author, ids: Ids, policies: Policies
    ) -> tuple[WorkspaceState, list[ev.Recorded]]:
        if not isinstance(command, cmd.StartCycle):
            return _carry_out(tx, state, command, author, ids, policies)
        right, skew = tx.now, timedelta(seconds=20 * (sum(command.worker.encode()) % 5 - 2))
        tx.now = right + skew
        try:
            return _carry_out(tx, state, command, author, ids, policies)
        finally:
            tx.now = right

    planting.name(claim, "carry_out", carry_out)


def time_may_fall(planting: Planting) -> None:
    planting.name(Content, "store_time", lambda content, clock: clock)


def retry_skips_act(planting: Planting) -> None:
    done: WeakKeyDictionary[Executor, set[str]] = WeakKeyDictionary()

    def act(executor: Executor, order: Order, said: execute._Said) -> Receipt:
        known = done.setdefault(executor, set())
        if order.restart in known:
            return Receipt(output="done before")
        known.add(order.restart)
        return _act(executor, order, said)

    planting.name(execute, "_act", act)


def shadow_acts(planting: Planting) -> None:
    planting.name(drain.Drainer, "_carry_out", lambda drainer, claimed: drainer._run(claimed))


def capacity_ignored(planting: Planting) -> None:
    planting.name(MemoryTransaction, "running", lambda tx, fleet: Running(total=0, in_fleet=0))
    planting.name(MemoryReader, "_has_room", lambda reader, name, running, running_most: True)


def room_off_by_one(planting: Planting) -> None:
    def has_room(reader: MemoryReader, name: str, running: Counter[str], running_most: int | None) -> bool:
        return _has_room(reader, name, running + Counter(dict.fromkeys([*running, "default"], 1)), running_most)

    planting.name(MemoryReader, "_has_room", has_room)


def ids_forgotten(planting: Planting) -> None:
    def by_source(tx: MemoryTransaction, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], ev.Recorded]:
        return {}

    def unique_keys(event: ev.Recorded) -> list[tuple[str, object, object]]:
        return [key for key in _unique_keys(event) if key[0] != "source"]

    planting.name(MemoryTransaction, "by_source", by_source)
    planting.name(memory_log, "_unique_keys", unique_keys)


def keys_forgotten(planting: Planting) -> None:
    def answer(tx: MemoryTransaction, actor: str, key: str) -> StoredAnswer | None:
        return None

    def remember(tx: MemoryTransaction, actor: str, key: str, given: StoredAnswer) -> None:
        return None

    planting.name(MemoryTransaction, "answer", answer)
    planting.name(MemoryTransaction, "remember", remember)


def commits_lost(planting: Planting) -> None:
    def content(tx: MemoryTransaction) -> Content:
        return tx._base if len(tx._log) % 13 == 0 else _committed(tx)

    planting.name(MemoryTransaction, "committed", content)


def policy_keeps_due(planting: Planting) -> None:
    planting.name(recompute, "save_if_moved", lambda tx, stored, policies: None)


def rules_of_before(planting: Planting) -> None:
    def is_by(matching: Matching, workspace: str, rules: Rules) -> bool:
        return _is_by(matching, workspace, rules) or bool(matching._rules.get(workspace))

    planting.name(Matching, "is_by", is_by)


def recomputed_in_part(planting: Planting) -> None:
    def to_the_end(store: CoreStore, done: Recomputation, names: Sequence[str]) -> None:
        store.commit(_recompute_unit(names, done, None))

    planting.name(recompute, "_recompute_page", to_the_end)


def locked_not_recomputed(planting: Planting) -> None:
    def passing_over(names: Sequence[str], done: Recomputation, to: str | None) -> Unit[None]:
        return msgspec.structs.replace(_recompute_unit(names, done, to), passes_over=True)

    planting.name(recompute, "_unit", passing_over)


def recomputed_by_an_old_state(planting: Planting) -> None:
    def page(store: SimulatedStore, done: Recomputation, names: Sequence[str]) -> None:
        with store.memory.read() as reader:
            before = {name: reader.workspace(name) for name in names}

        def step(tx: Transaction) -> None:
            for name, old in before.items():
                stored = tx.workspace(name)
                if stored is not None and old is not None and stored.due_at is not None:
                    found = due(old.state, policy_in_force(old.state, tx.policies()))
                    tx.save([StoredWorkspace(state=stored.state, due_at=found.at if found else None)])
            tx.note_recomputed(done, names[-1] if len(names) == recompute.WINDOWS_A_PAGE else None)

        store.commit(msgspec.structs.replace(_recompute_unit(names, done, None), step=step))

    planting.name(recompute, "_recompute_page", page)


class _Unseen:
    """An order to stop that is only heard by whoever waits for it."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float | None = None) -> bool:
        return self._stop.wait(timeout)


def no_check_before_act(planting: Planting) -> None:
    def act(executor: Executor, order: Order, said: execute._Said) -> Receipt:
        return _act(executor, dataclasses.replace(order, stop=cast("threading.Event", _Unseen(order.stop))), said)

    planting.name(execute, "_act", act)


def lost_lease_works_on(planting: Planting) -> None:
    def renew(book: lease.LeaseBook, store: SimulatedStore) -> None:
        book._let_go_of_hung()
        held = {each.workspace: (each.fence, each.lease_ms) for each in book.held()}
        if held:
            store.renew_leases(held)

    planting.name(lease.LeaseBook, "renew", renew)


def leases_not_renewed(planting: Planting) -> None:
    planting.name(lease.LeaseBook, "renew", lambda book, store: book._let_go_of_hung())


def end_recorded_once(planting: Planting) -> None:
    def record(drainer: drain.Drainer, end: CycleEnd, failed: BaseException | None = None) -> None:
        try:
            if failed is None or not drainer._is_recorded(end):
                drainer._finish(end)
        except Unavailable:
            return

    planting.name(drain.Drainer, "_record", record)


def end_recorded_twice(planting: Planting) -> None:
    planting.name(drain.Drainer, "_is_recorded", lambda drainer, end: False)
