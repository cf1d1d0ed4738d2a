"""The sums behind the log say what the log says, wherever they stand, whatever came since, in any order of steps."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from bench.statements import asked
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.state import Phase
from orchestrator.history.staleness import staleness
from orchestrator.history.sum_keeping import keep_sums, sum_keeping
from orchestrator.history.summary import Summary, summary
from orchestrator.ports.inquiries import Scope
from orchestrator.ports.store import Backlog, EventFilter, Reader
from orchestrator.ports.sums import SUMS, Activity, Of, SumKind
from orchestrator.ports.workspaces import WorkspaceFilter
from orchestrator.storage.opening import open_store
from orchestrator.storage.sql import kept_sums
from tests.history import START, AuditedHistory, TestClock
from tests.storage.plans import plan_of, scans

WORKSPACES = ("ws", "other", "third")
FLEETS = ("blue", "green")
STATEMENTS_MOST = 6


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def lived(request: pytest.FixtureRequest) -> Iterator[AuditedHistory]:
    """A history over both databases."""
    clock = TestClock()
    store = open_store(request.getfixturevalue(request.param), clock)
    yield AuditedHistory(store, clock)
    store.close()


def test_kept_sums_say_what_the_rows_say_after_every_step(
    lived: AuditedHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.history.sum_keeping.POSITIONS", 5)
    chance = random.Random(11)
    for name in WORKSPACES:
        register(lived, name, FLEETS[0])
    for turn in range(60):
        if chance.random() < 0.4:
            keep_sums(lived.store, lambda: True)  # one piece: it stays behind
        lived.at(97 * turn)
        one_step(lived, chance)
        with lived.store.read() as reader:
            for scope in scopes(chance):
                assert summary(reader, scope) == from_rows(reader, scope), scope
            assert waiting(reader) == counted_rows(reader)
    keep_sums(lived.store)
    with lived.store.read() as reader:
        assert len(summary(reader, Scope(fleet="green")).failures.failed) > 0
        assert reader.sums_position() == reader.last_position()
        assert summary(reader, Scope()).restarts > 10
        assert summary(reader, Scope()).failures.gave_up > 0
        assert waiting(reader) == counted_rows(reader)
        for kind in SumKind:
            assert Counter(dict(kept_activity(reader, kind))) == activity_of_the_log(reader, kind)


def register(lived: AuditedHistory, name: str, fleet: str) -> None:
    lived.register(
        name, fleet=fleet, quiet="1s", min_interval=0, max_attempts=1, rules=[{"match": "c", "action": "record"}]
    )


def one_step(lived: AuditedHistory, chance: random.Random) -> None:
    """Let one thing happen that may happen now; a removed workspace is registered again."""
    name = chance.choice(WORKSPACES)
    state = lived.state(name)
    unsettled = state.restart
    if not state.registered or chance.random() < 0.1:
        register(lived, name, chance.choice(FLEETS))
    elif unsettled is not None and unsettled.cycle is not None:
        if chance.random() < 0.5:
            lived.succeed(name)
        else:
            lived.fail("no host", name, kind=chance.choice([ev.ErrorKind.PERMANENT, ev.ErrorKind.TRANSIENT]))
    elif unsettled is not None:
        if chance.random() < 0.8:
            lived.start(name)
        else:
            lived.cancel(unsettled.id, "not now")
    elif chance.random() < 0.1:
        lived.change(cmd.Remove(reason="gone"), name)
    else:
        lived.write(*("abc"[: chance.randrange(1, 4)]), workspace=name)
        lived.request("now", workspace=name)
        lived.tick(name)


def scopes(chance: random.Random) -> list[Scope]:
    """Everything, each fleet, and spans whose ends lie anywhere: in one period, in two, on their bounds."""
    first, last = sorted(chance.randrange(7_000) for _ in range(2))
    bounds = [START + timedelta(seconds=first), START + timedelta(seconds=last)]
    whole = datetime.fromtimestamp(300 * (bounds[0].timestamp() // 300), UTC)
    return [
        Scope(),
        Scope(workspace="ws"),
        *(Scope(fleet=fleet) for fleet in (*FLEETS, "nobody")),
        Scope(since=bounds[0], until=bounds[1]),
        Scope(fleet="green", since=bounds[0]),
        Scope(until=whole),
        Scope(since=whole, until=whole + timedelta(seconds=300)),
        Scope(since=START - timedelta(days=2), until=START + timedelta(days=2)),
    ]


def from_rows(reader: Reader, scope: Scope) -> Summary:
    """Return the summary as it is made where the sums are far behind."""
    far = cast(Reader, _FarBehind(reader))
    return summary(far, scope)


class _FarBehind:
    """A reader whose sums are too far behind to be asked."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def sums_position(self) -> None:
        return None

    def __getattr__(self, name: str) -> object:
        return getattr(self._reader, name)


def waiting(reader: Reader) -> Backlog:
    return replace(reader.backlog(), now=START)


def counted_rows(reader: Reader) -> Backlog:
    """Return what waits, counted row by row."""
    rows = reader.workspaces(WorkspaceFilter(limit=100)) + reader.workspaces(WorkspaceFilter(phase=Phase.REMOVED))
    states = [row.state for row in rows]
    due = [at for row in rows for at in (row.due_at, row.state.ready_at) if at is not None]
    return Backlog(
        now=START,
        pending_writes=sum(state.pending_writes for state in states),
        pending_workspaces=sum(state.pending_writes + state.pending_requests > 0 for state in states),
        oldest_due_at=min(due, default=None),
        running=sum(state.cycle is not None for state in states),
        phases=dict(Counter(state.phase for state in states)),
    )


def kept_activity(reader: Reader, kind: SumKind) -> dict[tuple[Of, datetime], Activity]:
    return {(of, since): found for of, since, found in reader.activity(kind, START - timedelta(days=1))}


def activity_of_the_log(reader: Reader, kind: SumKind) -> dict[tuple[Of, datetime], Activity]:
    """Return the same, told event by event."""
    fleets: dict[str, str] = {}
    found: dict[tuple[Of, datetime], Activity] = {}
    for event in reader.events(EventFilter(limit=100_000)):
        name, data = event.workspace, event.data
        if name is None:
            continue
        if isinstance(data, ev.WorkspaceRegistered | ev.WorkspaceChanged):
            fleets[name] = data.fleet
        counts = [isinstance(data, one) for one in (ev.FileWritten, ev.RestartQueued, ev.CycleFailed)]
        if any(counts):
            named = {SumKind.ALL: "", SumKind.FLEET: fleets[name], SumKind.WORKSPACE: name}[kind]
            since = datetime.fromtimestamp(event.recorded_at.timestamp() // 300 * 300, UTC)
            before = found.get((Of(kind, named), since), (0, 0, 0))
            found[Of(kind, named), since] = Activity(*map(sum, zip(before, counts, strict=True)))
    return found


def test_who_comes_second_adds_nothing(lived: AuditedHistory) -> None:
    register(lived, "ws", "blue")
    lived.write("a", "b")
    with lived.store.read() as reader:
        new = reader.sums_to_add(100)
        assert new is not None
    assert lived.store.add_sums(new)
    assert not lived.store.add_sums(new)
    with lived.store.read() as reader:
        assert reader.sums_to_add(100) is None
        assert reader.sums_position() == new.position == reader.last_position()
        [(_, _, found)] = reader.activity(SumKind.WORKSPACE, START - timedelta(days=1), name="ws")
        assert found == Activity(writes=2, restarts=0, cycles_failed=0)


def test_a_stop_ends_a_run_after_the_piece_it_is_at(lived: AuditedHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.history.sum_keeping.POSITIONS", 2)
    register(lived, "ws", "blue")
    lived.write(*[f"p{number}" for number in range(10)])
    keeping = sum_keeping(lived.store)
    keeping.stop()
    keeping.run()
    with lived.store.read() as reader:
        assert reader.counters(SUMS).position == 2


def test_sums_that_are_far_behind_or_kept_by_nobody_are_not_asked(
    lived: AuditedHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(lived, "ws", "blue")
    lived.write("a")
    with lived.store.read() as reader:
        assert reader.sums_position() is None
    keep_sums(lived.store)
    monkeypatch.setattr(kept_sums, "NEAR", 1)
    lived.write("a")
    with lived.store.read() as reader:
        assert reader.sums_position() is not None
    lived.write("a")
    with lived.store.read() as reader:
        assert reader.sums_position() is None
        assert waiting(reader) == counted_rows(reader)


def test_a_database_that_is_away_is_one_line(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(sqlite_url.replace("orchestrator.db", "nowhere/orchestrator.db"))
    sum_keeping(store).run()
    [said] = capsys.readouterr().out.strip().splitlines()
    assert "kept.skipped" in said
    store.close()


ASKED: dict[str, Callable[[Reader], object]] = {
    "summary": lambda reader: summary(reader, Scope()),
    "summary of a fleet": lambda reader: summary(reader, Scope(fleet="blue")),
    "summary of a span": lambda reader: summary(reader, Scope(since=START, until=START + timedelta(days=3))),
    "staleness": lambda reader: staleness(reader, Scope()),
    "backlog": lambda reader: reader.backlog(),
}


@pytest.mark.parametrize("question", ASKED)
def test_a_question_over_all_costs_few_statements(lived: AuditedHistory, question: str) -> None:
    register(lived, "ws", "blue")
    keep_sums(lived.store)
    sent = asked(lived.store, ASKED[question])
    assert 0 < len(sent) <= STATEMENTS_MOST, [one.sql for one in sent]


@pytest.mark.parametrize("question", ASKED)
def test_no_question_over_all_reads_a_table_from_end_to_end(
    history: AuditedHistory, sqlite_url: str, question: str
) -> None:
    register(history, "ws", "blue")
    keep_sums(history.store)
    history.write("a")
    for statement in asked(history.store, ASKED[question]):
        plan = plan_of(sqlite_url, statement)
        assert not any(scans(plan, table) for table in ("workspaces", "summed_workspaces", "restart_sums")), plan
        assert "ix_events_workspace_position" not in plan, plan  # a look for each workspace there is
        assert not scans(plan, "events"), plan
