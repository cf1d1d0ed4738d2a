"""Which workspaces somebody may have meant by a name that is not there: of those that they may read, no others."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches

from orchestrator.domain.scopes import Reach
from orchestrator.ports.store import Reader
from orchestrator.ports.workspaces import WorkspaceFilter
from orchestrator.service.restricted_reader import fleet_of, narrowed

LOOKED_AT = 500
"""Workspaces that are looked at from each of two places on: who mistypes a name must not cost a look at all there are.
In a larger installation those are the first ones by id, and those from the first half of the name on."""

_MOST = 3
_NEAR = 0.7


def near_names(reader: Reader, reach: Reach, workspace: str) -> list[str]:
    """Return the ids of up to three workspaces within reach that are spelled much like this one, the nearest first.

    None of one that is there and within reach: it was meant. ``reader`` shows everything: what is beyond the reach is
    left out here, at the cost of a page and not of all.
    """
    named = reader.workspace(workspace)
    if named is not None and named.state.registered and reach.holds(workspace, fleet_of(named.state)):
        return []
    wanted = narrowed(WorkspaceFilter(limit=LOOKED_AT), reach)
    page = reader.workspaces(wanted)
    if len(page) == LOOKED_AT:
        page += reader.workspaces(replace(wanted, after=workspace[: max(1, len(workspace) // 2)]))
    states = [stored.state for stored in page]
    theirs = {state.workspace for state in states if reach.holds(state.workspace, fleet_of(state))}
    by_folded = {name.casefold(): name for name in sorted(theirs, reverse=True)}
    return [by_folded[one] for one in get_close_matches(workspace.casefold(), by_folded, n=_MOST, cutoff=_NEAR)]
