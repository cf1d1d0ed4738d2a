"""What every store promises of checkpoints and tiles: one suite over memory, SQLite and PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from orchestrator.domain import events as ev
from orchestrator.errors import Conflict
from orchestrator.ports.sealing import StoredCheckpoint, Tile
from orchestrator.ports.store import EventStore
from orchestrator.storage.opening import open_store
from tests.storage.samples import at, event, file_written, log


def checkpoint(size: int, previous: int, position: int | None = None) -> StoredCheckpoint:
    return StoredCheckpoint(
        tree_size=size,
        position=position or size,
        root=f"root of {size}",
        note=f"origin\n{size}\nroot\n\n— origin signature\n",
        previous_size=previous,
        consistency=("aGFzaA==", "b3RoZXI="),
        sealed_at=at(size),
    )


def tile(level: int, index: int, hashes: bytes, *positions: int) -> Tile:
    first, last = positions or (None, None)
    return Tile(level=level, index=index, hashes=hashes, first_position=first, last_position=last)


def test_nothing_is_sealed_at_first(audited_store: EventStore) -> None:
    with audited_store.read() as reader:
        assert reader.seals.newest() is None
        assert reader.seals.checkpoints(before=None, limit=10) == []
        assert reader.seals.unexported(after=0, limit=10) == []
        assert reader.seals.tiles(0, [0]) == []
        assert reader.seals.tile_holding(1) is None
        state = reader.seals.state()
    assert (state.newest, state.unsealed, state.unsealed_since, state.unexported) == (None, 0, None, 0)
    assert (state.unexported_since, state.failures, state.failed_because) == (None, 0, "")


def test_checkpoints_are_read_as_they_were_saved_newest_first(audited_store: EventStore) -> None:
    saved = [checkpoint(3, 0, position=4), checkpoint(7, 3), checkpoint(260, 7)]
    for one in saved:
        audited_store.save_checkpoint(one, [])
    with audited_store.read() as reader:
        assert reader.seals.newest() == saved[-1]
        assert reader.seals.checkpoints(before=None, limit=2) == [saved[2], saved[1]]
        assert reader.seals.checkpoints(before=7, limit=2) == [saved[0]]
        assert reader.seals.checkpoints(before=3, limit=2) == []


def test_tiles_grow_and_are_found_by_the_positions_they_hold(audited_store: EventStore) -> None:
    audited_store.save_checkpoint(checkpoint(2, 0), [tile(0, 0, b"ab", 1, 5)])
    grown = [tile(0, 0, b"abc", 1, 7), tile(0, 1, b"d", 8, 9), tile(1, 0, b"\x00\xff")]
    audited_store.save_checkpoint(checkpoint(300, 2), grown)
    with audited_store.read() as reader:
        assert reader.seals.tiles(0, [1, 0, 5]) == grown[:2]
        assert reader.seals.tiles(1, [0]) == [grown[2]]
        assert reader.seals.tiles(2, [0]) == []
        held = {position: reader.seals.tile_holding(position) for position in (1, 7, 8, 9, 10)}
    assert held == {1: grown[0], 7: grown[0], 8: grown[1], 9: grown[1], 10: None}


def test_a_second_follower_of_a_checkpoint_is_refused_with_its_tiles(audited_store: EventStore) -> None:
    audited_store.save_checkpoint(checkpoint(2, 0), [tile(0, 0, b"ab", 1, 2)])
    audited_store.save_checkpoint(checkpoint(5, 2), [tile(0, 0, b"abcde", 1, 5)])
    for late in (checkpoint(4, 2), checkpoint(9, 2), checkpoint(1, 0)):
        with pytest.raises(Conflict):
            audited_store.save_checkpoint(late, [tile(0, 0, b"forked", 1, 4), tile(0, 1, b"new", 5, 6)])
    with audited_store.read() as reader:
        assert [one.tree_size for one in reader.seals.checkpoints(before=None, limit=9)] == [5, 2]
        assert [one.hashes for one in reader.seals.tiles(0, [0, 1])] == [b"abcde"]


def test_of_two_sealers_at_the_same_time_one_wins_whole(audited_store: EventStore) -> None:
    together = Barrier(2)

    def seal(size: int) -> bool:
        together.wait(5)
        try:
            audited_store.save_checkpoint(checkpoint(size, 0), [tile(0, 0, b"x" * size, 1, size)])
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(seal, (3, 4)))
    assert sorted(won) == [False, True]
    with audited_store.read() as reader:
        newest, [stored] = reader.seals.newest(), reader.seals.tiles(0, [0])
    assert newest is not None
    assert newest.tree_size == len(stored.hashes) == (3 if won[0] else 4)


def test_exports_are_marked_once_and_listed_oldest_first(audited_store: EventStore) -> None:
    for one in (checkpoint(1, 0), checkpoint(2, 1), checkpoint(3, 2)):
        audited_store.save_checkpoint(one, [])
    with audited_store.read() as reader:
        assert [one.tree_size for one in reader.seals.unexported(after=0, limit=2)] == [1, 2]
        assert [one.tree_size for one in reader.seals.unexported(after=2, limit=2)] == [3]
    audited_store.mark_exported(2)
    with audited_store.read() as reader:
        assert [one.tree_size for one in reader.seals.unexported(after=0, limit=10)] == [3]
        marked = reader.seals.checkpoints(before=3, limit=2)
        state = reader.seals.state()
    assert all(one.exported_at is not None for one in marked)
    assert (state.unexported, state.unexported_since) == (1, at(3))
    audited_store.mark_exported(2)
    with audited_store.read() as reader:
        assert reader.seals.checkpoints(before=3, limit=2) == marked


def test_the_state_counts_what_is_not_sealed_and_keeps_the_last_failure(audited_store: EventStore) -> None:
    first, second, third = log(audited_store, *[file_written(str(number)) for number in range(3)])
    audited_store.save_checkpoint(checkpoint(1, 0, position=first.position), [])
    audited_store.note_seal_failure("no key")
    audited_store.note_seal_failure('the "sink" is full')
    with audited_store.read() as reader:
        state = reader.seals.state()
        assert reader.seals.positions(second.position, third.position + 5) == [second.position, third.position]
        assert reader.counters().position == 0
    assert (state.unsealed, state.unsealed_since) == (2, second.recorded_at)
    assert (state.failures, state.failed_because) == (2, 'the "sink" is full')


def test_sealing_does_not_wait_for_the_append_lock(postgres_url: str) -> None:
    """PostgreSQL only: the others have one writer by nature."""
    store = open_store(postgres_url)
    with store.write() as transaction:
        transaction.append([event(ev.ClockRegressed(by_ms=1), None)])
        store.save_checkpoint(checkpoint(1, 0), [tile(0, 0, b"a", 1, 1)])
        store.mark_exported(1)
    with store.read() as reader:
        assert reader.last_position() == 1
    store.close()
