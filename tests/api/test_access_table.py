"""Who may call what: the table on the page is that of the routes, and each cell of it is what the API answers."""

from __future__ import annotations

import ast
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount, WebSocketRoute

from orchestrator.api.access_table import (
    CALLERS,
    LET_IN,
    NO_CALLER,
    NO_KEY,
    NO_KEY_CLOSED,
    NO_SCOPE,
    OWNER,
    Operation,
    UnlistedRoute,
    operations,
)
from orchestrator.api.protocol.gate import need_database
from orchestrator.api.services import Needs, Reading, desk_of
from orchestrator.domain.scopes import Role
from tests.api.access_page import listed, shown, table
from tests.api.conftest import Api
from tests.api.keyring import Header, Keyring, keyed

ROOT = Path(__file__).resolve().parents[2]
ROUTES = ROOT / "orchestrator" / "api" / "routes"
FILLED = {"workspace": "ws", "restart": "rst_0", "write": "evt_0", "fleet": "web", "key": "key_0"}
CODE = {"executor": "command", "target": {"argv": ["true"]}}
BODIES: dict[str, Any] = {
    "PUT /v1/workspaces/{workspace}": {"executor": "simulated"},
    "PUT /v1/workspaces/{workspace}, whose target names code": CODE,
    "POST /v1/workspaces/{workspace}/writes": {"path": "a"},
    "POST /v1/writes": [{"workspace": "ws", "path": "a"}],
    "POST /v1/workspaces/{workspace}/restarts": {"reason": "r"},
    "POST /v1/workspaces/{workspace}/probes": {"healthy": True},
    "POST /v1/workspaces/{workspace}/hold": {"reason": "r"},
    "POST /v1/workspaces/{workspace}/release": {"reason": "r"},
    "POST /v1/restarts/{restart}/cancel": {"reason": "r"},
    "PUT /v1/policies/default": {},
    "PUT /v1/policies/fleets/{fleet}": {},
    "POST /v1/keys": {"name": "second", "role": "writer"},
}
QUERIES = {"GET /v1/writes": {"id": "evt_0"}, "GET /v1/audit/export": {"of": "restarts"}}


@dataclass(frozen=True)
class Callers:
    """An open API and a closed one over the same database, and everybody who asks them."""

    ring: Keyring
    closed: Api
    headers: dict[str, Header]

    def ask(self, operation: Operation, caller: str, **changed: Any) -> Any:
        """Return the answer to an operation, as a caller gets it."""
        api = self.closed if caller == NO_KEY_CLOSED else self.ring.api
        given = {"json": BODIES[operation.name]} if operation.name in BODIES else {}
        request = api.http.build_request(
            operation.method,
            operation.path.format(**FILLED),
            params=QUERIES.get(operation.name),
            headers=self.headers.get(caller),
            **{**given, **changed},
        )
        answer = api.http.send(request, stream=True)  # whatever is no stream is read by the client's own check
        answer.close()
        return answer


@pytest.fixture(scope="module")
def callers(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    """Everybody, on a database of their own."""
    folder = tmp_path_factory.mktemp("callers")
    database = folder / "orchestrator.db"
    with closing(sqlite3.connect(sqlite_template)) as source, closing(sqlite3.connect(database)) as copy:
        source.backup(copy)
    url = f"sqlite:///{database}"
    with keyed(url, folder) as ring, keyed(url, folder, loopback="closed") as closed:
        headers = {role.value: ring.header(role.value, role.value) for role in Role}
        yield Callers(ring, closed.api, {**headers, OWNER: ring.owner})


def scope_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


REAL = listed()


@pytest.mark.parametrize("operation", REAL, ids=lambda operation: operation.name)
def test_each_cell_is_what_the_api_answers(callers: Callers, operation: Operation) -> None:
    callers.ring.api.put_workspace()
    for caller in CALLERS:
        expected, answer = operation.answer_to(caller), callers.ask(operation, caller)
        if expected == LET_IN:
            assert answer.status_code not in (401, 403, 421, 429), (caller, answer.text)
            assert answer.status_code < 500, (caller, answer.text)
        elif operation.method == "HEAD":
            assert answer.status_code == int(expected), caller
        else:
            kind = "unauthenticated" if expected == NO_CALLER else "forbidden"
            assert scope_of(answer) == (int(expected), kind), (caller, answer.text)
            named = any(f" {scope}" in answer.json()["detail"] for scope in operation.scopes)
            assert named or caller == NO_KEY_CLOSED, answer.text


@pytest.mark.parametrize(
    "operation",
    [each for each in REAL if each.method in ("POST", "PUT") and not each.given],
    ids=lambda operation: operation.name,
)
def test_who_may_not_is_told_so_before_a_body_is_read(callers: Callers, operation: Operation) -> None:
    """Whatever the body is: what is wrong with it, or with what it names, is nobody else's to learn."""
    refused = [caller for caller in CALLERS if operation.answer_to(caller) in (NO_CALLER, NO_SCOPE)]
    for caller in refused:
        for body in ({"content": b"{"}, {"content": b"x" * 2_000_000}, {"json": {"no": 1}}):
            assert callers.ask(operation, caller, **body).status_code == int(operation.answer_to(caller)), caller


def test_the_page_shows_the_table_as_it_is() -> None:
    assert shown() == table(), "write it anew: python -m tests.api.access_page"


def test_every_operation_has_a_row_that_is_asked_here() -> None:
    names = [operation.name for operation in REAL]
    assert len(set(names)) == len(names)
    assert set(BODIES) | set(QUERIES) <= set(names)
    assert {caller for operation in REAL for caller in CALLERS if operation.answer_to(caller) == NO_CALLER} == {
        NO_KEY_CLOSED,
        NO_KEY,
    }


def test_a_route_without_a_scope_fails_the_build() -> None:
    room = APIRouter()

    @room.get("/v1/planted")
    def planted() -> None:
        """Ask for nothing."""

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(room)
    with pytest.raises(UnlistedRoute, match=r"GET /v1/planted asks for no scope"):
        operations(app)


@pytest.mark.parametrize("route", [Mount("/m", FastAPI()), WebSocketRoute("/ws", lambda _: None)], ids=["app", "ws"])
def test_a_channel_of_a_kind_that_is_not_known_fails_the_build(route: Any) -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.router.routes.append(route)
    with pytest.raises(UnlistedRoute):
        operations(app)


def test_an_open_route_that_asks_for_a_scope_is_no_open_route() -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/livez")
    def planted(permit: Reading) -> None:
        """Ask for a scope."""

    with pytest.raises(UnlistedRoute, match="in OPEN"):
        operations(app)


def test_the_scope_is_asked_for_before_anything_else(callers: Callers) -> None:
    """Dependencies are resolved in their order: what comes before the scope is done for everybody."""
    before_all = {need_database, desk_of}
    for route in iter_route_contexts(callers.ring.api.server.app.routes):
        dependant = getattr(route, "dependant", None)
        calls = [] if dependant is None else [each.call for each in dependant.dependencies]
        found = [index for index, call in enumerate(calls) if isinstance(call, Needs)]
        assert not found or set(calls[: found[0]]) <= before_all, route.path


PLANTED = {
    "reads without a permit": "    with desk.read() as reader:\n        return reader.last_position()\n",
    "gives a scope for a permit": "    with desk.read(Scope.READ) as reader:\n        return reader.last_position()\n",
    "exports without a permit": "    next(desk.exported(Export()))\n    return 0\n",
    "acts without a permit": "    desk.operator()\n    return 0\n",
    "looks for the store": "    with desk.store.read() as reader:\n        return reader.last_position()\n",
    "changes keys without a permit": "    desk.keys()\n    return 0\n",
    "counts without a permit": "    desk.counted()\n    return 0\n",
}
GOOD = "    with desk.read(permit) as reader:\n        return reader.last_position()\n"
HEAD = """
from orchestrator.api.services import Reading, Wired
from orchestrator.domain.scopes import Scope
from orchestrator.history.export import Export

__all__ = ["Export", "Scope"]


def planted_{number}(desk: Wired, permit: Reading) -> int:
"""


def test_mypy_refuses_a_route_that_comes_to_the_store_without_a_permit(tmp_path: Path) -> None:
    heads = HEAD.partition("\n\n\n")
    functions = [heads[2].format(number=number) + body for number, body in enumerate([GOOD, *PLANTED.values()])]
    planted = tmp_path / "planted.py"
    planted.write_text(heads[0] + "\n\n\n" + "\n\n".join(functions))
    starts = [number for number, line in enumerate(planted.read_text().splitlines(), 1) if line.startswith("def ")]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(planted)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    wrong = [int(line.split(":")[1]) for line in run.stdout.splitlines() if line.startswith(str(planted))]
    found = {sum(start <= line for start in starts) - 1 for line in wrong}
    assert found == set(range(1, len(PLANTED) + 1)), run.stdout


APP_STATE = {"access", "commits", "desk", "exports", "fate_looks", "gate", "health", "held", "streams"} | {
    "archive",
    "tail",
}
"""What routes take out of ``app.state``: of those that reach the store each method asks for a permit."""


@pytest.mark.parametrize("path", sorted(ROUTES.glob("*.py")), ids=lambda path: path.stem)
def test_routes_know_no_other_way_to_the_store(path: Path) -> None:
    tree = ast.parse(path.read_text())
    taken = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("app.state")
    }
    private = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match("_[^_]", node.attr)
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        and not isinstance(node.value, ast.Call)
    }
    assert taken <= APP_STATE
    assert private == set()


def test_only_the_check_makes_permits() -> None:
    makers = [
        str(path.relative_to(ROOT))
        for folder in ("orchestrator", "workers")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and "Permit" in (getattr(node.func, "id", ""), getattr(node.func, "attr", ""))
    ]
    assert makers == ["orchestrator/service/access.py"]
