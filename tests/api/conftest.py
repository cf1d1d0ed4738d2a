"""The real API on a real socket, over a real database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest
import structlog

from orchestrator.api.app import create_app
from orchestrator.api.server import ApiServer, create_server
from orchestrator.bootstrap import Services, build_drainer, open_services
from orchestrator.errors import BrokerUnavailable
from orchestrator.ports.store import EventFilter
from orchestrator.service.change_policy import note_floor
from orchestrator.service.record import AutoRegistration
from orchestrator.service.tick import look
from orchestrator.settings import load_settings
from tests.api.described import Description
from tests.waiting import wait_until

QUICK = {"quiet": "0s", "max_wait": "1s", "min_interval": "0s", "settle": "30s"}


class NoDoorbell:
    """Nobody listens: the tests drain themselves."""

    def ring(self, workspace: str) -> None:
        raise BrokerUnavailable("the tests ring nobody")


@dataclass(frozen=True)
class Api:
    """A running API and a client of it that holds every answer against the description."""

    services: Services
    server: ApiServer
    url: str
    http: httpx2.Client
    description: Description

    def put_workspace(self, workspace: str = "ws", **fields: Any) -> dict[str, Any]:
        response = self.http.put(f"/v1/workspaces/{workspace}", json={"executor": "simulated", **fields})
        assert response.status_code in (200, 201), response.text
        answer: dict[str, Any] = response.json()
        return answer

    def write(self, workspace: str = "ws", path: str = "app.py", **fields: Any) -> dict[str, Any]:
        response = self.http.post(f"/v1/workspaces/{workspace}/writes", json={"path": path, **fields})
        assert response.status_code == 202, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        response = self.http.get(path, params=query)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def tick(self) -> None:
        """Look once, as the coalescer does."""
        look(self.services.store, NoDoorbell(), self.services.ids, free_slots=lambda: 1)

    def restart_all(self) -> None:
        """Look, then run what may start, as a worker does."""
        self.tick()
        build_drainer(self.services).drain()

    def stored(self) -> int:
        """How many events the log holds."""
        with self.services.store.read() as reader:
            return len(reader.events(EventFilter(limit=100_000)))


@contextmanager
def served(url: str, *, auto_register: str | None = None, ready: bool = True, **given: Any) -> Iterator[Api]:
    """Serve the API over the database of ``url`` on a free port; ``ready`` False: the database is not there yet."""
    services = open_services(load_settings({}, database_url=url, policy=QUICK, **given))
    if auto_register:
        services = replace(services, auto=AutoRegistration(executor=auto_register))
    if ready:
        note_floor(services.store, services.ids, services.settings.floor)
    server = create_server(create_app(services))
    thread = threading.Thread(target=server.run, name="api")
    thread.start()
    with ExitStack() as stack:
        stack.callback(services.store.close)
        stack.callback(thread.join, 20)
        stack.callback(setattr, server, "should_exit", True)
        wait_until(lambda: server.started or not thread.is_alive(), what="the API serves")
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        # verify: there is no TLS here, and reading all certificates takes as long as a test
        http = stack.enter_context(httpx2.Client(base_url=address, timeout=20, trust_env=False, verify=False))
        description = _described_by(http)

        def check(response: httpx2.Response) -> None:
            if "event-stream" not in response.headers.get("content-type", ""):
                response.read()
                description.check(response)

        http.event_hooks = {"response": [check]}
        yield Api(services, server, address, http, description)


_descriptions: list[Description] = []


def _described_by(http: httpx2.Client) -> Description:
    """Return what the first API said of itself: it is the same for all, and making it takes longer than most tests."""
    if not _descriptions:
        _descriptions.append(Description(http.get("/openapi.json").json()))
    return _descriptions[0]


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> Iterator[None]:
    """Lines as machines read them: drawing a traceback for people takes seconds."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )
    yield
    structlog.reset_defaults()


@pytest.fixture
def api(sqlite_url: str) -> Iterator[Api]:
    """The API on SQLite, with workspace ``ws``."""
    with served(sqlite_url) as found:
        found.put_workspace()
        yield found


@pytest.fixture(params=["sqlite_url", "app_url"])
def any_api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """The API on SQLite and, with the app's privileges, on PostgreSQL, with workspace ``ws``."""
    with served(request.getfixturevalue(request.param)) as found:
        found.put_workspace()
        yield found
