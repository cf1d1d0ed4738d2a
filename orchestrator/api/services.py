"""How a route gets at what the process was wired with: every way to the store asks for a permit.

``needs(SCOPE)`` in a route's signature is what lets a request in, and what the table of routes and roles is made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Any, cast

from fastapi import Depends, Path, Request

from orchestrator.api.protocol.names import EARLIER_NAME_PATTERN, NAME_PATTERN
from orchestrator.bootstrap import Services
from orchestrator.domain.encoding import to_plain
from orchestrator.domain.policy import PolicyLayer, PolicyPatch
from orchestrator.domain.scopes import Scope
from orchestrator.errors import Forbidden, NotFound
from orchestrator.history.export import Export, Subject, exported
from orchestrator.ports.store import EventStore, Reader
from orchestrator.ports.unit import Unit
from orchestrator.service.access import Permit, permit
from orchestrator.service.access_record import AccessRecord
from orchestrator.service.change_policy import change_policy
from orchestrator.service.idempotency import RequestKey
from orchestrator.service.keys import KeyKeeper
from orchestrator.service.near_names import near_names
from orchestrator.service.operate import SCOPES_OF_COMMANDS, Operator
from orchestrator.service.record import Recording, Write, record_unit
from orchestrator.service.restricted_reader import RestrictedReader, restricted
from orchestrator.service.rule_matching import Matching

_READERS = (Scope.READ, Scope.AUDIT, Scope.KEYS, Scope.REGISTER, Scope.HOLDS, Scope.CANCEL, Scope.POLICIES)
"""Who reads, and who acts and is answered with what that led to."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Desk:
    """What routes get. There is no way from here to the store without a ``Permit``."""

    def __init__(self, services: Services, keeper: KeyKeeper, record: AccessRecord) -> None:
        self._services, self._keeper, self._record = services, keeper, record
        self.settings, self.executors = services.settings, services.executors
        self.serving, self.up_pool = services.serving, services.up_pool

    def read(self, permit: Permit) -> AbstractContextManager[Reader]:
        """Open a reading transaction of what the caller may see. Raises ``Forbidden`` for a permit to write, say."""
        permit.need(*_READERS)
        return _Showing(self._services, permit)

    def exported(self, permit: Permit, wanted: Export) -> Iterator[tuple[bytes, int]]:
        """Yield an export, as ``history.export`` does. Raises ``Forbidden`` for one of more than the permit reaches."""
        permit.need(Scope.EXPORT)
        if not permit.reach.everywhere:
            with self._services.store.read() as reader:
                RestrictedReader(reader, permit.reach).need_scope(wanted.scope)
        scope = {name: value for name, value in to_plain(wanted.scope).items() if value is not None}
        pieces = exported(self._shown(permit) if wanted.of is Subject.RESTARTS else self._services.store, wanted)
        self.note_export(permit, "export", {"of": wanted.of.value, "after": str(wanted.after), **scope})
        return pieces

    def _shown(self, permit: Permit) -> EventStore:
        """Return the store whose readers show what the caller may see. Events are those of a workspace or fleet."""
        return self._services.store if permit.reach.everywhere else cast(EventStore, _Shown(self._services, permit))

    def note_export(self, permit: Permit, what: str, chosen: Mapping[str, str]) -> None:
        """Record that the caller is given data, before they are. Raises ``Unavailable``, ``Forbidden``."""
        permit.need(Scope.EXPORT, Scope.AUDIT, Scope.KEYS)
        self._record.exported(permit.principal.actor, what, chosen)

    def counted(self, permit: Permit) -> EventStore:
        """Return the store for the metrics, which are sums over everything. Raises ``Forbidden``."""
        permit.need(Scope.METRICS)
        return self._services.store

    def record_unit(
        self, permit: Permit, writes: Sequence[Write], matching: Matching, request: RequestKey | None
    ) -> Unit[Recording]:
        """Return the unit that stores writes; those beyond the permit's reach are refused in it, each alone.

        Raises ``Forbidden`` for a permit of another scope.
        """
        permit.need(Scope.WRITES)
        return record_unit(
            writes,
            actor=permit.principal.actor,
            ids=self._services.ids,
            auto=self._services.auto,
            matching=matching,
            request=request,
            reach=permit.reach,
            budget=permit.principal.budget,
        )

    def operator(self, permit: Permit) -> Operator:
        """Return what carries commands out: each takes the permit's ``author``, and refuses beyond its scope and reach.

        Raises ``Forbidden`` for a permit of a scope that carries out none.
        """
        permit.need(*SCOPES_OF_COMMANDS.values())
        return self._services.operator

    @contextmanager
    def naming_near(self, permit: Permit, workspace: str) -> Iterator[None]:
        """Let the refusal of a workspace that is not there, or is beyond the permit, say which names are near.

        Names are those that the caller may read: they learn no others, nor whether there is such a workspace.
        """
        try:
            yield
        except (NotFound, Forbidden) as error:
            reach = permit.principal.grants.reach(Scope.READ)
            with self._services.store.read() as reader:
                error.near = near_names(reader, reach, workspace)
            if error.near:
                error.args = (f"{error}; near that name: {', '.join(error.near)}",)
            raise

    def change_policy(
        self, permit: Permit, *, scope: str, fleet: str | None, patch: PolicyPatch, expected_version: int | None
    ) -> PolicyLayer:
        """Replace a layer. Raises ``Forbidden`` where the permit does not reach all that the layer holds for."""
        permit.need(Scope.POLICIES)
        need_fleet(permit, fleet)
        return change_policy(
            self._services.store,
            self._services.ids,
            scope=scope,
            patch=patch,
            actor=permit.principal.actor,
            expected_version=expected_version,
        )

    def keys(self, permit: Permit) -> KeyKeeper:
        """Return what changes keys. Raises ``Forbidden`` for any other scope than theirs."""
        permit.need(Scope.KEYS)
        return self._keeper


class _Shown:
    """A store to read from, as far as a permit reaches."""

    def __init__(self, services: Services, permit: Permit) -> None:
        self._services, self._permit = services, permit

    def read(self) -> AbstractContextManager[Reader]:
        """Open a reading transaction."""
        return _Showing(self._services, self._permit)


class _Showing:
    """A reading transaction of what a permit reaches."""

    def __init__(self, services: Services, permit: Permit) -> None:
        self._transaction, self._permit = services.store.read(), permit

    def __enter__(self) -> Reader:
        reader = self._transaction.__enter__()
        return reader if self._permit.reach.everywhere else restricted(reader, self._permit.reach)

    def __exit__(self, *raised: Any) -> bool | None:
        return self._transaction.__exit__(*raised)


def need_fleet(permit: Permit, fleet: str | None) -> None:
    """Raise ``Forbidden`` unless a permit reaches a whole fleet; None: everything."""
    reaches = permit.reach.everywhere if fleet is None else permit.reach.holds_fleet(fleet)
    if not reaches:
        about = "all workspaces" if fleet is None else f"the whole fleet {fleet!r}"
        raise Forbidden(
            f"this is about {about}, and the scope {permit.scope} of this key is for {permit.reach}", needs=permit.scope
        )


class Needs:
    """The scope that a route asks for, as a dependency."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Permit:
        """Return what the caller may do of it. Raises ``Unauthenticated``, ``Forbidden``."""
        trace = well_formed_trace(request.headers.get("traceparent"))
        return permit(request.state.principal, self.scope, f"{request.method} {request.url.path}", traceparent=trace)


def needs(scope: Scope) -> Any:
    """Return the dependency that lets in whoever has a scope over anything.

    Name it before whatever reads a body: dependencies are resolved in their order, and nobody else's body is read.
    """
    return Depends(Needs(scope))


async def desk_of(request: Request) -> Desk:
    """Return the process's desk."""
    desk: Desk = request.app.state.desk
    return desk


def well_formed_trace(found: str | None) -> str | None:
    """Return a W3C trace context, None for anything else."""
    return found if found is not None and _TRACEPARENT.fullmatch(found) else None


Wired = Annotated[Desk, Depends(desk_of)]
Reading = Annotated[Permit, needs(Scope.READ)]
Auditing = Annotated[Permit, needs(Scope.AUDIT)]
NewWorkspaceId = Annotated[str, Path(pattern=NAME_PATTERN, description="A workspace's id")]
WorkspaceId = Annotated[str, Path(pattern=EARLIER_NAME_PATTERN, description="A workspace's id")]
