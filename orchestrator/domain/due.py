"""When a window may be folded, and why then: one formula (CONTRACT section 2, "due")."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from msgspec import Struct

from orchestrator.domain.events import Cause
from orchestrator.domain.policy import Edge, Policy
from orchestrator.domain.state import OpenWrites, WorkspaceState

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
    first: Due | None = None
    for cause, named in _candidates(state, policy):
        if named is None:
            continue
        at = named if spaced_from is None or cause is Cause.MANUAL else max(named, spaced_from)
        if first is None or at < first.at or (at == first.at and _PRECEDENCE[cause] < _PRECEDENCE[first.cause]):
            first = Due(at=at, cause=cause)
    return first


def spacing_ends(state: WorkspaceState, policy: Policy) -> datetime | None:
    """Return last cycle start + ``min_interval``, before which only a manual request is due."""
    return None if state.last_start_at is None else state.last_start_at + _ms(policy.min_interval_ms)


def _candidates(state: WorkspaceState, policy: Policy) -> Iterator[tuple[Cause, datetime | None]]:
    writes, requests, next_try = state.window.writes, state.window.requests, state.next_try
    if requests is not None:
        yield Cause.MANUAL, requests.manual_at
        yield Cause.MUTATION, requests.mutation_at
        if writes is None:
            yield Cause.PROBE, requests.probe_at
    if writes is not None:
        yield Cause.MAX_COUNT, _max_count_at(writes, policy)
        yield Cause.LEADING, _leading_at(state, writes, policy)
        yield Cause.QUIET, quiet_ends(writes, policy)
        yield Cause.MAX_WAIT, max_wait_ends(writes, policy)
    if next_try is not None and (next_try.anyway or writes is None):
        yield Cause.GAVE_UP, next_try.at


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
