"""A workspace's state in the shape that the code of revision 0002 stored: frozen, with the way to today's and back.

It goes with the version after the one that converts the last of these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from orchestrator.domain import state as today
from orchestrator.domain.events import Cause, Kind
from orchestrator.domain.policy import PolicyPatch


class OldRegistration(Struct, frozen=True, kw_only=True):
    """As it was inside of the state."""

    fleet: str
    labels: Mapping[str, str]
    executor: str
    target: Mapping[str, Any]
    policy: PolicyPatch = PolicyPatch()


class OldHold(Struct, frozen=True, kw_only=True):
    """A hold."""

    reason: str
    until: datetime | None


class OldWindow(Struct, frozen=True, kw_only=True):
    """The window as sixteen fields."""

    opened_at: datetime | None = None
    writes: int = 0
    requests: int = 0
    reload_only: bool = True
    first_write_at: datetime | None = None
    last_write_at: datetime | None = None
    policy_quiet_from: datetime | None = None
    rule_quiet_until: datetime | None = None
    policy_max_wait_from: datetime | None = None
    rule_max_wait_until: datetime | None = None
    max_count_at: datetime | None = None
    max_count_of: int | None = None
    opened_idle: bool = False
    manual_at: datetime | None = None
    mutation_at: datetime | None = None
    probe_at: datetime | None = None


class OldFolded(Struct, frozen=True, kw_only=True):
    """What was pending and folded."""

    writes: int = 0
    requests: int = 0
    reload_only: bool = True
    opened_at: datetime | None = None
    first_write_at: datetime | None = None
    last_write_at: datetime | None = None


class OldCycle(Struct, frozen=True, kw_only=True):
    """The open cycle as it was stored: its lease was the row's."""

    id: str
    worker: str
    attempt: int
    iteration: int
    started_at: datetime
    shadow: bool


class OldRestart(Struct, frozen=True, kw_only=True):
    """The unsettled restart."""

    id: str
    cause: Cause
    kind: Kind
    from_position: int
    to_position: int
    files: int
    queued_at: datetime
    due_at: datetime
    ready_at: datetime
    retrying: bool = False
    cycles: int = 0
    spent: int = 0
    cycle: OldCycle | None = None


class OldState(Struct, frozen=True, kw_only=True):
    """The state.

    ``next_try_anyway`` is read by nobody but the versions that know today's shape: a downgrade leaves it behind for
    them. It is left out where it says nothing, as the code of revision 0002 does.
    """

    OMITTED = frozenset({"next_try_anyway"})

    workspace: str
    version: int = 0
    registration: OldRegistration | None = None
    removed: bool = False
    hold: OldHold | None = None
    fence: int = 0
    settled_to: int = 0
    last_position: int = 0
    last_start_at: datetime | None = None
    last_end_at: datetime | None = None
    give_ups: int = 0
    next_try_at: datetime | None = None
    next_try_anyway: bool | None = None
    window: OldWindow = OldWindow()
    folded: OldFolded = OldFolded()
    restart: OldRestart | None = None
    last_cycle: str | None = None


_SAME = ("workspace", "version", "removed", "fence", "settled_to", "last_position", "last_start_at", "last_end_at")
_SAME_TOO = ("give_ups", "last_cycle")


def today_of(old: OldState, *, registration_position: int) -> today.WorkspaceState:
    """Return the state as it is held today. The old shape does not say where its registration stands in the log."""
    return today.WorkspaceState(
        **{name: getattr(old, name) for name in (*_SAME, *_SAME_TOO)},
        registration=_same(old.registration, today.Registration),
        registration_position=registration_position if old.registration else 0,
        hold=_same(old.hold, today.Hold),
        next_try=today.NextTry(at=old.next_try_at, anyway=bool(old.next_try_anyway)) if old.next_try_at else None,
        window=_window_today(old.window),
        folded=today.Folded(
            opened_at=old.folded.opened_at, writes=_writes_today(old.folded), requests=old.folded.requests
        ),
        restart=_same(old.restart, today.UnsettledRestart),
    )


def old_of(state: today.WorkspaceState) -> OldState:
    """Return the state as the code of revision 0002 stored it."""
    next_try = state.next_try
    return OldState(
        **{name: getattr(state, name) for name in (*_SAME, *_SAME_TOO)},
        registration=_same(state.registration, OldRegistration),
        hold=_same(state.hold, OldHold),
        next_try_at=next_try.at if next_try else None,
        next_try_anyway=True if next_try is not None and next_try.anyway else None,
        window=_old_window(state.window),
        folded=OldFolded(
            opened_at=state.folded.opened_at, requests=state.folded.requests, **_old_writes(state.folded.writes)
        ),
        restart=_same(state.restart, OldRestart),
    )


def _same(value: Any, kind: Any) -> Any:
    """Return a value of the other side's class, whose fields are the same."""
    return None if value is None else msgspec.convert(value, kind, from_attributes=True)


def _writes_today(old: OldWindow | OldFolded) -> today.Writes | None:
    if old.first_write_at is None or old.last_write_at is None:
        return None
    return today.Writes(
        count=old.writes, reload_only=old.reload_only, first_at=old.first_write_at, last_at=old.last_write_at
    )


def _old_writes(writes: today.Writes | None) -> dict[str, Any]:
    if writes is None:
        return {}
    return {
        "writes": writes.count,
        "reload_only": writes.reload_only,
        "first_write_at": writes.first_at,
        "last_write_at": writes.last_at,
    }


def _window_today(old: OldWindow) -> today.Window:
    writes, full = _writes_today(old), None
    if old.max_count_at is not None and old.max_count_of is not None:
        full = today.Full(at=old.max_count_at, max_count=old.max_count_of)
    fresh = (
        None
        if writes is None
        else today.OpenWrites(
            all=writes,
            opened_idle=old.opened_idle,
            quiet=today.Ends(policy_from=old.policy_quiet_from, rule_until=old.rule_quiet_until),
            max_wait=today.Ends(policy_from=old.policy_max_wait_from, rule_until=old.rule_max_wait_until),
            full=full,
        )
    )
    asked = today.Requests(
        count=old.requests, manual_at=old.manual_at, mutation_at=old.mutation_at, probe_at=old.probe_at
    )
    return today.Window(opened_at=old.opened_at, writes=fresh, requests=asked if old.requests else None)


def _old_window(window: today.Window) -> OldWindow:
    fresh, asked = window.writes, window.requests
    values: dict[str, Any] = _old_writes(window.all_writes)
    if fresh is not None:
        values |= {
            "policy_quiet_from": fresh.quiet.policy_from,
            "rule_quiet_until": fresh.quiet.rule_until,
            "policy_max_wait_from": fresh.max_wait.policy_from,
            "rule_max_wait_until": fresh.max_wait.rule_until,
            "max_count_at": fresh.full.at if fresh.full else None,
            "max_count_of": fresh.full.max_count if fresh.full else None,
            "opened_idle": fresh.opened_idle,
        }
    if asked is not None:
        values |= {"manual_at": asked.manual_at, "mutation_at": asked.mutation_at, "probe_at": asked.probe_at}
    return OldWindow(opened_at=window.opened_at, requests=asked.count if asked else 0, **values)
