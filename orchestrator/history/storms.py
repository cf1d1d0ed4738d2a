"""Which restarts answered for the most writes."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.errors import NotFound
from orchestrator.ports.inquiries import Scope
from orchestrator.ports.store import Reader

MOST_RESTARTS = 100_000
"""Restarts that a question over many looks at: the newest ones in scope."""


def storms(reader: Reader, scope: Scope, limit: int) -> Sequence[RestartProjection]:
    """Return the restarts with the most writes, most first. Raises ``NotFound`` for an unknown workspace.

    An index range by writes; with ``since`` or ``until`` the newest ``MOST_RESTARTS`` of the span are looked at.
    """
    found = reader.storms(scope, limit=limit, most=MOST_RESTARTS)
    if not found:
        check_workspace(reader, scope)
    return found


def check_workspace(reader: Reader, scope: Scope) -> None:
    """Raise ``NotFound`` for a workspace that never was; one that was removed has its history."""
    if scope.workspace is not None and reader.workspace(scope.workspace) is None:
        raise NotFound(f"workspace {scope.workspace!r} does not exist; GET /v1/workspaces lists those that do")
