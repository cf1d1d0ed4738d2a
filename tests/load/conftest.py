"""One run under load for each of the product's two shapes; the tests look at what it showed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest

from orchestrator.domain import events as ev
from orchestrator.ports.store import EventFilter
from tests.load.busy import Busy, Onlooker, kept_busy, prepare, processor_share
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer
from tests.system.conftest import shared_redis, system_folder  # noqa: F401 (fixtures)
from tests.system.deployment import Deployment, Embedded, Production, running
from tests.waiting import wait_until

SECONDS = 5.0
RESTARTS = 10
_REST_S = 1.0
_COMES_TO_REST_S = 20.0
_CALM = 0.1
_OPEN = {"ORCHESTRATOR_POLICY_QUIET": "1h", "ORCHESTRATOR_POLICY_MAX_WAIT": "2h"}
"""Windows stay open: what is restarted is asked for, so that slots are never short."""


class _Embedded(Embedded):
    def settings(self) -> dict[str, str]:
        return super().settings() | _OPEN


class _Production(Production):
    def settings(self) -> dict[str, str]:
        return super().settings() | _OPEN | {"ORCHESTRATOR_AUTO_REGISTER": "simulated"}


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a run showed. ``late``: from each request for a restart to its start; times of writes are sorted."""

    deployment: Deployment
    at_rest_s: list[float]
    under_load_s: list[float]
    refused: list[str]
    busy: Busy
    late: list[timedelta]
    share_at_rest: float


@pytest.fixture(scope="module", params=["embedded", "production"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Keep a product busy for some seconds, restart some workspaces meanwhile, and let it come to rest."""
    folder: Path = tmp_path_factory.mktemp(str(request.param))
    with running(_deployment(str(request.param), folder, request)) as deployment:
        prepare(deployment.client)
        onlooker = Onlooker(deployment.url)
        at_rest_s = onlooker.write(20)
        onlooker.took_s.clear()
        with kept_busy(deployment, SECONDS) as busy:
            workspaces = _restart(deployment, RESTARTS)
            under_load_s = onlooker.write(40)
            late = [_lateness(deployment, workspace) for workspace in workspaces]
        yield Ran(
            deployment=deployment,
            at_rest_s=at_rest_s,
            under_load_s=under_load_s,
            refused=[*onlooker.refused, *busy.refused],
            busy=busy,
            late=sorted(late),
            share_at_rest=_share_at_rest(deployment),
        )


def _deployment(name: str, folder: Path, request: pytest.FixtureRequest) -> Deployment:
    if name == "embedded":
        return _Embedded(folder)
    postgres: PostgresServer = request.getfixturevalue("postgres_server")
    redis: RedisServer = request.getfixturevalue("shared_redis")
    url = postgres.url(postgres.create_database(request.getfixturevalue("postgres_template")))
    return _Production(folder, database_url=url, broker_url=f"{redis.url.rpartition('/')[0]}/5")


def _restart(deployment: Deployment, count: int) -> list[str]:
    workspaces = [deployment.register() for _ in range(count)]
    for workspace in workspaces:
        deployment.client.restart(workspace, "manual")
    return workspaces


def _lateness(deployment: Deployment, workspace: str) -> timedelta:
    """Return how long after it was asked for a workspace's restart was started."""
    wait_until(lambda: deployment.history(workspace).starts, what=f"{workspace} restarts", timeout_s=20)
    with deployment.store.read() as reader:
        events = reader.events(EventFilter(workspace=workspace, limit=100))
    at = {event.type: event.recorded_at for event in reversed(events)}
    return at[ev.CycleStarted.type_name()] - at[ev.RestartRequested.type_name()]


def _share_at_rest(deployment: Deployment) -> float:
    """Return the least that it takes, some time after: what it does beside everything else has to be done first."""
    found: list[float] = []
    until_s = monotonic() + _COMES_TO_REST_S
    while monotonic() < until_s and min(found, default=1.0) > _CALM:
        found.append(processor_share(deployment, _REST_S))
    return min(found)
