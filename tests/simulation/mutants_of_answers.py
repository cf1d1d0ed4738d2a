"""Defects in what is kept and told around the core: leases, deadlines, limits, batches, replays, history."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import msgspec

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain import evolve as evolving
from orchestrator.domain import restart_projection, write_decision
from orchestrator.domain.policy import Action, Policies, Policy
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.state import WorkspaceState
from orchestrator.ports.store import Ids
from orchestrator.ports.transaction import Running, StoredAnswer, Transaction
from orchestrator.ports.workspaces import Lease, Renewed
from orchestrator.service import append, drain, lease, record
from orchestrator.service.claim import Claim
from orchestrator.service.execute import Cancelled
from orchestrator.service.idempotency import RequestKey
from orchestrator.service.record import AcceptedWrite, AutoRegistration, RecordedBatch, Write
from tests.memory_store.reader import MemoryReader
from tests.memory_store.store import MemoryEventStore
from tests.memory_store.transaction import MemoryTransaction
from tests.simulation import clients
from tests.simulation.database import SimulatedStore
from tests.simulation.planting import Planting

_renew_leases, _running, _count_paths = (
    MemoryEventStore.renew_leases,
    MemoryTransaction.running,
    MemoryTransaction.count_paths,
)
_leases, _due_workspaces = MemoryTransaction.leases, MemoryReader.due_workspaces
_answer, _remember = MemoryTransaction.answer, MemoryTransaction.remember
_record_writes, _evolve, _save, _execute = record.record_writes, evolving.evolve, append.save, drain.Drainer._execute
_replayed, _decision = record._Batch._replayed, write_decision.decision_at_once


class _Early:
    """Ids of which some were handed out before the transaction began."""

    def __init__(self, ids: Ids, early: list[str]) -> None:
        self._ids, self._early = ids, early

    def new(self, prefix: str) -> str:
        return self._early.pop(0) if prefix == "evt" and self._early else self._ids.new(prefix)


def id_order_cursor(planting: Planting) -> None:
    """Ids are drawn before the lock, so writes commit out of their order; a fold takes what is ``id > last``."""

    def record_writes(
        store: SimulatedStore,
        writes: Sequence[Write],
        *,
        actor: str,
        ids: Ids,
        auto: AutoRegistration,
        request: RequestKey | None = None,
    ) -> tuple[RecordedBatch, bool]:
        early = [ids.new("evt") for _ in writes]
        return _record_writes(store, writes, actor=actor, ids=_Early(ids, early), auto=auto, request=request)

    def evolve(state: WorkspaceState, event: ev.Recorded, policy: Policy) -> WorkspaceState:
        last = state.last_cycle  # drawn under the lock, when the last range was read: the cursor stands there
        if isinstance(event.data, ev.FileWritten) and last is not None and _drawn(event.id) < _drawn(last):
            return state
        return _evolve(state, event, policy)

    planting.name(clients, "record_writes", record_writes)
    planting.name(record, "evolve", evolve)


def _drawn(name: str) -> int:
    return int(name.rpartition("_")[2])


def fleet_limit_ignored(planting: Planting) -> None:
    planting.name(MemoryTransaction, "running", lambda tx, fleet: Running(total=_running(tx, fleet).total, in_fleet=0))
    planting.name(MemoryReader, "_has_room", lambda reader, name, running, running_most: True)


def fleet_limit_off_by_one(planting: Planting) -> None:
    def running(tx: MemoryTransaction, fleet: str) -> Running:
        found = _running(tx, fleet)
        return Running(total=found.total, in_fleet=max(0, found.in_fleet - 1))

    planting.name(MemoryTransaction, "running", running)
    planting.name(MemoryReader, "_has_room", lambda reader, name, running, running_most: True)


def lease_renewed_for_ever(planting: Planting) -> None:
    planting.name(lease.LeaseBook, "_let_go_of_hung", lambda book: None)


def lease_of_another_renewed(planting: Planting) -> None:
    def renew(store: MemoryEventStore, held: Mapping[str, tuple[int, int]]) -> Renewed:
        with store.read() as reader:
            rows = {name: reader.workspace(name) for name in held}
        fences = {name: row.state.fence for name, row in rows.items() if row is not None}
        return _renew_leases(store, {name: (fences[name], held[name][1]) for name in fences})

    planting.name(MemoryEventStore, "renew_leases", renew)


def lease_renewed_for_longer(planting: Planting) -> None:
    def renew(store: MemoryEventStore, held: Mapping[str, tuple[int, int]]) -> Renewed:
        return _renew_leases(store, {name: (fence, 30_000) for name, (fence, _) in held.items()})

    planting.name(MemoryEventStore, "renew_leases", renew)


def rescue_by_stale_lease(planting: Planting) -> None:
    """A look reads leases with the list of what is due, and believes them once it has the rows."""
    known: dict[str, Lease] = {}

    def due_workspaces(reader: MemoryReader, limit: int) -> list[str]:
        found = _due_workspaces(reader, limit)
        rows = (reader.workspace(name) for name in found)
        known.update({row.state.workspace: row.lease for row in rows if row is not None and row.lease is not None})
        return found

    def leases(tx: MemoryTransaction, names: Collection[str]) -> dict[str, Lease]:
        def as_listed(name: str, lease: Lease) -> Lease:
            before = known.get(name)
            return before if before is not None and before.cycle == lease.cycle else lease

        return {name: as_listed(name, lease) for name, lease in _leases(tx, names).items()}

    planting.name(MemoryReader, "due_workspaces", due_workspaces)
    planting.name(MemoryTransaction, "leases", leases)


def overtaken_works_on(planting: Planting) -> None:
    def take(book: lease.LeaseBook, held: lease.HeldLease) -> None:
        book._held[held.workspace] = held
        book.wake()

    planting.name(lease.LeaseBook, "take", take)


def stop_cancels_nothing(planting: Planting) -> None:
    planting.name(drain.Drainer, "cancel", lambda drainer: drainer._stopping.set())


def deadline_too_late(planting: Planting) -> None:
    def execute(drainer: drain.Drainer, claim: Claim, held: lease.HeldLease) -> cmd.Success | cmd.Failure | Cancelled:
        return _execute(drainer, claim, dataclasses.replace(held, renew_until_s=held.renew_until_s + 30))

    planting.name(drain.Drainer, "_execute", execute)


def files_counted_short(planting: Planting) -> None:
    def count_paths(
        tx: MemoryTransaction, workspace: str, from_position: int, to_position: int, since: datetime | None
    ) -> int:
        return _count_paths(tx, workspace, from_position, to_position - 1, since)

    planting.name(MemoryTransaction, "count_paths", count_paths)


def decision_told_wrong(planting: Planting) -> None:
    def decision(before: WorkspaceState, action: Action) -> ev.WriteDecision:
        if action is Action.RECORD or before.hold is not None:
            return _decision(before, action)
        return ev.WriteDecision.FOLDED if before.pending else ev.WriteDecision.OPENED_WINDOW

    planting.name(record, "decision_at_once", decision)


def history_keeps_given_up_open(planting: Planting) -> None:
    def gave_up(record: RestartProjection, data: ev.RestartGaveUp, at: datetime) -> RestartProjection:
        return msgspec.structs.replace(record, ended_at=at, retry_at=None)

    planting.entry(restart_projection._CHANGES, ev.RestartGaveUp, gave_up)


def batch_saves_one_row(planting: Planting) -> None:
    def save(tx: Transaction, states: Sequence[WorkspaceState], policies: Policies) -> None:
        _save(tx, states[:1], policies)

    planting.name(record, "save", save)


def replay_answered_anew(planting: Planting) -> None:
    def replayed(batch: record._Batch, event: ev.Recorded, due_at: dict[str, datetime | None]) -> AcceptedWrite | None:
        answer = _replayed(batch, event, due_at)
        return None if answer is None else msgspec.structs.replace(answer, action=Action.RESTART, replayed=False)

    planting.name(record._Batch, "_replayed", replayed)


def keys_shared_by_actors(planting: Planting) -> None:
    def answer(tx: MemoryTransaction, actor: str, key: str) -> StoredAnswer | None:
        return _answer(tx, "", key)

    def remember(tx: MemoryTransaction, actor: str, key: str, given: StoredAnswer) -> None:
        _remember(tx, "", key, given)

    planting.name(MemoryTransaction, "answer", answer)
    planting.name(MemoryTransaction, "remember", remember)
