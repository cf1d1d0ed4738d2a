"""The same again: by the caller's id, by Idempotency-Key, inside one batch, from several threads."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta, timezone

import pytest
from msgspec.structs import replace

from orchestrator.domain import commands as cmd
from orchestrator.domain.events import FileWritten, WorkspaceRegistered
from orchestrator.errors import KeyReused
from orchestrator.ports.store import CoreStore
from orchestrator.service.idempotency import RequestKey
from orchestrator.service.record import AcceptedWrite, AutoRegistration, RecordedBatch, Write, record_writes
from tests.history import START, History
from tests.service.world import IDS, SIMULATED, at_once, events

WRITE = Write(workspace="ws", path="a.py", source_id="42")
KEY = RequestKey(key="k1", fingerprint="POST /v1/writes a")


def record(
    store: CoreStore,
    *writes: Write,
    request: RequestKey | None = None,
    actor: str = "me",
    auto: AutoRegistration = SIMULATED,
) -> tuple[RecordedBatch, bool]:
    return record_writes(store, writes, actor=actor, ids=IDS, auto=auto, request=request)


def one(store: CoreStore, write: Write) -> AcceptedWrite:
    batch, _ = record(store, write)
    assert not batch.refused
    return batch.accepted[0]


def test_the_same_id_again_is_the_same_write(store: CoreStore) -> None:
    first, again = one(store, WRITE), one(store, WRITE)
    assert again == replace(first, replayed=True)
    assert len(events(store, FileWritten)) == 1


def test_a_source_that_is_named_is_another_namespace(store: CoreStore) -> None:
    first = one(store, WRITE)
    assert one(store, replace(WRITE, source="editor")).id != first.id
    assert one(store, replace(WRITE, source="me")).id == first.id  # the actor is the default


def test_the_same_instant_in_another_zone_is_the_same(store: CoreStore) -> None:
    at = datetime(2026, 11, 23, 12, 0, 0, 123_456, tzinfo=UTC)
    first = one(store, replace(WRITE, occurred_at=at))
    again = one(store, replace(WRITE, occurred_at=at.astimezone(timezone(timedelta(hours=2)))))
    assert (again.id, again.replayed) == (first.id, True)


@pytest.mark.parametrize(
    "other",
    [
        replace(WRITE, path="b.py"),
        replace(WRITE, workspace="other"),
        replace(WRITE, digest="sha256:1"),
        replace(WRITE, size=1),
        replace(WRITE, occurred_at=START),
    ],
)
def test_the_same_id_with_another_body_is_refused(store: CoreStore, other: Write) -> None:
    one(store, WRITE)
    batch, _ = record(store, other)
    assert [refusal.error for refusal in batch.refused] == ["KeyReused"]
    assert len(events(store, FileWritten)) == 1


def test_the_same_id_twice_in_one_batch(store: CoreStore) -> None:
    batch, _ = record(store, WRITE, replace(WRITE, path="b.py"), WRITE)
    assert batch.accepted[2] == replace(batch.accepted[0], replayed=True)
    assert [(refusal.index, refusal.error) for refusal in batch.refused] == [(1, "KeyReused")]
    assert len(events(store, FileWritten)) == 1


def test_a_replay_says_what_is_true_now(history: History) -> None:
    history.register()
    batch, _ = record(history.store, WRITE)
    history.at(15)
    history.queued()
    history.start()
    history.succeed()
    again = one(history.store, WRITE)
    assert (again.position, again.due_at) == (batch.accepted[0].position, None)


def test_a_replay_after_the_removal(history: History) -> None:
    history.register()
    first = one(history.store, WRITE)
    history.change(cmd.Remove(reason="gone"))
    assert one(history.store, WRITE).id == first.id


def test_the_same_request_again(store: CoreStore) -> None:
    first, replayed = record(store, WRITE, Write(workspace="ws", path=""), request=KEY)
    assert not replayed
    again, replayed = record(store, WRITE, Write(workspace="ws", path=""), request=KEY)
    assert replayed
    assert again.accepted == {0: replace(first.accepted[0], replayed=True)}
    assert list(again.refused) == list(first.refused)
    assert len(events(store, FileWritten)) == 1


def test_the_same_key_with_another_body(store: CoreStore) -> None:
    record(store, WRITE, request=KEY)
    with pytest.raises(KeyReused, match="k1"):
        record(store, WRITE, request=dataclasses.replace(KEY, fingerprint="POST /v1/writes b"))


def test_a_key_belongs_to_its_actor(store: CoreStore) -> None:
    record(store, Write(workspace="ws", path="a"), request=KEY)
    _, replayed = record(store, Write(workspace="ws", path="a"), request=KEY, actor="you")
    assert not replayed
    assert len(events(store, FileWritten)) == 2


def test_a_request_of_which_nothing_was_stored_may_come_again(history: History) -> None:
    batch, _ = record(history.store, Write(workspace="ws", path="a"), request=KEY, auto=AutoRegistration())
    assert batch.refused
    history.register()
    batch, replayed = record(history.store, Write(workspace="ws", path="a"), request=KEY, auto=AutoRegistration())
    assert (sorted(batch.accepted), replayed) == ([0], False)


def test_a_key_from_threads_at_once_has_one_effect(shared_store: CoreStore) -> None:
    write = Write(workspace="ws", path="a")
    answers = at_once([lambda: record(shared_store, write, request=KEY) for _ in range(6)])
    assert len({batch.accepted[0].id for batch, _ in answers}) == 1
    assert sorted(replayed for _, replayed in answers) == [False] + [True] * 5
    assert len(events(shared_store, FileWritten)) == 1


def test_a_key_for_two_workspaces_at_once(shared_store: CoreStore) -> None:
    def send(workspace: str) -> str:
        try:
            record(
                shared_store,
                Write(workspace=workspace, path="a"),
                request=dataclasses.replace(KEY, fingerprint=workspace),
            )
        except KeyReused:
            return "refused"
        return "stored"

    assert sorted(at_once([lambda: send("a"), lambda: send("b")])) == ["refused", "stored"]
    assert len(events(shared_store, FileWritten)) == 1


def test_an_id_from_threads_at_once_is_one_write(shared_store: CoreStore) -> None:
    answers = at_once([lambda: one(shared_store, WRITE) for _ in range(6)])
    assert len({answer.id for answer in answers}) == 1
    assert sum(answer.replayed for answer in answers) == 5


def test_first_writes_at_once_register_once(shared_store: CoreStore) -> None:
    at_once([lambda n=n: one(shared_store, Write(workspace="new", path=f"p{n}")) for n in range(6)])  # type: ignore[misc]
    assert len(events(shared_store, WorkspaceRegistered)) == 1
    assert len(events(shared_store, FileWritten)) == 6
