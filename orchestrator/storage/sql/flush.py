"""Writing what the steps of a transaction have changed: one statement a table, whatever the number of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from orchestrator.domain.events import Recorded
from orchestrator.errors import StorageUnavailable
from orchestrator.storage.sql import presence, recomputation, rows
from orchestrator.storage.sql.changes import Changes
from orchestrator.storage.sql.many_rows import insert_drawing, insert_many, upsert_many
from orchestrator.storage.sql.schema import (
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


def write_events(sql: Statements, appended: Sequence[Recorded]) -> None:
    """Insert events at the positions that they were given. Raises ``Conflict``, ``StorageUnavailable``."""
    if not appended:
        return
    if sql.dialect == "sqlite":
        insert_many(sql, events, [{"position": event.position, **rows.event_row(event)} for event in appended])
        return
    drawn = insert_drawing(sql, events, [rows.event_row(event) for event in appended], drawn="position")
    if drawn != [event.position for event in appended]:
        raise StorageUnavailable("the database drew other positions than foretold; nothing was stored, try again")


def write_rest(sql: Statements, before: Mapping[str, Found], changes: Changes, now: datetime) -> None:
    """Write everything but the events. ``before``: the rows as they were locked. Raises ``Conflict``."""
    after = changes.workspaces
    upsert_many(sql, workspaces, [_workspace_row(found) for found in after.values()])
    _write_registrations(sql, before, after)
    _write_leases(sql, before, changes)
    upsert_many(sql, restarts, [rows.restart_row(record) for record in changes.restarts.values()])
    insert_many(sql, workspace_snapshots, [rows.snapshot_row(snapshot) for snapshot in changes.snapshots])
    upsert_many(sql, policies, [rows.policy_row(layer) for layer in changes.layers.values()])
    for done, to in changes.recomputed:
        recomputation.note(sql, done, to)
    insert_many(sql, idempotency_keys, _answer_rows(changes, now))
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


def _write_registrations(sql: Statements, before: Mapping[str, Found], after: Mapping[str, Found]) -> None:
    """Write the registrations that changed, and the fleets of the cycles that ran already and go on."""
    moved = [one for name, one in after.items() if is_registered_anew(before.get(name), one)]
    said = [row for one in moved if (row := registration_row(one.stored.state)) is not None]
    upsert_many(sql, registrations, said)
    for one in moved:
        state = one.stored.state
        if state.cycle is not None:
            fleet = sa.update(leases).where(leases.c.workspace == state.workspace)
            sql.run(fleet.values(fleet=fleet_of(state)))


def _write_leases(sql: Statements, before: Mapping[str, Found], changes: Changes) -> None:
    """Write the leases of cycles that started, and delete those of cycles that have ended."""
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
    upsert_many(sql, leases, given)
    if ended:
        sql.run(sa.delete(leases).where(leases.c.workspace.in_(ended)))
