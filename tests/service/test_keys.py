"""Keys: made, replaced, ended, and what may be written with them; each in one commit with its event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from msgspec import structs

from orchestrator.domain import access_events as acc
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.key_words import digest_of
from orchestrator.domain.policy import PolicyPatch
from orchestrator.domain.scopes import EVERYTHING, Reach, Role, Scope, granted
from orchestrator.domain.state import Registration
from orchestrator.errors import Conflict, Forbidden, InvalidInput, NotFound, RateExceeded
from orchestrator.owner_key import new_key
from orchestrator.ports.store import EventFilter
from orchestrator.service.append import Author
from orchestrator.service.keys import KeyKeeper, MadeKey, WantedKey
from orchestrator.service.record import AutoRegistration, RecordedBatch, Write, record_writes
from orchestrator.service.write_budget import WriteBudget
from tests.history import History

WEB = Registration(fleet="web", labels={}, executor="simulated", target={}, policy=PolicyPatch())

ASKED = cmd.RequestRestart(trigger=ev.Trigger.MANUAL, reason="x")


def keeper(history: History) -> KeyKeeper:
    return KeyKeeper(history.store, history.ids, new_key=new_key)


def told(history: History) -> list[ev.EventData]:
    with history.store.read() as reader:
        events = reader.events(EventFilter(types=("KeyCreated", "KeyRevoked")))
    return [event.data for event in events]


def live(history: History, name: str) -> list[str]:
    with history.store.read() as reader:
        return [one.id for one in reader.access_keys() if one.name == name and one.is_live(reader.clock())]


def made(history: History, name: str = "ci", **wanted: int | timedelta) -> MadeKey:
    key = WantedKey(name=name, role=Role.WRITER, **wanted)  # type: ignore[arg-type]
    return keeper(history).create(key, actor="me", within=EVERYTHING)


def write(
    history: History, *workspaces: str, reach: Reach | None = None, budget: WriteBudget | None = None
) -> RecordedBatch:
    writes = [Write(workspace=name, path="a") for name in workspaces]
    return record_writes(
        history.store,
        writes,
        actor="key:ci",
        ids=history.ids,
        auto=AutoRegistration(executor="simulated"),
        reach=reach or Reach(everywhere=True),
        budget=budget,
    )[0]


def test_a_key_is_nowhere_but_its_digest(history: History) -> None:
    one = made(history)
    with history.store.read() as reader:
        (kept,) = reader.access_keys(digests=True)
        logged = repr(reader.events(EventFilter()))
    assert kept == one.stored
    assert kept.digest == digest_of(one.key)
    assert (kept.scopes, kept.created_by) == (("read", "writes"), "me")
    assert one.key not in logged
    (created,) = told(history)
    assert created == acc.KeyCreated(
        key=kept.id, name="ci", role="writer", scopes=["read", "writes"], expires_at=None, digest=kept.digest
    )


def test_names_of_live_keys_are_one_persons(history: History) -> None:
    made(history)
    with pytest.raises(Conflict, match="rotate ci"):
        made(history)
    assert len(told(history)) == 1
    keeper(history).revoke("ci", actor="me", reason="over")
    made(history)
    assert len(live(history, "ci")) == 1


def test_a_bad_scope_makes_no_key(history: History) -> None:
    with pytest.raises(InvalidInput, match="there is no scope 'wirtes'"):
        keeper(history).create(WantedKey(name="ci", role=Role.WRITER, scopes=["wirtes"]), actor="me", within=EVERYTHING)
    assert told(history) == []


def test_two_are_live_while_one_takes_the_others_place(history: History) -> None:
    old = made(history, writes_per_minute=7)
    new = keeper(history).rotate("ci", actor="you", within=EVERYTHING)
    assert live(history, "ci") == [old.stored.id, new.stored.id]
    assert (new.stored.scopes, new.stored.writes_per_minute) == (old.stored.scopes, 7)
    with pytest.raises(Conflict, match="two keys"):
        keeper(history).rotate("ci", actor="you", within=EVERYTHING)
    history.at(24 * 3600 + 1)
    assert live(history, "ci") == [new.stored.id]
    keeper(history).rotate("ci", actor="you", within=EVERYTHING)
    with pytest.raises(NotFound, match="keys list"):
        keeper(history).rotate("nobody", actor="you", within=EVERYTHING)


def test_nobody_hands_on_more_than_he_has(history: History) -> None:
    own = granted(Role.WRITER, ["writes@fleet=web-*", "keys"])
    wanted = WantedKey(name="more", role=Role.ADMIN)
    with pytest.raises(Forbidden, match=r"audit, cancel, .* writes: beyond") as raised:
        keeper(history).create(wanted, actor="key:ci", within=own)
    assert raised.value.needs == "audit"
    assert "keys" not in str(raised.value).partition(":")[0].split(", ")
    assert told(history) == []
    less = WantedKey(name="less", role=Role.WRITER, scopes=["writes@fleet=web-1"])
    assert keeper(history).create(less, actor="key:ci", within=own).stored.scopes == ("read", "writes@fleet=web-1")


def test_nobody_takes_the_place_of_a_key_that_may_do_more(history: History) -> None:
    old = made(history)
    narrow = granted(Role.WRITER, ["writes@fleet=web-*", "keys"])
    with pytest.raises(Forbidden, match=r"writes: beyond .*read, writes@fleet=web-\*"):
        keeper(history).rotate("ci", actor="key:other", within=narrow)
    assert live(history, "ci") == [old.stored.id]
    with history.store.read() as reader:
        assert reader.access_keys()[0].expires_at is None, "nor is it made to end"
    keeper(history).rotate("ci", actor="key:other", within=granted(Role.WRITER, ["keys"]))
    assert len(keeper(history).revoke("ci", actor="key:other", reason="lost")) == 2, "ending needs no scope of its own"


def test_a_key_expires_by_the_clock_of_the_database(history: History) -> None:
    one = made(history, expires_after=timedelta(hours=1))
    history.at(3_599)
    assert live(history, "ci") == [one.stored.id]
    history.at(3_601)
    assert live(history, "ci") == []


def test_an_ended_key_stays_ended_and_says_so_once(history: History) -> None:
    one = made(history)
    assert [key.id for key in keeper(history).revoke(one.stored.id, actor="me", reason="lost")] == [one.stored.id]
    assert keeper(history).revoke("ci", actor="me", reason="again") == []
    assert told(history)[1:] == [acc.KeyRevoked(key=one.stored.id, name="ci", reason="lost")]
    with pytest.raises(NotFound):
        keeper(history).revoke("nobody", actor="me", reason="x")


def test_a_writer_of_a_fleet_writes_no_other(history: History) -> None:
    history.operator.register("w1", WEB, Author())
    batch = write(history, "w1", "other", reach=Reach(fleets=("we*",)))
    assert [write.workspace for write in batch.accepted.values()] == ["w1"]
    assert [(refused.index, refused.error) for refused in batch.refused] == [(1, "Forbidden")]
    batch = write(history, "new-1", reach=Reach(workspaces=("new-?",)))
    assert [write.workspace for write in batch.accepted.values()] == ["new-1"]


def test_commands_stop_at_the_reach(history: History) -> None:
    history.operator.register("w1", WEB, Author())
    beyond = Author(actor="key:ci", reach=Reach(fleets=("api",)), scope="holds")
    with pytest.raises(Forbidden, match="holds is for fleet=api"):
        history.operator.change("w1", cmd.Hold(reason="x"), beyond)
    with pytest.raises(Forbidden, match="register is for fleet=api"):
        history.operator.register("w1", WEB, replace(beyond, scope="register"))
    with pytest.raises(Forbidden, match="register is for fleet=api"):  # into somebody else's fleet
        history.operator.register("w2", WEB, replace(beyond, scope="register"))
    with pytest.raises(Forbidden):
        history.operator.change("unheard-of", cmd.Hold(reason="x"), beyond)


def test_a_command_is_carried_out_with_its_own_scope_alone(history: History) -> None:
    history.operator.register("w1", WEB, Author())
    history.write("a", workspace="w1")
    history.operator.request_restart("w1", ASKED, Author())
    queued = history.queued("w1")
    with history.store.read() as reader:
        record = reader.restart(queued)
    assert record is not None
    acts: dict[Scope, list[Callable[[Author], object]]] = {
        Scope.REGISTER: [
            lambda by: history.operator.register("w1", structs.replace(WEB, labels={"a": by.scope}), by),
            lambda by: history.operator.change("w1", cmd.Remove(reason="x"), by),
        ],
        Scope.RESTARTS: [lambda by: history.operator.request_restart("w1", ASKED, by)],
        Scope.PROBES: [
            lambda by: history.operator.report_probe("w1", cmd.ReportProbe(healthy=False, detail=""), by),
            lambda by: history.operator.report_probe("w1", cmd.ReportProbe(healthy=True, detail=""), by),
        ],
        Scope.HOLDS: [
            lambda by: history.operator.change("w1", cmd.Hold(reason="x"), by),
            lambda by: history.operator.change("w1", cmd.Release(reason="x"), by),
        ],
        Scope.CANCEL: [lambda by: history.operator.cancel(record, "x", by)],
    }
    before = history.state("w1")
    for right, each in acts.items():
        for scope in set(Scope) - {right}:
            for act in each:
                with pytest.raises(Forbidden, match=f"scope {right}, not {scope}$") as raised:
                    act(Author(actor="key:ci", scope=scope))
                assert raised.value.needs == right
    assert history.state("w1") == before
    for right in (Scope.PROBES, Scope.HOLDS, Scope.CANCEL, Scope.RESTARTS, Scope.REGISTER):
        for act in acts[right]:
            act(Author(actor="key:ci", scope=right))
    with pytest.raises(Forbidden, match=r"scope register-code, not register$"):
        history.operator.register("w1", WEB, Author(scope="register"), code=Author(scope="register"))


def test_code_goes_where_both_scopes_reach(history: History) -> None:
    history.operator.register("w1", structs.replace(WEB, fleet="db"), Author())
    code = Author(actor="key:ci", reach=Reach(fleets=("web",)), scope="register-code")
    with pytest.raises(Forbidden, match=r"'w1' is beyond .* register-code is for fleet=web"):
        history.operator.register("w1", WEB, Author(), code=code)
    with pytest.raises(Forbidden, match=r"'w1' is beyond .* register-code is for fleet=web"):  # under the lock too
        history.operator.register("w1", WEB, Author(), code=code, create_only=True)
    with pytest.raises(Forbidden, match="register-code"):
        history.operator.register("w2", structs.replace(WEB, fleet="db"), Author(), code=code)
    with pytest.raises(Forbidden, match="register-code"):  # what changes nothing says nothing either
        history.operator.register("w1", structs.replace(WEB, fleet="db"), Author(), code=code)
    assert history.operator.register("new", WEB, Author(), code=replace(code, reach=Reach(workspaces=("new",))))[1]


def test_writes_are_counted_to_the_last(history: History) -> None:
    budget = WriteBudget(keys=(made(history).stored.id,), per_minute=6)
    for _ in range(3):
        assert len(write(history, "a", "b", budget=budget).accepted) == 2
    with pytest.raises(RateExceeded) as raised:
        write(history, "c", budget=budget)
    assert (raised.value.retry_after_s, raised.value.policy) == (10, '"writes";q=6;w=60')
    history.at(10)
    assert len(write(history, "c", budget=budget).accepted) == 1
    with pytest.raises(RateExceeded):
        write(history, "c", budget=budget)
    with pytest.raises(RateExceeded):
        history.operator.change("c", cmd.Hold(reason="x"), Author(actor="key:ci", budget=budget))
    history.at(100)
    assert len(write(history, *"abcdefghij", budget=budget).accepted) == 10, (
        "more than a minute's worth, with nothing used"
    )
    with history.store.read() as reader:
        assert len(reader.events(EventFilter(types=("FileWritten",)))) == 17


def test_keys_of_one_name_share_what_is_left(history: History) -> None:
    old = made(history).stored.id
    before = WriteBudget(keys=(old,), per_minute=6)  # also of a process that does not know the new one yet
    for _ in range(2):
        write(history, "a", budget=before)
    new = keeper(history).rotate("ci", actor="me", within=EVERYTHING).stored.id
    both, after = WriteBudget(keys=(old, new), per_minute=6), WriteBudget(keys=(new,), per_minute=6)
    for budget in (before, both, before, both):
        assert len(write(history, "a", budget=budget).accepted) == 1
    for budget in (before, both, after):
        with pytest.raises(RateExceeded):
            write(history, "a", budget=budget)
    history.at(10)
    assert len(write(history, "a", budget=after).accepted) == 1
    with pytest.raises(RateExceeded):
        write(history, "a", budget=both)


def test_a_key_that_takes_anothers_place_begins_with_what_is_left(history: History) -> None:
    old = made(history).stored.id
    write(history, "a", budget=WriteBudget(keys=(old,), per_minute=1))
    new = keeper(history).rotate("ci", actor="me", within=EVERYTHING).stored.id
    keeper(history).revoke(old, actor="me", reason="over")
    with pytest.raises(RateExceeded):
        write(history, "a", budget=WriteBudget(keys=(new,), per_minute=1))
