"""What comes over the wire has one meaning: where a message ends, and that a key stands in its head alone."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.keyring import Keyring, keyed

HIDDEN = b"PUT /v1/workspaces/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HIDDEN += b'Content-Length: 24\r\n\r\n{"executor":"simulated"}'
BODY_MOST = 1_048_576
CHUNKED = b"0\r\n\r\n" + HIDDEN
TWO_MEANINGS = {
    "both": f"Content-Length: {len(CHUNKED)}\r\nTransfer-Encoding: chunked\r\n",
    "both, the other way": f"Transfer-Encoding: chunked\r\nContent-Length: {len(CHUNKED)}\r\n",
    "chunked, and more": f"Transfer-Encoding: chunked, identity\r\nContent-Length: {len(CHUNKED)}\r\n",
    "an unknown coding": f"Transfer-Encoding: xchunked\r\nContent-Length: {len(CHUNKED)}\r\n",
    "a space before the colon": f"Transfer-Encoding : chunked\r\nContent-Length: {len(CHUNKED)}\r\n",
    "two lengths": f"Content-Length: {len(CHUNKED)}\r\nContent-Length: 5\r\n",
    "a list of lengths": f"Content-Length: 5, {len(CHUNKED)}\r\n",
    "a signed length": f"Content-Length: +{len(CHUNKED)}\r\n",
    "a folded line": f"Content-Length:\r\n {len(CHUNKED)}\r\nTransfer-Encoding:\r\n chunked\r\n",
}


@pytest.fixture
def ring(sqlite_url: str, tmp_path: Path) -> Iterator[Keyring]:
    with keyed(sqlite_url, tmp_path) as found:
        found.api.put_workspace()
        yield found


@pytest.mark.parametrize("kind", TWO_MEANINGS)
def test_a_message_whose_end_can_be_read_in_two_ways_carries_no_second_one(ring: Keyring, kind: str) -> None:
    """What a proxy takes for a body must not be a request of its own here."""
    before = ring.api.stored()
    head = "POST /v1/workspaces/ws/writes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answers = exchanged(ring, f"{head}{TWO_MEANINGS[kind]}\r\n".encode() + CHUNKED)
    statuses = re.findall(rb"^HTTP/1\.1 (\d+)", answers, re.MULTILINE)
    assert statuses, "it is answered"
    assert all(status.startswith(b"4") for status in statuses), answers
    assert ring.api.http.get("/v1/workspaces/smuggled").status_code == 404
    assert ring.api.stored() == before


def test_what_is_left_of_a_refused_body_is_no_request(ring: Keyring) -> None:
    before = ring.api.stored()
    head = "POST /v1/workspaces/ws/writes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = HIDDEN * (BODY_MOST // len(HIDDEN) + 100)
    after = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answers = exchanged(ring, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body + after)
    statuses = re.findall(rb"^HTTP/1\.1 (\d+)", answers, re.MULTILINE)
    assert statuses in ([b"413", b"200"], [b"413"], []), "it may end the connection, which may take its answer away"
    assert ring.api.http.get("/v1/workspaces/smuggled").status_code == 404
    assert ring.api.stored() == before


def exchanged(ring: Keyring, sent: bytes) -> bytes:
    """Send bytes, then no more; return all that is answered until the connection ends."""
    host, port = ring.api.url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), 10) as wire:
        try:
            wire.sendall(sent)
            wire.shutdown(socket.SHUT_WR)
            while piece := wire.recv(65_536):
                received += piece
        except (ConnectionResetError, BrokenPipeError):
            pass  # an end too: it did not want the rest
    return received


def test_a_key_is_taken_from_the_head_alone(sqlite_url: str, tmp_path: Path) -> None:
    """URLs end up in histories, logs of proxies and other pages' Referer."""
    with keyed(sqlite_url, tmp_path, loopback="closed") as ring:
        key = ring.owner["Authorization"].removeprefix("Bearer ")
        http = ring.api.http
        for name in ("access_token", "token", "key", "api_key", "authorization"):
            assert http.get("/v1/workspaces", params={name: key}).status_code == 401
            assert http.get("/v1/workspaces", headers={"Cookie": f"{name}={key}"}).status_code == 401
            body = {"workspace": "ws", "path": "x", name: key}
            assert http.post("/v1/writes", json=[body]).status_code == 401
        assert http.get("/v1/workspaces", headers=ring.owner).status_code == 200
