"""Which workspaces' programs die again and again, since when, and after which writes: computed when it is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.crash_loop import DEATHS, row_of_deaths
from orchestrator.domain.events import ProcessExited, Recorded
from orchestrator.domain.policy import Policies
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.state import SUPERVISED
from orchestrator.ports.inquiries import Scope
from orchestrator.ports.store import EventFilter, Reader, RestartFilter
from orchestrator.ports.workspaces import StoredWorkspace

LOOKED_BACK = timedelta(hours=1)
_SETTLE_MOST = LOOKED_BACK / DEATHS - timedelta(minutes=1)
"""A longer ``settle`` is taken as this: three lives and the pauses between them are looked back for."""
_PAGE = 1_000
_FILES_SHOWN = 5
_WRITES_MOST = 10_000
_RESTARTS_LOOKED_AT = 5


@dataclass(frozen=True, kw_only=True)
class CrashLoop:
    """One workspace's loop: its first death, how many there were, how the last ended, when the next start is or was.

    ``restart`` is the last one before it began (None: there was none), ``files`` what was written most in it.
    """

    began_at: datetime
    deaths: int
    exit_code: int | None
    signal: int | None
    next_start_at: datetime
    restart: str | None
    files: list[str]


def crash_loops(
    reader: Reader, stored: Iterable[StoredWorkspace], policies: Policies, *, at: datetime | None = None
) -> dict[str, CrashLoop]:
    """Return the loops among these workspaces, as of now or of an instant."""
    supervised = {one.state.workspace: one for one in stored if _is_supervised(one)}
    if not supervised:
        return {}
    only = next(iter(supervised)) if len(supervised) == 1 else None
    now = at or reader.clock()
    found = {
        name: _loop(reader, supervised[name], exits, policies, now)
        for name, exits in _exits(reader, now, only).items()
        if name in supervised
    }
    return {name: loop for name, loop in found.items() if loop is not None}


def count_crash_loops(reader: Reader) -> int:
    """Return how many workspaces are in a loop now."""
    now = reader.clock()
    candidates = [name for name, exits in _exits(reader, now, None).items() if len(exits) >= DEATHS]
    if not candidates:
        return 0
    stored = [one for one in map(reader.workspace, candidates) if one is not None]
    return len(crash_loops(reader, stored, reader.policies()))


def _is_supervised(stored: StoredWorkspace) -> bool:
    registration = stored.state.registration
    return stored.state.registered and registration is not None and registration.executor == SUPERVISED


def _exits(reader: Reader, now: datetime, workspace: str | None) -> Mapping[str, list[Recorded]]:
    by_workspace: dict[str, list[Recorded]] = defaultdict(list)
    for event in _recent(reader, now, workspace):
        if event.workspace is not None and event.recorded_at <= now:
            by_workspace[event.workspace].append(event)
    return by_workspace


def _recent(reader: Reader, now: datetime, workspace: str | None) -> Iterator[Recorded]:
    after = reader.place_of(now - LOOKED_BACK).position
    types = (ProcessExited.type_name(),)
    while page := reader.events(EventFilter(after=after, workspace=workspace, types=types, limit=_PAGE)):
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].position


def _loop(
    reader: Reader, stored: StoredWorkspace, exits: list[Recorded], policies: Policies, now: datetime
) -> CrashLoop | None:
    state = stored.state
    settle = timedelta(milliseconds=policy_in_force(state, policies).settle_ms)
    row = row_of_deaths(exits, started_at=state.last_start_at, settle=min(settle, _SETTLE_MOST), now=now)
    if not row:
        return None
    last = row[-1].data
    if not isinstance(last, ProcessExited):
        raise TypeError(f"event {row[-1].id} is no ProcessExited")
    restart, files = _before(reader, state.workspace, row[0])
    return CrashLoop(
        began_at=row[0].recorded_at,
        deaths=len(row),
        exit_code=last.exit_code,
        signal=last.signal,
        next_start_at=row[-1].recorded_at + timedelta(milliseconds=last.respawn_after_ms),
        restart=restart,
        files=files,
    )


def _before(reader: Reader, workspace: str, first: Recorded) -> tuple[str | None, list[str]]:
    """Return the newest restart that was queued before the first death, and the files it was of."""
    newest = reader.restarts(RestartFilter(workspace=workspace, limit=_RESTARTS_LOOKED_AT))
    record = next((one for one in newest if one.queued_position < first.position), None)
    if record is None:
        return None, []
    written = reader.written(
        Scope(workspace=workspace),
        after=record.from_position - 1,
        to_position=record.to_position,
        most=_WRITES_MOST,
        limit=_FILES_SHOWN,
    )
    return record.id, [one.path for one in written]
