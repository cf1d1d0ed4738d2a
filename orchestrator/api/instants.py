"""Instants in the query of a URL: checked, and refused by the parameter's name."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict

from orchestrator.api.names import check_instant
from orchestrator.api.problems import refused
from orchestrator.audit.past import Moment, moment_at
from orchestrator.errors import InvalidInput
from orchestrator.ports import Reader


class Span(TypedDict):
    """From ``since`` on, and before ``until``; None: no end on that side."""

    since: datetime | None
    until: datetime | None


def instant_of(text: str, name: str) -> datetime:
    """Return an instant given as RFC 3339. Raises ``RequestRefused`` that names the parameter."""
    try:
        return check_instant(text, name)
    except InvalidInput as error:
        raise refused("invalid-input", str(error), parameter=name) from None


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
    try:
        return moment_at(reader, instant_of(at, "at"))
    except InvalidInput as error:
        raise refused("invalid-input", str(error), parameter="at") from None
