"""The proxies of docs/security.md, run as the page shows them in front of a real API."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.servers.process import LOOPBACK
from tests.servers.programs import MissingServer
from tests.servers.proxies import NAME, PAGE, Caddy, Nginx, TlsProxy, example
from tests.system.client import Client
from tests.system.deployment import Embedded, running
from tests.system.fork_server import ForkServer

BODY_MOST = 1_048_576
SOON_S = 5.0
SAID = "docs/security.md with"


class Behind(Embedded):
    """``up`` as the page has it behind a proxy."""

    def settings(self) -> dict[str, str]:
        return {"ORCHESTRATOR_LOOPBACK": "closed", "ORCHESTRATOR_ALLOWED_HOSTS": f"{NAME},localhost,127.0.0.1"}


class OpenBehind(Embedded):
    """The mistake that the page warns of: an open loopback behind a proxy."""

    def settings(self) -> dict[str, str]:
        return {"ORCHESTRATOR_ALLOWED_HOSTS": f"{NAME},localhost,127.0.0.1"}


@dataclass(frozen=True)
class Front:
    """A proxy with the API behind it, and a client of the proxy that has the owner's key."""

    proxy: TlsProxy
    deployment: Embedded
    http: httpx2.Client

    def stranger(self, path: str = "/v1/workspaces", method: str = "GET", **headers: str) -> httpx2.Response:
        """Ask without a key."""
        request = self.http.build_request(method, path, headers=headers)
        del request.headers["Authorization"]
        return self.http.send(request)


@contextmanager
def in_front(kind: type[TlsProxy], deployment: Embedded, folder: Path) -> Iterator[Front]:
    """Put a proxy in front of a deployment that runs."""
    program = kind.find(os.environ)
    with ExitStack() as stack:
        proxy = kind(program, folder, urlsplit(deployment.url).netloc)
        proxy.start()
        stack.callback(proxy.stop)
        owner = deployment.client.http.headers["Authorization"]
        http = httpx2.Client(
            base_url=proxy.url,
            headers={"Host": NAME, "Authorization": owner},
            verify=proxy.trusting(),
            timeout=20,
            trust_env=False,
        )
        yield Front(proxy, deployment, stack.enter_context(http))


@pytest.fixture(scope="module")
def behind(system_folder: Path, forks: ForkServer) -> Iterator[Behind]:
    """The API behind the proxies, for the tests of this file."""
    folder = system_folder / "behind"
    folder.mkdir()
    with running(Behind(folder, forks=forks)) as deployment:
        yield deployment


@pytest.fixture(params=[Nginx, Caddy], ids=["nginx", "caddy"])
def front(
    request: pytest.FixtureRequest, behind: Behind, tmp_path: Path, not_run: Callable[[str], None]
) -> Iterator[Front | None]:
    """Each proxy; None, which is said at the end of the run, where this machine has no such program."""
    try:
        with in_front(request.param, behind, tmp_path) as found:
            yield found
    except MissingServer as missing:
        not_run(f"{SAID} {request.param.__name__}: {missing}")
        yield None


def test_a_key_is_asked_for_and_taken(front: Front | None) -> None:
    if front is None:
        return
    assert front.http.get("/livez").status_code == 200
    assert front.http.get("/v1/whoami").json()["actor"].startswith("user:")
    for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"X-Real-IP": "127.0.0.1"}):
        answer = front.stranger(**headers)
        assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (401, "unauthenticated")
    assert "max-age=" in front.http.get("/v1/whoami").headers["strict-transport-security"]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_nothing_older_than_tls_1_2_is_spoken(front: Front | None, version: ssl.TLSVersion) -> None:
    if front is None:
        return
    speaks = front.proxy.trusting()
    speaks.set_ciphers("ALL:@SECLEVEL=0")  # else this side would not even offer the old one
    speaks.minimum_version = speaks.maximum_version = version
    with socket.create_connection((LOOPBACK, front.proxy.port), SOON_S) as plain:
        if version is ssl.TLSVersion.TLSv1_1:
            with pytest.raises(ssl.SSLError, match="alert protocol version"):
                speaks.wrap_socket(plain, server_hostname=NAME)
        else:
            with speaks.wrap_socket(plain, server_hostname=NAME) as wire:
                assert wire.version() == version.name.replace("_", ".")


def test_a_stream_is_not_buffered(front: Front | None) -> None:
    """The event comes while the stream stays open, and a key that is revoked ends it."""
    if front is None:
        return
    client = Client(front.deployment.url, front.http.headers["Authorization"].removeprefix("Bearer "))
    made = front.http.post("/v1/keys", json={"name": "reads", "role": "writer"}).json()
    reads = {"Authorization": f"Bearer {made['key']}"}
    with front.http.stream("GET", "/v1/events/stream", headers=reads, timeout=SOON_S) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        client.register("streamed", {"executor": "simulated", "target": {}})
        client.write("streamed", "first.py")
        lines = stream.iter_lines()
        assert any("first.py" in line for line in lines)
        front.http.delete(f"/v1/keys/{made['id']}").raise_for_status()
        assert list(lines) is not None, "it ends: a time-out would be an error"
    client.close()


def test_a_body_that_is_too_long_is_refused(front: Front | None) -> None:
    if front is None:
        return
    for length, status in ((BODY_MOST * 3 // 2, 413), (BODY_MOST // 2, 422)):
        body = b"[" + b" " * length + b"]"
        # Caddy 2.11.7 now and then takes what is left of a body that it refused for the next head of that connection.
        headers = {"Content-Type": "application/json", "Connection": "close"}
        answer = front.http.post("/v1/writes", content=body, headers=headers)
        assert answer.status_code == status, answer.text


def test_names_and_pages_that_are_not_ours_are_refused(front: Front | None) -> None:
    if front is None:
        return
    foreign = front.http.get("/v1/workspaces", headers={"Host": "evil.example"})
    assert (foreign.status_code in (200, 421), "items" in foreign.text) == (True, False)
    path, body = "/v1/workspaces/paged", {"executor": "simulated"}
    for origin, statuses in ((f"https://{NAME}", (200, 201)), ("https://evil.example", (403,))):
        assert front.http.put(path, json=body, headers={"Origin": origin}).status_code in statuses


@pytest.mark.parametrize("kind", [Nginx, Caddy], ids=["nginx", "caddy"])
def test_an_open_loopback_behind_it_is_closed_to_strangers_too(
    kind: type[TlsProxy], tmp_path: Path, forks: ForkServer, not_run: Callable[[str], None]
) -> None:
    """Both say that they passed a request on."""
    try:
        kind.find(os.environ)
    except MissingServer as missing:
        not_run(f"{SAID} {kind.__name__}: {missing}")
        return
    with running(OpenBehind(tmp_path, forks=forks)) as deployment, in_front(kind, deployment, tmp_path) as front:
        assert front.stranger().status_code == 401
        assert httpx2.get(f"{deployment.url}/v1/workspaces", trust_env=False).status_code == 200


def test_the_page_has_one_example_of_each() -> None:
    assert all(NAME in example(language) for language in ("nginx", "caddy"))
    assert PAGE.read_text(encoding="utf-8").count("```nginx") == 1
