"""Instants in the query of a URL: checked, and refused by the parameter's name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TypedDict

from orchestrator.api.protocol.names import check_instant
from orchestrator.api.protocol.problems import refused
from orchestrator.errors import InvalidInput
from orchestrator.history.past import Moment, moment_at, workspace_at
from orchestrator.ports.store import Reader
from orchestrator.ports.workspaces import StoredWorkspace


class Span(TypedDict):
    """From ``since`` on, and before ``until``; None: no end on that side."""

    since: datetime | None
    until: datetime | None


def instant_of(text: str, name: str) -> datetime:
    """Return an instant given as RFC 3339. Raises ``RequestRefused`` that names the parameter."""
    with _named(name):
        return check_instant(text, name)


def span_of(since: str | None, until: str | None) -> Span:
    """Return both ends. Raises ``RequestRefused`` for one that is no instant, and where nothing can lie between."""
    span = Span(
        since=None if since is None else instant_of(since, "since"),
        until=None if until is None else instant_of(until, "until"),
    )
    if span["since"] is not None and span["until"] is not None and span["since"] > span["until"]:
        raise refused("invalid-input", f"since: {since} is after until, {until}", parameter="since")
    return span


def past_moment(reader: Reader, at: str) -> Moment:
    """Return a past instant's place in the log. Raises ``RequestRefused`` for one in the future."""
    with _named("at"):
        return moment_at(reader, instant_of(at, "at"))


def past_workspace(reader: Reader, workspace: str, at: str) -> tuple[StoredWorkspace | None, Moment]:
    """Return a workspace as it was at an instant. Raises ``RequestRefused`` for one in the future."""
    with _named("at"):
        return workspace_at(reader, workspace, instant_of(at, "at"))


@contextmanager
def _named(parameter: str) -> Iterator[None]:
    try:
        yield
    except InvalidInput as error:
        raise refused("invalid-input", str(error), parameter=parameter) from None
