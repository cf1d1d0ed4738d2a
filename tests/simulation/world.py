"""One run: everything wired up, faults struck from one seed, then healing, until nothing waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random

from orchestrator.audit.replay import Difference, replay
from orchestrator.domain.policy import Policy, PolicyPatch
from orchestrator.domain.state import Registration
from orchestrator.errors import BrokerUnavailable
from orchestrator.ports import EventFilter, StoredWorkspace
from orchestrator.service.change_policy import record_floor
from tests.simulation.boundaries import Boundary
from tests.simulation.broker import Beats, Broker, Message, SimulatedDoorbell, Task
from tests.simulation.clients import Clients, Servers
from tests.simulation.database import EPOCH, SimulatedStore
from tests.simulation.faults import Fault
from tests.simulation.hub import SECOND, Hub, Killed, Process
from tests.simulation.plan import Plan, Strike
from tests.simulation.policies import FLEETS
from tests.simulation.target import Outside, SimulatedExecutor
from tests.simulation.work import Action
from tests.simulation.worker import Wiring, Worker

_SERVERS = 2
_FORGET_EVERY = 3600 * SECOND
_LOWEST_LATENCY, _HIGHEST_LATENCY, _SLOW_LATENCY = 200, 8_000, 2 * SECOND
_SLOW = 0.01
_MICROSECOND = timedelta(microseconds=1)
_SWITCHES = 0.3
"""At so many of the crossings other threads run on before this one does."""


_MOST_CROSSINGS = 40_000
"""A run that crosses more boundaries than this goes round in circles; the longest honest ones cross 8,000."""


class Runaway(BaseException):
    """The run does not come to an end."""


class CountedIds:
    """Ids that are the same in every run of a seed."""

    def __init__(self) -> None:
        self._last = 0

    def new(self, prefix: str) -> str:
        self._last += 1
        return f"{prefix}_{self._last:08d}"


@dataclass
class Tally:
    """What a run has seen, for the page that is published."""

    faults: Counter[str] = field(default_factory=Counter)
    crossings: int = 0
    crashed_at: Counter[str] = field(default_factory=Counter)
    interleaving: int = 0
    """A hash of the sequence of (process, boundary)."""


class World:
    """All parts of a run, and the hand of fate (``cross``)."""

    def __init__(self, hub: Hub, plan: Plan, *, story: list[str] | None = None) -> None:
        self.hub, self.plan, self.story = hub, plan, story
        self.tally = Tally()
        self._told = 0
        self.logged: list[str] = []
        self.differences: dict[str, Difference] = {}
        self.ids = CountedIds()
        self._fate, self._pace = Random(f"{plan.seed} fate"), Random(f"{plan.seed} pace")
        self._chance = plan.chance
        self._kinds, self._weights = list(plan.shares), list(plan.shares.values())
        self._aims = {aim.boundary: aim for aim in plan.aims}
        self._crossed: Counter[int] = Counter()
        self.store = SimulatedStore(hub, self, self._committed)
        self._instants: dict[str, int | None] = {}
        self.outside = Outside()
        self.rewrites = dict(plan.rewrites)
        self.executor = SimulatedExecutor(
            hub,
            self,
            Random(f"{plan.seed} target"),
            self.outside,
            shares=plan.executors,
            act_takes=plan.act_takes,
            log_length=self.log_length,
            acted=self._acted,
            struck=self.struck,
        )
        self.broker = Broker(hub, Random(f"{plan.seed} broker"), plan.messages, self._take, self.struck)
        phases = tuple(self._pace.randrange(plan.tick) for _ in range(plan.beats))
        self.beats = Beats(hub, self.broker, plan.tick, phases, self._next_instant)
        self.servers = Servers(hub, Random(f"{plan.seed} servers"))
        self.clients = Clients(hub, Random(f"{plan.seed} clients"), self.servers, self.store, self.ids)
        self.wiring = Wiring(
            store=self.store,
            doorbell=SimulatedDoorbell(hub, self, self.broker),
            executors={"simulated": self.executor},
            ids=self.ids,
            jitter=Random(f"{plan.seed} jitter").random,
            slots=plan.slots,
            running_most=plan.running_most,
            tick=plan.tick,
        )
        self.workers: list[Worker] = []
        self._incarnations: Counter[str] = Counter()
        self.healed = False

    def log_length(self) -> int:
        with self.store.memory.read() as reader:
            return reader.last_position()

    # What the world does to itself

    def begin(self) -> None:
        """Start all processes and plan everything that is known beforehand."""
        plan, hub = self.plan, self.hub
        self.workers = [self._worker(f"w{number}") for number in range(1, plan.workers + 1)]
        self.servers.processes = [Process(f"api{number}") for number in range(1, _SERVERS + 1)]
        hub.spawn(self.clients.process, self._prepare, "prepare")
        for action in plan.actions:
            hub.call_at(action.at, partial(self._act, action))
        for strike in plan.strikes:
            hub.call_at(strike.at, partial(self._strike, strike))
        for at in range(self._pace.randrange(_FORGET_EVERY), plan.length, _FORGET_EVERY):
            hub.call_at(at, self._forget)
        if plan.beats > 1:
            self.struck(Fault.SECOND_BEAT, "")

    def _forget(self) -> None:
        try:
            self.broker.send(Message(Task.FORGET, self.hub.now + 60 * SECOND))
        except BrokerUnavailable:
            pass  # it comes again in an hour

    def _prepare(self) -> None:
        clients, plan = self.clients, self.plan
        clients.ask(lambda: record_floor(self.store, self.ids, Policy()))
        for scope, patch in plan.layers.items():
            clients.policy(scope, patch)
        fleets = Random(f"{plan.seed} fleets")
        for name in plan.names:
            own = plan.own_policies.get(name, PolicyPatch())
            registration = Registration(
                fleet=fleets.choice(FLEETS), labels={}, executor="simulated", target={"delay": "0s"}, policy=own
            )
            if fleets.random() < 0.8:  # the others are registered by their first write
                clients.register(name, registration)

    def _worker(self, name: str) -> Worker:
        self._incarnations[name] += 1
        return Worker(self.hub, f"{name}:{self._incarnations[name]}", self.wiring)

    def _act(self, action: Action) -> None:
        self.tell(f"client: {action.kind} {action.workspace} x{action.size}")
        self.clients.start(action)

    def _acted(self, workspace: str) -> None:
        """A restart was really done; some of them write files themselves."""
        self.tell(f"outside: {workspace} is restarted")
        if self.rewrites.get(workspace, 0) > 0:
            self.rewrites[workspace] -= 1
            late = self._pace.randrange(5 * SECOND)
            self.clients.start(Action(at=self.hub.now, kind="write", workspace=workspace, draw=late), late)

    def _take(self, task: Task) -> bool:
        ready = [worker for worker in self.workers if not worker.process.dead]
        self._pace.shuffle(ready)
        return any(worker.take(task) for worker in ready)

    # Instants at which a tick has something to do

    def _committed(self, names: Collection[str] | None) -> None:
        with self.store.memory.read() as reader:
            for name in self._instants if names is None else names:
                row = reader.workspace(name)
                if row is not None:
                    self._instants[name] = _instant_of(row)
        self.beats.arm()
        if names is None:
            self.compare_rows()
        if self.story is not None:
            self._tell_events()

    def _tell_events(self) -> None:
        with self.store.memory.read() as reader:
            for event in reader.stored_events(EventFilter(after=self._told, limit=1_000)):
                self.tell(f"{event.position:5} {event.workspace or '-'} {event.type} {bytes(event.data).decode()}")
                self._told = event.position

    def compare_rows(self) -> None:
        """S10 in the middle of a run: the rows are what the log says, the due instants of open windows too."""
        for difference in replay(self.store.memory).differences:
            self.differences.setdefault(difference.id, difference)

    def _next_instant(self) -> int | None:
        known = [at for at in self._instants.values() if at is not None]
        return min(known) - self.store.clock.offset if known else None

    # Faults

    def struck(self, fault: Fault, where: str) -> None:
        self.tally.faults[fault.value] += 1
        self.tell(f"FAULT {fault.value} {where}")

    def tell(self, text: str) -> None:
        if self.story is not None:
            self.story.append(f"{self.hub.now / SECOND:10.3f}  {text}")

    def cross(self, boundary: Boundary) -> Fault | None:
        """Let a thread cross a boundary: time passes, others run, and sometimes a fault strikes.

        Returns an error that the caller must make of it. Raises ``Killed``.
        """
        thread = self.hub.current
        if thread is None:
            raise RuntimeError(f"nobody crosses {boundary.name}")
        process, tally = thread.process, self.tally
        if process.dead:
            raise Killed
        if process.frozen:
            self.hub.wait(0)
        tally.crossings += 1
        if tally.crossings > _MOST_CROSSINGS:
            raise Runaway
        tally.interleaving = hash((tally.interleaving, process.index, boundary.number))
        if self.healed:
            self.hub.wait(_LOWEST_LATENCY)
            return None
        aim = self._aims.get(boundary.number)
        if aim is not None:
            self._crossed[boundary.number] += 1
            if self._crossed[boundary.number] == aim.nth:
                return self._strike_here(aim.fault, boundary, process, aim.amount)
        if self._chance and self._kinds and self._fate.random() < self._chance:
            kind = self._fate.choices(self._kinds, self._weights)[0]
            return self._strike_here(kind, boundary, process, self._how_long())
        draw = self._pace.random()
        if draw < _SWITCHES:
            longest = _SLOW_LATENCY if draw < _SLOW else _HIGHEST_LATENCY
            self.hub.wait(_LOWEST_LATENCY + int(self._pace.random() * longest))
        return None

    def _how_long(self) -> int:
        return round(self._fate.choice((0.2, 2, 8, 40)) * self._fate.uniform(0.3, 1.2) * SECOND)

    def _strike_here(self, fault: Fault, boundary: Boundary, process: Process, amount: int) -> Fault | None:
        if process is self.clients.process:
            return None
        if fault is Fault.CRASH:
            self.struck(fault, f"{process.name} at {boundary.name}")
            self.tally.crashed_at[boundary.name] += 1
            self._kill(process, amount)
            raise Killed
        if fault is Fault.FREEZE:
            self.struck(fault, f"{process.name} at {boundary.name} for {amount / SECOND:.1f} s")
            self.hub.freeze(process, amount)
            if boundary.stage == "commit":
                return Fault.ERROR_INSTEAD  # the server ends a transaction that idles
            self.hub.wait(0)
            return None
        if fault is Fault.DELAY:
            longest = 2 * SECOND if boundary.stage == "commit" else amount
            self.struck(fault, f"{process.name} at {boundary.name}")
            self.hub.wait(min(amount, longest))
            return None
        if boundary.stage in _FITS[fault]:
            self.struck(fault, f"{process.name} at {boundary.name}")
            return fault
        return None

    def _kill(self, process: Process, away: int) -> None:
        self.hub.kill(process)
        self.hub.call_at(self.hub.now + max(away, SECOND // 10), lambda: self._replace(process))

    def _replace(self, process: Process) -> None:
        """Start a dead process anew, as its supervisor does."""
        name = process.name.partition(":")[0]
        for index, worker in enumerate(self.workers):
            if worker.process is process:
                self.workers[index] = self._worker(name)
        for index, server in enumerate(self.servers.processes):
            if server is process:
                self.servers.processes[index] = Process(name)

    def _strike(self, strike: Strike) -> None:
        fault, hub, amount = strike.fault, self.hub, strike.amount
        self.struck(fault, f"{amount / SECOND:.1f} s")
        if fault is Fault.WORKER_KILLED:
            self._kill_if_alive(self.workers[strike.of % len(self.workers)].process, amount)
        elif fault is Fault.WORKER_STOPPED:
            worker = self.workers[strike.of % len(self.workers)]
            worker.stop()
            hub.call_at(hub.now + 16 * SECOND, lambda: self._replace(worker.process))
        elif fault is Fault.WORKER_FROZEN:
            hub.freeze(self.workers[strike.of % len(self.workers)].process, amount)
        elif fault is Fault.SERVER_KILLED:
            self._kill_if_alive(self.servers.processes[strike.of % _SERVERS], amount)
        elif fault is Fault.DATABASE_AWAY:
            self.store.away = True
            hub.call_at(hub.now + amount, self._database_back)
        elif fault is Fault.CLOCK_BACK:
            self._step(-amount)
        elif fault is Fault.CLOCK_FORWARD:
            self._step(amount)
        elif fault is Fault.BROKER_AWAY:
            self.broker.away = True
            hub.call_at(hub.now + amount, self._broker_back)
        elif fault is Fault.BEATS_AWAY:
            self.beats.away_until = hub.now + amount

    def _kill_if_alive(self, process: Process, away: int) -> None:
        if not process.dead:
            self._kill(process, away)

    def _step(self, by: int) -> None:
        self.store.clock.offset += by
        self.beats.arm()

    def _database_back(self) -> None:
        self.store.away = False

    def _broker_back(self) -> None:
        self.broker.away = False

    # Healing

    def heal(self) -> None:
        """End every fault; what is dead comes back within a second, what is frozen goes on."""
        self.tell("HEALED")
        self.healed = self.beats.healed = self.executor.healed = True
        self.store.away = self.broker.away = False
        self.broker.chances, self.beats.away_until, self.rewrites = {}, 0, {}
        for process in [worker.process for worker in self.workers] + self.servers.processes:
            self.hub.thaw(process)
            if process.dead:
                self._replace(process)
        self.beats.arm()

    def end(self) -> None:
        """Kill everything that is left."""
        for process in [*(worker.process for worker in self.workers), *self.servers.processes, self.clients.process]:
            self.hub.kill(process)
        self.hub.run(self.hub.now)


def _instant_of(row: StoredWorkspace) -> int | None:
    """Return when a tick has something to do for a workspace, on the database's clock."""
    state = row.state
    instants = [row.due_at, state.ready_at]
    if state.hold is not None:
        instants.append(state.hold.until)
    if state.cycle is not None:
        instants.append(state.cycle.lease_until)
    known = [at for at in instants if at is not None]
    return (min(known) - EPOCH) // _MICROSECOND if known else None


_FITS = {
    Fault.ERROR_BEFORE: frozenset({"begin"}),
    Fault.ERROR_INSTEAD: frozenset({"commit"}),
    Fault.ERROR_AFTER: frozenset({"committed", "sent", "done"}),
}
"""At which end of an operation an error of that kind can come."""
