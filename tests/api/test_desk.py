"""Each way from a route to the store takes the permits of some scopes alone: a route that names the wrong one fails."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.routes.stream import EventStream
from orchestrator.api.services import Desk
from orchestrator.domain.policy import PolicyPatch
from orchestrator.domain.scopes import EVERYTHING, Scope
from orchestrator.errors import Forbidden, NotFound
from orchestrator.history.export import Export
from orchestrator.ports.store import EventFilter
from orchestrator.service.access import Permit, Principal, permit
from orchestrator.service.record import Write, matching_of
from tests.api.keyring import Keyring, keyed

EVERYBODY = Principal(actor="key:all", grants=EVERYTHING)
SHOWN_AFTER = {Scope.REGISTER, Scope.HOLDS, Scope.CANCEL, Scope.POLICIES}
"""Who acts so is answered with what it led to."""


@pytest.fixture
def ring(sqlite_url: str, tmp_path: Path) -> Iterator[Keyring]:
    with keyed(sqlite_url, tmp_path) as found:
        found.api.put_workspace()
        yield found


def read(desk: Desk, by: Permit) -> None:
    with desk.read(by) as reader:
        reader.last_position()


def record(desk: Desk, by: Permit) -> None:
    writes = [Write(workspace="ws", path="a")]
    desk.record_unit(by, writes, matching_of(writes), None)


def change_policy(desk: Desk, by: Permit) -> None:
    desk.change_policy(by, scope="default", fleet=None, patch=PolicyPatch(), expected_version=None)


WAYS: dict[str, tuple[Callable[[Desk, Permit], object], set[Scope]]] = {
    "read": (read, {Scope.READ, Scope.AUDIT, Scope.KEYS} | SHOWN_AFTER),
    "exported": (lambda desk, by: list(desk.exported(by, Export())), {Scope.EXPORT}),
    "note_export": (lambda desk, by: desk.note_export(by, "x", {}), {Scope.EXPORT, Scope.AUDIT, Scope.KEYS}),
    "counted": (lambda desk, by: desk.counted(by), {Scope.METRICS}),
    "record_unit": (record, {Scope.WRITES}),
    "operator": (
        lambda desk, by: desk.operator(by),
        {Scope.REGISTER, Scope.RESTARTS, Scope.PROBES, Scope.HOLDS, Scope.CANCEL},
    ),
    "change_policy": (change_policy, {Scope.POLICIES}),
    "keys": (lambda desk, by: desk.keys(by), {Scope.KEYS}),
}


def takes(scopes: set[Scope], way: Callable[[Permit], object]) -> None:
    """Hold that a way refuses the permits of all other scopes, and takes these."""
    for scope in Scope:
        by = permit(EVERYBODY, scope, "x")
        if scope in scopes:
            way(by)
            continue
        with pytest.raises(Forbidden, match=f"not {scope}$") as raised:
            way(by)
        assert raised.value.needs in scopes


@pytest.mark.parametrize("name", sorted(WAYS))
def test_a_way_takes_permits_of_its_scopes_alone(ring: Keyring, name: str) -> None:
    desk: Desk = ring.api.server.app.state.desk
    way, scopes = WAYS[name]
    takes(scopes, lambda by: way(desk, by))


def test_fates_are_read_with_the_scope_for_it(ring: Keyring) -> None:
    looks: Any = ring.api.server.app.state.fate_looks

    def look(by: Permit) -> None:
        with suppress(NotFound):
            asyncio.run(looks.look("evt_none", by))

    takes({Scope.READ}, look)


def test_the_log_is_streamed_with_the_scope_for_it(ring: Keyring) -> None:
    takes({Scope.READ}, lambda by: EventStream(ring.api.server.app, by, EventFilter(), newest=0))


def test_every_way_is_here() -> None:
    """``naming_near`` reads names by the caller's own scope ``read``, whatever is asked for: see test_near_names."""
    ways = {name for name, _ in inspect.getmembers(Desk, inspect.isfunction) if not name.startswith("_")}
    assert ways - {"naming_near"} == set(WAYS)


def test_an_act_asks_for_its_own_scope(ring: Keyring) -> None:
    """A permit to hold opens the operator, and carries no restart out."""
    http, by = ring.api.http, ring.header("holder", "writer", "holds")
    assert http.post("/v1/workspaces/ws/hold", json={"reason": "r"}, headers=by).status_code == 200
    assert http.post("/v1/workspaces/ws/restarts", json={"reason": "r"}, headers=by).status_code == 403
    with ring.api.services.store.read() as reader:
        assert reader.events(EventFilter(types=("RestartRequested",))) == []
