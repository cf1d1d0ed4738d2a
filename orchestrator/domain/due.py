"""When a window may be folded, and why then: one formula (CONTRACT section 2, "due")."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.events import Cause
from orchestrator.domain.policy import Edge, Policy
from orchestrator.domain.state import Window, WorkspaceState

_PRECEDENCE = {cause: rank for rank, cause in enumerate(Cause)}


@dataclass(frozen=True, kw_only=True)
class Due:
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
        Due(at=at if cause is Cause.MANUAL or spaced_from is None else max(at, spaced_from), cause=cause)
        for cause, at in _candidates(state, policy)
    ]
    return min(candidates, key=lambda item: (item.at, _PRECEDENCE[item.cause]), default=None)


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
    ends = [window.rule_quiet_until]
    if window.policy_quiet_from is not None:
        ends.append(window.policy_quiet_from + _ms(policy.quiet_ms))
    return max((end for end in ends if end is not None), default=None)


def max_wait_ends(window: Window, policy: Policy) -> datetime | None:
    """Return the end of max_wait: the one that ends first among the window's writes."""
    ends = [window.rule_max_wait_until]
    if window.policy_max_wait_from is not None:
        ends.append(window.policy_max_wait_from + _ms(policy.max_wait_ms))
    return min((end for end in ends if end is not None), default=None)


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
