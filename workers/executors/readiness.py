"""The ``ready`` part of a target: how to tell that a workspace is up. One look at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Any

import httpx2

from orchestrator.errors import ExecutionCancelled, InvalidTarget, PermanentError
from orchestrator.ports.executor import Order, Readiness
from workers.executors import target_fields as fields
from workers.executors.bounded_run import Ended, RecordedUnder, run
from workers.executors.name_lookups import LookingLoop
from workers.executors.program_target import child_environment
from workers.supervision.launch import Launch

DEFAULT_INTERVAL = "500ms"
DEFAULT_TIMEOUT = "2s"

_LONGEST_LOOK_MS = 30_000
_SHORTEST_INTERVAL_MS = 10
_PROBE_GRACE_S = 0.5
_HIGHEST_PORT = 65535
_STOP_LOOK_S = 0.05
_KINDS: dict[str, frozenset[str]] = {
    "none": frozenset(),
    "tcp": frozenset({"host", "port"}),
    "http": frozenset({"url", "status"}),
    "command": frozenset({"argv"}),
}
_ALWAYS = frozenset({"type", "interval", "timeout"})


def normalise_ready(ready: object) -> dict[str, Any]:
    """Return the ``ready`` part with defaults: always ``type``, ``interval``, ``timeout`` (of one look).

    ``http`` may have a ``status``; without it 200 to 399 are good. Raises ``InvalidTarget``.
    """
    given = fields.mapping(ready, "ready")
    kind = fields.one_of(given.get("type", "none"), _KINDS, "ready.type")
    fields.refuse_unknown(given, _ALWAYS | _KINDS[kind], "ready.")
    interval = given.get("interval", DEFAULT_INTERVAL)
    timeout = given.get("timeout", DEFAULT_TIMEOUT)
    return {
        "type": kind,
        "interval": fields.duration(interval, "ready.interval", low_ms=_SHORTEST_INTERVAL_MS),
        "timeout": fields.duration(timeout, "ready.timeout", low_ms=1, high_ms=_LONGEST_LOOK_MS),
        **_normalise_kind(kind, given),
    }


def look(ready: Mapping[str, Any], order: Order, under: RecordedUnder) -> Readiness:
    """Look once. ``ready`` as ``normalise_ready`` returned it; a probe command is recorded ``under``.

    Takes at most ``ready.timeout``; raises ``ExecutionCancelled`` soon after ``order.stop``
    is set. FAILED only where waiting cannot help: a probe command
    that does not exist.
    """
    timeout_s = fields.seconds(ready["timeout"])
    match ready["type"]:
        case "tcp":
            return _within(_tcp(ready["host"], ready["port"]), timeout_s, order)
        case "http":
            return _within(_http(ready["url"], ready.get("status")), timeout_s, order)
        case "command":
            return _command(ready["argv"], timeout_s, order, under)
        case _:
            return Readiness.READY


def _normalise_kind(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    match kind:
        case "tcp":
            return {
                "host": _normalise_host(given.get("host", "127.0.0.1")),
                "port": fields.count(fields.required(given, "port", "ready."), "ready.port", low=1, high=_HIGHEST_PORT),
            }
        case "http":
            normal: dict[str, Any] = {"url": _normalise_url(fields.required(given, "url", "ready."))}
            if "status" in given:
                normal["status"] = fields.count(given["status"], "ready.status", low=100, high=599)
            return normal
        case "command":
            return {"argv": fields.argv(fields.required(given, "argv", "ready."), "ready.argv")}
        case _:
            return {}


def _normalise_host(value: object) -> str:
    text = fields.text(value, "ready.host")
    if not _can_be_looked_up(text):
        raise fields.wrong(value, "ready.host", "a host's name or address")
    return text


def _can_be_looked_up(host: str) -> bool:
    """The resolver's own first step; what fails it (an empty or overlong label) is no ``OSError`` there."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _normalise_url(value: object) -> str:
    text = fields.text(value, "ready.url")
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise InvalidTarget(f"target field 'ready.url' is not a URL: {error}", field="ready.url") from error
    if url.scheme not in ("http", "https") or not url.host or not _can_be_looked_up(url.host):
        raise fields.wrong(value, "ready.url", "an http or https URL with a host")
    if url.port is not None and not 1 <= url.port <= _HIGHEST_PORT:
        raise fields.wrong(value, "ready.url", f"a URL whose port is from 1 to {_HIGHEST_PORT}")
    if url.userinfo:
        # Targets are kept in the log for ever and shown to everybody who may read it.
        raise InvalidTarget("target field 'ready.url' must not hold a user or password", field="ready.url")
    return text


def _within(looking: Coroutine[Any, Any, Readiness], timeout_s: float, order: Order) -> Readiness:
    """Run one look with a limit on the whole of it: a socket's own time-outs start again with every byte."""
    try:
        with asyncio.Runner(loop_factory=LookingLoop) as runner:
            return runner.run(_limited(looking, timeout_s, order))
    except OSError:  # no descriptor left for the look itself
        looking.close()
        return Readiness.NOT_YET


async def _limited(looking: Coroutine[Any, Any, Readiness], timeout_s: float, order: Order) -> Readiness:
    until_s = time.monotonic() + timeout_s
    task = asyncio.create_task(looking)
    try:
        while (left_s := until_s - time.monotonic()) > 0:
            done, _ = await asyncio.wait({task}, timeout=min(left_s, _STOP_LOOK_S))
            if done:
                return task.result()
            if order.stop.is_set():
                raise _cancelled(order)
        return Readiness.NOT_YET
    finally:
        task.cancel()


async def _tcp(host: str, port: int) -> Readiness:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return Readiness.NOT_YET
    writer.close()
    return Readiness.READY


async def _http(url: str, status: int | None) -> Readiness:
    # verify is off only where there is nothing to verify: loading the CA file costs 20 ms a look.
    # trust_env is off so that no proxy of the environment is asked about a local port.
    verify = url.lower().startswith("https:")
    async with httpx2.AsyncClient(verify=verify, trust_env=False, follow_redirects=False, timeout=None) as client:
        try:
            async with client.stream("GET", url) as response:
                code = response.status_code
        except httpx2.HTTPError:
            return Readiness.NOT_YET
    good = code == status if status is not None else 200 <= code <= 399
    return Readiness.READY if good else Readiness.NOT_YET


def _command(argv: list[str], timeout_s: float, order: Order, under: RecordedUnder) -> Readiness:
    launch = Launch(argv=argv, env=child_environment(order), cwd=order.target.get("cwd"), grace_s=_PROBE_GRACE_S)
    try:
        result = run(launch, order, under, deadline_s=time.monotonic() + timeout_s, stopped=order.stop.is_set)
    except PermanentError:
        return Readiness.FAILED
    if result.ended is Ended.STOP:
        raise _cancelled(order)
    good = result.ended is Ended.ITSELF and result.returncode == 0
    return Readiness.READY if good else Readiness.NOT_YET


def _cancelled(order: Order) -> ExecutionCancelled:
    return ExecutionCancelled(f"look at {order.workspace!r} was cancelled: the worker stops or lost its lease")
