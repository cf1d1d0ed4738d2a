"""One run: everything wired up, faults struck from one seed, then healing, until nothing waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from functools import partial
from random import Random

from orchestrator.domain.policy import Policy, PolicyPatch
from orchestrator.domain.serving import SeenWorker
from orchestrator.domain.state import DEFAULT_POOL, Registration, WorkspaceState
from orchestrator.errors import BrokerUnavailable
from orchestrator.history.replay import Difference, replay
from orchestrator.ports.store import EventFilter
from orchestrator.service.change_policy import note_floor
from tests.simulation.broker import Beats, Broker, Message, SimulatedDoorbell, Task, instant_of
from tests.simulation.clients import Clients, Servers
from tests.simulation.database import SimulatedStore
from tests.simulation.fate import Fate
from tests.simulation.faults import Fault
from tests.simulation.hub import SECOND, Hub, Process
from tests.simulation.parent import Parents
from tests.simulation.plan import Plan, Strike
from tests.simulation.policies import FLEETS
from tests.simulation.sticklers import Sticklers
from tests.simulation.target import Outside, SimulatedExecutor
from tests.simulation.watch import Away, Watch
from tests.simulation.work import Action
from tests.simulation.worker import Wiring, Worker

_GATHERS = 0.4
_SERVERS = 2
OTHER_POOL = "other"
"""The last worker does not serve it, where there are several."""
_FORGET_EVERY = 3600 * SECOND
_COMPARES_MOST = 10


class CountedIds:
    """Ids that are the same in every run of a seed."""

    def __init__(self) -> None:
        self._last = 0

    def new(self, prefix: str) -> str:
        self._last += 1
        return f"{prefix}_{self._last:08d}"


class World:
    """All parts of a run."""

    def __init__(self, hub: Hub, plan: Plan, *, story: list[str] | None = None) -> None:
        self.hub, self.plan = hub, plan
        self.fate = Fate(hub, plan, self._kill, story=story)
        self.struck, self.tell = self.fate.struck, self.fate.tell
        self._told, self._compared = 0, 0
        self.logged: list[str] = []
        self.differences: dict[str, Difference] = {}
        self.seen: dict[tuple[str, str], str] = {}
        self.watch = Watch(plan.tick, self._broken)
        self.watch.said_away = self._check_away
        self.survivors: set[str] = set()
        self.ids = CountedIds()
        self._draws = Random(f"{plan.seed} world")
        self.store = SimulatedStore(hub, self.fate, self._committed)
        self.store.renewed = self.watch.renewed
        pace = Random(f"{plan.seed} commits")
        self.store.gathers = lambda: pace.randrange(20_000) if pace.random() < _GATHERS else 0
        self._instants: dict[str, datetime | None] = {}
        self._earliest: datetime | None = None
        self.outside = Outside()
        self.rewrites = dict(plan.rewrites)
        self.executor = SimulatedExecutor(
            hub,
            self.fate,
            Random(f"{plan.seed} target"),
            self.outside,
            shares=plan.executors,
            act_takes=plan.act_takes,
            log_length=self.log_length,
            acted=self._acted,
            struck=self.struck,
        )
        self.broker = Broker(hub, Random(f"{plan.seed} broker"), plan.messages, self._take, self.struck)
        phases = tuple(self._draws.randrange(plan.tick) for _ in range(plan.beats))
        self.beats = Beats(hub, self.broker, plan.tick, phases, self._next_instant)
        self.servers = Servers(hub, Random(f"{plan.seed} servers"))
        self.clients = Clients(hub, Random(f"{plan.seed} clients"), self.servers, self.store, self.ids)
        Sticklers(self.clients, plan.names, self._broken)
        self.wiring = Wiring(
            store=self.store,
            doorbell=SimulatedDoorbell(hub, self.fate, self.broker),
            executors={"simulated": self.executor},
            ids=self.ids,
            jitter=Random(f"{plan.seed} jitter").random,
            slots=plan.slots,
            running_most=plan.running_most,
            tick=plan.tick,
        )
        self.workers: list[Worker] = []
        self._healed = False
        self.pools: dict[str, frozenset[str]] = {}
        self.store.memory.present = self._present
        self.parents = Parents(hub, Random(f"{plan.seed} parents"), self.store, self.ids, self._replace)
        self._incarnations: Counter[str] = Counter()

    def states(self) -> list[WorkspaceState]:
        """Return the workspaces as they stand."""
        with self.store.memory.read() as reader:
            return [row.state for name in self._instants if (row := reader.workspace(name)) is not None]

    def state(self, name: str) -> WorkspaceState | None:
        """Return one workspace as it stands."""
        with self.store.memory.read() as reader:
            row = reader.workspace(name)
            return None if row is None else row.state

    def store_time(self) -> datetime:
        """Return the time that a decision made now would be recorded at."""
        with self.store.memory.read() as reader:
            last = reader.events(EventFilter(after=reader.last_position() - 1))
            return max([reader.clock(), *(event.recorded_at for event in last)])

    def kill(self, process: Process, away: int) -> None:
        """Kill a process and count it; it is started anew when ``away`` is over."""
        self.struck(Fault.WORKER_KILLED, process.name)
        self._kill(process, away)

    def stop(self, worker: Worker) -> None:
        worker.stop()
        self.hub.call_at(self.hub.now + 16 * SECOND, lambda: self._replace(worker.process))

    @property
    def stops(self) -> bool:
        """True while a worker that was asked to stop is not replaced: it claims nothing, and may be the only one."""
        return any(worker.stops for worker in self.workers)

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
        for at in range(self._draws.randrange(_FORGET_EVERY), plan.length, _FORGET_EVERY):
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
        clients.ask(lambda: note_floor(self.store, self.ids, Policy()))
        for scope, patch in plan.layers.items():
            clients.policy(scope, patch)
        fleets = Random(f"{plan.seed} fleets")
        for name in plan.names:
            own = plan.own_policies.get(name, PolicyPatch())
            registration = Registration(
                fleet=fleets.choice(FLEETS), labels={}, executor="simulated", target=self._target(name), policy=own
            )
            if fleets.random() < 0.8:  # the others are registered by their first write
                clients.register(name, registration)

    def _target(self, name: str) -> dict[str, str]:
        """Return a target: of every third workspace one that not every worker serves."""
        other = int(name.removeprefix("ws-")) % 3 == 0
        return {"delay": "0s", "pool": OTHER_POOL} if other else {"delay": "0s"}

    def _worker(self, name: str) -> Worker:
        self._incarnations[name] += 1
        lacks = not self._healed and self.plan.workers > 1 and name == f"w{self.plan.workers}"
        pools = {DEFAULT_POOL} if lacks else {DEFAULT_POOL, OTHER_POOL}
        incarnation = f"{name}:{self._incarnations[name]}"
        self.pools[incarnation] = frozenset(pools)
        return Worker(self.hub, incarnation, replace(self.wiring, pools=frozenset(pools)))

    def _check_away(self, said: Away) -> None:
        """Nobody is said to be away who was there all the while."""
        since = self.store.clock.time_of(said.since)
        there = [
            one.process.name
            for one in self.workers
            if not one.process.dead and said.pool in one.serving.pools and one.born_at < since
        ]
        if there:
            text = f"{there[0]} serves pool {said.pool} since before {said.since}, from when on nobody is said to"
            self._broken("claims", f"{said.pool} {said.since}", text)

    def _present(self) -> list[SeenWorker]:
        """Return the workers that live: each says every tick that it does."""
        now = self.store.clock.now()
        return [
            SeenWorker(name=one.process.name, host="host", serving=one.serving, slots=self.plan.slots, seen_at=now)
            for one in self.workers
            if not one.process.dead
        ]

    def _act(self, action: Action) -> None:
        self.tell(f"client: {action.kind} {action.workspace} x{action.size}")
        self.clients.start(action)

    def _acted(self, workspace: str) -> None:
        """A restart was really done; some of them write files themselves."""
        self.tell(f"outside: {workspace} is restarted")
        if self.rewrites.get(workspace, 0) > 0:
            self.rewrites[workspace] -= 1
            late = self._draws.randrange(5 * SECOND)
            self.clients.start(Action(at=self.hub.now, kind="write", workspace=workspace, draw=late), late)

    def _take(self, task: Task) -> bool:
        ready = [worker for worker in self.workers if not worker.process.dead]
        self._draws.shuffle(ready)
        return any(worker.take(task) for worker in ready)

    # Instants at which a tick has something to do

    def _broken(self, promise: str, what: str, text: str) -> None:
        self.seen.setdefault((promise, what), text)

    def _committed(self, names: Collection[str] | None) -> None:
        changed = False
        with self.store.memory.read() as reader:
            written = self._instants if names is None else names
            self.watch.committed(reader, written, self.hub.now, all_rows=names is None)
            for name in written:
                row = reader.workspace(name)
                if row is not None:
                    at = instant_of(row)
                    changed = changed or at != self._instants.get(name)
                    self._instants[name] = at
        if changed:  # as long as the instants stand, the ticks that serve them do too
            self._earliest = min((at for at in self._instants.values() if at is not None), default=None)
            self.beats.arm()
        if names is None and self._compared < _COMPARES_MOST:
            self.compare_rows()
        if self.fate.story is not None:
            self._tell_events()

    def _tell_events(self) -> None:
        with self.store.memory.read() as reader:
            for event in reader.stored_events(EventFilter(after=self._told, limit=1_000)):
                self.tell(f"{event.position:5} {event.workspace or '-'} {event.type} {bytes(event.data).decode()}")
                self._told = event.position

    def compare_rows(self) -> None:
        """S10 in the middle of a run: the rows are what the log says, the due instants of open windows too."""
        self._compared += 1
        for difference in replay(self.store.memory).differences:
            self.differences.setdefault(difference.id, difference)

    def _next_instant(self) -> int | None:
        return None if self._earliest is None else self.store.clock.time_of(self._earliest)

    # Faults at times

    def _kill(self, process: Process, away: int) -> None:
        self.hub.kill(process)
        if any(worker.process is process for worker in self.workers) and self.parents.child_died(process):
            return
        gone = self.parents.child_of(process) or process  # a parent's own supervisor starts both anew
        self.hub.call_at(self.hub.now + max(away, SECOND // 10), lambda: self._replace(gone))

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
            self.stop(self.workers[strike.of % len(self.workers)])
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
        self._healed = True
        self.fate.heal()
        self.executor.heal()
        self.beats.healed = True
        self.store.away = self.broker.away = False
        self.broker.chances, self.beats.away_until, self.rewrites = {}, 0, {}
        for parent in self.parents.processes:
            self.hub.thaw(parent)
        for process in [worker.process for worker in self.workers] + self.servers.processes:
            self.hub.thaw(process)
            if process.dead:
                self._replace(process)
        for worker in self.workers:
            if OTHER_POOL not in worker.serving.pools:  # deployed anew, so that no workspace rests on one worker alone
                self._kill(worker.process, 0)
        self.beats.arm()

    def end(self) -> None:
        """Kill everything that is left; note who had lived until now and has nothing left to do."""
        self.survivors = {worker.process.name for worker in self.workers if worker.idle}
        workers = [worker.process for worker in self.workers]
        for process in [*workers, *self.parents.processes, *self.servers.processes, self.clients.process]:
            self.hub.kill(process)
        self.hub.run(self.hub.now)
        self.hub.close()
