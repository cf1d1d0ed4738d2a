"""Writing what the steps of a transaction have changed: together, whatever the number of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from orchestrator.domain.events import Recorded
from orchestrator.errors import StorageUnavailable
from orchestrator.storage.sql import keys as access
from orchestrator.storage.sql import presence, recomputation, rows
from orchestrator.storage.sql.changes import Changes
from orchestrator.storage.sql.many_rows import ManyRows
from orchestrator.storage.sql.schema import (
    access_keys,
    events,
    idempotency_keys,
    leases,
    policies,
    registrations,
    restarts,
    workspace_snapshots,
    workspaces,
)
from orchestrator.storage.sql.statements import Statements
from orchestrator.storage.sql.workspace_rows import (
    Found,
    fleet_of,
    is_registered_anew,
    lease_row,
    registration_row,
    same_cycle,
    workspace_row,
)


def write(
    sql: Statements, before: Mapping[str, Found], changes: Changes, now: datetime, appended: Callable[[], None]
) -> None:
    """Write everything. ``before``: the rows as they were locked; ``appended`` is called once the events are written.

    Raises ``Conflict``, ``StorageUnavailable``.
    """
    batch = ManyRows(sql)
    if sql.dialect == "sqlite":
        batch.insert(events, [{"position": event.position, **rows.event_row(event)} for event in changes.events])
        appended()
        _add_rest(batch, before, changes, now)
    else:
        _add_rest(batch, before, changes, now)
        _send_with_events(batch, changes.events)
        appended()
    _write_beside(sql, before, changes)


def _send_with_events(batch: ManyRows, appended: Sequence[Recorded]) -> None:
    if not appended:
        batch.send()
        return
    drawn = batch.send_drawing(events, [rows.event_row(event) for event in appended], drawn="position")
    if drawn != [event.position for event in appended]:
        raise StorageUnavailable("the database drew other positions than foretold; nothing was stored, try again")


def _add_rest(batch: ManyRows, before: Mapping[str, Found], changes: Changes, now: datetime) -> None:
    after = changes.workspaces
    batch.upsert(workspaces, [_workspace_row(found) for found in after.values()])
    moved = [one for name, one in after.items() if is_registered_anew(before.get(name), one)]
    batch.upsert(registrations, [row for one in moved if (row := registration_row(one.stored.state)) is not None])
    _add_leases(batch, before, changes)
    batch.upsert(restarts, [rows.restart_row(record) for record in changes.restarts.values()])
    batch.insert(workspace_snapshots, [rows.snapshot_row(snapshot) for snapshot in changes.snapshots])
    batch.upsert(policies, [rows.policy_row(layer) for layer in changes.layers.values()])
    batch.insert(idempotency_keys, _answer_rows(changes, now))
    batch.upsert(access_keys, [access.key_row(key) for key in changes.keys.values()])


def _write_beside(sql: Statements, before: Mapping[str, Found], changes: Changes) -> None:
    """Write what is rare, a statement each: fleets of running cycles, how far windows follow a policy, who is away,
    what keys have used up.
    """
    for name, one in changes.workspaces.items():
        state = one.stored.state
        if state.cycle is not None and is_registered_anew(before.get(name), one):
            fleet = sa.update(leases).where(leases.c.workspace == state.workspace)
            sql.run(fleet.values(fleet=fleet_of(state)))
    for done, to in changes.recomputed:
        recomputation.note(sql, done, to)
    for key, used_until in sorted(changes.budgets.items()):  # as uses are noted beside: nobody waits crosswise
        access.save_budget(sql, key, used_until)
    for came, went in changes.away:
        presence.save_away(sql, came, went)


def _workspace_row(found: Found) -> rows.Row:
    return workspace_row(found.stored, is_old=found.is_old, lease_until=found.lease_until)


def _answer_rows(changes: Changes, now: datetime) -> list[rows.Row]:
    return [
        {
            "actor": actor,
            "key": key,
            "fingerprint": answer.fingerprint,
            "answer": answer.answer,
            "remembered_at": now,
        }
        for (actor, key), answer in changes.answers.items()
    ]


def _add_leases(batch: ManyRows, before: Mapping[str, Found], changes: Changes) -> None:
    """Add the leases of cycles that started, and delete those of cycles that have ended."""
    given, ended = [], []
    for name, one in changes.workspaces.items():
        earlier, state = before.get(name), one.stored.state
        if earlier is not None and same_cycle(earlier, one.stored):
            continue
        lease = changes.leases.get(name)
        if state.cycle is not None and lease is not None:
            given.append(lease_row(state, lease))
        elif earlier is not None and earlier.stored.state.cycle is not None and earlier.lease_until is None:
            ended.append(name)
    batch.upsert(leases, given)
    batch.delete(leases.c.workspace, ended)
