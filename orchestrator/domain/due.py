"""When a window may be folded, and why then: one formula (CONTRACT section 2, "due")."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from orchestrator.domain.events import Cause
from orchestrator.domain.policy import Edge, Policy
from orchestrator.domain.state import OpenWrites, Requests, WorkspaceState

_PRECEDENCE = {cause: rank for rank, cause in enumerate(Cause)}


class Due(Struct, frozen=True, kw_only=True):
    """The instant at which the window may be folded, and the cause that gets there first."""

    at: datetime
    cause: Cause


def due(state: WorkspaceState, policy: Policy) -> Due | None:
    """Return when the window is due; None while a restart is unsettled, while held, or with nothing to fold."""
    if state.restart is not None or state.hold is not None or not state.registered:
        return None
    return window_due(state, policy)


def window_due(state: WorkspaceState, policy: Policy) -> Due | None:
    """Return when the window would be due if nothing were unsettled or held."""
    spaced_from = spacing_ends(state, policy)
    candidates = [
        (at if spaced_from is None or cause is Cause.MANUAL else max(at, spaced_from), _PRECEDENCE[cause], cause)
        for cause, at in _candidates(state, policy)
    ]
    if not candidates:
        return None
    at, _, cause = min(candidates)
    return Due(at=at, cause=cause)


def spacing_ends(state: WorkspaceState, policy: Policy) -> datetime | None:
    """Return last cycle start + ``min_interval``, before which only a manual request is due."""
    return None if state.last_start_at is None else state.last_start_at + _ms(policy.min_interval_ms)


def _candidates(state: WorkspaceState, policy: Policy) -> list[tuple[Cause, datetime]]:
    writes, requests, next_try = state.window.writes, state.window.requests or Requests(count=0), state.next_try
    found: list[tuple[Cause, datetime | None]] = [
        (Cause.MANUAL, requests.manual_at),
        (Cause.MUTATION, requests.mutation_at),
    ]
    if writes is None:
        found += [(Cause.PROBE, requests.probe_at)]
    else:
        found += [
            (Cause.MAX_COUNT, _max_count_at(writes, policy)),
            (Cause.LEADING, _leading_at(state, writes, policy)),
            (Cause.QUIET, quiet_ends(writes, policy)),
            (Cause.MAX_WAIT, max_wait_ends(writes, policy)),
        ]
    if next_try is not None and (next_try.anyway or writes is None):
        found += [(Cause.GAVE_UP, next_try.at)]
    return [(cause, at) for cause, at in found if at is not None]


def quiet_ends(writes: OpenWrites, policy: Policy) -> datetime | None:
    """Return the end of quiet: the one that ends last among the window's writes."""
    by_rule, by_policy_from = writes.quiet.rule_until, writes.quiet.policy_from
    if by_policy_from is None:
        return by_rule
    by_policy = by_policy_from + _ms(policy.quiet_ms)
    return by_policy if by_rule is None else max(by_rule, by_policy)


def max_wait_ends(writes: OpenWrites, policy: Policy) -> datetime | None:
    """Return the end of max_wait: the one that ends first among the window's writes."""
    by_rule, by_policy_from = writes.max_wait.rule_until, writes.max_wait.policy_from
    if by_policy_from is None:
        return by_rule
    by_policy = by_policy_from + _ms(policy.max_wait_ms)
    return by_policy if by_rule is None else min(by_rule, by_policy)


def _max_count_at(writes: OpenWrites, policy: Policy) -> datetime | None:
    """Return the time of the ``max_count``-th write; after a change to what waits, of the last write before that."""
    if writes.all.count < policy.max_count:
        return None
    full = writes.full
    return full.at if full is not None and full.max_count == policy.max_count else writes.all.last_at


def _leading_at(state: WorkspaceState, writes: OpenWrites, policy: Policy) -> datetime | None:
    if policy.edge is not Edge.LEADING or not writes.opened_idle:
        return None
    first, spaced_from = writes.all.first_at, spacing_ends(state, policy)
    return first if spaced_from is None or spaced_from <= first else None


def _ms(duration_ms: int) -> timedelta:
    return timedelta(milliseconds=duration_ms)
