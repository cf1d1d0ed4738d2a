"""Path rules are matched before the locks, and only compared under them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest

from orchestrator.domain.events import FileWritten
from orchestrator.domain.path_rules import PathRules
from orchestrator.domain.policy import Action, PolicyPatch, Rule
from orchestrator.errors import StorageUnavailable
from orchestrator.ports.store import CoreStore
from orchestrator.service import rule_matching
from orchestrator.service.change_policy import change_policy
from orchestrator.service.record import Write, record_writes
from orchestrator.service.rule_matching import LastRules, Matching, RulesMoved
from tests.history import History
from tests.service.world import IDS, SIMULATED, events

DOCS = Rule(match=("docs/**",), action=Action.RECORD)
CONF = Rule(match=("conf/**",), action=Action.RELOAD, quiet_ms=1_000)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> LastRules:
    """Begin with a process that knows no rules."""
    last = LastRules()
    monkeypatch.setattr(rule_matching, "LAST", last)
    return last


def rule(store: CoreStore, *rules: Rule) -> None:
    change_policy(store, IDS, scope="default", patch=PolicyPatch(rules=rules), actor="me")


def actions(store: CoreStore) -> list[tuple[str, Action, str | None]]:
    return [(data.path, data.action, data.rule) for data in events(store, FileWritten)]


def record(store: CoreStore, *paths: str, workspace: str = "ws") -> None:
    writes = [Write(workspace=workspace, path=path) for path in paths]
    record_writes(store, writes, actor="me", ids=IDS, auto=SIMULATED)


def test_each_write_follows_the_rules_of_its_moment(history: History) -> None:
    record(history.store, "docs/a")
    rule(history.store, DOCS)
    record(history.store, "docs/b", "src/c")
    rule(history.store, CONF)
    record(history.store, "docs/d", "conf/e")
    rule(history.store)
    record(history.store, "conf/f")
    assert actions(history.store) == [
        ("docs/a", Action.RESTART, None),
        ("docs/b", Action.RECORD, "docs/**"),
        ("src/c", Action.RESTART, None),
        ("docs/d", Action.RESTART, None),
        ("conf/e", Action.RELOAD, "conf/**"),
        ("conf/f", Action.RESTART, None),
    ]


def test_nothing_is_matched_while_a_transaction_is_open(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    is_open = False
    matched: list[tuple[str, bool]] = []
    first, transaction = PathRules.first, type(history.store)._transaction  # type: ignore[attr-defined]

    @contextmanager
    def watched(*given: Any) -> Any:
        nonlocal is_open
        with transaction(*given) as opened:
            is_open = True
            yield opened
        is_open = False

    def noting(rules: PathRules, path: str) -> int | None:
        matched.append((path, is_open))
        return first(rules, path)

    monkeypatch.setattr(type(history.store), "_transaction", watched)
    monkeypatch.setattr(PathRules, "first", noting)
    rule(history.store, DOCS)
    record(history.store, "docs/a")
    is_open = False  # the first one was refused in its step: what was thought of its rules was wrong
    record(history.store, "docs/b")
    assert matched == [("docs/a", False), ("docs/b", False)]
    assert [action for _, action, _ in actions(history.store)] == [Action.RECORD, Action.RECORD]


def test_known_rules_are_matched_at_the_first_try(history: History, forgotten: LastRules) -> None:
    rule(history.store, DOCS)
    record(history.store, "docs/a")
    assert forgotten.of("ws") == (DOCS,)
    matching = Matching([("ws", "docs/b"), ("other", "docs/b")])
    matching.match_by_last()
    assert (matching.rule("ws", "docs/b"), matching.rule("other", "docs/b")) == (DOCS, None)
    rule(history.store)
    record(history.store, "docs/b")
    assert forgotten.of("ws") == ()


def test_rules_that_change_at_every_try_are_given_up_and_nothing_is_stored(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, tries = Matching.learn, 0

    def change_before(matching: Matching, rules: Any) -> None:
        nonlocal tries
        tries += 1
        learn(matching, rules)
        rule(history.store, Rule(match=(f"*.{tries}",), action=Action.RECORD))

    rule(history.store, DOCS)
    monkeypatch.setattr(Matching, "learn", change_before)
    with pytest.raises(StorageUnavailable, match="nothing was stored"):
        record(history.store, "docs/a")
    assert tries == rule_matching.TRIES
    assert actions(history.store) == []


def test_a_path_that_is_refused_is_refused_as_ever(history: History) -> None:
    rule(history.store, DOCS)
    writes = [Write(workspace="ws", path=path) for path in ("", "docs/a", "x" * 5_000)]
    batch, _ = record_writes(history.store, writes, actor="me", ids=IDS, auto=SIMULATED)
    assert ([refusal.index for refusal in batch.refused], list(batch.accepted)) == ([0, 2], [1])
    assert actions(history.store) == [("docs/a", Action.RECORD, "docs/**")]


def test_workspaces_of_one_batch_have_each_their_own(history: History) -> None:
    change_policy(history.store, IDS, scope="fleet:blue", patch=PolicyPatch(rules=(CONF,)), actor="me")
    rule(history.store, DOCS)
    history.register("a")
    history.register("b", fleet="blue")
    writes = [Write(workspace=name, path=path) for name in "ab" for path in ("docs/x", "conf/x")]
    record_writes(history.store, writes, actor="me", ids=IDS, auto=SIMULATED)
    assert [action for _, action, _ in actions(history.store)] == [
        Action.RECORD,
        Action.RESTART,
        Action.RESTART,
        Action.RELOAD,
    ]


def test_an_odd_path_is_matched_as_it_is_stored(history: History) -> None:
    rule(history.store, Rule(match=("docs/%00",), action=Action.RECORD))
    record(history.store, "docs/\x00")
    assert actions(history.store) == [("docs/%00", Action.RECORD, "docs/%00")]


def test_so_many_workspaces_are_remembered_and_those_without_rules_are_not() -> None:
    last = LastRules(most=2)
    for name in "abc":
        last.note(name, (DOCS,))
    assert [last.of(name) for name in "abc"] == [(), (), (DOCS,)]
    last.note("c", ())
    assert last.of("c") == ()


def test_what_has_moved_is_named() -> None:
    assert "ws-1, ws-2" in str(RulesMoved({"ws-2": (), "ws-1": (DOCS,)}))
