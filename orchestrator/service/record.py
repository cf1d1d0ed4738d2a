"""Record writes: one transaction for all that came together, and what each led to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from msgspec.structs import replace

from orchestrator.domain.events import (
    FileWritten,
    NewEvent,
    Operation,
    Recorded,
    WorkspaceRegistered,
    WriteDecision,
)
from orchestrator.domain.evolve import evolve
from orchestrator.domain.paths import check_path, escape_path
from orchestrator.domain.policy import DEFAULT_FLEET, Action, Policy, PolicyPatch, Rule
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.scopes import EVERYWHERE, Reach, Scope
from orchestrator.domain.state import WorkspaceState
from orchestrator.domain.write_decision import decision_at_once
from orchestrator.errors import KeyReused, NotFound, OrchestratorError
from orchestrator.ports.executor import Target
from orchestrator.ports.store import CoreStore, Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import Asked, Unit
from orchestrator.service.announce import announce, announce_writes
from orchestrator.service.append import append_all, check_reach, expected_at, save
from orchestrator.service.idempotency import RequestKey, keys_of, once
from orchestrator.service.rule_matching import TRIES, Matching, Rules, RulesMoved, rules_keep_changing
from orchestrator.service.write_budget import WriteBudget, charge

_SCOPE = Scope.WRITES.value


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """A write as a caller reports it. ``source_id`` is the caller's id, ``source`` defaults to the actor."""

    workspace: str
    path: str
    op: Operation = Operation.MODIFIED
    source: str | None = None
    source_id: str | None = None
    occurred_at: datetime | None = None
    digest: str | None = None
    size: int | None = None
    traceparent: str | None = None


class AcceptedWrite(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted write. ``due_at`` is when its restart is due as things stand; None if it asks for none."""

    id: str
    workspace: str
    position: int
    action: Action
    decision: WriteDecision
    due_at: datetime | None
    replayed: bool


class RefusedWrite(msgspec.Struct, frozen=True, kw_only=True):
    """A write that was not stored: ``error`` is the name of the error's class, ``detail`` its sentence.

    ``field`` names what was refused, or is empty.
    """

    index: int
    error: str
    detail: str
    field: str = ""


class RecordedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch: by index, accepted or refused."""

    accepted: Mapping[int, AcceptedWrite] = {}
    refused: Sequence[RefusedWrite] = ()


@dataclass(frozen=True, kw_only=True)
class AutoRegistration:
    """With what an unregistered workspace is registered on its first write; None: not at all."""

    executor: str | None = None
    target: Target = field(default_factory=dict)


class _Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller wants to be recorded."""

    writes: Sequence[Write]
    actor: str
    ids: Ids
    auto: AutoRegistration
    matching: Matching
    reach: Reach
    budget: WriteBudget | None


@dataclass(slots=True)
class _Workspace:
    """A workspace as far as the batch has come; ``policy`` holds for all its writes here."""

    state: WorkspaceState
    policy: Policy
    opened: bool = False
    """One of these writes opens its window."""

    def decision(self, action: Action) -> WriteDecision:
        """Return what becomes of its next write at once; the second one is folded into the first one's window."""
        decision = decision_at_once(self.state, action)
        if decision is not WriteDecision.OPENED_WINDOW:
            return decision
        if self.opened:
            return WriteDecision.FOLDED
        self.opened = True
        return decision


class _Batch:
    """The writes of one request on their way from the caller's words to events: ``sort``, ``append``, ``answer``."""

    def __init__(self, tx: Transaction, given: _Given) -> None:
        self._tx, self._given, self._policies = tx, given, tx.policies()
        self._workspaces: dict[str, _Workspace] = {}
        self._events: list[NewEvent] = []
        self._index_of: dict[str, int] = {}
        """Of each new write's event, which write it is."""
        self._again: dict[int, NewEvent] = {}
        """Writes that were reported before: recorded already, or further up in this batch."""
        self._refused: list[RefusedWrite] = []

    @property
    def states(self) -> dict[str, WorkspaceState]:
        """Return the workspaces as the batch has left them."""
        return {name: workspace.state for name, workspace in self._workspaces.items()}

    @property
    def new_writes(self) -> int:
        """Return how many writes are to be appended."""
        return len(self._index_of)

    def sort(self) -> None:
        """Tell new writes from those that were reported before and from those that are refused. Raises ``RulesMoved``.

        Nothing is changed by that.
        """
        moved: dict[str, Rules] = {}
        keys = {key for write in self._given.writes if (key := self._key(write)) is not None}
        known: dict[tuple[str, str], NewEvent] = dict(self._tx.by_source(keys)) if keys else {}
        for index, write in enumerate(self._given.writes):
            try:
                self._place(index, write, known, moved)
            except OrchestratorError as error:
                name, at = type(error).__name__, getattr(error, "field", "")
                self._refused.append(RefusedWrite(index=index, error=name, detail=str(error), field=at))
        if moved:
            raise RulesMoved(moved)

    def _key(self, write: Write) -> tuple[str, str] | None:
        return None if write.source_id is None else (write.source or self._given.actor, write.source_id)

    def _place(self, index: int, write: Write, known: dict[tuple[str, str], NewEvent], moved: dict[str, Rules]) -> None:
        check_path(write.path)
        key = self._key(write)
        before = None if key is None else known.get(key)
        if before is not None:
            self._check_reach(write.workspace)
            _check_same(before, write)
            self._again[index] = before
            return
        workspace, matching = self._workspace(write.workspace), self._given.matching
        if not matching.is_by(write.workspace, workspace.policy.rules):
            moved[write.workspace] = workspace.policy.rules
            return
        event = self._event(write, _fact(write, matching.rule(write.workspace, write.path), workspace))
        self._events.append(event)
        self._index_of[event.id] = index
        if key is not None:
            known[key] = event

    def _event(self, write: Write, fact: FileWritten) -> NewEvent:
        return NewEvent(
            id=self._given.ids.new("evt"),
            workspace=write.workspace,
            version=None,
            data=fact,
            actor=self._given.actor,
            source=write.source,
            source_id=write.source_id,
            occurred_at=write.occurred_at,
            traceparent=write.traceparent,
        )

    def _workspace(self, name: str) -> _Workspace:
        """Return a workspace, to be registered by this batch if need be. Raises ``NotFound``."""
        found = self._workspaces.get(name)
        if found is None:
            stored = self._tx.workspace(name)
            state = stored.state if stored else WorkspaceState(workspace=name)
            check_reach(self._given.reach, _SCOPE, state)
            if not state.registered:
                self._events.append(self._registration(state))
            found = self._workspaces[name] = _Workspace(state, policy_in_force(state, self._policies))
        return found

    def _check_reach(self, name: str) -> None:
        if not self._given.reach.everywhere:
            stored = self._tx.workspace(name)
            check_reach(self._given.reach, _SCOPE, stored.state if stored else WorkspaceState(workspace=name))

    def _registration(self, state: WorkspaceState) -> NewEvent:
        auto = self._given.auto
        if state.removed or auto.executor is None:
            removed = "was removed" if state.removed else "is not registered"
            raise NotFound(f"workspace {state.workspace!r} {removed}; PUT /v1/workspaces/{state.workspace} first")
        registered = WorkspaceRegistered(
            fleet=DEFAULT_FLEET, labels={}, executor=auto.executor, target=auto.target, policy=PolicyPatch()
        )
        return NewEvent(
            id=self._given.ids.new("evt"),
            workspace=state.workspace,
            version=state.version + 1,
            data=registered,
            actor=self._given.actor,
        )

    def append(self) -> list[Recorded]:
        """Append what is new, and fold it into the rows."""
        if not self._events:
            return []
        recorded = append_all(self._tx, self._events, self._given.ids)
        for event in recorded:
            workspace = self._workspaces[event.workspace or ""]
            workspace.state = evolve(workspace.state, event, workspace.policy)
        written = sorted({event.workspace or "" for event in recorded})
        save(self._tx, [self._workspaces[name].state for name in written], self._policies)
        return recorded

    def answer(self, recorded: Sequence[Recorded]) -> RecordedBatch:
        """Say what each write led to, once everything that came together is folded."""
        due_at: dict[str, datetime | None] = {}
        accepted: dict[int, AcceptedWrite] = {}
        for event in recorded:
            index = self._index_of.get(event.id)
            if index is not None:
                accepted[index] = self._accepted(event, due_at)
        new = {write.id: write for write in accepted.values()} if self._again else {}
        for index, before in self._again.items():
            if not isinstance(before, Recorded):
                accepted[index] = replace(new[before.id], replayed=True)
            elif (answer := self._replayed(before, due_at)) is not None:
                accepted[index] = answer
        return RecordedBatch(accepted=accepted, refused=self._refused)

    def _replayed(self, event: Recorded, due_at: dict[str, datetime | None]) -> AcceptedWrite | None:
        """Return the answer for a write that was recorded before."""
        stored = self._tx.workspace(event.workspace or "")
        if stored is None or not isinstance(event.data, FileWritten):
            return None
        answer = self._accepted(event, due_at)
        settled = event.position <= stored.state.settled_to
        return replace(answer, due_at=None if settled else answer.due_at, replayed=True)

    def _accepted(self, event: Recorded, due_at: dict[str, datetime | None]) -> AcceptedWrite:
        """Return the answer for a write that is stored; ``due_at`` keeps by workspace what is worked out for all."""
        data, workspace = event.data, event.workspace or ""
        if not isinstance(data, FileWritten) or data.decision is None:
            raise TypeError(f"{event.type} {event.id} is not a write that this version recorded")
        if data.action is not Action.RECORD and workspace not in due_at:
            due_at[workspace] = self._expected_at(workspace)
        return AcceptedWrite(
            id=event.id,
            workspace=workspace,
            position=event.position,
            action=data.action,
            decision=data.decision,
            due_at=None if data.action is Action.RECORD else due_at[workspace],
            replayed=False,
        )

    def _expected_at(self, name: str) -> datetime | None:
        stored = self._tx.workspace(name)
        if stored is None:
            return None
        state = stored.state
        if state.restart is None and state.hold is None:  # then it is what was saved with the row
            return stored.due_at
        return expected_at(state, policy_in_force(state, self._policies))


def record_writes(
    store: CoreStore,
    writes: Sequence[Write],
    *,
    actor: str,
    ids: Ids,
    auto: AutoRegistration,
    request: RequestKey | None = None,
    reach: Reach = EVERYWHERE,
    budget: WriteBudget | None = None,
) -> tuple[RecordedBatch, bool]:
    """Store the good ones of ``writes`` in one transaction; return what became of each, and if it was said before.

    Raises ``StorageUnavailable`` (nothing may be assumed), ``KeyReused``, ``RateExceeded``.
    """
    matching = matching_of(writes)
    matching.match_by_last()
    unit = record_unit(
        writes, actor=actor, ids=ids, auto=auto, request=request, matching=matching, reach=reach, budget=budget
    )
    for _ in range(TRIES):
        try:
            return told(store.commit(unit))
        except RulesMoved as moved:
            matching.learn(moved.rules)
    raise rules_keep_changing()


def matching_of(writes: Iterable[Write]) -> Matching:
    """Return who matches the paths of some writes; it has not begun yet."""
    return Matching((write.workspace, write.path) for write in writes)


class Recording(msgspec.Struct, frozen=True):
    """What one request led to: its answer, whether that is an earlier one's, what was recorded and what it made."""

    answer: RecordedBatch
    is_replayed: bool
    recorded: Sequence[Recorded]
    states: Mapping[str, WorkspaceState]


def record_unit(
    writes: Sequence[Write],
    *,
    actor: str,
    ids: Ids,
    auto: AutoRegistration,
    matching: Matching,
    request: RequestKey | None = None,
    reach: Reach = EVERYWHERE,
    budget: WriteBudget | None = None,
) -> Unit[Recording]:
    """Return the unit that stores the good ones of ``writes``; what it answers is for ``told``.

    ``reach``: of which workspaces the caller may write; a write of another is refused; ``budget``: how much.
    Its step raises ``RulesMoved`` where ``matching`` has to learn others; it may be handed in again after that.
    """
    given = _Given(writes=writes, actor=actor, ids=ids, auto=auto, matching=matching, reach=reach, budget=budget)
    sources = [(write.source or actor, write.source_id) for write in writes if write.source_id is not None]

    def step(tx: Transaction) -> Recording:
        batch = _Batch(tx, given)
        recorded: list[Recorded] = []

        def compute() -> RecordedBatch:
            batch.sort()
            charge(tx, budget, batch.new_writes)
            recorded.extend(batch.append())
            return batch.answer(recorded)

        # A request of which nothing was stored may come again once its cause is gone: an unknown workspace, say.
        answer, is_replayed = once(tx, actor, request, RecordedBatch, compute, keep=lambda batch: bool(batch.accepted))
        if is_replayed and not reach.everywhere:
            answer = _within(tx, reach, answer)
        return Recording(answer, is_replayed, recorded, batch.states)

    return Unit(
        name="record",
        workspaces=tuple(sorted({write.workspace for write in writes})),
        step=step,
        asked=Asked(sources=sources, answers=keys_of(actor, request)),
        weight=len(writes),
    )


def told(recording: Recording) -> tuple[RecordedBatch, bool]:
    """Write the lines of what was recorded and committed; return what ``record_writes`` does."""
    _announce(recording)
    answer = recording.answer
    if recording.is_replayed:
        answer = replace(
            answer, accepted={index: replace(write, replayed=True) for index, write in answer.accepted.items()}
        )
    return answer, recording.is_replayed


def _announce(recording: Recording) -> None:
    by_id = {write.id: write for write in recording.answer.accepted.values()}
    announce(event for event in recording.recorded if event.id not in by_id)
    if len(recording.recorded) == 1 and (write := by_id.get(recording.recorded[0].id)) is not None:
        announce_writes(recording.recorded, write.decision.value, write.due_at, recording.states[write.workspace])
        return
    alike: dict[tuple[str, WriteDecision], list[Recorded]] = {}
    for event in recording.recorded:
        if event.id in by_id:
            alike.setdefault((by_id[event.id].workspace, by_id[event.id].decision), []).append(event)
    for (workspace, decision), events in alike.items():
        announce_writes(events, decision.value, by_id[events[-1].id].due_at, recording.states[workspace])


def _fact(write: Write, rule: Rule | None, workspace: _Workspace) -> FileWritten:
    """Return the fact; the policy's first matching rule decides its action and numbers."""
    path, encoded = escape_path(write.path)
    action = rule.action if rule else Action.RESTART
    return FileWritten(
        path=path,
        op=write.op,
        action=action,
        decision=workspace.decision(action),
        digest=write.digest,
        size=write.size,
        path_encoding="percent" if encoded else None,
        rule=" ".join(rule.match) if rule else None,
        quiet_ms=rule.quiet_ms if rule else None,
        max_wait_ms=rule.max_wait_ms if rule else None,
    )


def _within(tx: Transaction, reach: Reach, answer: RecordedBatch) -> RecordedBatch:
    """Return an earlier answer as far as it is about workspaces that the caller still reaches."""
    accepted, refused = {}, list(answer.refused)
    for index, write in answer.accepted.items():
        stored = tx.workspace(write.workspace)
        try:
            check_reach(reach, _SCOPE, stored.state if stored else WorkspaceState(workspace=write.workspace))
            accepted[index] = write
        except OrchestratorError as error:
            refused.append(RefusedWrite(index=index, error=type(error).__name__, detail=str(error)))
    return RecordedBatch(accepted=accepted, refused=refused)


def _check_same(known: NewEvent, write: Write) -> None:
    data, path = known.data, escape_path(write.path)[0]
    same = (
        isinstance(data, FileWritten)
        and known.workspace == write.workspace
        and (data.path, data.op, data.digest, data.size) == (path, write.op, write.digest, write.size)
        and known.occurred_at == write.occurred_at
    )
    if not same:
        raise KeyReused(f"id {write.source_id!r} was used before for another write; use a new id")
