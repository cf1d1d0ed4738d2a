"""Bundles as the product makes them: every way a restart can settle, from stored tiles, at a cost of its own size."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from orchestrator.audit.verify.evidence import verify_bundle
from orchestrator.errors import Conflict, NotFound, NotSealedYet
from orchestrator.sealing import bundle as bundle_module
from orchestrator.sealing.bundle import make_bundle
from orchestrator.sealing.seal import seal_next
from orchestrator.storage.opening import open_store
from tests.audit.sealed import Sealed, sealed
from tests.audit.sealing import KEY, SIGNING, write
from tests.audit.test_evidence import ENDS, rich
from tests.history import AuditedHistory, TestClock
from tests.sent_statements import statements


def made(history: AuditedHistory, restart: str) -> str:
    with history.store.read() as reader:
        return make_bundle(reader, restart)


def seal(history: AuditedHistory) -> None:
    while seal_next(history.store, SIGNING, most=3) is not None:
        pass


def check(history: AuditedHistory, restart: str) -> None:
    """The bundle is good, and holds what the format asks for."""
    whole = sealed(history.store)
    text = made(history, restart)
    verdict = verify_bundle(text, [KEY.public], restart)
    assert verdict.findings == ()
    assert [event["index"] for event in json.loads(text)["events"]] == needed(whole, restart)


def needed(whole: Sealed, restart: str) -> list[int]:
    """Return the leaves of a bundle without the facts that it may leave out."""
    ranges = [event["data"] for event in whole.events if event["data"].get("restart") == restart]
    last = whole.events[whole.indexes(restart)[-1]]["data"]  # of a cancelled one, what it waived
    to_position = max(data["to_position"] for data in (*ranges, last) if "to_position" in data)

    def is_needed(event: dict[str, object]) -> bool:
        data = event["data"]
        assert isinstance(data, dict)
        if event["version"] is not None:
            return True
        is_asking = event["type"] == "FileWritten" and data["action"] != "record"
        return is_asking and int(str(event["position"])) <= to_position

    return [index for index in whole.indexes(restart) if is_needed(whole.events[index])]


def test_bundles_of_a_rich_history(history: AuditedHistory) -> None:
    restarts = rich(history)
    seal(history)
    for restart in restarts:
        check(history, restart)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: str(end.__name__))
def test_every_way_to_settle(history: AuditedHistory, end: Callable[[AuditedHistory], None]) -> None:
    history.register(quiet="2s", min_interval="1s", rules=[{"match": ["*.md"], "action": "record"}])
    history.write("a", "notes.md", "b")
    history.at(5)
    restart = history.queued()
    end(history)
    seal(history)
    check(history, restart)


def test_ranges_and_decisions_that_take_several_pages(history: AuditedHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "_PAGE", 2)
    history.register(quiet="2s", min_interval="1s")
    history.write(*"abcdefg")
    for number in range(5):
        history.request(f"request {number}")
    history.at(5)
    restart = history.queued()
    history.start()
    for number in range(5):
        history.request(f"later {number}")
    history.succeed()
    seal(history)
    check(history, restart)


def test_a_restart_that_is_too_long_is_said_to_be(history: AuditedHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    history.register(quiet="2s", min_interval="1s")
    history.write(*"abcdefg")
    history.at(5)
    restart = history.queued()
    history.start()
    history.succeed()
    seal(history)
    for most in (6, 10):  # of the writes alone, and with the decisions
        monkeypatch.setattr(bundle_module, "MOST_EVENTS", most)
        with pytest.raises(Conflict, match=f"more than the {most} events"):
            made(history, restart)
    monkeypatch.setattr(bundle_module, "MOST_EVENTS", 11)
    check(history, restart)


def test_what_is_unknown_unsettled_or_unsealed_has_no_evidence(history: AuditedHistory) -> None:
    history.register(quiet="2s", min_interval="1s")
    history.write("a")
    history.at(5)
    restart = history.queued()
    with pytest.raises(NotFound):
        made(history, "rst_nowhere")
    with pytest.raises(NotSealedYet, match="queued"):
        made(history, restart)
    history.start()
    with pytest.raises(NotSealedYet, match="running"):
        made(history, restart)
    seal(history)
    history.succeed()
    with pytest.raises(NotSealedYet, match="not sealed yet"):
        made(history, restart)
    seal(history)
    check(history, restart)


@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url"])
def test_a_bundle_costs_the_same_in_a_longer_log(request: pytest.FixtureRequest, url: str) -> None:
    store = open_store(request.getfixturevalue(url))
    history = AuditedHistory(store, TestClock())
    history.register("ws", quiet="0s", min_interval="0s")
    history.write("a", "b")
    restart = history.queued()
    history.start()
    history.succeed()
    costs = []
    for more in (600, 5_400):
        write(store, more)
        assert seal_next(store, SIGNING) is not None
        with statements() as sent:
            text = made(history, restart)
        costs.append(len(sent))
        assert verify_bundle(text, [KEY.public], restart).findings == ()
    store.close()
    assert costs[0] == costs[1] < 20
