"""What people and programs do: register, remove, request a restart, report a probe, hold, release, cancel."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse
from pydantic import Field, WithJsonSchema

from orchestrator.api.protocol import answers
from orchestrator.api.protocol.bodies import JSON, Body, Key, json_body
from orchestrator.api.protocol.names import (
    MAX_REASON_CHARACTERS,
    NAME_PATTERN,
    check_instant,
    check_labels,
    check_name,
    check_text,
)
from orchestrator.api.protocol.openapi import accepts, describe, problems
from orchestrator.api.protocol.schemas import POLICY_BODY
from orchestrator.api.services import Desk, NewWorkspaceId, Wired, WorkspaceId, needs
from orchestrator.domain import commands as cmd
from orchestrator.domain.encoding import to_plain
from orchestrator.domain.events import Trigger, WorkspaceRemoved, WritesWaived
from orchestrator.domain.policy import DEFAULT_FLEET, Action, PolicyPatch, check_lease, parse_policy
from orchestrator.domain.scopes import Scope
from orchestrator.domain.state import SUPERVISED, Registration
from orchestrator.errors import InvalidInput, InvalidTarget, NotFound, UnknownExecutor
from orchestrator.history.views import workspace_view
from orchestrator.ports.executor import Executor, names_code
from orchestrator.ports.store import EventFilter
from orchestrator.service.access import Permit
from orchestrator.service.operate import Done, refuse_secrets
from workers.executors.extras import how_to_get

_WORKSPACE = "/v1/workspaces/{workspace}"

router = APIRouter()

Registering = Annotated[Permit, needs(Scope.REGISTER)]
Restarting = Annotated[Permit, needs(Scope.RESTARTS)]
Probing = Annotated[Permit, needs(Scope.PROBES)]
Holding = Annotated[Permit, needs(Scope.HOLDS)]
Cancelling = Annotated[Permit, needs(Scope.CANCEL)]
Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON_CHARACTERS, description="For the record")]


class WorkspaceBody(Body):
    """What a workspace is and how it is restarted. What is left out is set to its default."""

    fleet: Annotated[str, Field(pattern=NAME_PATTERN)] = DEFAULT_FLEET
    labels: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)
    executor: str
    target: dict[str, Any] = Field(default_factory=dict)
    policy: Annotated[dict[str, Any], WithJsonSchema(POLICY_BODY)] = Field(
        default_factory=dict, description="Its own numbers, like {quiet: 2s}"
    )


class RestartBody(Body):
    """A request for a restart."""

    reason: Reason
    trigger: Literal["manual", "mutation"] = "manual"


class ProbeBody(Body):
    """What a health probe saw."""

    healthy: bool
    detail: Annotated[str, Field(max_length=MAX_REASON_CHARACTERS)] = ""


class HoldBody(Body):
    """Why nothing is to be restarted, and until when at most."""

    reason: Reason
    until: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None


class ReasonBody(Body):
    """Why."""

    reason: Reason


@router.put(
    _WORKSPACE,
    operation_id="putWorkspace",
    summary="Register or change a workspace",
    tags=["workspaces"],
    responses={
        200: describe(answers.WORKSPACE, "It is as asked for"),
        201: describe(answers.WORKSPACE, "It is new"),
        **problems(400, 408, 413, 415, 422, 500, 503),
    },
    openapi_extra=accepts({JSON: "WorkspaceBody"}),
)
def put_workspace(
    desk: Wired,
    permit: Registering,
    workspace: NewWorkspaceId,
    body: Annotated[WorkspaceBody, Depends(json_body(WorkspaceBody))],
) -> JSONResponse:
    """Register a workspace, or replace its registration. A removed one comes back with its history."""
    registration, code = registration_of(desk, workspace, body, permit)
    by = None if code is None else code.author
    stored, is_new = desk.operator(permit).register(workspace, registration, permit.author, code=by)
    with desk.read(permit) as reader:
        view = workspace_view(reader, stored)
    return JSONResponse(view, 201 if is_new else 200)


def registration_of(
    desk: Desk, workspace: str, body: WorkspaceBody, permit: Permit
) -> tuple[Registration, Permit | None]:
    """Return the registration, its target as the executor wants it, and what permits that it names code, if it does.

    Raises ``InvalidInput`` and its kin, and ``Unauthenticated`` or ``Forbidden`` where the target needs another key.
    """
    executor = desk.executors.get(body.executor)
    if executor is None:
        raise _unknown(body.executor, desk)
    given = dict(body.target)
    named_pool = given.pop("pool", None)
    code = None
    if names_code(executor, {}):  # whatever the target is: nobody else learns even whether there is such a program
        code = _with_code(permit, executor, workspace, body.fleet)
    pool = _pool_of(desk, permit, workspace, body.executor, named_pool)
    try:
        refuse_secrets(given)  # before an executor sees it: a refusal of a plug-in's may repeat what it was given
        target = executor.normalise(given)
        to_plain(target)
        refuse_secrets(target)
    except InvalidTarget as error:
        raise InvalidTarget(str(error), field=f"target.{error.field}" if error.field else "target") from error
    except TypeError as error:
        raise InvalidTarget(f"target: {error}", field="target") from error
    if names_code(executor, target):
        code = _with_code(permit, executor, workspace, body.fleet)
    policy = parse_policy(body.policy)
    check_lease(policy.lease_ms, tick_ms=desk.settings.tick_ms)
    if body.executor == SUPERVISED and "reload_signal" not in target:
        _refuse_reload(policy)
    registration = Registration(
        fleet=body.fleet,
        labels=check_labels(body.labels),
        executor=body.executor,
        target=target if pool is None else {**target, "pool": pool},
        policy=policy,
    )
    return registration, code


def _unknown(executor: str, desk: Desk) -> UnknownExecutor:
    if (lacks := how_to_get(executor)) is not None:
        return UnknownExecutor(lacks, field="executor")
    installed = ", ".join(sorted(desk.executors))
    hint = f"; {SUPERVISED} works only inside `orchestrator up --watch`" if executor == SUPERVISED else ""
    return UnknownExecutor(
        f"executor {executor[:100]!r} is not installed here; use one of {installed}{hint}", field="executor"
    )


def _with_code(permit: Permit, executor: Executor, workspace: str, fleet: str) -> Permit:
    why = f"this target of executor {executor.name} names what is run, read or called"
    return permit.with_code(why, workspace, fleet)


def _refuse_reload(policy: PolicyPatch) -> None:
    """Refuse rules that a program without a reload signal cannot follow; those of wider layers fail where they act."""
    for index, rule in enumerate(policy.rules or ()):
        if rule.action is Action.RELOAD:
            raise InvalidInput(
                f"policy.rules[{index}]: the target names no reload_signal for action reload; name one, such as HUP, "
                "or let the action be restart",
                field=f"policy.rules[{index}]",
            )


def _pool_of(desk: Desk, permit: Permit, workspace: str, executor: str, given: object) -> str | None:
    """Return the pool to be stored; None: the target names none. That of a supervised program is its ``up``."""
    if executor != SUPERVISED:
        if given is None:
            return None
        if not isinstance(given, str):
            raise InvalidTarget("target.pool: must be the name of a pool", field="target.pool")
        return check_name(given, "target.pool")
    with desk.read(permit) as reader:
        stored = reader.workspace(workspace)
    before = stored.state.registration if stored else None
    own = desk.up_pool
    if before is not None and before.executor == SUPERVISED and before.pool in desk.serving.pools:
        own = before.pool  # whose folder is watched: a change of its labels does not take it away
    if given not in (None, own):
        raise InvalidTarget(f"target.pool: the pool of a {SUPERVISED} is its `up`; leave it out", field="target.pool")
    return own


@router.delete(
    _WORKSPACE,
    operation_id="removeWorkspace",
    summary="Remove a workspace; what is pending is waived",
    tags=["workspaces"],
    responses={200: describe(answers.REMOVED, "It is removed"), **problems(404, 422, 500, 503)},
)
def remove_workspace(
    desk: Wired,
    permit: Registering,
    workspace: WorkspaceId,
    reason: Annotated[str, Query(min_length=1, max_length=MAX_REASON_CHARACTERS)] = "removed",
) -> JSONResponse:
    """Remove a workspace, and say what that waived."""
    check_text(reason, "reason", most=MAX_REASON_CHARACTERS)
    with desk.read(permit) as reader:
        before = reader.last_position()
    with desk.naming_near(permit, workspace):
        desk.operator(permit).change(workspace, cmd.Remove(reason=reason), permit.author)
    types = (WorkspaceRemoved.type_name(), WritesWaived.type_name())
    with desk.read(permit) as reader:
        events = reader.events(EventFilter(after=before, workspace=workspace, types=types))
    waived = [event.data for event in events if isinstance(event.data, WritesWaived)]
    last = waived[-1] if waived else None
    counts = (
        None if last is None else {name: getattr(last, name) for name in ("writes", "from_position", "to_position")}
    )
    return JSONResponse({"workspace": workspace, "removed": True, "waived": counts})


@router.post(
    f"{_WORKSPACE}/restarts",
    status_code=202,
    operation_id="requestRestart",
    summary="Ask for a restart",
    tags=["workspaces"],
    responses={
        202: describe(answers.REQUEST, "Stored", location=True),
        **problems(400, 404, 408, 409, 413, 415, 422, 500, 503),
    },
    openapi_extra=accepts({JSON: "RestartBody"}, keyed=True),
)
def request_restart(
    desk: Wired,
    permit: Restarting,
    workspace: WorkspaceId,
    body: Annotated[RestartBody, Depends(json_body(RestartBody))],
    key: Key,
) -> JSONResponse:
    """Record a request: manual (a person wants it), or mutation (a change that must be picked up)."""
    command = cmd.RequestRestart(trigger=Trigger(body.trigger), reason=_reason(body.reason))
    with desk.naming_near(permit, workspace):
        answer, replayed = desk.operator(permit).request_restart(workspace, command, permit.author, key)
    return JSONResponse(to_plain(answer) | {"replayed": replayed}, 202, headers={"Location": f"/v1/writes/{answer.id}"})


@router.post(
    f"{_WORKSPACE}/probes",
    status_code=202,
    operation_id="reportProbe",
    summary="Report what a health probe saw",
    tags=["workspaces"],
    responses={202: describe(answers.PROBE, "Recorded"), **problems(400, 404, 408, 409, 413, 415, 422, 500, 503)},
    openapi_extra=accepts({JSON: "ProbeBody"}, keyed=True),
)
def report_probe(
    desk: Wired,
    permit: Probing,
    workspace: WorkspaceId,
    body: Annotated[ProbeBody, Depends(json_body(ProbeBody))],
    key: Key,
) -> JSONResponse:
    """Record what a probe leads to: an unhealthy one asks for a restart, unless a rule suppresses it."""
    command = cmd.ReportProbe(healthy=body.healthy, detail=body.detail)
    with desk.naming_near(permit, workspace):
        answer, replayed = desk.operator(permit).report_probe(workspace, command, permit.author, key)
    plain = {name: value for name, value in to_plain(answer).items() if value is not None}
    return JSONResponse(plain | {"replayed": replayed}, 202)


@router.post(
    f"{_WORKSPACE}/hold",
    operation_id="holdWorkspace",
    summary="Queue and start nothing for a while",
    tags=["workspaces"],
    responses={200: describe(answers.DONE, "It is held"), **problems(400, 404, 408, 409, 413, 415, 422, 500, 503)},
    openapi_extra=accepts({JSON: "HoldBody"}, keyed=True),
)
def hold_workspace(
    desk: Wired,
    permit: Holding,
    workspace: WorkspaceId,
    body: Annotated[HoldBody, Depends(json_body(HoldBody))],
    key: Key,
) -> JSONResponse:
    """Hold a workspace; what arrives waits. The answer says until when, and until when one lasted that it replaces."""
    until = None if body.until is None else check_instant(body.until, "until")
    command = cmd.Hold(reason=_reason(body.reason), until=until)
    done, told = _change(desk, permit, workspace, command, key)
    return JSONResponse(told | to_plain({"until": until, "replaced": done.replaced}))


@router.post(
    f"{_WORKSPACE}/release",
    operation_id="releaseWorkspace",
    summary="End a hold",
    tags=["workspaces"],
    responses={200: describe(answers.DONE, "It is not held"), **problems(400, 404, 408, 409, 413, 415, 422, 500, 503)},
    openapi_extra=accepts({JSON: "ReasonBody"}, keyed=True),
)
def release_workspace(
    desk: Wired,
    permit: Holding,
    workspace: WorkspaceId,
    body: Annotated[ReasonBody, Depends(json_body(ReasonBody))],
    key: Key,
) -> JSONResponse:
    """End a hold; what waited is folded once."""
    _, told = _change(desk, permit, workspace, cmd.Release(reason=_reason(body.reason)), key)
    return JSONResponse(told)


@router.post(
    "/v1/restarts/{restart}/cancel",
    operation_id="cancelRestart",
    summary="Cancel a queued or retrying restart",
    tags=["restarts"],
    responses={200: describe(answers.DONE, "Cancelled"), **problems(400, 404, 408, 409, 413, 415, 422, 500, 503)},
    openapi_extra=accepts({JSON: "ReasonBody"}, keyed=True),
)
def cancel_restart(
    desk: Wired,
    permit: Cancelling,
    restart: str,
    body: Annotated[ReasonBody, Depends(json_body(ReasonBody))],
    key: Key,
) -> JSONResponse:
    """Cancel a restart; what it holds is waived."""
    with desk.read(permit) as reader:
        record = reader.restart(restart)
    if record is None:
        with desk.naming_near(permit, restart):
            raise NotFound(f"restart {restart!r} does not exist; {_what_it_is(desk, permit, restart)}")
    answer, replayed = desk.operator(permit).cancel(record, _reason(body.reason), permit.author, key)
    return JSONResponse(
        {"restart": restart, "workspace": record.workspace, "changed": answer.changed, "replayed": replayed}
    )


def _what_it_is(desk: Desk, permit: Permit, named: str) -> str:
    """Return how to go on for somebody who names what is no restart: a workspace, may be."""
    with desk.read(permit) as reader:
        stored = reader.workspace(named)
    unsettled = None if stored is None else stored.state.restart
    if unsettled is None:
        return "GET /v1/restarts lists those that do"
    return f"{named} is a workspace, and its restart is {unsettled.id}"


def _change(
    desk: Desk, permit: Permit, workspace: str, command: cmd.Hold | cmd.Release, key: Key
) -> tuple[Done, dict[str, Any]]:
    with desk.naming_near(permit, workspace):
        answer, replayed = desk.operator(permit).change(workspace, command, permit.author, key)
    with desk.read(permit) as reader:
        stored = reader.workspace(workspace)
    state = stored.state.phase.value if stored else None
    return answer, {"workspace": workspace, "changed": answer.changed, "state": state, "replayed": replayed}


def _reason(reason: str) -> str:
    if not reason.strip():
        raise InvalidInput("reason: must not be blank; say why, it is kept", field="reason")
    return reason
