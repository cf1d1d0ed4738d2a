"""What may happen to production. Each fault breaks something for a while; ``ChaosProduction.heal`` mends the rest."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.chaos.crashes import CRASHES, carry_out
from tests.chaos.production import ARGUMENTS, ChaosProduction
from tests.chaos.proxy import Mode
from tests.servers.rabbitmq import RabbitServer
from tests.system.deployment import LEASE_S
from tests.system.doubled_bells import doubled_bells
from tests.waiting import wait_until

Inject = Callable[[ChaosProduction, random.Random], None]


_WORKERS = [name for name, command in ARGUMENTS.items() if command == "worker"]
ANY = "any process"
"""What a fault breaks that has its round for itself."""


@dataclass(frozen=True)
class Fault:
    """``breaks`` names what it holds broken: faults of one round never share a part."""

    breaks: str
    inject: Inject


def last(seconds: float) -> None:
    """Let a fault last."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, what="a fault is over", timeout_s=seconds + 60)


def _crash(name: str) -> Inject:
    """End at a crash point drawn at random, at one of its first three visits; one that is not visited is killed."""

    def inject(production: ChaosProduction, chance: random.Random) -> None:
        point = chance.choice(CRASHES[name])
        production.end(name)
        production.begin(name, f"{point}:{chance.choice([1, 1, 2, 3])}")
        process = production.processes[name]
        try:
            wait_until(lambda: process.crashed, what=f"{name} comes to {point}", timeout_s=6, every_s=0.02)
        except AssertionError:
            production.end(name)
        else:
            production.await_crash(name, point)
        if not process.alive:  # a worker's parent has started another by itself
            production.begin(name)

    return inject


def _kill(name: str) -> Inject:
    def inject(production: ChaosProduction, chance: random.Random) -> None:
        last(chance.uniform(0, 0.5))
        production.end(name)
        last(chance.uniform(0, 0.8))
        production.begin(name)

    return inject


def _kill_child(name: str) -> Inject:
    """The parent has seen it end: it says so, and starts another by itself."""

    def inject(production: ChaosProduction, chance: random.Random) -> None:
        for _ in range(chance.choice([1, 1, 2])):
            last(chance.uniform(0, 1.0))
            if production.processes[name].kill_child():
                production.kills[name, "kill -9 of its child"] += 1

    return inject


def _kill_parent(name: str) -> Inject:
    """The child is left and must stop, while another of its kind works beside it already."""

    def inject(production: ChaosProduction, chance: random.Random) -> None:
        last(chance.uniform(0, 0.5))
        production.processes[name].kill_parent()
        production.kills[name, "kill -9 of its parent"] += 1
        last(chance.uniform(0, 0.8))
        production.begin(name)

    return inject


def _freeze(name: str) -> Inject:
    def inject(production: ChaosProduction, chance: random.Random) -> None:
        process = production.processes[name]
        process.freeze()
        last(chance.uniform(0.3, 2.5 * LEASE_S))
        process.thaw()

    return inject


def _zombie(name: str) -> Inject:
    """Freeze a worker exactly between its claim and its act, past the lease, then let it go on."""

    def inject(production: ChaosProduction, chance: random.Random) -> None:
        production.end(name)
        process = production.begin(name, "act.begin:1:stop")
        try:
            process.await_stopped(timeout_s=5)
        except AssertionError:
            production.end(name)  # the other worker was quicker at every cycle
            production.begin(name)
            return
        last(LEASE_S * chance.uniform(1.2, 2.5))
        process.thaw()
        production.freezes += 1

    return inject


def _stop_in_order(production: ChaosProduction, chance: random.Random) -> None:
    name = chance.choice(list(ARGUMENTS))
    process = production.processes[name]
    process.signal(signal.SIGTERM)
    assert process.wait(20) == 0, f"{name} did not end in order:\n{process.tail()}"
    production.begin(name)


def _proxy(part: str, mode: Mode) -> Inject:
    def inject(production: ChaosProduction, chance: random.Random) -> None:
        proxy = production.proxies[part]
        for _ in range(chance.choice([1, 2, 3])):
            proxy.mode = mode
            last(chance.uniform(0.1, 1.5))
            proxy.cut()
            proxy.mode = Mode.PASS
            last(chance.uniform(0, 0.3))

    return inject


def _cut(part: str) -> Inject:
    def inject(production: ChaosProduction, chance: random.Random) -> None:
        for _ in range(chance.randrange(1, 12)):
            production.proxies[part].cut()
            last(chance.uniform(0.01, 0.3))

    return inject


def _stop_database(production: ChaosProduction, chance: random.Random) -> None:
    """``pg_ctl stop -m immediate``."""
    production.servers.postgres.stop_immediately()
    last(chance.uniform(0, 1.5))
    production.servers.postgres.start()


def _kill_database(production: ChaosProduction, chance: random.Random) -> None:
    production.servers.postgres.kill()
    last(chance.uniform(0, 1.0))
    production.servers.postgres.start()


def _freeze_database(production: ChaosProduction, chance: random.Random) -> None:
    production.servers.postgres.pause()
    last(chance.uniform(0.3, 3.0))
    production.servers.postgres.resume()


def _flush_broker(production: ChaosProduction, chance: random.Random) -> None:
    for _ in range(chance.randrange(1, 30)):
        production.servers.broker.flush()
        last(chance.uniform(0, 0.1))


def _freeze_broker(production: ChaosProduction, chance: random.Random) -> None:
    production.servers.broker.pause()
    last(chance.uniform(0.5, 4.0))
    production.servers.broker.resume()


def _stop_broker(production: ChaosProduction, chance: random.Random) -> None:
    production.servers.broker.stop()
    last(chance.uniform(0.5, 4.0))
    production.servers.broker.start()


def _kill_broker(production: ChaosProduction, chance: random.Random) -> None:
    production.servers.broker.kill()
    last(chance.uniform(0.0, 2.0))
    production.servers.broker.start()


def _delete_queue(production: ChaosProduction, chance: random.Random) -> None:
    """What an operator may do by mistake: the queue goes, and workers that consume from it are told."""
    broker = production.servers.broker
    assert isinstance(broker, RabbitServer)
    for _ in range(chance.randrange(1, 4)):
        broker.delete_queue()
        last(chance.uniform(0.1, 1.0))


def broker_away_for_a_minute(production: ChaosProduction, chance: random.Random) -> None:
    """Longer than any wait of a client of it."""
    production.servers.broker.stop()
    last(60)
    production.servers.broker.start()


def _second_beat(production: ChaosProduction, chance: random.Random) -> None:
    second = production.run("beat-2", "beat")
    last(chance.uniform(0.5, 2.0))
    second.kill()
    del production.processes["beat-2"]


def _double_bells(production: ChaosProduction, chance: random.Random) -> None:
    workspaces = [f"ws-{number}" for number in range(1, 40)]
    with doubled_bells(production.servers.broker.url, chance.sample(workspaces, 4), every_s=0.02):
        last(chance.uniform(0.5, 2.0))


_FAULTS: Mapping[str, Fault] = {
    **{f"{name} ends at a crash point": Fault(name, _crash(name)) for name in ARGUMENTS},
    **{f"{name} killed": Fault(name, _kill(name)) for name in ARGUMENTS},
    **{f"{name} frozen": Fault(name, _freeze(name)) for name in ARGUMENTS},
    **{f"{name}'s child killed": Fault(name, _kill_child(name)) for name in _WORKERS},
    **{f"{name}'s parent killed": Fault(name, _kill_parent(name)) for name in _WORKERS},
    "worker-1 frozen between claim and act": Fault("worker-1", _zombie("worker-1")),
    "worker-2 frozen between claim and act": Fault("worker-2", _zombie("worker-2")),
    "a process stopped in order": Fault(ANY, _stop_in_order),
    "every process ends at each of its crash points": Fault(
        ANY, lambda production, chance: carry_out(production, CRASHES)
    ),
    "two beats": Fault("beats", _second_beat),
    "every bell doubled": Fault("broker", _double_bells),
    "postgres stopped immediately": Fault("postgres", _stop_database),
    "postgres killed": Fault("postgres", _kill_database),
    "postgres frozen": Fault("postgres", _freeze_database),
}


def faults_of(broker: str) -> dict[str, Fault]:
    """Return all faults by name, those of the broker with its name. What only some machines allow comes on top."""
    called = {"api": "api", "postgres": "postgres", "broker": broker}
    only_here = {"rabbitmq killed": _kill_broker, "rabbitmq's queue deleted": _delete_queue}
    return {
        **_FAULTS,
        f"{broker} flushed": Fault("broker", _flush_broker),
        f"{broker} frozen": Fault("broker", _freeze_broker),
        f"{broker} stopped": Fault("broker", _stop_broker),
        **{name: Fault("broker", inject) for name, inject in only_here.items() if broker == RabbitServer.name},
        **{f"connections to {name} cut": Fault(f"to {part}", _cut(part)) for part, name in called.items()},
        **{
            f"{name} behind a proxy: {mode.value}": Fault(f"to {part}", _proxy(part, mode))
            for part, name in called.items()
            for mode in Mode
            if mode is not Mode.PASS
        },
    }
