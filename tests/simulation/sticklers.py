"""Callers that take the promises about answers at their word: they ask twice, mix, hurry, and compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

from orchestrator.domain.policy import DEFAULT_SCOPE
from orchestrator.errors import KeyReused
from orchestrator.service.idempotency import RequestKey
from orchestrator.service.record import RecordedBatch, Write, record_writes
from tests.simulation.clients import ACTOR, AUTO, Ack, Clients
from tests.simulation.hub import SECOND
from tests.simulation.policies import draw_policy
from tests.simulation.work import PATHS, Action

_OTHER = "key:other"
Broken = Callable[[str, str, str], None]


class Sticklers:
    """Adds their kinds of work to the clients'. ``broken`` is told the promise, what is wrong and a sentence."""

    def __init__(self, clients: Clients, names: tuple[str, ...], broken: Broken) -> None:
        self._clients, self._names, self._broken = clients, names, broken
        clients.kinds |= {"again": self._again, "batch": self._batch, "hurry": self._hurry, "shift": self._shift}

    def _hurry(self, action: Action, rng: Random) -> None:
        """Somebody loses patience with a restart that is to be retried, or that runs, and asks for one."""
        retrying = rng.random() < 0.5
        for _ in range(60):
            with self._clients.store.memory.read() as reader:
                row = reader.workspace(action.workspace)
            restart = row.state.restart if row is not None else None
            if restart is not None and (restart.retrying if retrying else restart.cycle is not None):
                self._clients.request(replace(action, kind="manual"), rng)
                return
            self._clients.hub.wait(rng.randrange(SECOND, 4 * SECOND))

    def _batch(self, action: Action, rng: Random) -> None:
        """One request with writes of several workspaces, one of them named twice."""
        clients, names = self._clients, rng.sample(self._names, 2)
        writes = [self._named(name, rng) for name in names for _ in range(rng.choice((1, 3)))]
        batch = self._record([*writes, writes[0]], ACTOR, None)
        if batch is None or len(writes) not in batch.accepted:
            return
        first, repeated = batch.accepted[0], batch.accepted[len(writes)]
        if (first.id, first.position, repeated.replayed) != (repeated.id, repeated.position, True):
            self._broken("once", first.id, f"{first.id} came twice in a request, the second time as {repeated.id}")
        self._acknowledge(writes, batch)
        clients.hub.wait(rng.randrange(9) * SECOND)

    def _shift(self, action: Action, rng: Random) -> None:
        """Somebody changes a policy while windows of several workspaces are open, and others go on writing to them."""
        clients = self._clients
        names = rng.sample(self._names, min(3, len(self._names)))
        for name in names:
            clients.write(name, [rng.choice(PATHS)])
        for name in names:
            late = rng.randrange(SECOND // 10)
            clients.start(Action(at=0, kind="write", workspace=name, draw=rng.randrange(1 << 30)), late)
        clients.policy(DEFAULT_SCOPE, draw_policy(rng))

    def _again(self, action: Action, rng: Random) -> None:
        """The same request twice gives the same answer; its key with something else is refused; others may use it."""
        writes = [self._named(action.workspace, rng) for _ in range(rng.choice((1, 3)))]
        text = self._clients.ids.new("key")
        key = RequestKey(key=text, fingerprint=text) if rng.random() < 0.5 else None
        first = self._record(writes, ACTOR, key)
        if first is None or not first.accepted:
            return
        self._acknowledge(writes, first)
        self._clients.hub.wait(rng.randrange(1, 90) * SECOND)
        second = self._ask(writes, ACTOR, key)
        if second is not None and _answers(second) != [(*told, True) for *told, _ in _answers(first)]:
            said = f"{_answers(first)} and then {_answers(second)}"
            self._broken("once", text, f"the same writes to {action.workspace} were answered {said}")
        if key is not None and not self._is_refused(writes, replace(key, fingerprint="another")):
            self._broken("once", text, f"{text} was taken for another request too")
        others = self._record(writes, _OTHER, key)
        if others is not None:
            self._acknowledge(writes, others)

    def _named(self, workspace: str, rng: Random) -> Write:
        return Write(workspace=workspace, path=rng.choice(PATHS), source_id=self._clients.ids.new("src"))

    def _record(self, writes: list[Write], actor: str, key: RequestKey | None) -> RecordedBatch | None:
        """Ask for something new: from now on it may be stored, once."""
        for write in dict.fromkeys(writes):
            self._clients.written[write.workspace] += 1
        return self._ask(writes, actor, key)

    def _ask(self, writes: list[Write], actor: str, key: RequestKey | None) -> RecordedBatch | None:
        clients = self._clients
        record = partial(record_writes, clients.store, writes, actor=actor, ids=clients.ids, auto=AUTO, request=key)
        return clients.ask(lambda: record()[0])

    def _is_refused(self, writes: list[Write], key: RequestKey) -> bool:
        def refused() -> bool:
            try:
                record_writes(self._clients.store, writes, actor=ACTOR, ids=self._clients.ids, auto=AUTO, request=key)
            except KeyReused:
                return True
            return False

        return self._clients.ask(refused) is not False

    def _acknowledge(self, writes: list[Write], batch: RecordedBatch) -> None:
        for index, write in enumerate(writes):
            accepted = batch.accepted.get(index)
            if accepted is not None:
                self._clients.acks.append(Ack(write.workspace, accepted.id, accepted.position, write.source_id))


def _answers(batch: RecordedBatch) -> list[tuple[int, str, int, str, bool]]:
    """Return what CONTRACT section 5 promises to be the same again: id, position and action."""
    accepted = sorted(batch.accepted.items())
    return [(index, one.id, one.position, one.action.value, one.replayed) for index, one in accepted]
