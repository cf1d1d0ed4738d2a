"""Where a simulated thread meets the world, by name: every place at which a run may crash, freeze, delay or fail.

A name is the function of the product, the operation, and for a transaction which end of it. The list is written
out, so that a new boundary of the product's service code fails a test until it is here.
"""

from __future__ import annotations

from types import CodeType
from typing import NamedTuple

STAGES: dict[str, tuple[str, ...]] = {
    "commit": ("begin", "step", "commit", "committed"),
    "read": ("begin",),
    "renew_leases": ("begin", "committed"),
    "ticked": ("begin", "committed"),
    "forget_answers": ("begin", "committed"),
    "ring": ("begin", "sent"),
    "inspect": ("begin", "done"),
    "restart": ("begin", "done"),
    "probe": ("begin", "done"),
}
"""What can be done to the world, and at which ends of it a fault may strike."""

SITES: tuple[tuple[str, str], ...] = (
    ("absence.note_absences", "read"),
    ("absence.note_absences", "commit"),
    ("change_policy.change_policy", "commit"),
    ("claim.Claimer._ready", "read"),
    ("claim.Claimer._start", "commit"),
    ("claim.Claimer.end_and_start", "commit"),
    ("dead_worker._abandon", "commit"),
    ("dead_worker._cycles_of", "read"),
    ("drain.Drainer._finish", "commit"),
    ("drain.Drainer._is_recorded", "read"),
    ("earlier_cycles.earlier_cycles", "read"),
    ("execute._act", "restart"),
    ("execute._await_ready", "probe"),
    ("execute.execute", "inspect"),
    ("lease.LeaseBook.renew", "renew_leases"),
    ("operate.Operator._carry_out", "commit"),
    ("operate.Operator._unchanged_by", "read"),
    ("operate.Operator.register", "commit"),
    ("operate.Operator.report_exit", "commit"),
    ("recompute._recompute_page", "commit"),
    ("recompute.recompute", "read"),
    ("record.record_writes", "commit"),
    ("tasks.Ticker.forget_answers", "forget_answers"),
    ("tasks.Ticker.forget_answers", "read"),
    ("tick._Bells.ring", "ring"),
    ("tick._look_out", "read"),
    ("tick.look", "ticked"),
    ("tick.look_at", "commit"),
)
"""Every call of the world in ``orchestrator/service`` and in the workers' threads: function, operation."""


class Boundary(NamedTuple):
    """One end of one operation at one site."""

    number: int
    name: str
    stage: str


def _all() -> dict[tuple[str, str], tuple[Boundary, ...]]:
    boundaries: dict[tuple[str, str], tuple[Boundary, ...]] = {}
    index = 0
    for function, operation in SITES:
        ends = []
        for stage in STAGES[operation]:
            ends.append(Boundary(index, f"{function} {operation} {stage}", stage))
            index += 1
        boundaries[function, operation] = tuple(ends)
    return boundaries


BOUNDARIES = _all()
ALL = tuple(end for ends in BOUNDARIES.values() for end in ends)
_STANDS_FOR: dict[CodeType, str] = {}
_BY_CODE: dict[tuple[int, str], tuple[CodeType, tuple[Boundary, ...]]] = {}
"""By the identity of a code, which is kept so that it stays its own: to hash one takes 0.7 us (measured)."""


class Unnamed(BaseException):
    """The product crosses a boundary that has no name here. Not an ``Exception``, which the product would log."""


def stands_for(code: CodeType, function: str) -> None:
    """Let a planted function's code cross the boundaries of the function it stands for."""
    _STANDS_FOR[code] = function


def boundaries_of(code: CodeType, operation: str) -> tuple[Boundary, ...]:
    """Return the ends of the operation that this code has just begun. Raises ``Unnamed``."""
    found = _BY_CODE.get((id(code), operation))
    if found is None:
        module = code.co_filename.rpartition("/")[2].removesuffix(".py")
        key = (_STANDS_FOR.get(code, f"{module}.{code.co_qualname}"), operation)
        if key not in BOUNDARIES:
            raise Unnamed(f"{key[0]} calls {operation}, and tests/simulation/boundaries.py does not know it")
        found = _BY_CODE[id(code), operation] = code, BOUNDARIES[key]
    return found[1]
