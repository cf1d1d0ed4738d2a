"""The answers that the two ways in gave while they were routes of FastAPI, and what is compared with them.

``answers.ndjson`` holds the requests and, for each, the answer of commit e4b333f, the last one of that form; its last
line is what was stored. The commit that added the file holds the program that made it. What differs from run to run is
replaced in both: ids and positions by their order, and instants. ``description.json`` is what the OpenAPI document of
that commit said of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from orchestrator.api.app import create_app
from orchestrator.bootstrap import Services, open_services
from orchestrator.domain.encoding import to_plain
from orchestrator.ports.store import EventFilter
from orchestrator.service.access import UNAUTHENTICATED
from orchestrator.service.change_policy import note_floor
from orchestrator.settings import load_settings
from orchestrator.storage.migrate import upgrade
from tests.api.ingest.asking import Answer, Request, ask

FOLDER = Path(__file__).parent
ANSWERS, DESCRIPTION = FOLDER / "answers.ndjson", FOLDER / "description.json"
BRIEF_S = 0.05
HEADERS = ((b"host", b"127.0.0.1:8321"), (b"content-type", b"application/json"))
COMPONENTS = ("WriteBody", "BatchedWriteBody", "BatchedWriteBodies")
_INSTANT = re.compile(r'"due_at":"[^"]+"')
_ID = re.compile(r"evt_[0-9a-f]+|\"position\":[0-9]+")
_WORDS = re.compile(r"the body is not JSON: [^\"]*")


@contextmanager
def app_of(folder: Path) -> Iterator[tuple[FastAPI, Services]]:
    """Give an app over a new database with the workspaces of the table."""
    url = f"sqlite:///{folder / 'orchestrator.db'}"
    upgrade(url)
    services = open_services(load_settings({}, database_url=url, policy={"quiet": "1h", "max_wait": "2h"}))
    note_floor(services.store, services.ids, services.settings.floor)
    yield create_app(services), services
    services.store.close()


async def prepare(app: ASGIApp) -> None:
    """Register, hold and remove what the table speaks of."""
    rules = [{"match": "docs/", "action": "record"}, {"match": "slow/", "quiet": "90m"}]
    for workspace in ("ws", "held", "removed", "ruled"):
        policy = {"rules": rules} if workspace == "ruled" else {}
        await _sure(app, "PUT", f"/v1/workspaces/{workspace}", {"executor": "simulated", "policy": policy})
    await _sure(app, "POST", "/v1/workspaces/held/hold", {"reason": "table"})
    await _sure(app, "DELETE", "/v1/workspaces/removed", None)


async def _sure(app: ASGIApp, method: str, target: str, body: object) -> None:
    raw = b"" if body is None else json.dumps(body).encode()
    answer = await ask(app, Request(method=method, target=target, headers=HEADERS, body=(raw,)))
    if answer.status >= 300:
        raise RuntimeError(f"{method} {target}: {answer}")


class Names:
    """Replaces what differs from run to run; the same thing always by the same name."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def in_text(self, text: str) -> str:
        return _INSTANT.sub('"due_at":"INSTANT"', _ID.sub(self._name, text))

    def _name(self, found: re.Match[str]) -> str:
        kind = "evt_" if found[0].startswith("evt_") else '"position":'
        return self._names.setdefault(found[0], f"{kind}{sum(name.startswith(kind) for name in self._names.values())}")


async def answer_of(app: ASGIApp, request: Request, names: Names) -> dict[str, Any]:
    """Return one answer in its recorded form."""
    given = Request(
        method=request.method,
        target=request.target,
        headers=(*request.headers, (b"x-request-id", b"asked")),
        body=request.body,
        ending=request.ending,
    )
    return recorded_form(await ask(app, given), names)


def recorded_form(answer: Answer, names: Names) -> dict[str, Any]:
    """Return an answer without what differs from run to run. Raises ``ValueError`` for a wrong length."""
    headers = {key.decode(): names.in_text(value.decode("latin-1")) for key, value in answer.headers}
    length = headers.pop("content-length", None)
    if length is not None and int(length) != len(answer.body):
        raise ValueError(f"{length} bytes were announced and {len(answer.body)} sent")
    headers["x-request-id"] = re.sub(r"^req_[0-9a-f]+$", "req_", headers.get("x-request-id", ""))
    body = re.sub(r'"request_id":"req_[0-9a-f]+"', '"request_id":"req_"', answer.body.decode())
    return {"status": answer.status, "headers": dict(sorted(headers.items())), "body": names.in_text(body)}


def told_alike(request: Request, answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without the standard library's own words for broken JSON, which other Pythons choose anew."""
    if re.search(rb"\\u[dD][89a-fA-F]", b"".join(request.body)) is None:
        return answer
    return {**answer, "body": _WORDS.sub("the body is not JSON: ...", answer["body"])}


def stored(services: Services) -> list[Any]:
    """Return what the log holds of the writes: all but ids, positions and instants of this run."""
    with services.store.read() as reader:
        events = reader.events(EventFilter(limit=100_000))
    facts = [event for event in events if event.type == "FileWritten"]
    own = UNAUTHENTICATED.actor
    return [
        {
            "workspace": event.workspace,
            "data": to_plain(event.data),
            "source": "ACTOR" if event.source == own else event.source,
            "source_id": event.source_id,
            "occurred_at": to_plain(event.occurred_at),
            "traceparent": event.traceparent,
        }
        for event in facts
    ]


def unpacked(parts: list[Any]) -> bytes:
    """Return the bytes of texts, where (text, times) is one that is repeated."""
    return "".join(part if isinstance(part, str) else part[0] * part[1] for part in parts).encode("latin-1")


def from_json(plain: dict[str, Any]) -> Request:
    """Return a request that was kept."""
    headers = tuple((key.encode("latin-1"), value.encode("latin-1")) for key, value in plain["headers"])
    body = tuple(unpacked(piece) for piece in plain["body"])
    return Request(method=plain["method"], target=plain["target"], headers=headers, body=body, ending=plain["ending"])


def recorded() -> tuple[dict[str, Request], dict[str, dict[str, Any]], list[Any]]:
    """Return the recorded requests and their answers, by name, and what was stored."""
    *kept, last = [json.loads(line) for line in ANSWERS.read_text().splitlines()]
    return {it["name"]: from_json(it) for it in kept}, {it["name"]: it["answer"] for it in kept}, last["stored"]


async def answers_to(app: ASGIApp, asked: dict[str, Request]) -> dict[str, dict[str, Any]]:
    """Send all requests, one after the other."""
    names = Names()
    await prepare(app)
    return {name: await answer_of(app, request, names) for name, request in asked.items()}


def described(document: dict[str, Any]) -> dict[str, Any]:
    """Return what a document says of the two ways in."""
    operations = {"/v1/workspaces/{workspace}/writes": "post", "/v1/writes": "post"}
    components = {name: document["components"]["schemas"][name] for name in COMPONENTS}
    paths = {path: document["paths"][path][method] for path, method in operations.items()}
    return {"paths": paths, "components": components}
