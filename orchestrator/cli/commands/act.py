"""The commands that act, by HTTP: write, restart, hold, release, cancel, register, remove."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from orchestrator.cli.client import Client, Refused, for_the_terminal, new_id, segment
from orchestrator.cli.commands.first_write import is_registered, newcomer_sentence, newcomer_view
from orchestrator.cli.commands.until_covered import (
    Timeout,
    Wait,
    exit_unless_covered,
    say_fates,
    until_settled,
    waiting_ms,
)
from orchestrator.cli.terminal.options import DEFAULT_URL, Json, Url, parse_pair
from orchestrator.cli.terminal.output import emit_json, fail, note, say
from orchestrator.domain.durations import parse_duration
from orchestrator.domain.encoding import format_instant, parse_instant
from orchestrator.domain.events import Operation, Trigger
from orchestrator.domain.explain import counted
from orchestrator.domain.policy import DEFAULT_FLEET
from orchestrator.errors import InvalidInput

WRITES_A_REQUEST = 1_000
"""A request holds at most 10,000 writes and 1 MiB; names of 4 KiB as escapes still leave room here for most."""

_BYTES_A_REQUEST = 700_000

Workspace = Annotated[str, typer.Argument(metavar="WORKSPACE", help="The workspace's id.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the log.")]


def write(
    workspace: Workspace,
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="The files that were written.")],
    *,
    op: Annotated[Operation, typer.Option(help="What was done to them.")] = Operation.MODIFIED,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Report file writes of a workspace; with --wait, exit 0 only when all of them are covered by a restart."""
    writes = [{"workspace": workspace, "path": path, "op": op.value, "id": new_id()} for path in paths]
    waits_ms = waiting_ms(wait=wait, timeout=timeout)
    with Client(url) as client:
        was_known = is_registered(client, workspace)
        answer = post_writes(client, writes)
        newcomer = None if was_known else newcomer_view(client, workspace)
        if not as_json:
            _say_written(answer, paths, newcomer)
        for refused in answer["rejected"]:
            fail(f"{paths[refused['index']]}: {problem_text(refused['problem'])}{_near(newcomer)}")
        ids = [result["id"] for result in answer["results"]]
        fates = None if waits_ms is None else until_settled(client, ids, waits_ms)
    if as_json:
        emit_json(answer | ({"registered": newcomer} if newcomer else {}) | ({} if fates is None else {"fates": fates}))
    elif fates is not None:
        say_fates(fates)
    if answer["rejected"]:
        raise typer.Exit(2)
    exit_unless_covered(fates)


def _say_written(answer: Mapping[str, Any], paths: Sequence[str], newcomer: Mapping[str, Any] | None) -> None:
    for result in answer["results"]:
        say(f"{result['id']}  {result['decision']}  {paths[result['index']]}")
    if newcomer is not None and newcomer["executor"] is not None:
        note(newcomer_sentence(newcomer))


def _near(newcomer: Mapping[str, Any] | None) -> str:
    return f"; near that name: {', '.join(newcomer['near'])}" if newcomer and newcomer["near"] else ""


def post_writes(client: Client, writes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Post writes in as many requests as their size needs; return one answer, as if it had been one request."""
    total: dict[str, Any] = {"accepted": 0, "replayed": 0, "results": [], "rejected": []}
    start = 0
    for size in _request_sizes(writes):
        answer = _post_batch(client, [dict(write) for write in writes[start : start + size]])
        for name in ("accepted", "replayed"):
            total[name] += answer[name]
        for name in ("results", "rejected"):
            total[name] += [{**item, "index": item["index"] + start} for item in answer[name]]
        start += size
    return total


def _post_batch(client: Client, writes: list[dict[str, Any]]) -> Any:
    """Post one request. That none of its writes was accepted is an answer too: it says why, write by write."""
    try:
        return client.post("/v1/writes", writes)
    except Refused as error:
        if "rejected" not in error.problem:
            raise
        return error.problem


def _request_sizes(writes: Sequence[Mapping[str, Any]]) -> list[int]:
    sizes, count, length = [], 0, 0
    for write_ in writes:
        needs = len(json.dumps(write_)) + 1
        if count == WRITES_A_REQUEST or (count and length + needs > _BYTES_A_REQUEST):
            sizes.append(count)
            count, length = 0, 0
        count, length = count + 1, length + needs
    return [*sizes, count]


def problem_text(problem: Any) -> str:
    """Return the sentence of a problem."""
    if isinstance(problem, dict):
        return for_the_terminal(str(problem.get("detail") or problem.get("title") or problem))
    return str(problem)


def restart(
    workspace: Workspace,
    *,
    reason: Reason,
    trigger: Annotated[
        Trigger, typer.Option(help="manual: now; mutation: something changed that must be picked up.")
    ] = Trigger.MANUAL,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Ask for a restart; with --wait, exit 0 only when it has succeeded."""
    if trigger is Trigger.PROBE:
        raise InvalidInput("--trigger: probe is for health probes; use manual or mutation", field="trigger")
    waits_ms = waiting_ms(wait=wait, timeout=timeout)
    with Client(url) as client:
        answer = client.post(
            f"/v1/workspaces/{segment(workspace)}/restarts", {"reason": reason, "trigger": trigger.value}
        )
        due = f", due at {answer['due_at']}" if answer.get("due_at") else ""
        if not as_json:
            say(f"{answer['id']}  requested{due}")
        fates = None if waits_ms is None else until_settled(client, [answer["id"]], waits_ms)
    if as_json:
        emit_json(answer if fates is None else answer | {"fates": fates})
    elif fates is not None:
        say_fates(fates)
    exit_unless_covered(fates)


def hold(
    workspace: Workspace,
    *,
    reason: Reason,
    until: Annotated[str | None, typer.Option(metavar="INSTANT", help="Until then at most, RFC 3339.")] = None,
    lasting: Annotated[
        str | None,
        typer.Option("--for", metavar="DURATION", help="For so long at most: 10m. Without an end: until the release."),
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Queue and start nothing until the release; what arrives waits. A hold replaces the one before, its end too."""
    body: dict[str, Any] = {"reason": reason}
    end = _hold_ends(until, lasting)
    if end is not None:
        body["until"] = end
    with Client(url) as client:
        answer = client.post(f"/v1/workspaces/{segment(workspace)}/hold", body)
    _answered(answer, _held(workspace, end, answer.get("replaced")), as_json=as_json)


def _held(workspace: str, end: str | None, replaced: Mapping[str, Any] | None) -> str:
    """Return the sentence of a hold; that it ends otherwise than the one before is never left unsaid."""
    ends = f"until {end}" if end else f"until `orchestrator release {workspace}`: it has no end of its own"
    if not replaced or replaced["until"] == end:
        return f"{workspace} is held {ends}"
    before = f"until {replaced['until']}" if replaced["until"] else "until its release"
    return f"{workspace} is held {ends}; before it was held {before}"


def _hold_ends(until: str | None, lasting: str | None) -> str | None:
    if until is not None and lasting is not None:
        raise InvalidInput("give --until or --for, not both", field="until")
    if lasting is not None:
        return format_instant(datetime.now(UTC) + timedelta(milliseconds=parse_duration(lasting, field="--for")))
    if until is None:
        return None
    try:
        return format_instant(parse_instant(until))
    except ValueError:
        raise InvalidInput(f"--until: {until!r} is no instant; write 2026-11-23T12:00:00Z", field="until") from None


def release(
    workspace: Workspace, *, reason: Reason = "released", as_json: Json = False, url: Url = DEFAULT_URL
) -> None:
    """End a hold; what waited is folded into one restart."""
    with Client(url) as client:
        answer = client.post(f"/v1/workspaces/{segment(workspace)}/release", {"reason": reason})
    changed = answer.get("changed", True)
    _answered(answer, f"{workspace} {'is released' if changed else 'was not held'}", as_json=as_json)


def cancel(
    restart_id: Annotated[str, typer.Argument(metavar="RESTART", help="The restart's id (rst_...).")],
    *,
    reason: Reason,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Cancel a queued or retrying restart; what it holds is waived."""
    with Client(url) as client:
        answer = client.post(f"/v1/restarts/{segment(restart_id)}/cancel", {"reason": reason})
    _answered(answer, f"{restart_id} is cancelled; what it held is waived", as_json=as_json)


def register(
    workspace: Workspace,
    *,
    executor: Annotated[str, typer.Option(help="How it is restarted: command, simulated, ...")],
    target: Annotated[str, typer.Option(metavar="JSON", help="What the executor acts on.")] = "{}",
    fleet: Annotated[str, typer.Option(help="Its fleet.")] = DEFAULT_FLEET,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")] = None,
    policy: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Its own numbers: quiet=2s.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Register a workspace, or replace its registration."""
    body = {
        "executor": executor,
        "target": _target(target),
        "fleet": fleet,
        "labels": dict(parse_pair(item, name="--label") for item in label or ()),
        "policy": policy_values(policy or ()),
    }
    with Client(url) as client:
        answer = client.put(f"/v1/workspaces/{segment(workspace)}", body)
    _answered(answer, f"{workspace} is registered in fleet {fleet} with executor {executor}", as_json=as_json)


def remove(
    workspace: Workspace,
    *,
    reason: Reason = "removed",
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Remove a workspace; what it holds is waived, and a running cycle is abandoned. Its history stays."""
    with Client(url) as client:
        answer = client.delete(f"/v1/workspaces/{segment(workspace)}?{urlencode({'reason': reason})}")
    waived = answer["waived"]
    pending = f"; {counted(waived['writes'], 'pending write')} waived" if waived else ""
    _answered(answer, f"{workspace} is removed{pending}", as_json=as_json)


def policy_values(pairs: Sequence[str]) -> dict[str, Any]:
    """Return ``NAME=VALUE`` words as a policy; an empty value takes the number out of the layer (None).

    Whole numbers and JSON lists (``rules``) are read as such, everything else is text.
    """
    return {name: _policy_value(value) for name, value in (parse_pair(pair, name="policy") for pair in pairs)}


def _policy_value(text: str) -> Any:
    if text == "":
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    if text[0] not in "[{":
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"policy: {text!r} is no JSON: {error}", field="policy") from None


def _target(text: str) -> dict[str, Any]:
    try:
        target = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"--target: is no JSON: {error}", field="target") from None
    if not isinstance(target, dict):
        raise InvalidInput(
            '--target: must be a JSON object like {"argv": ["systemctl", "restart", "web"]}', field="target"
        )
    return target


def _answered(answer: Any, sentence: str, *, as_json: bool) -> None:
    if as_json:
        emit_json(answer)
    else:
        say(sentence)
