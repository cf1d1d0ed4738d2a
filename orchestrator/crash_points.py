"""Named instants, one on each side of every effect on the world, at which a test lets this process die or stand still.

``ORCHESTRATOR_CRASH_AT=NAME[/EVENT][:N][:stop]`` ends the process at the N-th time that it comes to NAME, as
``kill -9`` would; ``/EVENT`` counts only transactions that append such an event, and ``stop`` freezes instead
(SIGSTOP), until a SIGCONT. Unset, coming to one costs one comparison. For tests and drills only: never in production.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.errors import InvalidInput

VARIABLE = "ORCHESTRATOR_CRASH_AT"
KILLED = 137
"""The exit code of a process that a SIGKILL ended, as shells say it."""

POINTS: Mapping[str, str] = {
    "write.begin": "a transaction is about to begin",
    "write.locked": "it holds its rows and the append lock; nothing is appended",
    "write.step": "a unit of several that share a commit is about to be carried out",
    "write.appended": "events are appended; the rows may not be saved",
    "write.commit": "everything is written, nothing is committed",
    "write.committed": "it is committed; nobody has been told",
    "change.begin": "a change beside the log (a lease, the tick's mark, a sum) is about to begin",
    "change.commit": "it is written, not committed",
    "change.committed": "it is committed",
    "act.begin": "a cycle is committed, its executor not called",
    "act.end": "the executor has acted, the end is not recorded",
    "export.begin": "a checkpoint is stored, a sink does not have it",
    "export.end": "the sink has it, that is not noted",
    "bell.ring": "a workspace may start, its bell is not rung",
    "bell.rung": "its bell is rung",
    "beat.fire": "a tick is due and not sent",
    "beat.fired": "it is sent",
    "message.received": "a message was delivered and not acknowledged to the broker",
    "message.taken": "it is acknowledged, so the broker has forgotten it, and nothing was done",
}
"""All of them, and what is true there."""

_STOPPED_WITHIN_S = 0.1
_FORM = re.compile(r"(?P<name>[a-z.]+)(/(?P<event>[A-Za-z]+))?(:(?P<nth>[1-9][0-9]{0,8}))?(:(?P<stop>stop))?")


class Named(Protocol):
    """Something that a transaction appended."""

    @property
    def type(self) -> str:
        """Return the event's type."""
        ...


Reached = Callable[[str, Sequence[Named]], None]

_reached: Reached | None = None


def crash_point(name: str, events: Sequence[Named] = ()) -> None:
    """Say that the process has come to ``name``, with these events appended in the transaction at hand."""
    if _reached is not None:
        _reached(name, events)


def watch(reached: Reached | None) -> None:
    """Have ``reached`` called at every crash point from now on; None: nothing any more."""
    global _reached  # noqa: PLW0603 (one process has one end)
    _reached = reached


def arm(environment: Mapping[str, str]) -> None:
    """Do what the environment's ``ORCHESTRATOR_CRASH_AT`` says. Raises ``InvalidInput`` for an unknown name."""
    wanted = environment.get(VARIABLE)
    if wanted is None:
        return
    form = _FORM.fullmatch(wanted)
    if form is None or form["name"] not in POINTS:
        raise InvalidInput(
            f"{VARIABLE}={wanted!r} names no crash point; write NAME[/EVENT][:N][:stop] with one of {', '.join(POINTS)}"
        )
    watch(_Countdown(form["name"], form["event"], int(form["nth"] or 1), _freeze if form["stop"] else _die))


@dataclass
class _Countdown:
    """Counts the visits that matter, and ends at the last. Threads may come at once: one more or less is no matter."""

    name: str
    event: str | None
    left: int
    end: Callable[[], None]

    def __call__(self, name: str, events: Sequence[Named]) -> None:
        if name == self.name and (self.event is None or any(event.type == self.event for event in events)):
            self.left -= 1
            if self.left == 0:
                self.end()


def _die() -> None:
    os._exit(KILLED)


def _freeze() -> None:
    time.sleep(_STOPPED_WITHIN_S)  # this thread stands still already; what others are in the middle of may end
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(_STOPPED_WITHIN_S)  # another thread may take the signal: this one must not go on meanwhile
