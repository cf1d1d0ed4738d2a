"""The API's caller: repeats what is safe to repeat, and turns every failure into one sentence."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2
import uuid_utils

from orchestrator.cli.key_at_hand import found_key, named_key
from orchestrator.errors import InvalidInput, NotFound, OrchestratorError, PreconditionFailed, Unavailable

_TIMEOUT_S = 30.0
_CONNECT_S = 5.0
_PAUSES_S = (0.2, 0.5, 1.0)
"""Between the tries of one request. Every request is safe to repeat: it carries a key, or ids, or is a PUT."""

_BUSY = frozenset({429, 503})
_NO_KEY_OF_MINE = 401
_BEFORE_HEAD = "http11.send_request_headers.started"

_REGISTER_FIRST = re.compile(r"PUT /v1/workspaces/(\S+) first")


class Refused(OrchestratorError):
    """The server refused the request for good: the same one again will be refused again.

    ``problem`` is the whole answer (RFC 9457), with the members that this kind of problem adds.
    """

    def __init__(self, message: str, problem: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.problem = problem


class Client:
    """Calls one server. Every method raises ``OrchestratorError`` with the sentence the server gave."""

    def __init__(self, url: str, *, retries: int = len(_PAUSES_S)) -> None:
        """Raise ``InvalidInput`` for what is no URL of a server, and a key that cannot be used; nothing is sent yet."""
        self._url = url.rstrip("/")
        self._pauses_s = _PAUSES_S[:retries]
        parsed = _parsed(url)
        timeout = httpx2.Timeout(_TIMEOUT_S, connect=_CONNECT_S)
        # The default loads all certificates of the system, which takes 60 ms (measured) and is of no use without TLS.
        verify: bool | ssl.SSLContext = True if parsed.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._named, self._server = named_key(), parsed
        self._found = None if self._named else found_key(parsed.host, parsed.port)
        self._found_is_old = False
        self._http = httpx2.Client(
            base_url=parsed, timeout=timeout, headers={"Accept": "application/json"}, verify=verify
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str) -> tuple[Any, str | None]:
        """Return the answer and its ETag."""
        answer = self._send("GET", path, None, {})
        return _json(answer), answer.headers.get("ETag")

    def clock(self) -> datetime:
        """Return the server's present instant, to the second; this machine's where it does not tell."""
        told = self._send("GET", "/livez", None, {}).headers.get("Date")
        return datetime.now(UTC) if told is None else parsedate_to_datetime(told)

    def post(self, path: str, body: Mapping[str, Any] | list[dict[str, Any]]) -> Any:
        """Post with an idempotency key, so that a retry is answered as the first try was."""
        return _json(self._send("POST", path, body, {"Idempotency-Key": new_id()}))

    def put(self, path: str, body: Mapping[str, Any], *, if_match: str | None = None) -> Any:
        """Put; with ``if_match`` only if nobody has changed it since. Raises ``PreconditionFailed``."""
        return _json(self._send("PUT", path, body, {"If-Match": if_match} if if_match else {}))

    def delete(self, path: str) -> Any:
        """Delete. What was deleted before is answered as what is not there."""
        return _json(self._send("DELETE", path, None, {}))

    def _send(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> httpx2.Response:
        for pause_s in (*self._pauses_s, None):
            try:
                answer = self._once(method, path, body, headers)
            except httpx2.RequestError as error:
                if pause_s is None or isinstance(error, httpx2.ConnectError):
                    raise Unavailable(self._unreachable(error)) from None
            else:
                if answer.status_code == _NO_KEY_OF_MINE and self._found is not None:
                    self._found_is_old = True  # nobody named it: asked for without, as by whoever has none
                    answer = self._once(method, path, body, headers)
                if answer.status_code not in _BUSY or pause_s is None:
                    return _checked(answer, self._url)
            time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def _once(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> httpx2.Response:
        sent, extensions = self._with_key(headers)
        if body is None:
            return self._http.request(method, path, headers=sent, extensions=extensions)
        # ASCII, because a name that is not UTF-8 can only be sent as an escape.
        content = json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode()
        sent["Content-Type"] = "application/json"
        return self._http.request(method, path, content=content, headers=sent, extensions=extensions)

    def _with_key(self, headers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the headers with the key to be sent now, and what sees to it that no other user gets a found one.

        An ``up`` may end, and another user's program take its port, between any two requests.
        """
        if self._named is not None:
            return {**headers, "Authorization": f"Bearer {self._named}"}, {}
        if self._found_is_old:
            self._found = None
        elif self._found is None or not self._found.is_for_who_listens():
            self._found = found_key(self._server.host, self._server.port)
        if self._found is None:
            return dict(headers), {}
        return {**headers, "Authorization": f"Bearer {self._found.key}"}, {"trace": self._check_who_listens}

    def _check_who_listens(self, event: str, _: Mapping[str, Any]) -> None:
        """Raise ``Unavailable`` before a found key is sent, the connection being there, to another user's program."""
        if event == _BEFORE_HEAD and self._found is not None and not self._found.is_for_who_listens():
            raise Unavailable(f"another user's program listens at {self._url} now: no key is sent there; name another")

    def _unreachable(self, error: httpx2.RequestError) -> str:
        return (
            f"no server answers at {self._url} ({str(error) or type(error).__name__}); "
            "start one with `orchestrator up` (in production: `orchestrator api`), or name another with --url or "
            "ORCHESTRATOR_URL"
        )


def segment(name: str) -> str:
    """Return a name as one segment of a path. Raises ``InvalidInput`` for one that every client folds away."""
    if name in ("", ".", ".."):
        raise InvalidInput(f"{name!r} is no id; `orchestrator workspaces` lists those that there are")
    return quote(name, safe="")


def new_id() -> str:
    """Return an id that no one else uses."""
    return uuid_utils.uuid7().hex


def _parsed(url: str) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise InvalidInput(f"--url: {url!r} is no URL ({error}); write http://127.0.0.1:8321", field="url") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInput(f"--url: {url!r} is no http URL; write http://127.0.0.1:8321", field="url")
    return parsed


def _checked(answer: httpx2.Response, url: str) -> httpx2.Response:
    if answer.is_success:
        return answer
    problem = _problem(answer)
    said = problem.get("detail") or problem.get("title")
    detail = (
        for_the_terminal(said)
        if isinstance(said, str)
        else f"{url} answered {answer.status_code} {answer.reason_phrase}"
    )
    if answer.status_code == 404:
        raise NotFound(detail)
    if answer.status_code == 412:
        raise PreconditionFailed(detail)
    if answer.status_code in _BUSY or answer.status_code >= 500:
        raise Unavailable(detail)
    raise Refused(detail, problem)


def for_the_terminal(detail: str) -> str:
    """Return what the API says to do as what is to be typed here."""
    return _REGISTER_FIRST.sub(
        r"`orchestrator workspaces` lists those that are, `orchestrator register \1 --executor E` makes it", detail
    ).replace("GET /v1/restarts lists", "`orchestrator restarts` lists")


def _problem(answer: httpx2.Response) -> dict[str, Any]:
    """Return the problem document; empty if the server sent none."""
    if "json" not in answer.headers.get("Content-Type", ""):
        return {}
    try:
        problem = answer.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _json(answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise Unavailable(
            f"{answer.url} did not answer with JSON: is that restart-orchestrator? Name it with --url"
        ) from None
