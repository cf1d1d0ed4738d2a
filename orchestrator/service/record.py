"""Record writes: one transaction for all that came together, and what each led to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec

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
from orchestrator.domain.policy import DEFAULT_FLEET, Action, Policies, PolicyPatch, Rule
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.state import WorkspaceState
from orchestrator.errors import KeyReused, NotFound, OrchestratorError, StorageUnavailable
from orchestrator.ports.executor import Target
from orchestrator.ports.store import CoreStore, Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import Asked, Unit
from orchestrator.service.announce import announce, announce_writes
from orchestrator.service.append import append_all, expected_at, save
from orchestrator.service.idempotency import RequestKey, keys_of, once
from orchestrator.service.rule_matching import TRIES, Matching, Rules, RulesMoved


@dataclass(frozen=True, kw_only=True)
class Write:
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


@dataclass(frozen=True, kw_only=True)
class AcceptedWrite:
    """An accepted write. ``due_at`` is when its restart is due as things stand; None if it asks for none."""

    id: str
    workspace: str
    position: int
    action: Action
    decision: WriteDecision
    due_at: datetime | None
    replayed: bool


@dataclass(frozen=True, kw_only=True)
class RefusedWrite:
    """A write that was not stored: ``error`` is the name of the error's class, ``detail`` its sentence.

    ``field`` names what was refused, or is empty.
    """

    index: int
    error: str
    detail: str
    field: str = ""


@dataclass(frozen=True, kw_only=True)
class RecordedBatch:
    """What became of a batch: by index, accepted or refused."""

    accepted: Mapping[int, AcceptedWrite] = field(default_factory=dict)
    refused: Sequence[RefusedWrite] = ()


@dataclass(frozen=True, kw_only=True)
class AutoRegistration:
    """With what an unregistered workspace is registered on its first write; None: not at all."""

    executor: str | None = None
    target: Target = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What a caller wants to be recorded."""

    writes: Sequence[Write]
    actor: str
    ids: Ids
    auto: AutoRegistration
    matching: Matching


class _Batch:
    """The writes of one transaction, on their way from the caller's words to events."""

    def __init__(self, tx: Transaction, given: _Given) -> None:
        self.tx, self.writes, self.actor, self.auto = tx, given.writes, given.actor, given.auto
        self.ids, self.matching = given.ids, given.matching
        self.policies: Policies = tx.policies()
        self.states: dict[str, WorkspaceState] = {}
        self.opened: set[str] = set()
        self.events: list[NewEvent] = []
        self.index_of: dict[str, int] = {}
        self.repeats: dict[int, str] = {}
        self.known: dict[tuple[str, str], NewEvent] = {}
        self.replays: dict[int, Recorded] = {}
        self.expected: dict[str, datetime | None] = {}
        self.refused: list[RefusedWrite] = []
        self.moved: dict[str, Rules] = {}

    def prepare(self) -> None:
        """Turn each write into an event, a replay or a refusal. Raises ``RulesMoved``."""
        keys = {self._key(write) for write in self.writes if write.source_id is not None}
        self.known.update(self.tx.by_source(keys))
        for index, write in enumerate(self.writes):
            try:
                self._prepare(index, write)
            except OrchestratorError as error:
                name, at = type(error).__name__, getattr(error, "field", "")
                self.refused.append(RefusedWrite(index=index, error=name, detail=str(error), field=at))
        if self.moved:
            raise RulesMoved(self.moved)

    def _prepare(self, index: int, write: Write) -> None:
        check_path(write.path)
        known = self.known.get(self._key(write)) if write.source_id is not None else None
        if known is not None:
            _check_same(known, write)
            if isinstance(known, Recorded):
                self.replays[index] = known
            else:
                self.repeats[index] = known.id
            return
        state = self._state(write.workspace)
        rules = policy_in_force(state, self.policies).rules
        if not self.matching.is_by(write.workspace, rules):
            self.moved[write.workspace] = rules
            return
        event = NewEvent(
            id=self.ids.new("evt"),
            workspace=write.workspace,
            version=None,
            data=self._decided(state, _fact(write, self.matching.rule(write.workspace, write.path))),
            actor=self.actor,
            source=write.source,
            source_id=write.source_id,
            occurred_at=write.occurred_at,
            traceparent=write.traceparent,
        )
        self.events.append(event)
        self.index_of[event.id] = index
        if write.source_id is not None:
            self.known[self._key(write)] = event

    def _decided(self, state: WorkspaceState, fact: FileWritten) -> FileWritten:
        """Add what becomes of the write at once; the second one of a batch is folded into the first one's window."""
        decision = _decision(state, fact)
        if decision is WriteDecision.OPENED_WINDOW and state.workspace in self.opened:
            decision = WriteDecision.FOLDED
        if decision is WriteDecision.OPENED_WINDOW:
            self.opened.add(state.workspace)
        return msgspec.structs.replace(fact, decision=decision)

    def _key(self, write: Write) -> tuple[str, str]:
        return (write.source or self.actor, write.source_id or "")

    def _state(self, workspace: str) -> WorkspaceState:
        """Return the workspace's state, as registered by this batch if need be. Raises ``NotFound``."""
        if workspace not in self.states:
            stored = self.tx.workspace(workspace)
            state = stored.state if stored else WorkspaceState(workspace=workspace)
            self.states[workspace] = state if state.registered else self._registered(state)
        return self.states[workspace]

    def _registered(self, state: WorkspaceState) -> WorkspaceState:
        if state.removed or self.auto.executor is None:
            removed = "was removed" if state.removed else "is not registered"
            raise NotFound(f"workspace {state.workspace!r} {removed}; PUT /v1/workspaces/{state.workspace} first")
        registered = WorkspaceRegistered(
            fleet=DEFAULT_FLEET, labels={}, executor=self.auto.executor, target=self.auto.target, policy=PolicyPatch()
        )
        self.events.append(
            NewEvent(
                id=self.ids.new("evt"),
                workspace=state.workspace,
                version=state.version + 1,
                data=registered,
                actor=self.actor,
            )
        )
        return state

    def commit(self) -> tuple[RecordedBatch, list[Recorded]]:
        """Append, fold into the rows, and say what each write led to."""
        recorded = append_all(self.tx, self.events, self.ids) if self.events else []
        for event in recorded:
            before = self.states[event.workspace or ""]
            self.states[before.workspace] = evolve(before, event, policy_in_force(before, self.policies))
        save(self.tx, [self.states[name] for name in sorted({e.workspace or "" for e in recorded})], self.policies)
        accepted = {self.index_of[event.id]: self._accepted(event) for event in recorded if event.id in self.index_of}
        by_id = {write.id: write for write in accepted.values()}
        accepted |= {index: replace(by_id[event], replayed=True) for index, event in self.repeats.items()}
        accepted |= dict(self._replayed())
        return RecordedBatch(accepted=accepted, refused=self.refused), recorded

    def _accepted(self, event: Recorded, *, replayed: bool = False) -> AcceptedWrite:
        """Return the answer for a write that is stored, once everything that came together is folded."""
        data, workspace = event.data, event.workspace or ""
        if not isinstance(data, FileWritten) or data.decision is None:
            raise TypeError(f"{event.type} {event.id} is not a write that this version recorded")
        settled = replayed and event.position <= self.states[workspace].settled_to
        return AcceptedWrite(
            id=event.id,
            workspace=workspace,
            position=event.position,
            action=data.action,
            decision=data.decision,
            due_at=None if settled or data.action is Action.RECORD else self._expected_at(workspace),
            replayed=replayed,
        )

    def _expected_at(self, workspace: str) -> datetime | None:
        """Return when the workspace's restart is due; worked out once for all its writes."""
        if workspace not in self.expected:
            state = self.states[workspace]
            self.expected[workspace] = expected_at(state, policy_in_force(state, self.policies))
        return self.expected[workspace]

    def _replayed(self) -> Iterator[tuple[int, AcceptedWrite]]:
        for index, event in self.replays.items():
            stored = self.tx.workspace(event.workspace or "")
            if stored is None or not isinstance(event.data, FileWritten):
                continue
            self.states[stored.state.workspace] = stored.state
            yield index, self._accepted(event, replayed=True)


def record_writes(
    store: CoreStore,
    writes: Sequence[Write],
    *,
    actor: str,
    ids: Ids,
    auto: AutoRegistration,
    request: RequestKey | None = None,
) -> tuple[RecordedBatch, bool]:
    """Store the good ones of ``writes`` in one transaction; return what became of each.

    The second value says whether the whole request had been answered before.

    Raises ``StorageUnavailable`` (nothing may be assumed), ``KeyReused`` for the request's key.
    """
    matching = matching_of(writes)
    matching.match_by_last()
    unit = record_unit(writes, actor=actor, ids=ids, auto=auto, request=request, matching=matching)
    for _ in range(TRIES):
        try:
            return told(store.commit(unit))
        except RulesMoved as moved:
            matching.learn(moved.rules)
    raise rules_keep_changing()


def matching_of(writes: Iterable[Write]) -> Matching:
    """Return who matches the paths of some writes; it has not begun yet."""
    return Matching((write.workspace, write.path) for write in writes)


def rules_keep_changing() -> StorageUnavailable:
    """Return the error for writes whose rules were others at every try."""
    return StorageUnavailable("the path rules changed again and again meanwhile; nothing was stored, try again")


@dataclass(frozen=True)
class Recording:
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
) -> Unit[Recording]:
    """Return the unit that stores the good ones of ``writes``; what it answers is for ``told``.

    Its step raises ``RulesMoved`` where ``matching`` has to learn others; it may be handed in again after that.
    """
    given = _Given(writes=writes, actor=actor, ids=ids, auto=auto, matching=matching)
    sources = [(write.source or actor, write.source_id) for write in writes if write.source_id is not None]

    def step(tx: Transaction) -> Recording:
        batch = _Batch(tx, given)
        recorded: list[Recorded] = []

        def compute() -> RecordedBatch:
            batch.prepare()
            answer, events = batch.commit()
            recorded.extend(events)
            return answer

        # A request of which nothing was stored may come again once its cause is gone: an unknown workspace, say.
        answer, is_replayed = once(tx, actor, request, RecordedBatch, compute, keep=lambda batch: bool(batch.accepted))
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
    alike: dict[tuple[str, WriteDecision], list[Recorded]] = {}
    for event in recording.recorded:
        if event.id in by_id:
            alike.setdefault((by_id[event.id].workspace, by_id[event.id].decision), []).append(event)
    for (workspace, decision), events in alike.items():
        announce_writes(events, decision.value, by_id[events[-1].id].due_at, recording.states[workspace])


def _fact(write: Write, rule: Rule | None) -> FileWritten:
    """Return the fact; the policy's first matching rule decides its action and numbers."""
    path, encoded = escape_path(write.path)
    return FileWritten(
        path=path,
        op=write.op,
        action=rule.action if rule else Action.RESTART,
        digest=write.digest,
        size=write.size,
        path_encoding="percent" if encoded else None,
        rule=" ".join(rule.match) if rule else None,
        quiet_ms=rule.quiet_ms if rule else None,
        max_wait_ms=rule.max_wait_ms if rule else None,
    )


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


def _decision(before: WorkspaceState, data: FileWritten) -> WriteDecision:
    if data.action is Action.RECORD:
        return WriteDecision.RECORDED
    if before.hold is not None:
        return WriteDecision.HELD
    waits = before.restart is not None and before.restart.cycle is None
    joined = waits or before.window.is_open
    return WriteDecision.FOLDED if joined else WriteDecision.OPENED_WINDOW
