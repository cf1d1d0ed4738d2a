"""What an executor is: the order it is given, the receipt it gives back, the calls it answers (DESIGN section 6)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

Target = Mapping[str, Any]
"""What an executor acts on, as its ``normalise`` returned it: JSON values, no floats."""


@dataclass(frozen=True, kw_only=True)
class EarlierCycle:
    """A cycle of the same restart that was started before. ``to_position``: the last write that it answered."""

    cycle: str
    fence: int
    to_position: int


@dataclass(frozen=True, kw_only=True)
class Order:
    """One cycle, as an executor is told to carry it out.

    ``fence`` grows with every claim of the workspace: an executor that can
    compare it refuses a lower one than it has seen. ``deadline_s`` is on
    ``time.monotonic()``; past it the cycle has failed (policy ``cycle_timeout``).
    ``stop`` is set when the worker shuts down or has lost its lease: every wait
    inside an executor must end soon after it with ``ExecutionCancelled``.

    A retry acts again, with one exception: where the target itself carries the tag of one of ``earlier`` that answers
    up to the same ``to_position``, that act is known to have happened, and only the look whether it is ready is left.
    """

    workspace: str
    restart: str
    cycle: str
    fence: int
    target: Target
    reason: str
    deadline_s: float
    stop: threading.Event
    kind: str = "restart"
    """``restart``, or ``reload`` where all that waits asks for no more: what runs takes its files up and goes on."""
    to_position: int = 0
    """The last write that this cycle answers."""
    earlier: tuple[EarlierCycle, ...] = ()
    """The cycles of the same restart so far, oldest first; none where they could not be read."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What came of a ``restart`` call. ``output`` is bounded and goes into the event."""

    output: str = ""


class Readiness(StrEnum):
    """One look at a workspace after its restart."""

    READY = "ready"
    NOT_YET = "not_yet"
    FAILED = "failed"


class Executor(Protocol):
    """How one kind of workspace is restarted (DESIGN section 6).

    Methods block and may be called from several threads for different workspaces,
    never at once for the same one. One may have ``harmless_fields``: see ``names_code``.
    """

    name: str
    """As workspaces name it: ``command``, ``process``, ``simulated``, ..."""
    fenced: bool
    """True if it refuses a fence lower than one it has seen."""

    def normalise(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Return the target with defaults filled in, durations as strings ("1m30s"), no floats.

        Raises ``InvalidTarget`` with a sentence that names the field.
        """
        ...

    def inspect(self, order: Order) -> str | None:
        """Return the target's generation: a token that changes when it was restarted, or None."""
        ...

    def restart(self, order: Order) -> Receipt:
        """Restart, and return when that is done (not when it is ready).

        Raises ``TransientError``, ``PermanentError``, ``UnknownOutcome``, ``ReadinessTimeout``
        (past the deadline) or ``ExecutionCancelled``.
        """
        ...

    def probe(self, order: Order, receipt: Receipt) -> Readiness:
        """Look once, quickly (a few seconds at most), whether the workspace is ready."""
        ...


def names_code(executor: Executor, target: Mapping[str, Any]) -> bool:
    """Return whether registering a target lets its caller choose a program, a path or an address.

    It does, unless the executor has ``harmless_fields``, a frozenset, and the target has no others.
    """
    harmless: frozenset[str] | None = getattr(executor, "harmless_fields", None)
    return harmless is None or not target.keys() <= harmless
