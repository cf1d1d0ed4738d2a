"""The callers: they ask a server, and ask again with the same key until they know what became of it.

What was acknowledged goes on a list that the run's end is judged by: none of it may be missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random
from typing import NamedTuple, TypeVar

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.policy import DEFAULT_FLEET, DEFAULT_SCOPE, PolicyPatch, fleet_scope
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.state import Registration
from orchestrator.errors import Conflict, InvalidInput, NotFound, Unavailable
from orchestrator.ports.store import Ids
from orchestrator.service.append import Author
from orchestrator.service.change_policy import change_policy
from orchestrator.service.idempotency import RequestKey
from orchestrator.service.operate import Operator
from orchestrator.service.record import AutoRegistration, RecordedBatch, Write, record_writes
from tests.simulation.database import SimulatedStore
from tests.simulation.hub import SECOND, Hub, Killed, Process
from tests.simulation.policies import FLEETS, draw_policy
from tests.simulation.work import PATHS, Action

AnswerT = TypeVar("AnswerT")
AUTO = AutoRegistration(executor="simulated", target={"delay": "0s"})
ACTOR = "key:ci"
_CROWDED = 0.15
"""So many writes come with those of others."""
_REFUSALS = (NotFound, Conflict, InvalidInput)
"""Answers that are final though nothing was done."""


class Ack(NamedTuple):
    """What a client was told is stored: under which id, at which position; ``source_id`` is its own name for it."""

    workspace: str
    id: str
    position: int
    source_id: str | None


@dataclass
class Servers:
    """The API processes: which of them answers is drawn anew for each request."""

    hub: Hub
    rng: Random
    processes: list[Process] = field(default_factory=list)

    def call(self, work: Callable[[], AnswerT]) -> AnswerT:
        """Do ``work`` inside of a server. Raises ``Unavailable`` also where the server dies meanwhile."""
        server = self.rng.choice(self.processes)
        client = self.hub.move(server)
        try:
            return work()
        except Killed:
            if client.dead:
                raise
            raise Unavailable("the connection was reset") from None
        finally:
            self.hub.move(client)


@dataclass
class Clients:
    """All callers of a run."""

    hub: Hub
    rng: Random
    servers: Servers
    store: SimulatedStore
    ids: Ids
    acks: list[Ack] = field(default_factory=list)
    sent: int = 0
    asked_again: int = 0
    unknown: int = 0
    """Requests that were never answered: their effect may be there or not."""
    written: Counter[str] = field(default_factory=Counter)
    requested: Counter[str] = field(default_factory=Counter)
    process: Process = field(default_factory=lambda: Process("client"))

    def __post_init__(self) -> None:
        self._operator = Operator(self.store, self.ids)
        self.kinds: dict[str, Callable[[Action, Random], None]] = {
            "write": self._write,
            "manual": self.request,
            "mutation": self.request,
            "probe": self._probe,
            "hold": self._hold,
            "cancel": self._cancel,
            "remove": self._remove,
            "register": self._register,
            "policy": self._policy,
            "exit": self._exit,
        }

    def start(self, action: Action, late: int = 0) -> None:
        """Let a client carry out an action, ``late`` microseconds from now."""

        def work() -> None:
            self.hub.wait(late)
            self.kinds[action.kind](action, Random(action.draw))

        self.hub.spawn(self.process, work, action.kind)
        company = Random(f"{action.draw} company")
        if action.kind == "write" and company.random() < _CROWDED:
            self._crowd(action, late, company)

    def _crowd(self, action: Action, late: int, rng: Random) -> None:
        """Let others write and ask for what is refused at the same instant, so that they share commits."""

        def write() -> None:
            self.hub.wait(late)
            self.write(action.workspace, [rng.choice(PATHS)], patient=rng.random() < 0.5)

        def be_refused() -> None:
            self.hub.wait(late)
            author, what = (
                Author(actor=ACTOR),
                Registration(fleet=FLEETS[0], labels={}, executor="simulated", target={}),
            )
            self.ask(lambda: self._operator.register(action.workspace, what, author, create_only=True))

        for _ in range(rng.choice((2, 5))):
            self.hub.spawn(self.process, write, "crowd")
        self.hub.spawn(self.process, be_refused, "crowd")

    def ask(
        self, work: Callable[[], AnswerT], *, patient: bool = True, refusals: tuple[type[Exception], ...] = _REFUSALS
    ) -> AnswerT | None:
        """Ask until there is an answer. None: it was refused, or an impatient caller went away not knowing.

        A refusal that is none of ``refusals`` ends the client, which is a finding.
        """
        while True:
            self.sent += 1
            try:
                return self.servers.call(work)
            except Unavailable:
                if not patient:
                    self.unknown += 1
                    return None
                self.asked_again += 1
            except refusals:
                return None
            self.hub.wait(self.rng.randrange(SECOND // 2, 5 * SECOND))

    def write(self, workspace: str, paths: list[str], *, patient: bool = True, key: str | None = None) -> None:
        """Report writes, each under an id of the caller's own."""
        writes = [
            Write(workspace=workspace, path=path, source_id=self.ids.new("src") if patient and key is None else None)
            for path in paths
        ]
        request = RequestKey(key=key, fingerprint=key) if key is not None else None
        self.written[workspace] += len(writes)

        def work() -> RecordedBatch:
            return record_writes(self.store, writes, actor=ACTOR, ids=self.ids, auto=AUTO, request=request)[0]

        batch = self.ask(work, patient=patient, refusals=())
        for index, accepted in (batch.accepted if batch else {}).items():
            self.acks.append(Ack(workspace, accepted.id, accepted.position, writes[index].source_id))

    def _write(self, action: Action, rng: Random) -> None:
        paths = [rng.choice(PATHS) if rng.random() < 0.9 else f"n/{rng.randrange(99)}" for _ in range(action.size)]
        way = rng.random()
        if way < 0.7:
            self.write(action.workspace, paths)
        elif way < 0.85:  # without ids of its own: the key of the request tells a repetition
            self.write(action.workspace, paths, key=self.ids.new("key"))
        else:
            self.write(action.workspace, paths, patient=False)

    def request(self, action: Action, rng: Random) -> None:
        """Ask for a restart, of the trigger that the action's kind names."""
        command = cmd.RequestRestart(trigger=ev.Trigger(action.kind), reason="asked for")
        request = self._key()
        self.requested[action.workspace] += 1
        answer = self.ask(
            lambda: self._operator.request_restart(action.workspace, command, Author(actor=ACTOR), request)[0]
        )
        if answer is not None:
            self.acks.append(Ack(action.workspace, answer.id, answer.position, None))

    def _probe(self, action: Action, rng: Random) -> None:
        for _ in range(rng.choice((1, 3))):
            command, key = cmd.ReportProbe(healthy=rng.random() < 0.2, detail="no answer"), self._key()
            request = None if command.healthy and rng.random() < 0.5 else key
            author = Author(actor=ACTOR)
            self.ask(partial(self._operator.report_probe, action.workspace, command, author, request))
            self.hub.wait(rng.randrange(SECOND, 20 * SECOND))

    def _hold(self, action: Action, rng: Random) -> None:
        lasts = rng.randrange(5, 300)
        until = self.store.clock.now() + timedelta(seconds=lasts) if rng.random() < 0.5 else None
        self._change(action.workspace, cmd.Hold(reason="work on it", until=until))
        if until is None or rng.random() < 0.3:
            self.hub.wait(rng.randrange(lasts) * SECOND)
            self._change(action.workspace, cmd.Release(reason="done"))

    def _remove(self, action: Action, rng: Random) -> None:
        self._change(action.workspace, cmd.Remove(reason="gone"))
        if rng.random() < 0.8:
            self.hub.wait(rng.randrange(240) * SECOND)
            self._register(action, rng)

    def _change(self, workspace: str, command: cmd.Hold | cmd.Release | cmd.Remove) -> None:
        request = self._key()
        self.ask(lambda: self._operator.change(workspace, command, Author(actor=ACTOR), request))

    def _register(self, action: Action, rng: Random) -> None:
        registration = Registration(
            fleet=rng.choice(FLEETS),
            labels={"n": str(rng.randrange(3))},
            executor="simulated",
            target={"delay": "0s"},
            policy=draw_policy(rng) if rng.random() < 0.6 else PolicyPatch(),
        )
        self.register(action.workspace, registration)

    def register(self, workspace: str, registration: Registration) -> None:
        self.ask(lambda: self._operator.register(workspace, registration, Author(actor=ACTOR)))

    def _cancel(self, action: Action, rng: Random) -> None:
        for _ in range(20):  # until there is something to cancel
            record = self._unsettled(action.workspace)
            if record is not None:
                author = Author(actor=ACTOR)
                self.ask(partial(self._operator.cancel, record, "not now", author, self._key()))
                return
            self.hub.wait(rng.randrange(SECOND, 15 * SECOND))

    def _unsettled(self, workspace: str) -> RestartProjection | None:
        with self.store.memory.read() as reader:
            row = reader.workspace(workspace)
            restart = row.state.restart if row else None
            return reader.restart(restart.id) if restart else None

    def _policy(self, action: Action, rng: Random) -> None:
        scope = rng.choice((DEFAULT_SCOPE, fleet_scope(DEFAULT_FLEET), fleet_scope(FLEETS[1])))
        self.policy(scope, draw_policy(rng))

    def policy(self, scope: str, patch: PolicyPatch) -> None:
        self.ask(lambda: change_policy(self.store, self.ids, scope=scope, patch=patch, actor=ACTOR))

    def _exit(self, action: Action, rng: Random) -> None:
        exited = ev.ProcessExited(exit_code=rng.choice((0, 1)), signal=None, respawn_after_ms=1_000)
        self.ask(lambda: self._operator.report_exit(action.workspace, exited))

    def release(self, workspace: str) -> None:
        """End a hold that nobody else ends."""
        self._change(workspace, cmd.Release(reason="healed"))

    def _key(self) -> RequestKey:
        key = self.ids.new("key")
        return RequestKey(key=key, fingerprint=key)
