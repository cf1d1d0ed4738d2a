"""The Merkle tree of RFC 9162 section 2.1 over SHA-256: roots, inclusion and consistency proofs.

Proof makers never see the leaves: they ask ``subtree(level, index)`` for the hash of the full subtree whose
leaves are ``index * 2**level`` up to the next one's first, so they work over stored tiles (``tiles.py``) in
O(log size) look-ups. Verifiers take any bytes and any numbers and answer; they never raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256

HASH_SIZE = 32
"""Bytes in every hash of the tree."""

EMPTY_ROOT = sha256(b"").digest()
"""The root of a tree without leaves (RFC 9162 section 2.1.1)."""

SubtreeHash = Callable[[int, int], bytes]
"""``(level, index)`` to the hash of a full subtree; level 0 is the leaves' hashes themselves."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf: SHA-256 over 0x00 and the entry's bytes."""
    return sha256(b"\x00" + entry).digest()


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """Return the hash of each leaf."""
    return [sha256(b"\x00" + entry).digest() for entry in entries]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node: SHA-256 over 0x01 and its children's hashes."""
    return sha256(b"\x01" + left + right).digest()


def parents(nodes: Sequence[bytes]) -> list[bytes]:
    """Return the hashes one level up of an even number of neighbours.

    Measured: 0.43 us a node; the same through one joined buffer 0.48 us.
    """
    return [sha256(b"\x01" + left + right).digest() for left, right in zip(nodes[::2], nodes[1::2], strict=True)]


class Frontier:
    """What must be kept of a tree to append to it: the hash of each full subtree on its right edge.

    Memory is O(log size), so a log of any length is hashed in one pass.
    """

    def __init__(self) -> None:
        self._size = 0
        self._peaks: list[bytes | None] = []  # by level; None where the bit of the size is 0

    @property
    def size(self) -> int:
        """How many leaves the tree has."""
        return self._size

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Append leaf hashes. One node is hashed per leaf, whatever the size of the batch."""
        nodes, level = list(leaves), 0
        self._size += len(nodes)
        while nodes:
            if level == len(self._peaks):
                self._peaks.append(None)
            peak = self._peaks[level]
            if peak is not None:
                nodes.insert(0, peak)
            self._peaks[level] = nodes.pop() if len(nodes) % 2 else None
            nodes = parents(nodes)
            level += 1

    def root(self) -> bytes:
        """Return the root of all leaves so far."""
        return root_of_peaks([peak for peak in reversed(self._peaks) if peak is not None])


def root_of_peaks(peaks: Sequence[bytes]) -> bytes:
    """Return the root over full subtrees of falling size that lie side by side, left to right."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root of a tree of these leaf hashes (RFC 9162 section 2.1.1)."""
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier.root()


def root_at(size: int, subtree: SubtreeHash) -> bytes:
    """Return the root that the tree had when it held ``size`` leaves."""
    return _range_root(0, size, subtree) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, subtree: SubtreeHash) -> list[bytes]:
    """Return the path of leaf ``index`` in a tree of ``size`` leaves, from the leaf up (RFC 9162 section 2.1.3.1).

    Raises ``ValueError`` for an index outside of the tree.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size} leaves; ask for an index below the size")
    proof: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            proof.append(_range_root(middle, end, subtree))
            end = middle
        else:
            proof.append(_range_root(begin, middle, subtree))
            begin = middle
    return proof[::-1]


def consistency_proof(first: int, second: int, subtree: SubtreeHash) -> list[bytes]:
    """Return the proof that a tree of ``second`` leaves begins with that of ``first`` (RFC 9162 section 2.1.4.1).

    Empty if the sizes are equal or ``first`` is 0. Raises ``ValueError`` if ``first`` is above ``second``.
    """
    if not 0 <= first <= second:
        raise ValueError(f"a tree of {second} leaves cannot begin with one of {first}; give the smaller size first")
    proof: list[bytes] = []
    begin, end = 0, second
    if first == 0:
        return proof
    while end != first:
        middle = begin + _split(end - begin)
        if first <= middle:
            proof.append(_range_root(middle, end, subtree))
            end = middle
        else:
            proof.append(_range_root(begin, middle, subtree))
            begin = middle
    if begin:  # else the verifier holds this hash already: it is the first root
        proof.append(_range_root(begin, end, subtree))
    return proof[::-1]


def is_included(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Say whether leaf hash ``leaf`` is number ``index`` of the tree with this size and root.

    RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < size or not _are_hashes(proof):
        return False
    node, last, hashed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            hashed = node_hash(sibling, hashed)
            node, last = _skip_left_edge(node, last)
        else:
            hashed = node_hash(hashed, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and hashed == root


def is_consistent(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Say whether the tree of ``second`` leaves begins with the one of ``first`` (RFC 9162 section 2.1.4.2).

    The empty tree, which the RFC leaves out, is the beginning of every tree; its proof is empty.
    """
    if first == second:
        return not proof and first_root == second_root and (second > 0 or first_root == EMPTY_ROOT)
    if first == 0:
        return not proof and first_root == EMPTY_ROOT and second > 0
    if not 0 < first < second or not proof or not _are_hashes(proof):
        return False
    path = [first_root, *proof] if first & (first - 1) == 0 else proof
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    return _both_roots(path, node, last) == (first_root, second_root)


def _are_hashes(proof: Sequence[bytes]) -> bool:
    # Two hashes cut elsewhere hash alike, so one proof would have many spellings.
    return all(len(item) == HASH_SIZE for item in proof)


def _both_roots(path: Sequence[bytes], node: int, last: int) -> tuple[bytes, bytes] | None:
    """Return the roots of the smaller and the larger tree that a consistency proof leads to; None if it has no end."""
    smaller = larger = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if node & 1 or node == last:
            smaller, larger = node_hash(sibling, smaller), node_hash(sibling, larger)
            node, last = _skip_left_edge(node, last)
        else:
            larger = node_hash(larger, sibling)
        node, last = node >> 1, last >> 1
    return (smaller, larger) if last == 0 else None


def _skip_left_edge(node: int, last: int) -> tuple[int, int]:
    """Go up from a node of the right edge to where it is a right child: on the way there it has no sibling."""
    while not node & 1 and node:
        node, last = node >> 1, last >> 1
    return node, last


def _split(size: int) -> int:
    """Return the largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def _range_root(begin: int, end: int, subtree: SubtreeHash) -> bytes:
    return root_of_peaks([subtree(level, index) for level, index in _full_subtrees(begin, end)])


def _full_subtrees(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the largest full subtrees of leaves begin..end-1; ``begin`` is aligned to at least that length."""
    while begin < end:
        level = (end - begin).bit_length() - 1
        yield level, begin >> level
        begin += 1 << level
