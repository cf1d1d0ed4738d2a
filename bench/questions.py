"""Every question about one workspace, restart or write, against a look-up of one event by its primary key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import cycle
from random import Random
from statistics import median
from typing import Any

from bench.ratios import Bar, Ratio, Run
from bench.statements import Cursor, asked, driver, look_up, send
from orchestrator.domain.encoding import parse_instant
from orchestrator.history.failures import failures
from orchestrator.history.fate import fate_of, fates_of
from orchestrator.history.hot_files import hot_files
from orchestrator.history.past import workspace_at
from orchestrator.history.staleness import staleness
from orchestrator.history.storms import storms
from orchestrator.history.summary import summary
from orchestrator.history.why import why
from orchestrator.ports.inquiries import Scope
from orchestrator.ports.store import EventFilter, EventStore, Reader, RestartFilter
from orchestrator.storage.opening import open_store

MOST = 6.0
PAGE_MOST = 1.5
_DEEP = 10_000
_BATCH = 10
_PAGE = 10
_SEED = 7

Ask = Callable[[Reader, Any], object]
Page = Callable[[Cursor, int, int], Callable[[Reader], object]]


@dataclass(frozen=True, kw_only=True)
class Subjects:
    """Of what is asked: a sample of the log."""

    events: Sequence[int]
    writes: Sequence[str]
    requests: Sequence[str]
    restarts: Sequence[str]
    workspaces: Sequence[str]
    paths: Sequence[tuple[str, str]]
    moments: Sequence[tuple[str, datetime]]


@dataclass(frozen=True, kw_only=True)
class Question:
    """``units``: how many look-ups it is compared with, one for each write of a batch."""

    name: str
    of: Sequence[Any]
    ask: Ask
    units: int = 1


def questions(found: Subjects) -> list[Question]:
    """Return all questions of the audit that concern one workspace, restart or write."""
    batches = [found.writes[start : start + _BATCH] for start in range(0, len(found.writes), _BATCH)]
    return [
        Question(name="why did this restart happen", of=found.restarts, ask=why),
        Question(name="what became of this write", of=found.writes, ask=fate_of),
        Question(name="what became of this request", of=found.requests, ask=fate_of),
        Question(name=f"what became of these {_BATCH} writes", of=batches, ask=_fates, units=_BATCH),
        Question(name=f"restarts of a workspace, a page of {_PAGE}", of=found.workspaces, ask=_restarts),
        Question(name=f"restarts that a path is in, a page of {_PAGE}", of=found.paths, ask=_by_path),
        Question(name=f"events of a workspace, a page of {_PAGE}", of=found.workspaces, ask=_events),
        Question(name="a workspace now", of=found.workspaces, ask=_workspace),
        Question(name="a workspace as it was at an instant", of=found.moments, ask=_past),
        Question(name=f"storms of a workspace, the {_PAGE} worst", of=found.workspaces, ask=_storms),
        Question(name=f"hot files of a workspace, the {_PAGE} hottest", of=found.workspaces, ask=_hot_files),
        Question(name=f"failures of a workspace, the {_PAGE} newest", of=found.workspaces, ask=_failures),
        Question(name="staleness of a workspace", of=found.workspaces, ask=_staleness),
        Question(name="summary of a workspace", of=found.workspaces, ask=_summary),
    ]


def _fates(reader: Reader, writes: Sequence[str]) -> object:
    return fates_of(reader, writes)


def _restarts(reader: Reader, workspace: str) -> object:
    return reader.restarts(RestartFilter(workspace=workspace, limit=_PAGE))


def _by_path(reader: Reader, of: tuple[str, str]) -> object:
    workspace, path = of
    return reader.restarts(RestartFilter(workspace=workspace, path=path, limit=_PAGE))


def _workspace(reader: Reader, workspace: str) -> object:
    return reader.workspace(workspace)


def _past(reader: Reader, of: tuple[str, datetime]) -> object:
    workspace, at = of
    return workspace_at(reader, workspace, at)


def _events(reader: Reader, workspace: str) -> object:
    return reader.events(EventFilter(workspace=workspace, limit=_PAGE))


def _storms(reader: Reader, workspace: str) -> object:
    return storms(reader, Scope(workspace=workspace), limit=_PAGE)


def _hot_files(reader: Reader, workspace: str) -> object:
    return hot_files(reader, Scope(workspace=workspace), limit=_PAGE)


def _failures(reader: Reader, workspace: str) -> object:
    return failures(reader, Scope(workspace=workspace), limit=_PAGE)


def _staleness(reader: Reader, workspace: str) -> object:
    return staleness(reader, Scope(workspace=workspace))


def _summary(reader: Reader, workspace: str) -> object:
    return summary(reader, Scope(workspace=workspace))


def measure_questions(run: Run, *, sample: int = 100) -> Iterator[Ratio]:
    """Measure each question, then a deep page against the first."""
    with closing(open_store(run.url)) as store, driver(run.url) as cursor:
        found = subjects(cursor, sample)
        for question in questions(found):
            yield _against_look_up(run, store, cursor, question, found.events)
        yield _pages(run, store, cursor, "events", _events_page)
        yield _pages(run, store, cursor, "restarts", _restarts_page)


def subjects(cursor: Cursor, sample: int) -> Subjects:
    """Draw the subjects, spread over the whole log."""
    random = Random(_SEED)
    cursor.execute("SELECT max(position) FROM events")
    last = int(cursor.fetchall()[0][0])
    marks = sorted(random.sample(range(1, last), min(40 * sample, last // 2)))
    listed = ", ".join(map(str, marks))
    cursor.execute(
        f"SELECT position, id, type, workspace, subject, recorded_at FROM events WHERE position IN ({listed})"
    )
    rows = list(cursor.fetchall())
    random.shuffle(rows)
    writes = [row for row in rows if row[2] == "FileWritten"]
    cursor.execute("SELECT id FROM events WHERE type = 'RestartRequested' ORDER BY position")
    asked_for = [row[0] for row in cursor.fetchall()]
    return Subjects(
        events=[row[0] for row in rows][:sample],
        writes=[row[1] for row in writes][:sample],
        requests=random.sample(asked_for, min(sample, len(asked_for))),
        restarts=[row[4] for row in rows if row[2] == "RestartQueued"][:sample],
        workspaces=[row[3] for row in writes][:sample],
        paths=[(row[3], row[4]) for row in writes][:sample],
        moments=[(row[3], _instant(row[5])) for row in writes][:sample],
    )


def _instant(stored: str | datetime) -> datetime:
    return parse_instant(stored) if isinstance(stored, str) else stored


def _against_look_up(
    run: Run, store: EventStore, cursor: Cursor, question: Question, positions: Sequence[int]
) -> Ratio:
    ours = [asked(store, partial(_ask, question, subject)) for subject in question.of]
    drawn = cycle(positions)
    others = [[look_up(run.url, next(drawn)) for _ in range(question.units)] for _ in ours]
    rows = median(send(cursor, statements) for statements in ours)
    ours_s, other_s = run.in_turns(
        [partial(send, cursor, statements) for statements in ours],
        [partial(send, cursor, statements) for statements in others],
        rounds=run.rounds,
    )
    count = median(len(statements) for statements in ours)
    return Ratio(
        what=question.name,
        database=run.database,
        ours_s=ours_s,
        against="1 event by its key" if question.units == 1 else f"{question.units} events by their keys",
        other_s=other_s,
        bar=Bar.COST_AT_MOST,
        limit=MOST,
        note=f"statements: {count:g}, rows: {rows:g}",
    )


def _ask(question: Question, subject: Any, reader: Reader) -> object:
    return question.ask(reader, subject)


def _pages(run: Run, store: EventStore, cursor: Cursor, table: str, page: Page) -> Ratio:
    """Measure page 10,000 against page 1; where the table is too short for that, its pages are shorter."""
    cursor.execute(f"SELECT count(*) FROM {table}")
    rows = int(cursor.fetchall()[0][0])
    size = max(1, min(100, rows // _DEEP))
    number = min(_DEEP, rows // size)
    first, deep = (asked(store, page(cursor, (number_of - 1) * size, size)) for number_of in (1, number))
    repeated = 10 * run.rounds
    ours_s, other_s = run.in_turns([partial(send, cursor, deep)], [partial(send, cursor, first)], rounds=repeated)
    return Ratio(
        what=f"page {number:,} of {table}",
        database=run.database,
        ours_s=ours_s,
        against="page 1",
        other_s=other_s,
        bar=Bar.COST_AT_MOST,
        limit=PAGE_MOST,
        note=f"{size} a page",
    )


def _events_page(cursor: Cursor, before: int, size: int) -> Callable[[Reader], object]:
    after = _key(cursor, "position", "events", before)
    return lambda reader: reader.events(EventFilter(after=after or 0, limit=size))


def _restarts_page(cursor: Cursor, before: int, size: int) -> Callable[[Reader], object]:
    newest_before = _key(cursor, "queued_position", "restarts", before, order="DESC")
    return lambda reader: reader.restarts(RestartFilter(before=newest_before, limit=size))


def _key(cursor: Cursor, column: str, table: str, before: int, order: str = "ASC") -> int | None:
    """Return the key of the last row that stands before a page; None for the first page."""
    if before == 0:
        return None
    cursor.execute(f"SELECT {column} FROM {table} ORDER BY {column} {order} LIMIT 1 OFFSET {before - 1}")
    return int(cursor.fetchall()[0][0])
