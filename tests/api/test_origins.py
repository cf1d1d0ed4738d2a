"""What a page of another site may ask for: nothing that changes anything, whatever it sends, with a key or without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.keyring import Header, Keyring, keyed

TYPES = (
    "application/json",
    "application/x-ndjson",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "",
)
OWN = "http://{host}"
SENT: list[tuple[Header, bool]] = [
    ({}, True),
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "CROSS-SITE"}, False),
    ({"Sec-Fetch-Site": ""}, False),
    ({"Sec-Fetch-Site": "cross-site", "Origin": OWN}, False),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"}, True),
    ({"Origin": OWN}, True),
    ({"Origin": "null"}, False),
    ({"Origin": ""}, False),
    ({"Origin": "https://evil.example"}, False),
    ({"Origin": "http://{host}.evil.example"}, False),
    ({"Origin": "http://evil.example/{host}"}, False),
    ({"Origin": "http://x@{host}"}, False),
    ({"Origin": "http://localhost:1"}, False),
    ({"Origin": "http://[::1"}, False),
]
CHANGES = [
    ("POST", "/v1/workspaces/ws/writes"),
    ("POST", "/v1/writes"),
    ("POST", "/v1/workspaces/ws/hold"),
    ("PUT", "/v1/workspaces/ws"),
    ("PUT", "/v1/policies/default"),
    ("DELETE", "/v1/workspaces/gone"),
    ("POST", "/v1/keys"),
]


@pytest.fixture
def ring(sqlite_url: str, tmp_path: Path) -> Iterator[Keyring]:
    with keyed(sqlite_url, tmp_path) as found:
        found.api.put_workspace()
        yield found


@pytest.mark.parametrize(("sent", "passes"), SENT, ids=[str(sent) for sent, _ in SENT])
def test_changes_for_pages_of_other_sites_are_refused(ring: Keyring, sent: Header, passes: bool) -> None:
    host = ring.api.url.removeprefix("http://")
    named = {name: value.replace("{host}", host) for name, value in sent.items()}
    before = ring.api.stored()
    for key in ({}, ring.owner):
        for method, path in CHANGES:
            for media_type in TYPES:
                headers = {**named, **key, **({"Content-Type": media_type} if media_type else {})}
                answer = ring.api.http.request(method, path, content=b"{", headers=headers)
                refused = "pages of other sites" in answer.text
                assert refused is not passes, (method, path, media_type, answer.text)
                assert not refused or (answer.status_code, answer.json()["status"]) == (403, 403)
        for path in ("/v1/workspaces", "/v1/events"):
            assert ring.api.http.get(path, headers={**named, **key}).status_code == 200
    assert passes or ring.api.stored() == before


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_no_page_of_another_site_may_read_an_answer(ring: Keyring, method: str) -> None:
    """No answer carries a CORS field, a preflight's least of all: a browser then shows the page nothing."""
    asks = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    for key in ({}, ring.owner):
        for path in ("/v1/workspaces", "/v1/events", "/v1/keys", "/livez", "/openapi.json"):
            answer = ring.api.http.request(method, path, headers={**asks, **key})
            assert [name for name in answer.headers if name.lower().startswith("access-control-")] == []
