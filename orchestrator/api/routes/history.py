"""What people and programs ask: the fate of writes, workspaces, restart history, why, the log in pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.protocol import answers
from orchestrator.api.protocol.cursors import Paging
from orchestrator.api.protocol.instants import past_moment, past_workspace, span_of
from orchestrator.api.protocol.names import EARLIER_NAME_PATTERN
from orchestrator.api.protocol.openapi import describe, problems
from orchestrator.api.protocol.problems import refused
from orchestrator.api.services import Reading, Wired, WorkspaceId
from orchestrator.domain.event_types import EVENT_TYPES
from orchestrator.domain.events import Cause
from orchestrator.domain.paths import MAX_PATH_BYTES, escape_path
from orchestrator.domain.restart_projection import RestartState
from orchestrator.domain.state import Phase
from orchestrator.errors import NotFound
from orchestrator.history.crash_loops import crash_loops
from orchestrator.history.past import workspaces_at
from orchestrator.history.views import (
    event_view,
    restart_view,
    story_view,
    workspace_row,
    workspace_then,
    workspace_view,
)
from orchestrator.history.why import why
from orchestrator.ports.store import EventFilter, RestartFilter
from orchestrator.ports.workspaces import WorkspaceFilter

MOST_ITEMS = 1_000
MOST_POSITION = 2**63 - 1

_LABEL = r"^([^=\u0000]+=[^\u0000]*|[^=:\u0000]+:[^=\u0000]*)$"

router = APIRouter()

Name = Annotated[str, Field(pattern=EARLIER_NAME_PATTERN)]
Limit = Annotated[int, Field(ge=1, le=MOST_ITEMS)]
Position = Annotated[int, Field(ge=0, le=MOST_POSITION)]


At = Annotated[
    str | None, Field(description="As it was at this past instant", json_schema_extra={"format": "date-time"})
]


class QueryFields(BaseModel):
    """The query of a URL; an unknown parameter is refused, since a filter with a typing error filters nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(QueryFields):
    """Where to go on, and how far."""

    cursor: str | None = None
    limit: Limit = 100

    def filters(self) -> Mapping[str, str]:
        """Return the filters of the query as text; they stay the same from page to page."""
        given = self.model_dump(mode="json", exclude={"cursor", "limit"}, exclude_none=True)
        return {name: str(value) for name, value in given.items()}


class WorkspaceQuery(Page):
    """Which workspaces."""

    state: Phase | None = None
    fleet: Name | None = None
    label: Annotated[
        str | None, Field(description="KEY:VALUE or KEY=VALUE", max_length=600, json_schema_extra={"pattern": _LABEL})
    ] = None
    at: At = None


class WorkspaceAtQuery(QueryFields):
    """One workspace, now or as it was."""

    at: At = None


class RestartQuery(Page):
    """Which restarts; ``since`` and ``until`` speak of when they were queued."""

    workspace: Name | None = None
    fleet: Name | None = None
    since: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None
    until: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None
    state: RestartState | None = None
    cause: Cause | None = None
    path: Annotated[str | None, Field(min_length=1, max_length=MAX_PATH_BYTES)] = None


class EventQuery(QueryFields):
    """Which events."""

    after: Position = 0
    before: Annotated[
        Position | None, Field(description="The newest ones before this position, instead of the next after `after`")
    ] = None
    workspace: Name | None = None
    type: Annotated[list[str], Field(description="May be repeated")] = Field(default_factory=list)
    limit: Limit = 500


@router.get(
    "/v1/workspaces",
    operation_id="listWorkspaces",
    summary="Workspaces, by id",
    tags=["workspaces"],
    responses={200: describe(answers.WORKSPACES, "A page", paged=True), **problems(422, 500, 503)},
)
def list_workspaces(
    desk: Wired, permit: Reading, request: Request, query: Annotated[WorkspaceQuery, Query()]
) -> JSONResponse:
    """Return a page of workspaces; removed ones only where ``state=removed`` asks for them.

    With ``at`` a page looks at 500 workspaces at most: it may hold fewer than ``limit``, even none, and name a next.
    """
    paging = Paging(name="workspaces", filters=query.filters())
    after = paging.place(query.cursor, str)
    wanted = WorkspaceFilter(
        phase=query.state,
        fleet=query.fleet,
        label=_label(query.label),
        after=str(after or ""),
        limit=query.limit + 1,
    )
    with desk.read(permit) as reader:
        if query.at is not None:
            moment = past_moment(reader, query.at)
            then = workspaces_at(reader, replace(wanted, limit=query.limit), moment)
            were = crash_loops(reader, then.items, moment.policies, at=moment.at)
            rows = [workspace_then(stored, moment, were) for stored in then.items]
            return page_of(request, rows, paging, then.next_after)
        policies = reader.policies()
        found = reader.workspaces(wanted)
        loops = crash_loops(reader, found, policies)
    page = found[: query.limit]
    place = page[-1].state.workspace if len(found) > query.limit else None
    return page_of(request, [workspace_row(stored, policies, loops) for stored in page], paging, place)


@router.get(
    "/v1/workspaces/{workspace}",
    operation_id="getWorkspace",
    summary="One workspace: state, counts, due, cycles, policy",
    tags=["workspaces"],
    responses={200: describe(answers.WORKSPACE, "The workspace"), **problems(404, 422, 500, 503)},
)
def get_workspace(
    desk: Wired, permit: Reading, workspace: WorkspaceId, query: Annotated[WorkspaceAtQuery, Query()]
) -> JSONResponse:
    """Return a workspace, now or as it was; a removed one too, as ``removed``."""
    with desk.read(permit) as reader:
        if query.at is not None:
            was, moment = past_workspace(reader, workspace, query.at)
            if was is None:
                raise NotFound(f"workspace {workspace!r} did not exist at {query.at}")
            loops = crash_loops(reader, [was], moment.policies, at=moment.at)
            return JSONResponse(workspace_then(was, moment, loops))
        stored = reader.workspace(workspace)
        if stored is None:
            raise NotFound(f"workspace {workspace!r} is not registered; PUT /v1/workspaces/{workspace} first")
        return JSONResponse(workspace_view(reader, stored))


@router.get(
    "/v1/restarts",
    operation_id="listRestarts",
    summary="Restart history, newest first",
    tags=["restarts"],
    responses={200: describe(answers.RESTARTS, "A page", paged=True), **problems(422, 500, 503)},
)
def list_restarts(
    desk: Wired, permit: Reading, request: Request, query: Annotated[RestartQuery, Query()]
) -> JSONResponse:
    """Return a page of restarts."""
    paging = Paging(name="restarts", filters=query.filters())
    before = paging.place(query.cursor, int)
    wanted = RestartFilter(
        workspace=query.workspace,
        fleet=query.fleet,
        **span_of(query.since, query.until),
        state=query.state,
        cause=query.cause,
        path=None if query.path is None else escape_path(query.path)[0],
        before=None if before is None else int(before),
        limit=query.limit + 1,
    )
    with desk.read(permit) as reader:
        found = reader.restarts(wanted)
    page = found[: query.limit]
    place = page[-1].queued_position if len(found) > query.limit else None
    return page_of(request, [restart_view(record) for record in page], paging, place)


@router.get(
    "/v1/restarts/{restart}",
    operation_id="getRestart",
    summary="Why a restart happened",
    tags=["restarts"],
    responses={200: describe(answers.STORY, "The whole story"), **problems(404, 422, 500, 503)},
)
def get_restart(desk: Wired, permit: Reading, restart: str) -> JSONResponse:
    """Return a restart with the sentence that says why, and every fact behind it."""
    with desk.read(permit) as reader:
        return JSONResponse(story_view(why(reader, restart)))


@router.get(
    "/v1/restarts/{restart}/writes",
    operation_id="listRestartWrites",
    summary="The writes that a restart covers, or is to cover",
    tags=["restarts"],
    responses={200: describe(answers.EVENTS, "A page", paged=True), **problems(404, 422, 500, 503)},
)
def list_restart_writes(
    desk: Wired, permit: Reading, request: Request, restart: str, query: Annotated[Page, Query()]
) -> JSONResponse:
    """Return a page of the writes in a restart's range, in the order of the log."""
    paging = Paging(name="restart-writes", filters={"restart": restart})
    after = paging.place(query.cursor, int)
    with desk.read(permit) as reader:
        record = reader.restart(restart)
        if record is None:
            raise NotFound(f"restart {restart!r} does not exist; GET /v1/restarts lists those that do")
        start = record.from_position - 1 if after is None else int(after)
        found = reader.restart_writes(record, after=start, limit=query.limit + 1)
    page = found[: query.limit]
    place = page[-1].position if len(found) > query.limit else None
    return page_of(request, [event_view(event) for event in page], paging, place)


@router.get(
    "/v1/events",
    operation_id="listEvents",
    summary="The log, in the order of its positions",
    tags=["events"],
    responses={200: describe(answers.EVENTS_AFTER, "A page", paged=True), **problems(404, 422, 500, 503)},
)
def list_events(desk: Wired, permit: Reading, request: Request, query: Annotated[EventQuery, Query()]) -> JSONResponse:
    """Return a page of the log. ``next_after`` is the ``after`` of the next page, also when there is none yet.

    With ``before`` the next page, which the ``Link`` header names, holds older events.
    """
    newest = query.before is not None
    wanted = EventFilter(
        after=query.after,
        to_position=None if query.before is None else query.before - 1,
        newest=newest,
        workspace=query.workspace,
        types=event_types(query.type),
        limit=query.limit + 1,
    )
    with desk.read(permit) as reader:
        found = reader.events(wanted)
    more = len(found) > query.limit
    page = found[-query.limit :] if newest else found[: query.limit]
    after = page[-1].position if page else query.after
    answer = {"items": [event_view(event) for event in page], "next_after": after, "more": more}
    link = {"before": page[0].position} if newest and more else {"after": after}
    return JSONResponse(answer, headers=_next(request, *next(iter(link.items()))) if more else {})


def event_types(given: Sequence[str]) -> tuple[str, ...]:
    """Return types of events; commas separate too. Raises ``RequestRefused`` for one that does not exist."""
    names = tuple(name for text in given for name in text.split(",") if name)
    unknown = [name for name in names if name not in EVENT_TYPES]
    if unknown:
        detail = f"{unknown[0][:60]!r} is no type of event; use {', '.join(sorted(EVENT_TYPES))}"
        raise refused("invalid-input", detail, parameter="type")
    return names


def _label(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    key, separator, value = text.partition("=" if "=" in text else ":")
    if not separator or not key or "\0" in text:
        raise refused("invalid-input", "label must be KEY:VALUE or KEY=VALUE", parameter="label")
    return key, value


def page_of(
    request: Request, items: Sequence[Mapping[str, Any]], paging: Paging, place: str | int | None
) -> JSONResponse:
    """Return a page; ``place`` is where the next one begins, None if there is none."""
    cursor = None if place is None else paging.cursor(place)
    headers = {} if cursor is None else _next(request, "cursor", cursor)
    return JSONResponse({"items": list(items), "next_cursor": cursor}, headers=headers)


def _next(request: Request, name: str, value: str | int) -> dict[str, str]:
    """Return the header that names the next page (RFC 8288)."""
    query = [pair for pair in request.query_params.multi_items() if pair[0] != name] + [(name, str(value))]
    return {"Link": f'<{request.url.path}?{urlencode(query)}>; rel="next"'}
