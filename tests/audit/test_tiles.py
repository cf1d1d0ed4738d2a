"""Tiles: whatever the batches, the stored tiles give the roots and proofs of the plain tree."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.audit.verify import merkle, tiles

LEAVES = [sha256(b"%d" % number).digest() for number in range(70_000)]
Store = dict[tuple[int, int], bytes]


def loading(store: Store) -> tiles.LoadTile:
    return lambda level, number: store.get((level, number), b"")


def stored(size: int) -> Store:
    return tiles.append(tiles.EMPTY, LEAVES[:size]).changed


@settings(deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, 3, 127, 128, 129, 255, 256, 257, 300, 513]), max_size=8), st.data())
def test_any_batches_give_the_plain_tree(batches: list[int], data: st.DataObject) -> None:
    store: Store = {}
    edge = tiles.EMPTY
    for batch in batches:
        grown = tiles.append(edge, LEAVES[edge.size : edge.size + batch])
        assert grown.edge.size == edge.size + batch
        assert grown.root == grown.edge.root() == merkle.root_of(LEAVES[: grown.edge.size])
        store.update(grown.changed)
        edge = tiles.load_edge(grown.edge.size, loading(store))
        assert edge == grown.edge
    assert store == stored(edge.size)
    if edge.size:
        size = data.draw(st.integers(1, edge.size))
        check_reads(store, size, data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size)))


def check_reads(store: Store, size: int, index: int, first: int) -> None:
    """A tree of any earlier size can be read from the tiles."""
    lookup, root = tiles.subtree_hashes(loading(store)), merkle.root_of(LEAVES[:size])
    inclusion, consistency = merkle.inclusion_proof(index, size, lookup), merkle.consistency_proof(first, size, lookup)

    assert merkle.root_at(size, lookup) == tiles.load_edge(size, loading(store)).root() == root
    assert merkle.is_included(LEAVES[index], index, size, inclusion, root)
    assert merkle.is_consistent(first, size, merkle.root_of(LEAVES[:first]), root, consistency)


def test_third_level_begins_at_65536_leaves() -> None:
    store = stored(70_000)

    assert {level for level, _ in store} == {0, 1, 2}
    assert len(store[0, 0]) == len(store[1, 0]) == 256 * 32
    assert len(store[2, 0]) == 32
    for size, index, first in [
        (65_535, 65_534, 3),
        (65_536, 0, 65_535),
        (65_537, 65_536, 65_536),
        (70_000, 4_711, 66_000),
    ]:
        check_reads(store, size, index, first)


def test_an_append_changes_only_the_right_edge() -> None:
    edge = tiles.append(tiles.EMPTY, LEAVES[:69_999]).edge

    assert set(tiles.append(edge, LEAVES[69_999:70_000]).changed) == {(0, 273)}
    assert tiles.append(edge, []).changed == {}
    crossing = tiles.append(tiles.append(tiles.EMPTY, LEAVES[:511]).edge, LEAVES[511:513])
    assert {at: len(tile) // 32 for at, tile in crossing.changed.items()} == {(0, 1): 256, (0, 2): 1, (1, 0): 2}


def test_a_proof_loads_few_tiles_and_each_once() -> None:
    store, loaded = stored(70_000), list[tuple[int, int]]()

    def load(level: int, number: int) -> bytes:
        loaded.append((level, number))
        return store[level, number]

    merkle.inclusion_proof(4_711, 70_000, tiles.subtree_hashes(load))

    assert len(loaded) == len(set(loaded))
    assert set(loaded) == {(0, 18), (0, 273), (1, 0), (1, 1)}


@pytest.mark.parametrize("length", [88 * 32 - 1, 0], ids=["byte short", "gone"])
def test_a_damaged_tile_is_named(length: int) -> None:
    store = stored(600)
    store[0, 2] = store[0, 2][:length]

    with pytest.raises(tiles.TileDamaged, match="tile 2 of level 0") as short:
        tiles.load_edge(600, loading(store))
    assert (short.value.level, short.value.number) == (0, 2)
    with pytest.raises(tiles.TileDamaged, match="tile 2 of level 0"):
        merkle.root_at(600, tiles.subtree_hashes(loading(store)))
