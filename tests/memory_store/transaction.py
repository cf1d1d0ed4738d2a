"""One writing transaction on the in-memory store: changes to copies, which a commit puts in place."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from msgspec.structs import replace

from orchestrator.domain.encoding import encode_data
from orchestrator.domain.events import ClockRegressed, FileWritten, NewEvent, Recorded
from orchestrator.domain.policy import Action, Policies, PolicyLayer
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.serving import Need
from orchestrator.domain.snapshot import Snapshot
from orchestrator.errors import Conflict
from orchestrator.ports.keys import StoredKey
from orchestrator.ports.recomputation import Recomputation
from orchestrator.ports.transaction import Running, StoredAnswer
from orchestrator.ports.workspaces import Lease, StoredWorkspace
from orchestrator.storage.sql.keys import with_changes
from orchestrator.storage.sql.rows import recorded, sourced, stored_event_of
from orchestrator.storage.sql.transaction import check_held
from orchestrator.storage.sql.workspace_rows import fleet_of
from tests.memory_store.content import Content, Remembered
from tests.memory_store.log import MemoryLog


class MemoryTransaction:
    """``Transaction`` over the log and a draft of the content. ``failure`` keeps the first refused append."""

    def __init__(self, log: MemoryLog, content: Content, held: Collection[str], clock: datetime) -> None:
        self._log = log
        self._base = self._draft = content
        self._named = frozenset(held)
        self.failure: Conflict | None = None
        self.now = content.store_time(clock)
        self.clock_behind_ms = 0 if self.now is clock else (self.now - clock) // timedelta(milliseconds=1)

    def committed(self) -> Content:
        """Return the content with this transaction's changes."""
        length = len(self._log)
        if length == self._base.length:
            return self._draft
        return replace(self._draft, length=length, last_recorded_at=self.now)

    @contextmanager
    def part(self) -> Iterator[None]:
        """Carry out one step of several: where it raises, its changes are forgotten."""
        draft, length = self._draft, len(self._log)
        try:
            yield
        except BaseException:
            self._draft, self.failure = draft, None
            self._log.truncate(length)
            raise

    def is_busy(self, names: Collection[str]) -> bool:
        """Return whether another transaction holds one of these rows."""
        return not self._named.issuperset(names)

    def workspace(self, workspace: str) -> StoredWorkspace | None:
        """Return a locked workspace, as it was last saved."""
        return self._draft.workspaces.get(workspace) if workspace in self._named else None

    def access_keys(self) -> list[StoredKey]:
        """Return all keys, as they are at this instant."""
        return with_changes((), self._draft.keys)

    def save_key(self, key: StoredKey) -> None:
        """Insert a key, or replace what is kept of it."""
        before = self._draft.keys.get(key.id)
        used = before.last_used_at if before else None
        self._draft = replace(
            self._draft, keys={**self._draft.keys, key.id: dataclasses.replace(key, last_used_at=used)}
        )

    def write_budget(self, key: str) -> datetime | None:
        """Return until when a key has used up its writes."""
        return self._draft.budgets.get(key)

    def save_write_budget(self, key: str, used_until: datetime) -> None:
        """Keep until when a key has used up its writes."""
        self._draft = replace(self._draft, budgets={**self._draft.budgets, key: used_until})

    def locked(self) -> Sequence[str]:
        """Return the ids of the rows this transaction holds, in order."""
        return tuple(sorted(name for name in self._named if name in self._base.workspaces))

    def policies(self) -> Policies:
        """Return the stored policy layers, as they are at this instant."""
        return Policies(layers=self._draft.policies)

    def append(self, new: Sequence[NewEvent]) -> list[Recorded]:
        """Append in the order given. Raises ``Conflict`` where (workspace, version) is taken."""
        added: list[Recorded] = []
        for event in new:
            text = encode_data(event.data)  # what could not be stored elsewhere is refused here too
            added.append(recorded(sourced(event), position=len(self._log) + 1, recorded_at=self.now))
            try:
                self._log.add(added[-1], stored_event_of(added[-1], text))
            except Conflict as error:
                self.failure = error
                raise
        return added

    def save(self, changed: Sequence[StoredWorkspace]) -> None:
        """Write the rows of held workspaces. Raises ``Conflict`` for one that this transaction does not hold."""
        for stored in changed:
            check_held(stored.state.workspace, self._named)
        new = {stored.state.workspace: self._with_lease(stored) for stored in changed}
        self._draft = replace(self._draft, workspaces={**self._draft.workspaces, **new})

    def _with_lease(self, stored: StoredWorkspace) -> StoredWorkspace:
        """Return it with the lease of its open cycle: the one it had, or the one that the cycle starts with."""
        before, cycle = self._draft.workspaces.get(stored.state.workspace), stored.state.cycle
        if cycle is None:
            return replace(stored, lease=None)
        earlier = before.lease if before else None
        return replace(stored, lease=earlier if earlier is not None and earlier.cycle == cycle.id else stored.lease)

    def leases(self, names: Collection[str]) -> dict[str, Lease]:
        """Return the leases of the open cycles."""
        found = {name: stored.lease for name in names if (stored := self.workspace(name)) is not None}
        return {name: lease for name, lease in found.items() if lease is not None}

    def restart(self, restart: str) -> RestartProjection | None:
        """Return a restart's read model."""
        return self._draft.restarts.get(restart)

    def save_restarts(self, records: Sequence[RestartProjection]) -> None:
        """Insert or replace read models."""
        new = {record.id: record for record in records}
        self._draft = replace(self._draft, restarts={**self._draft.restarts, **new})

    def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        """Keep states as they were right after events of this transaction."""
        if snapshots:
            new = {snapshot.position: snapshot for snapshot in snapshots}
            self._draft = replace(self._draft, snapshots={**self._draft.snapshots, **new})

    def save_policy(self, layer: PolicyLayer) -> None:
        """Insert or replace a policy layer, and note that no open window of its scope follows it yet."""
        begun = Recomputation(scope=layer.scope, version=layer.version)
        self._draft = replace(
            self._draft,
            policies={**self._draft.policies, layer.scope: layer},
            recomputations={**self._draft.recomputations, layer.scope: begun},
        )

    def note_recomputed(self, done: Recomputation, to: str | None) -> None:
        """Note that open windows follow a layer up to a workspace, None: all of them."""
        if self._draft.recomputations.get(done.scope) != done:
            return
        others = {scope: one for scope, one in self._draft.recomputations.items() if scope != done.scope}
        further = {} if to is None else {done.scope: replace(done, to=to)}
        self._draft = replace(self._draft, recomputations=others | further)

    def count_paths(self, workspace: str, from_position: int, to_position: int, since: datetime | None) -> int:
        """Count the distinct paths of the range's writes whose action is not ``record``."""
        last = min(to_position, len(self._log))
        found = (event.data for event in self._log.between(from_position, last, workspace))
        return len({data.path for data in found if isinstance(data, FileWritten) and data.action != Action.RECORD})

    def running(self, fleet: str) -> Running:
        """Count the open cycles."""
        fleets = [fleet_of(stored.state) for stored in self._draft.workspaces.values() if stored.state.cycle]
        return Running(total=len(fleets), in_fleet=fleets.count(fleet))

    def by_source(self, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Recorded]:
        """Return the events that were recorded for these (source, source_id)."""
        length = len(self._log)
        found = {key: self._log.by_source(*key, length=length) for key in keys}
        return {key: event for key, event in found.items() if event is not None}

    def answer(self, actor: str, key: str) -> StoredAnswer | None:
        """Return what was answered to this actor's idempotency key, if it came before."""
        remembered = self._draft.answers.get((actor, key))
        return None if remembered is None else remembered.answer

    def remember(self, actor: str, key: str, answer: StoredAnswer) -> None:
        """Keep the answer to an idempotency key. Raises ``Conflict`` if the key has one."""
        if (actor, key) in self._draft.answers:
            self.failure = Conflict(f"idempotency key {key!r} of {actor} was answered already")
            raise self.failure
        kept = {(actor, key): Remembered(answer=answer, at=self.now)}
        self._draft = replace(self._draft, answers={**self._draft.answers, **kept})

    def away(self) -> dict[Need, datetime]:
        """Return what nobody serves as the log says, at this instant."""
        return dict(self._draft.away)

    def save_away(self, came: Sequence[tuple[Need, datetime, int]], went: Sequence[Need]) -> None:
        """Keep what is away from now on, and drop what is back."""
        kept = {need: since for need, since in self._draft.away.items() if need not in went}
        self._draft = replace(self._draft, away=kept | {need: since for need, since, _ in came})

    def last_clock_regression_at(self) -> datetime | None:
        """Return ``recorded_at`` of the newest ``ClockRegressed``."""
        newest_first = (self._log.at(position) for position in range(len(self._log), 0, -1))
        return next((event.recorded_at for event in newest_first if isinstance(event.data, ClockRegressed)), None)
