"""Reading from the API of a running server, which may be on another machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from orchestrator.cli.client import Client, segment
from orchestrator.cli.reading.source import (
    PAGE,
    View,
    WantedEvents,
    WantedRestarts,
    WantedWorkspaces,
    unknown_workspace,
)
from orchestrator.domain.encoding import to_plain
from orchestrator.errors import NotFound

_END_OF_THE_LOG = 2**63 - 1


class ApiSource:
    """Answers that a server gives."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def clock(self) -> datetime:
        """Return the server's present instant, to the second."""
        return self._client.clock()

    def workspace(self, workspace: str, at: datetime | None) -> View:
        """Return one workspace."""
        moment = to_plain(at)
        try:
            return self._get(f"/v1/workspaces/{segment(workspace)}", at=moment)
        except NotFound:
            raise unknown_workspace(workspace, moment) from None

    def workspaces(self, wanted: WantedWorkspaces) -> Iterator[View]:
        """Yield workspaces."""
        label = None if wanted.label is None else "=".join(wanted.label)
        chosen = {"state": wanted.state, "fleet": wanted.fleet, "label": label, "at": wanted.at}
        for page in self._pages("/v1/workspaces", PAGE, chosen):
            yield from page

    def restarts(self, wanted: WantedRestarts, most: int) -> list[View]:
        """Return restarts."""
        found: list[View] = []
        for page in self._pages("/v1/restarts", min(PAGE, most), vars(wanted)):
            found += page
            if len(found) >= most:
                break
        return found[:most]

    def why(self, restart: str) -> View:
        """Return why a restart happened."""
        return self._get(f"/v1/restarts/{segment(restart)}")

    def fate(self, write: str) -> View:
        """Return what became of a write or request."""
        return self._get(f"/v1/writes/{segment(write)}")

    def events(self, wanted: WantedEvents, after: int) -> list[View]:
        """Return the next events."""
        chosen = {"after": after, "workspace": wanted.workspace, "type": ",".join(wanted.types), "limit": PAGE}
        items: list[View] = self._get("/v1/events", **chosen)["items"]
        return items

    def newest(self, wanted: WantedEvents, most: int) -> list[View]:
        """Return the newest events."""
        found: list[View] = []
        before, more = _END_OF_THE_LOG, True
        while more and len(found) < most:
            chosen = {"workspace": wanted.workspace, "type": ",".join(wanted.types)}
            answer = self._get("/v1/events", before=before, limit=min(PAGE, most - len(found)), **chosen)
            found = [*answer["items"], *found]
            more, before = answer["more"], found[0]["position"] if found else 0
        return found

    def policy(self, fleet: str | None, workspace: str | None) -> View:
        """Return a policy."""
        if workspace is not None:
            return self._policy_of(workspace)
        path = "/v1/policies/default" if fleet is None else f"/v1/policies/fleets/{segment(fleet)}"
        view = self._get(path)
        version = view.pop("in_force_version")
        return {**view, "version": version}

    def _policy_of(self, workspace: str) -> View:
        stored = self.workspace(workspace, None)
        if stored["fleet"] is None:
            raise unknown_workspace(workspace)
        layers = self.policy(stored["fleet"], None)
        return {
            "scope": f"workspace:{workspace}",
            "version": stored["policy_version"],
            "policy": stored["policy"],
            "in_force": stored["policy_in_force"],
            "from": layers["from"] | dict.fromkeys(stored["policy"], "workspace"),
            "state": stored["state"],
        }

    def _pages(self, path: str, size: int, wanted: Mapping[str, Any]) -> Iterator[list[View]]:
        cursor: str | None = None
        while True:
            answer = self._get(path, **wanted, limit=size, cursor=cursor)
            yield answer["items"]
            cursor = answer["next_cursor"]
            if cursor is None:
                return

    def _get(self, path: str, /, **query: Any) -> View:
        given = {name: to_plain(value) for name, value in query.items() if value not in (None, "")}
        answer: View = self._client.get(f"{path}?{urlencode(given)}" if given else path)[0]
        return answer
