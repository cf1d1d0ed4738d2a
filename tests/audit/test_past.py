"""Workspaces as they were: what was stored then is what the log says now, at every instant."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from orchestrator.domain import commands as cmd
from orchestrator.domain.encoding import encode_state
from orchestrator.domain.events import PolicyChanged
from orchestrator.domain.evolve import evolve
from orchestrator.domain.policy import Policies, PolicyLayer, parse_policy
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.state import Phase as State
from orchestrator.domain.state import WorkspaceState
from orchestrator.errors import InvalidInput
from orchestrator.history.past import moment_at, workspace_at, workspaces_at
from orchestrator.ports.store import EventFilter, EventStore
from orchestrator.ports.workspaces import StoredWorkspace, WorkspaceFilter
from orchestrator.service.change_policy import change_policy
from orchestrator.storage.opening import open_store
from tests.history import START, AuditedHistory, TestClock
from tests.thorough import examples

NAMES = ("a", "b")
STEPS = ("write", "write", "record", "request", "hold", "release", "cancel", "remove", "register", "tick", "start")
ENDS = ("succeed", "succeed", "fail", "policy", "fleet")


def do(history: AuditedHistory, what: str, name: str, number: int) -> None:
    """Carry out a step where the workspace's state allows it."""
    state = history.state(name)
    allowed: dict[str, tuple[bool, Callable[[], object]]] = {
        "write": (state.registered, lambda: history.write(*["x.py", "y.py"][: 1 + number % 2], workspace=name)),
        "record": (state.registered, lambda: history.write("x.log", workspace=name)),
        "request": (state.registered, lambda: history.request("please", workspace=name)),
        "hold": (state.registered, lambda: history.change(cmd.Hold(reason=f"r{number}"), name)),
        "release": (state.registered, lambda: history.change(cmd.Release(reason="over"), name)),
        "remove": (state.registered, lambda: history.change(cmd.Remove(reason="gone"), name)),
        "register": (True, lambda: history.register(name, fleet=f"f{number % 3}", max_count=1 + number)),
        "tick": (True, lambda: history.tick(name)),
        "policy": (True, lambda: _policy(history, "default", number)),
        "fleet": (True, lambda: _policy(history, f"fleet:f{number % 3}", number)),
        "cancel": (
            state.restart is not None and state.cycle is None,
            lambda: history.cancel(state.restart.id if state.restart else "", "no"),
        ),
        "start": (_may_start(history, name), lambda: history.start(name)),
        "succeed": (state.cycle is not None, lambda: history.succeed(name)),
        "fail": (state.cycle is not None, lambda: history.fail("broken", name)),
    }
    possible, act = allowed[what]
    if possible:
        act()


def _may_start(history: AuditedHistory, name: str) -> bool:
    state, now = history.state(name), history.clock.at
    waited = state.last_start_at is None or state.last_start_at < now
    return state.ready_at is not None and state.ready_at <= now and waited


def _policy(history: AuditedHistory, scope: str, number: int) -> None:
    rules = [{"match": "*.log", "action": "record"}]
    patch = parse_policy({"quiet": number, "max_count": 1 + number, "max_attempts": 1 + number % 2, "rules": rules})
    change_policy(history.store, history.ids, scope=scope, patch=patch, actor="me")


def seen(stored: StoredWorkspace | None) -> tuple[str, datetime | None] | None:
    return None if stored is None else (encode_state(stored.state), stored.due_at)


def lived(history: AuditedHistory, steps: list[tuple[str, str, int]]) -> dict[datetime, dict[str, object]]:
    """Carry out the steps, and return what each workspace's row was at every instant."""
    rows: dict[datetime, dict[str, object]] = {}
    for what, name, number in steps:
        history.clock.at += timedelta(seconds=number / 2)
        with history.store.read() as reader:
            known = reader.workspace(name) is not None
        if known:
            do(history, what, name, number)
        else:
            history.register(name, fleet=f"f{number % 3}")
        with history.store.read() as reader:
            rows[history.clock.at] = {one: seen(reader.workspace(one)) for one in NAMES}
    return rows


def then(store: EventStore, at: datetime) -> dict[str, object]:
    with store.read() as reader:
        return {name: seen(workspace_at(reader, name, at)[0]) for name in NAMES}


@contextmanager
def empty_history(template: Path) -> Iterator[AuditedHistory]:
    """Begin a history in a database of its own."""
    clock = TestClock()
    with TemporaryDirectory() as folder:
        shutil.copy(template, f"{folder}/orchestrator.db")
        store = open_store(f"sqlite:///{folder}/orchestrator.db", clock)
        try:
            yield AuditedHistory(store, clock)
        finally:
            store.close()


STEP = st.tuples(st.sampled_from(STEPS + ENDS), st.sampled_from(NAMES), st.integers(0, 60))


@settings(
    max_examples=examples(12),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(steps=st.lists(STEP, min_size=20, max_size=60))
def test_the_state_at_every_instant_is_what_was_stored_then(
    sqlite_template: Path, steps: list[tuple[str, str, int]]
) -> None:
    with empty_history(sqlite_template) as history:
        rows = lived(history, steps)
        assert then(history.store, START - timedelta(microseconds=1)) == dict.fromkeys(NAMES)
        for at, stored in rows.items():
            assert then(history.store, at) == stored


@settings(max_examples=examples(8), deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(steps=st.lists(STEP, min_size=20, max_size=60))
def test_the_state_at_the_instant_of_every_event_is_the_log_folded_up_to_it(
    sqlite_template: Path, steps: list[tuple[str, str, int]]
) -> None:
    with empty_history(sqlite_template) as history:
        lived(history, steps)
        check_every_event(history)


def check_every_event(history: AuditedHistory) -> None:
    with history.store.read() as reader:
        log = reader.events(EventFilter(limit=10_000))
    states: dict[str, WorkspaceState] = {}
    layers: dict[str, PolicyLayer] = {}
    for event, following in zip(log, [*log[1:], None], strict=True):
        if isinstance(event.data, PolicyChanged):
            scope, policy, version = event.data.scope, event.data.policy, event.data.policy_version
            layers[scope] = PolicyLayer(scope=scope, policy=policy, version=version)
        if event.workspace is not None:
            before = states.get(event.workspace, WorkspaceState(workspace=event.workspace))
            states[event.workspace] = evolve(before, event, policy_in_force(before, Policies(layers=layers)))
        if following is None or following.recorded_at > event.recorded_at:
            with history.store.read() as reader:
                found = [workspace_at(reader, name, event.recorded_at)[0] for name in NAMES]
            assert {one.state.workspace: one.state for one in found if one is not None} == states


SCRIPT = [
    ("register", "a", 1),
    ("write", "a", 1),
    ("tick", "a", 60),
    ("start", "a", 1),
    ("write", "a", 1),
    ("succeed", "a", 2),
    ("register", "b", 1),
    ("policy", "a", 8),
    ("tick", "a", 200),
    ("hold", "b", 1),
    ("start", "a", 1),
    ("fail", "a", 1),
    ("remove", "b", 1),
    ("start", "a", 60),
    ("fail", "a", 1),
    ("write", "a", 1),
]


def test_a_long_window_is_folded_page_by_page(history: AuditedHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.history.past._PAGE", 3)
    rows = lived(history, SCRIPT + [("write", "a", number) for number in range(9)])
    for at, stored in rows.items():
        assert then(history.store, at) == stored


@pytest.mark.parametrize("snapshots", [True, False])
def test_a_file_answers_with_its_snapshots_and_without_them(
    history: AuditedHistory, sqlite_url: str, *, snapshots: bool
) -> None:
    rows = lived(history, SCRIPT)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as database:
        assert database.execute("SELECT count(*) FROM workspace_snapshots").fetchone() == (3,)
        if not snapshots:
            database.execute("DELETE FROM workspace_snapshots")
            database.commit()
    for at, stored in rows.items():
        assert then(history.store, at) == stored


def test_a_server_answers_too(postgres_url: str) -> None:
    store = open_store(postgres_url)
    try:
        with store.read() as reader:
            began = reader.clock()
        history = AuditedHistory(store, TestClock())
        history.register("ws", quiet=0, min_interval=0)
        history.write("a")
        history.queued()
        history.start()
        history.succeed()
        history.write("b")
        with store.read() as reader:
            log = reader.events(EventFilter(workspace="ws"))
            states = [workspace_at(reader, "ws", event.recorded_at)[0] for event in log]
            assert workspace_at(reader, "ws", began)[0] is None
            stored = reader.workspace("ws")
        phases = [one.state.phase.value for one in states if one is not None]
        assert phases == ["idle", "window_open", "queued", "running", "idle", "window_open"]
        assert seen(states[-1]) == seen(stored)
    finally:
        store.close()


def test_a_fold_reads_only_what_came_since_the_last_settled_restart(history: AuditedHistory) -> None:
    history.register("ws", quiet="1s", min_interval=0)
    for _ in range(5):
        history.write(*[f"p{number}" for number in range(20)])
        history.clock.at += timedelta(seconds=2)
        history.queued()
        history.start()
        history.succeed()
    history.write("last")
    with history.store.read() as reader:
        position = reader.place_of(history.clock.at).position
        nearest = reader.snapshots(["ws", "other"], position)
        assert list(nearest) == ["ws"]
        assert position - nearest["ws"].position == 1


def test_a_fleet_as_it_was_in_pages_and_filtered(history: AuditedHistory) -> None:
    for number in range(7):
        history.register(f"w{number}", fleet="blue" if number % 2 else "green")
    history.change(cmd.Remove(reason="gone"), "w6")
    history.at(10)
    history.change(cmd.Hold(reason="freeze"), "w1")
    history.at(20)
    for number in range(6):
        history.change(cmd.Remove(reason="gone"), f"w{number}")
    history.register("late")

    def walk(seconds: int, **filters: object) -> list[str]:
        found, after = [], ""
        with history.store.read() as reader:
            moment = moment_at(reader, START + timedelta(seconds=seconds))
            while True:
                page = workspaces_at(reader, WorkspaceFilter(after=after, limit=2, **filters), moment)  # type: ignore[arg-type]
                assert len(page.items) <= 2
                found += [one.state.workspace for one in page.items]
                if page.next_after is None:
                    return found
                after = page.next_after

    assert walk(5) == ["w0", "w1", "w2", "w3", "w4", "w5"]
    assert walk(5, fleet="blue") == ["w1", "w3", "w5"]
    assert walk(15, phase=State.HELD) == ["w1"]
    assert walk(5, phase=State.HELD) == []
    assert walk(5, phase=State.REMOVED) == ["w6"]
    assert walk(15, label=("tier", "web")) == ["w0", "w1", "w2", "w3", "w4", "w5"]
    assert walk(15, label=("tier", "db")) == []
    assert walk(20) == ["late"]


def test_a_page_looks_at_a_bounded_number(history: AuditedHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.history.past.MOST_EXAMINED", 3)
    for number in range(5):
        history.register(f"w{number}", fleet="blue" if number == 4 else "green")
    with history.store.read() as reader:
        moment = moment_at(reader, history.clock.at)
        first = workspaces_at(reader, WorkspaceFilter(fleet="blue", limit=10), moment)
        assert (first.items, first.next_after) == ((), "w2")
        second = workspaces_at(reader, WorkspaceFilter(fleet="blue", limit=10, after="w2"), moment)
        assert [one.state.workspace for one in second.items] == ["w4"]
        assert second.next_after is None


def test_the_future_is_not_known(history: AuditedHistory) -> None:
    history.register("ws")
    with history.store.read() as reader:
        assert moment_at(reader, history.clock.at).position == reader.last_position()
        with pytest.raises(InvalidInput, match="future"):
            moment_at(reader, history.clock.at + timedelta(microseconds=1))
    history.clock.at -= timedelta(hours=1)
    with history.store.read() as reader:  # the clock stepped back: what was recorded is still the past
        assert moment_at(reader, START).position == reader.last_position()
        for ask in (moment_at, lambda reader, at: workspace_at(reader, "ws", at)):
            with pytest.raises(InvalidInput, match="future"):
                ask(reader, START + timedelta(microseconds=1))
