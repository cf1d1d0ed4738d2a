"""Reading from a database, which needs no running server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from orchestrator.cli.reading.source import (
    PAGE,
    View,
    WantedEvents,
    WantedRestarts,
    WantedWorkspaces,
    unknown_workspace,
)
from orchestrator.domain.encoding import format_instant
from orchestrator.errors import InvalidInput
from orchestrator.history.crash_loops import crash_loops
from orchestrator.history.fate import fate_of
from orchestrator.history.past import moment_at, workspace_at, workspaces_at
from orchestrator.history.views import (
    event_view,
    fate_view,
    policy_view,
    restart_view,
    story_view,
    workspace_row,
    workspace_then,
    workspace_view,
)
from orchestrator.history.why import why
from orchestrator.ports.store import EventFilter, EventStore, Reader, RestartFilter
from orchestrator.ports.workspaces import WorkspaceFilter
from orchestrator.settings import load_settings
from orchestrator.storage.opening import open_store


@contextmanager
def reading(database_url: str | None, data: Path | None, *, changes: bool = False) -> Iterator[EventStore]:
    """Open the database that the options, the environment or the defaults name; ``changes``: to write to it too.

    Raises ``InvalidInput`` if there is none: reading never makes one; ``MigrationsPending`` and
    ``StorageUnavailable`` as the store says.
    """
    url = load_settings(database_url=database_url, data=data).url
    store = open_store(url)
    if url.startswith("sqlite"):
        _check_file(url)
    try:
        store.check(reads_only=not changes)
        yield store
    finally:
        store.close()


def _check_file(url: str) -> None:
    path = Path(url.removeprefix("sqlite:///").partition("?")[0])
    if not path.is_file():
        raise InvalidInput(
            f"there is no database {path}; start `orchestrator up`, or name what to read: a database by --data or "
            "--database-url, a running server by --url"
        )


class DatabaseSource:
    """Answers out of a store, each from one transaction."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    def clock(self) -> datetime:
        """Return the database's present instant."""
        with self._store.read() as reader:
            return reader.clock()

    def workspace(self, workspace: str, at: datetime | None) -> View:
        """Return one workspace."""
        with self._store.read() as reader:
            if at is None:
                stored = reader.workspace(workspace)
                if stored is None:
                    raise unknown_workspace(workspace)
                return workspace_view(reader, stored)
            was, moment = workspace_at(reader, workspace, at)
            if was is None:
                raise unknown_workspace(workspace, format_instant(at))
            return workspace_then(was, moment, crash_loops(reader, [was], moment.policies, at=moment.at))

    def workspaces(self, wanted: WantedWorkspaces) -> Iterator[View]:
        """Yield workspaces."""
        chosen = WorkspaceFilter(phase=wanted.state, fleet=wanted.fleet, label=wanted.label, limit=PAGE)
        with self._store.read() as reader:
            yield from _now(reader, chosen) if wanted.at is None else _then(reader, chosen, wanted.at)

    def restarts(self, wanted: WantedRestarts, most: int) -> list[View]:
        """Return restarts."""
        found: list[View] = []
        before: int | None = None
        with self._store.read() as reader:
            while len(found) < most:
                size = min(PAGE, most - len(found))
                page = reader.restarts(RestartFilter(before=before, limit=size, **asdict(wanted)))
                found += map(restart_view, page)
                if len(page) < size:
                    break
                before = page[-1].queued_position
        return found

    def why(self, restart: str) -> View:
        """Return why a restart happened."""
        with self._store.read() as reader:
            return story_view(why(reader, restart))

    def fate(self, write: str) -> View:
        """Return what became of a write or request."""
        with self._store.read() as reader:
            return fate_view(fate_of(reader, write))

    def events(self, wanted: WantedEvents, after: int) -> list[View]:
        """Return the next events."""
        chosen = EventFilter(after=after, workspace=wanted.workspace, types=wanted.types, limit=PAGE)
        with self._store.read() as reader:
            return [event_view(event) for event in reader.events(chosen)]

    def newest(self, wanted: WantedEvents, most: int) -> list[View]:
        """Return the newest events."""
        chosen = EventFilter(workspace=wanted.workspace, types=wanted.types, newest=True, limit=most)
        with self._store.read() as reader:
            return [event_view(event) for event in reader.events(chosen)]

    def policy(self, fleet: str | None, workspace: str | None) -> View:
        """Return a policy."""
        with self._store.read() as reader:
            policies = reader.policies()
            if workspace is None:
                return policy_view(policies, fleet)
            stored = reader.workspace(workspace)
            if stored is None or stored.state.registration is None:
                raise unknown_workspace(workspace)
            registration = stored.state.registration
            view = policy_view(policies, registration.fleet, own=(workspace, registration.policy))
            return {**view, "state": workspace_view(reader, stored)["state"]}


def _now(reader: Reader, wanted: WorkspaceFilter) -> Iterator[View]:
    policies = reader.policies()
    while True:
        page = reader.workspaces(wanted)
        loops = crash_loops(reader, page, policies)
        yield from (workspace_row(stored, policies, loops) for stored in page)
        if len(page) < wanted.limit:
            return
        wanted = replace(wanted, after=page[-1].state.workspace)


def _then(reader: Reader, wanted: WorkspaceFilter, at: datetime) -> Iterator[View]:
    moment = moment_at(reader, at)
    while True:
        page = workspaces_at(reader, wanted, moment)
        loops = crash_loops(reader, page.items, moment.policies, at=moment.at)
        yield from (workspace_then(stored, moment, loops) for stored in page.items)
        if page.next_after is None:
            return
        wanted = replace(wanted, after=page.next_after)
