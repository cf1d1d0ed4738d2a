"""The broker and the beats: messages that may be lost, doubled, late or overtaken, and ticks that may not come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import partial
from random import Random
from typing import NamedTuple

from orchestrator.errors import BrokerUnavailable
from orchestrator.ports.workspaces import StoredWorkspace
from tests.simulation.boundaries import boundaries_of
from tests.simulation.database import Striking
from tests.simulation.faults import Fault
from tests.simulation.hub import SECOND, Hub
from workers.app import BELL_EXPIRES_S

_LOOKS_AGAIN = SECOND // 5
_THINNED_MOST = 16


class Task(StrEnum):
    """What a message asks a worker to do."""

    TICK = "tick"
    DRAIN = "drain"
    FORGET = "forget"


class Message(NamedTuple):
    task: Task
    expires: int


class Broker:
    """Hands each message to some worker that has a free thread, early acked: gone with whoever took it."""

    def __init__(
        self,
        hub: Hub,
        rng: Random,
        chances: Mapping[Fault, float],
        take: Callable[[Task], bool],
        struck: Callable[[Fault, str], None],
    ) -> None:
        self._hub, self._rng, self._take, self._struck = hub, rng, take, struck
        self.chances = dict(chances)
        self.away = False

    def send(self, message: Message) -> None:
        """Take a message. Raises ``BrokerUnavailable``."""
        if self.away:
            raise BrokerUnavailable("the broker is away")
        copies = 1
        if self._strikes(Fault.DROPPED, message):
            return
        if self._strikes(Fault.DOUBLED, message):
            copies = self._rng.randrange(2, 5)
        for _ in range(copies):
            takes = self._rng.randrange(1_000, 20_000)
            if self._strikes(Fault.LATE, message):
                takes = self._rng.randrange(SECOND, 30 * SECOND)
                message = message._replace(expires=message.expires + takes)  # taken in time, carried out late
            self._hub.call_at(self._hub.now + takes, partial(self._deliver, message))

    def _strikes(self, kind: Fault, message: Message) -> bool:
        chance = self.chances.get(kind)
        if chance is None or self._rng.random() >= chance:
            return False
        self._struck(kind, message.task.value)
        return True

    def _deliver(self, message: Message) -> None:
        if self._hub.now > message.expires:
            return
        if self.away or not self._take(message.task):
            self._hub.call_at(self._hub.now + _LOOKS_AGAIN, partial(self._deliver, message))


class SimulatedDoorbell:
    """``Doorbell`` of a worker."""

    def __init__(self, hub: Hub, world: Striking, broker: Broker) -> None:
        self._hub, self._world, self._broker = hub, world, broker

    def ring(self, workspace: str) -> None:
        begin, sent = boundaries_of(sys._getframe(1).f_code, "ring")
        if self._world.cross(begin) is not None:
            raise BrokerUnavailable("the connection was cut before anything was sent")
        self._broker.send(Message(Task.DRAIN, self._hub.now + BELL_EXPIRES_S * SECOND))
        if self._world.cross(sent) is not None:
            raise BrokerUnavailable("the connection was cut; the outcome is unknown")


class Beats:
    """One or two beats that send ticks. A tick that would find nothing to do is skipped: it changes nothing.

    While something is overdue and nobody can serve it, and faults still reign, ticks come ever more seldom, as if
    they were lost; after the healing every one comes.
    """

    def __init__(self, hub: Hub, broker: Broker, tick: int, phases: tuple[int, ...], next_at: Callable[[], int | None]):
        self._hub, self._broker, self._tick, self._phases, self._next_at = hub, broker, tick, phases, next_at
        self._armed: list[int | None] = [None] * len(phases)
        self._thinned = 1
        self.away_until = 0
        self.healed = False

    def arm(self) -> None:
        """See to it that the tick comes that serves the next instant at which there is something to do."""
        at = self._next_at()
        if at is None:
            return
        for beat, phase in enumerate(self._phases):
            due = max(at, self._hub.now)
            ticks = (due - phase) // self._tick  # the tick before it sleeps until that instant
            when = phase + ticks * self._tick
            if when <= self._hub.now:
                when += self._tick * (1 if self.healed or at > self._hub.now else self._thinned)
            armed = self._armed[beat]
            if armed is None or when < armed:
                self._armed[beat] = when
                self._hub.call_at(when, partial(self._beat, beat, when))

    def _beat(self, beat: int, when: int) -> None:
        if self._armed[beat] != when:
            return
        self._armed[beat] = None
        at = self._next_at()
        if at is None or at > when + self._tick:
            self.arm()
            return
        self._thinned = min(_THINNED_MOST, self._thinned * 2) if at <= when else 1
        if when >= self.away_until:
            try:
                self._broker.send(Message(Task.TICK, self._hub.now + max(2 * SECOND, 2 * self._tick)))
            except BrokerUnavailable:
                pass  # beat logs it; the next tick is sent as planned
        self.arm()


def instant_of(row: StoredWorkspace) -> datetime | None:
    """Return when a tick has something to do for a workspace, on the database's clock."""
    state = row.state
    instants = [at for at in (row.due_at, state.ready_at) if at is not None]
    if state.hold is not None and state.hold.until is not None:
        instants.append(state.hold.until)
    if row.lease is not None:
        instants.append(row.lease.until)
    return min(instants) if instants else None
