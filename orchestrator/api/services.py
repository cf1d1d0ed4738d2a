"""How a route gets at what the process was wired with."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Path, Request

from orchestrator.api.protocol.names import EARLIER_NAME_PATTERN, NAME_PATTERN
from orchestrator.bootstrap import Services
from orchestrator.service.access import Principal
from orchestrator.service.append import Author

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


async def services_of(request: Request) -> Services:
    """Return the process's services."""
    services: Services = request.app.state.services
    return services


async def traceparent_of(request: Request) -> str | None:
    """Return the W3C trace context that came with the request, if it is well formed."""
    return well_formed_trace(request.headers.get("traceparent"))


def well_formed_trace(found: str | None) -> str | None:
    """Return a W3C trace context, None for anything else."""
    return found if found is not None and _TRACEPARENT.fullmatch(found) else None


async def caller_of(request: Request) -> Principal:
    """Return who asks, as ``RequestContext`` has admitted them."""
    caller: Principal = request.state.principal
    return caller


async def author_of(request: Request) -> Author:
    """Return in whose name the request acts."""
    caller = await caller_of(request)
    return Author(actor=caller.actor, traceparent=await traceparent_of(request))


Wired = Annotated[Services, Depends(services_of)]
By = Annotated[Author, Depends(author_of)]
Caller = Annotated[Principal, Depends(caller_of)]
NewWorkspaceId = Annotated[str, Path(pattern=NAME_PATTERN, description="A workspace's id")]
WorkspaceId = Annotated[str, Path(pattern=EARLIER_NAME_PATTERN, description="A workspace's id")]
