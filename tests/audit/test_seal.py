"""Sealing over all stores: roots, the chain of checkpoints, two sealers, keys, sinks that fail."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from orchestrator.errors import Conflict, SealKeyUnavailable, SealRefused
from orchestrator.ports.store import EventStore
from orchestrator.sealing.seal import Signing, seal_next
from orchestrator.sealing.sealer import Sealer
from orchestrator.sealing.sinks import FolderSink
from orchestrator.storage.opening import open_store
from tests.audit.sealing import (
    KEY,
    ORIGIN,
    SIGNING,
    Kept,
    check_chain,
    checkpoints,
    key,
    opened,
    sealer,
    write,
)
from tests.storage.samples import file_written


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[EventStore]:
    """Each store in turn, empty."""
    made = open_store(request.getfixturevalue(f"{request.param}_url"))
    yield made
    made.close()


def test_an_empty_log_is_not_sealed_and_nothing_is_written_when_nothing_came(store: EventStore) -> None:
    assert seal_next(store, SIGNING) is None
    write(store)
    first = seal_next(store, SIGNING)
    assert first is not None
    assert seal_next(store, SIGNING) is None
    assert checkpoints(store) == [first]


def test_checkpoints_of_growing_trees_are_one_chain(store: EventStore) -> None:
    for count in (1, 1, 3, 250, 1, 1, 300, 7, 700):
        write(store, count)
        assert seal_next(store, SIGNING) is not None
    assert [one.tree_size for one in checkpoints(store)] == [1, 2, 5, 255, 256, 257, 557, 564, 1264]
    check_chain(store)


def test_a_backlog_is_sealed_in_bounded_pieces(store: EventStore) -> None:
    write(store, 700)
    done = sealer(store, most=300).run()
    assert [one.tree_size for one in done.checkpoints] == [300, 600, 700]
    assert done.problems == []
    check_chain(store)


def test_gaps_in_positions_leave_no_leaf(postgres_url: str) -> None:
    """PostgreSQL only: there a rolled back append has drawn its positions for good."""
    store = open_store(postgres_url)
    write(store, 2)

    twice = file_written("never.py")
    with pytest.raises(Conflict), store.write() as transaction:
        transaction.append([twice, twice])
    write(store, 2)
    sealed = seal_next(store, SIGNING)
    assert sealed is not None
    assert (sealed.tree_size, sealed.position) == (4, 6)
    check_chain(store)
    store.close()


def test_of_two_sealers_one_is_first_and_the_other_harms_nothing(store: EventStore) -> None:
    write(store, 300)
    together = Barrier(2)

    def seal() -> int:
        together.wait(5)
        try:
            sealed = seal_next(store, SIGNING)
        except Conflict:
            return 0
        return sealed.tree_size if sealed is not None else 0

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: seal(), range(2)))
    assert sorted(found) == [0, 300]
    write(store, 5)
    assert seal_next(store, SIGNING) is not None
    check_chain(store)


def test_a_sealer_that_was_overtaken_goes_on_after_the_other(store: EventStore) -> None:
    write(store, 3)
    both = sealer(store), sealer(store)
    assert [len(one.run().checkpoints) for one in both] == [1, 0]
    write(store, 3)
    assert [len(one.run().checkpoints) for one in reversed(both)] == [1, 0]
    check_chain(store)


def test_a_checkpoint_that_was_not_exported_is_exported_by_the_next_run(store: EventStore) -> None:
    """As after a sealer that was killed between its commit and the export."""
    write(store, 3)
    assert seal_next(store, SIGNING) is not None
    kept = Kept()
    assert sealer(store, kept).run().problems == []
    assert kept.sizes == [3]
    assert all(one.exported_at is not None for one in checkpoints(store))
    sealer(store, kept).run()
    assert kept.sizes == [3]


def test_a_sink_that_fails_keeps_no_other_waiting_and_gets_everything_later_in_order(store: EventStore) -> None:
    good, bad = Kept(), Kept()
    bad.down = True
    both = sealer(store, good, bad)
    for _ in range(3):
        write(store, 2)
        assert both.run().problems == ["the kept sink is down"]
    assert good.sizes == [2, 4, 6]
    assert all(one.exported_at is None for one in checkpoints(store))
    with store.read() as reader:
        state = reader.seals.state()
    assert (state.unexported, state.failures, state.failed_because) == (3, 3, "the kept sink is down")
    bad.down = False
    assert both.run().problems == []
    assert (good.sizes, bad.sizes) == ([2, 4, 6], [2, 4, 6])
    assert all(one.exported_at is not None for one in checkpoints(store))


def test_a_database_that_was_cut_back_is_brought_to_every_sink_again(sqlite_url: str, tmp_path: Path) -> None:
    """The sink has the last word: a folder refuses it."""
    file, backup = tmp_path / "orchestrator.db", tmp_path / "backup.db"
    folder, store = FolderSink(tmp_path / "checkpoints"), open_store(sqlite_url)
    both = Sealer(store, lambda: SIGNING, [folder])
    write(store, 2)
    assert both.run().problems == []
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(backup)) as copy:
        source.backup(copy)
    write(store, 8)
    assert both.run().problems == []
    with closing(sqlite3.connect(backup)) as source, closing(sqlite3.connect(file)) as copy:
        source.backup(copy)
    write(store, 1)
    [problem] = both.run().problems
    assert "holds a checkpoint of 10 events, and the next one in the database follows that of 2" in problem
    store.close()


def test_without_a_sink_nothing_counts_as_exported(store: EventStore) -> None:
    write(store)
    sealer(store).run()
    with store.read() as reader:
        assert reader.seals.state().unexported == 1


def test_a_missing_key_seals_nothing_is_counted_and_stops_nobody(store: EventStore) -> None:
    def no_key() -> Signing:
        raise SealKeyUnavailable("there is no seal key /nowhere")

    write(store, 2)
    kept = Kept()
    keyless = Sealer(store, no_key, [kept])
    assert keyless.run().problems == ["there is no seal key /nowhere"]
    write(store, 2)
    with store.read() as reader:
        state = reader.seals.state()
    assert (state.newest, state.unsealed, state.failures) == (None, 4, 1)
    assert sealer(store, kept).run().problems == []
    assert kept.sizes == [4]


def test_all_keys_sign_and_a_rotated_key_goes_on(store: EventStore) -> None:
    old, new = KEY, key("two")
    for keys in ([old], [old, new], [new]):
        write(store)
        assert seal_next(store, Signing(keys=keys)) is not None
    before, between, after = checkpoints(store)
    assert opened(before, old.public).keys == ()
    assert opened(between, old.public).keys == opened(between, new.public).keys == (old.public, new.public)
    assert opened(after, new.public).size == 3
    check_chain(store, old.public, new.public)


def test_a_stored_checkpoint_that_our_key_did_not_sign_is_not_built_upon(store: EventStore) -> None:
    write(store)
    assert seal_next(store, Signing(keys=[key("attacker")])) is not None
    write(store)
    with pytest.raises(SealRefused, match="not signed with our key"):
        seal_next(store, SIGNING)
    trusting = seal_next(store, replace(SIGNING, trust_stored=True))
    assert trusting is not None
    write(store)
    assert seal_next(store, SIGNING) is not None


def test_a_log_has_one_name(store: EventStore) -> None:
    write(store)
    assert seal_next(store, SIGNING) is not None
    write(store)
    with pytest.raises(SealRefused, match="one name for ever"):
        seal_next(store, replace(SIGNING, origin="other.example.com"))
    named = seal_next(store, replace(SIGNING, origin=ORIGIN))
    assert named is not None
    assert opened(named).origin == ORIGIN
