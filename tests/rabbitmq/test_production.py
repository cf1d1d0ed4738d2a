"""The processes of production on RabbitMQ: killed or cut off it delays restarts, and nothing else."""

from __future__ import annotations

from tests.chaos.faults import last
from tests.chaos.production import ChaosProduction
from tests.chaos.proxy import Mode
from tests.chaos.steady_writer import pids_of
from tests.system.doubled_bells import doubled_bells
from tests.waiting import wait_until
from workers.app import HEARTBEAT_S


def test_a_killed_broker_delays_restarts_and_nothing_else(production: ChaosProduction) -> None:
    pids, workspace = pids_of(production), production.register()
    production.write(workspace, "a", "b")
    production.settled(workspace, restarts=1)

    production.servers.broker.kill()
    answers = production.write(workspace, "c", "d")
    production.servers.broker.start()

    history = production.settled(workspace, restarts=2, timeout_s=30)
    assert all(len(history.covering(answer["position"])) == 1 for answer in answers)
    assert pids_of(production) == pids, "a process did not live through it"


def test_a_network_that_drops_everything_is_noticed_by_heartbeats(production: ChaosProduction) -> None:
    """Its connections stay open, so nothing but the silence tells a worker."""
    pids, workspace = pids_of(production), production.register()
    workers = [production.processes[name] for name in ("worker-1", "worker-2")]
    production.servers.to_broker.mode = Mode.HOLE
    wait_until(
        lambda: all("heartbeats missed" in worker.output for worker in workers),
        what="both workers have noticed",
        timeout_s=2 * HEARTBEAT_S + 20,
    )
    production.write(workspace, "a")
    production.servers.to_broker.mode = Mode.PASS

    production.settled(workspace, restarts=1, timeout_s=30)
    assert pids_of(production) == pids, "a process did not live through it"


def test_a_connection_lost_again_and_again_is_never_read_by_two_threads(production: ChaosProduction) -> None:
    """Celery's reduced prefetch is restored by whichever thread takes a task, on the consumer's own connection."""
    workers = [production.processes[name] for name in ("worker-1", "worker-2")]
    workspaces = [production.register(delay="300ms", policy={"min_interval": "400ms"}) for _ in range(4)]
    with doubled_bells(production.servers.broker.url, workspaces, every_s=0.02):
        for round_ in range(10):
            for workspace in workspaces:
                production.write(workspace, f"a{round_}")
            last(0.4)
            production.servers.to_broker.cut()
    wait_until(lambda: not any(production.state(each).pending for each in workspaces), what="all is covered")

    said = "\n".join(worker.output for worker in workers)
    assert "re-establish the connection" in said
    assert "frame_end" not in said, "two threads read from one connection"
