"""The tree: published vectors, the RFC's definitions written out, and a second implementation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pymerkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.audit.verify import merkle

# The entries, roots and proofs of the RFC 6962 reference implementation; RFC 9162 keeps that tree.
ENTRIES = [
    bytes.fromhex(entry)
    for entry in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
LEAVES = merkle.leaf_hashes(ENTRIES)
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
B = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
C = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
D = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
E = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
F = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
INCLUSION = {(0, 1): [], (0, 8): [A, B, C], (5, 8): [D, E, ROOTS[4]], (2, 3): [ROOTS[2]], (1, 5): [ROOTS[1], B, D]}
CONSISTENCY = {(1, 1): [], (1, 8): [A, B, C], (6, 8): [F, E, ROOTS[4]], (2, 5): [B, D]}

numbered = [merkle.leaf_hash(str(number).encode()) for number in range(130)]
sizes = st.integers(1, len(numbered))


def subtrees(leaves: Sequence[bytes]) -> merkle.SubtreeHash:
    """Look full subtrees up in the leaves themselves; the tree's own parts are not asked for."""

    def subtree(level: int, index: int) -> bytes:
        part = leaves[index << level : (index + 1) << level]
        assert len(part) == 1 << level, "not a full subtree"
        return root_as_defined(part)

    return subtree


def split(size: int) -> int:
    return next(1 << bit for bit in range(20) if 1 << bit < size <= 2 << bit)


def root_as_defined(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1, over hashed leaves."""
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return merkle.node_hash(root_as_defined(leaves[:k]), root_as_defined(leaves[k:]))


def path_as_defined(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 9162 section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path_as_defined(m, leaves[:k]), root_as_defined(leaves[k:])]
    return [*path_as_defined(m - k, leaves[k:]), root_as_defined(leaves[:k])]


def subproof_as_defined(m: int, leaves: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 9162 section 2.1.4.1."""
    if m == len(leaves):
        return [] if whole else [root_as_defined(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof_as_defined(m, leaves[:k], whole), root_as_defined(leaves[k:])]
    return [*subproof_as_defined(m - k, leaves[k:], False), root_as_defined(leaves[:k])]


def test_roots_are_those_published() -> None:
    assert [merkle.root_of(LEAVES[:size]).hex() for size in range(9)] == ROOTS
    assert [merkle.root_at(size, subtrees(LEAVES)).hex() for size in range(9)] == ROOTS


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_are_those_published(index: int, size: int) -> None:
    proof = merkle.inclusion_proof(index, size, subtrees(LEAVES))

    assert [step.hex() for step in proof] == INCLUSION[index, size]
    assert merkle.is_included(LEAVES[index], index, size, proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("first", "second"), CONSISTENCY)
def test_consistency_proofs_are_those_published(first: int, second: int) -> None:
    proof = merkle.consistency_proof(first, second, subtrees(LEAVES))

    assert [step.hex() for step in proof] == CONSISTENCY[first, second]
    assert merkle.is_consistent(first, second, bytes.fromhex(ROOTS[first]), bytes.fromhex(ROOTS[second]), proof)


@settings(deadline=None)
@given(sizes, st.data())
def test_root_and_proofs_are_as_the_rfc_defines_them(size: int, data: st.DataObject) -> None:
    leaves, index, first = numbered[:size], data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    root, inclusion = root_as_defined(leaves), merkle.inclusion_proof(index, size, subtrees(leaves))
    consistency = merkle.consistency_proof(first, size, subtrees(leaves))

    assert merkle.root_of(leaves) == root
    assert inclusion == path_as_defined(index, leaves)
    assert consistency == subproof_as_defined(first, leaves)
    assert merkle.is_included(leaves[index], index, size, inclusion, root)
    assert merkle.is_consistent(first, size, root_as_defined(leaves[:first]), root, consistency)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=12))
def test_frontier_has_the_same_root_whatever_the_batches(batches: list[int]) -> None:
    frontier, taken = merkle.Frontier(), 0
    for batch in batches:
        frontier.extend(numbered[taken : taken + batch])
        taken = min(taken + batch, len(numbered))
        assert frontier.size == taken
        assert frontier.root() == (root_as_defined(numbered[:taken]) if taken else merkle.EMPTY_ROOT)


@pytest.fixture(scope="module")
def other() -> pymerkle.InmemoryTree:
    tree = pymerkle.InmemoryTree("sha256")
    for number in range(len(numbered)):
        tree.append_entry(str(number).encode())
    return tree


def test_second_implementation_has_the_same_roots_and_inclusion_proofs(other: pymerkle.InmemoryTree) -> None:
    for size in range(1, len(numbered) + 1):
        root = merkle.root_of(numbered[:size])
        assert other.get_root(size) == root
        for index in {0, size // 3, size // 2, size - 1}:
            theirs = other.prove_inclusion(index + 1, size).path
            assert theirs == [numbered[index], *merkle.inclusion_proof(index, size, subtrees(numbered))]
            assert merkle.is_included(numbered[index], index, size, theirs[1:], root)


def test_second_implementation_agrees_on_what_is_consistent(other: pymerkle.InmemoryTree) -> None:
    # Its proofs go down to other nodes than the RFC's, so the verdicts on the same pairs of roots are compared.
    for first, second in pairwise(range(1, len(numbered), 7)):
        roots = other.get_root(first), other.get_root(second)
        pymerkle.verify_consistency(*roots, other.prove_consistency(first, second))
        proof = merkle.consistency_proof(first, second, subtrees(numbered))
        assert merkle.is_consistent(first, second, *roots, proof)
        with pytest.raises(pymerkle.InvalidProof):
            pymerkle.verify_consistency(roots[1], roots[1], other.prove_consistency(first, second))
        assert not merkle.is_consistent(first, second, roots[1], roots[1], proof)


Damage = Callable[[list[bytes]], list[bytes]]
DAMAGES: dict[str, Damage] = {
    "first step dropped": lambda proof: proof[1:],
    "last step dropped": lambda proof: proof[:-1],
    "step added": lambda proof: [*proof, merkle.EMPTY_ROOT],
    "step before the first": lambda proof: [merkle.EMPTY_ROOT, *proof],
    "steps turned round": lambda proof: proof[::-1],
    "bit turned": lambda proof: [bytes([proof[0][0] ^ 1]) + proof[0][1:], *proof[1:]],
    "byte short": lambda proof: [proof[0][:-1], *proof[1:]],
    "nothing": lambda proof: [],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize(("first", "second"), [(1, 8), (3, 7), (6, 8), (4, 7), (64, 130), (77, 130)])
def test_damaged_proofs_prove_nothing(damage: Damage, first: int, second: int) -> None:
    lookup, root = subtrees(numbered), merkle.root_of(numbered[:second])
    inclusion, consistency = (
        merkle.inclusion_proof(first, second, lookup),
        merkle.consistency_proof(first, second, lookup),
    )
    bad_inclusion, bad_consistency = damage(inclusion), damage(consistency)

    assert bad_inclusion == inclusion or not merkle.is_included(numbered[first], first, second, bad_inclusion, root)
    first_root = merkle.root_of(numbered[:first])
    assert bad_consistency == consistency or not merkle.is_consistent(first, second, first_root, root, bad_consistency)


def test_a_proof_is_of_one_leaf_at_one_place() -> None:
    root, lookup = merkle.root_of(numbered[:100]), subtrees(numbered)
    proof = merkle.inclusion_proof(41, 100, lookup)

    assert not any(merkle.is_included(numbered[41], index, 100, proof, root) for index in range(-1, 102) if index != 41)
    assert not any(merkle.is_included(leaf, 41, 100, proof, root) for leaf in numbered if leaf != numbered[41])


def test_two_hashes_cut_elsewhere_are_no_proof() -> None:
    # SHA-256 sees only the joined bytes, so 20 + 44 would hash like 32 + 32.
    joined = numbered[0] + numbered[1]
    root = merkle.root_of(numbered[:2])

    assert merkle.is_included(numbered[0], 0, 2, [numbered[1]], root)
    assert not merkle.is_included(joined[:20], 0, 2, [joined[20:]], root)


def test_empty_tree_begins_every_tree() -> None:
    root = merkle.root_of(numbered[:5])

    assert merkle.consistency_proof(0, 5, subtrees(numbered)) == []
    assert merkle.is_consistent(0, 5, merkle.EMPTY_ROOT, root, [])
    assert merkle.is_consistent(0, 0, merkle.EMPTY_ROOT, merkle.EMPTY_ROOT, [])
    assert not merkle.is_consistent(0, 5, root, root, [])
    assert not merkle.is_consistent(0, 5, merkle.EMPTY_ROOT, root, [root])
    assert not merkle.is_consistent(0, 0, root, root, [])
    assert not merkle.is_consistent(5, 4, root, root, [])
    assert not merkle.is_consistent(-1, 4, root, root, [root])


def test_makers_refuse_what_is_outside_of_the_tree() -> None:
    with pytest.raises(ValueError, match="leaf 5 is not in a tree of 5"):
        merkle.inclusion_proof(5, 5, subtrees(numbered))
    with pytest.raises(ValueError, match="cannot begin with one of 6"):
        merkle.consistency_proof(6, 5, subtrees(numbered))


numbers = st.integers(-2, 2**70)
hashes = st.binary(max_size=40)


@settings(deadline=None)
@given(numbers, numbers, hashes, hashes, st.lists(hashes, max_size=90))
def test_verifiers_answer_whatever_they_are_given(
    first: int, second: int, one: bytes, two: bytes, proof: list[bytes]
) -> None:
    assert merkle.is_included(one, first, second, proof, two) in (True, False)
    assert merkle.is_consistent(first, second, one, two, proof) in (True, False)
