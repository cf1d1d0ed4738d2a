"""When a window may be folded, and why then: one formula (CONTRACT section 2, "due")."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from orchestrator.domain.events import Cause
from orchestrator.domain.policy import Edge, Policy
from orchestrator.domain.state import Window, WorkspaceState

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
    window = state.window
    found: list[tuple[Cause, datetime | None]] = [
        (Cause.MANUAL, window.manual_at),
        (Cause.MUTATION, window.mutation_at),
    ]
    if window.writes:
        found += [
            (Cause.MAX_COUNT, _max_count_at(window, policy)),
            (Cause.LEADING, _leading_at(state, policy)),
            (Cause.QUIET, quiet_ends(window, policy)),
            (Cause.MAX_WAIT, max_wait_ends(window, policy)),
        ]
    else:
        found += [(Cause.PROBE, window.probe_at), (Cause.GAVE_UP, state.next_try_at)]
    return [(cause, at) for cause, at in found if at is not None]


def quiet_ends(window: Window, policy: Policy) -> datetime | None:
    """Return the end of quiet: the one that ends last among the window's writes."""
    by_rule, by_policy_from = window.rule_quiet_until, window.policy_quiet_from
    if by_policy_from is None:
        return by_rule
    by_policy = by_policy_from + _ms(policy.quiet_ms)
    return by_policy if by_rule is None else max(by_rule, by_policy)


def max_wait_ends(window: Window, policy: Policy) -> datetime | None:
    """Return the end of max_wait: the one that ends first among the window's writes."""
    by_rule, by_policy_from = window.rule_max_wait_until, window.policy_max_wait_from
    if by_policy_from is None:
        return by_rule
    by_policy = by_policy_from + _ms(policy.max_wait_ms)
    return by_policy if by_rule is None else min(by_rule, by_policy)


def _max_count_at(window: Window, policy: Policy) -> datetime | None:
    if window.writes < policy.max_count:
        return None
    return window.max_count_at if window.max_count_of == policy.max_count else window.last_write_at


def _leading_at(state: WorkspaceState, policy: Policy) -> datetime | None:
    first = state.window.first_write_at
    if policy.edge is not Edge.LEADING or not state.window.opened_idle or first is None:
        return None
    spaced_from = spacing_ends(state, policy)
    return first if spaced_from is None or spaced_from <= first else None


def _ms(duration_ms: int) -> timedelta:
    return timedelta(milliseconds=duration_ms)
