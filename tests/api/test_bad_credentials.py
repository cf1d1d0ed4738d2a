"""Credentials that are none: 401 or 403 that says why, never 500, one line in the log, and the key nowhere."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.access_table import OPEN
from orchestrator.owner_key import new_key
from orchestrator.ports.store import EventFilter
from orchestrator.service import key_book
from tests.api.access_page import listed
from tests.api.keyring import Header, Keyring, bearer, keyed
from tests.sent_statements import statements

CANARY = new_key()
WRONG_CHECK = CANARY[:-1] + ("A" if CANARY[-1] != "A" else "B")


@pytest.fixture
def ring(sqlite_url: str, tmp_path: Path) -> Iterator[Keyring]:
    with keyed(sqlite_url, tmp_path) as found:
        found.api.put_workspace()
        yield found


def bad(ring: Keyring) -> dict[str, Header]:
    """Return headers by what is wrong with them."""
    over = ring.made("over")["key"]
    ring.revoke("over")
    return {
        "unknown": bearer(CANARY),
        "revoked": bearer(over),
        "wrong check": bearer(WRONG_CHECK),
        "overlong": bearer(CANARY * 500),
        "no key": {"Authorization": "Bearer"},
        "empty": {"Authorization": ""},
        "another scheme": {"Authorization": f"Basic {CANARY}"},
        "small letters": bearer(CANARY.lower()),
        "two keys": {"Authorization": f"Bearer {CANARY} {CANARY}"},
        "no ASCII": {"Authorization": "Bearer ro_\xe9\xff"},
    }


def test_bad_credentials_are_401_everywhere(ring: Keyring, capfd: pytest.CaptureFixture[str]) -> None:
    filled = {"workspace": "ws", "restart": "r", "write": "e", "fleet": "f", "key": "k"}
    before, asked, draw = ring.api.stored(), 0, random.Random(13)
    kinds = bad(ring)
    before = ring.api.stored()
    capfd.readouterr()
    for operation in listed():
        if operation.path in ("/livez", "/readyz"):
            continue
        for kind in draw.sample(sorted(kinds), 4):
            headers: Any = [(n.encode(), v.encode("latin-1")) for n, v in kinds[kind].items()]
            answer = ring.api.http.request(operation.method, operation.path.format(**filled), headers=headers)
            asked += 1
            assert answer.status_code == 401, (kind, operation.name, answer.text)
            assert CANARY not in answer.text
            if operation.method != "HEAD":
                assert answer.json()["type"].endswith(":unauthenticated")
    lines = capfd.readouterr().out
    assert lines.count("access.denied") == asked, "one line each"
    assert "Traceback" not in lines
    ring.api.server.app.state.access_record.flush()
    with ring.api.services.store.read() as reader:
        events = reader.stored_events(EventFilter(after=before, limit=1_000))
    assert {event.type for event in events} == {"AccessDenied"}
    assert sum(1 for event in events) <= 4, "by reason and caller, not by request"
    for secret in (CANARY, CANARY.lower(), WRONG_CHECK, kinds["revoked"]["Authorization"][7:]):
        assert secret not in lines
        assert all(secret not in str(event) + bytes(event.data).decode() for event in events)


def test_a_good_key_that_comes_twice_or_with_another_is_none(ring: Keyring) -> None:
    good = ring.header("good")["Authorization"]
    for second in (good, f"Bearer {CANARY}", ""):
        for pair in ((good, second), (second, good)):
            headers: Any = [("Authorization", value) for value in pair]
            for method, path in (("GET", "/v1/workspaces"), ("POST", "/v1/writes")):
                answer = ring.api.http.request(method, path, headers=headers)
                assert (answer.status_code, "came twice" in answer.text) == (401, True), answer.text


def test_names_of_headers_and_of_the_scheme_in_any_letters(ring: Keyring) -> None:
    key = ring.made("good")["key"]
    for name, scheme in (("authorization", "bearer"), ("AUTHORIZATION", "BEARER"), ("Authorization", "Bearer")):
        assert ring.api.http.get("/v1/whoami", headers={name: f"{scheme} {key}"}).json()["actor"] == "key:good"


def test_a_key_without_a_scheme_on_the_wire(ring: Keyring) -> None:
    host, port = ring.api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as wire:
        wire.sendall(f"GET /v1/workspaces HTTP/1.1\r\nHost: localhost\r\nAuthorization: {CANARY}\r\n\r\n".encode())
        assert wire.recv(65_536).startswith(b"HTTP/1.1 401 ")


def test_an_expired_key_is_judged_by_the_clock_of_the_database(ring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    header = ring.header("short", expires="1h")
    assert ring.api.http.get("/v1/whoami", headers=header).status_code == 200
    real = key_book.KeyBook.now
    monkeypatch.setattr(key_book.KeyBook, "now", lambda book: real(book) + timedelta(hours=2))
    answer = ring.api.http.get("/v1/whoami", headers=header)
    assert (answer.status_code, "has expired" in answer.text) == (401, True)


@pytest.mark.parametrize(
    "word",
    [
        "",
        "read@",
        "read@fleet",
        "read@fleet=",
        "read@pool=x",
        "READ",
        "keys@fleet=x",
        "audit@workspace=x",
        "read@fleet=a/b",
        "read@fleet=" + "x" * 200,
        "read@fleet=[a",
        "read@fleet=a@workspace=b",
        "wríte",
        "read fleet",
        "\u0000",
    ],
)
def test_scopes_that_are_none_are_refused_with_the_word(ring: Keyring, word: str) -> None:
    answer = ring.api.http.post("/v1/keys", json={"name": "k", "role": "writer", "scopes": [word]}, headers=ring.owner)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (422, "invalid-input")


def test_globs_that_match_nothing_give_nothing(ring: Keyring) -> None:
    header = ring.header("nowhere", "writer", "read@fleet=none-*", "writes@workspace=none-*")
    http = ring.api.http
    assert http.get("/v1/workspaces", headers=header).json()["items"] == []
    assert http.get("/v1/workspaces/ws", headers=header).status_code == 404
    assert http.post("/v1/workspaces/ws/writes", json={"path": "a"}, headers=header).status_code == 403
    assert http.get("/v1/events", headers=header).status_code == 403


def test_a_key_of_another_process_opens_at_once(ring: Keyring, sqlite_url: str, tmp_path: Path) -> None:
    known = ring.header("known")
    with keyed(sqlite_url, tmp_path) as other:
        for number in range(8):
            made = other.header(f"new-{number}")
            assert ring.api.http.get("/v1/whoami", headers=known).status_code == 200, "it has just looked, maybe"
            assert ring.api.http.get("/v1/whoami", headers=made).status_code == 200


def test_guesses_cost_the_database_a_bounded_number_of_looks(ring: Keyring) -> None:
    with statements() as sent:
        begun_s = time.monotonic()
        for _ in range(100):
            assert ring.api.http.get("/v1/whoami", headers=bearer(new_key())).status_code == 401
        took_s = time.monotonic() - begun_s
    looks = sum("access_keys" in statement for statement in sent)
    assert 5 <= looks <= 10 + 10 * took_s + 2 * took_s + 2, (looks, took_s)


def test_the_open_routes_are_named(ring: Keyring) -> None:
    assert {operation.path for operation in listed() if not operation.scopes} == OPEN
