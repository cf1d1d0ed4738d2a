"""What the tests of sealing share: keys from fixed seeds, a sink that can be down, the chain checked from scratch."""

from __future__ import annotations

from base64 import b64decode
from hashlib import sha256
from itertools import pairwise

from orchestrator.audit.verify.checkpoint import Checkpoint, open_checkpoint
from orchestrator.audit.verify.merkle import is_consistent, leaf_hash, root_of
from orchestrator.audit.verify.signed_note import PublicKey, SigningKey, make_key
from orchestrator.domain.canonical_line import canonical_line
from orchestrator.errors import SinkUnavailable
from orchestrator.ports.sealing import StoredCheckpoint
from orchestrator.ports.store import EventFilter, EventStore
from orchestrator.sealing.seal import Signing
from orchestrator.sealing.sealer import Sealer
from tests.storage.samples import file_written, log

ORIGIN = "log.example.com"


def key(name: str = "one", origin: str = ORIGIN) -> SigningKey:
    return make_key(origin, sha256(name.encode()).digest())


KEY = key()
SIGNING = Signing(keys=[KEY])


class Kept:
    """A sink in memory that refuses while ``down``."""

    name = "kept"

    def __init__(self) -> None:
        self.taken: list[StoredCheckpoint] = []
        self.down = False

    def put(self, checkpoint: StoredCheckpoint) -> None:
        if self.down:
            raise SinkUnavailable("the kept sink is down")
        self.taken.append(checkpoint)

    @property
    def sizes(self) -> list[int]:
        return [one.tree_size for one in self.taken]


def sealer(store: EventStore, *sinks: Kept, signing: Signing = SIGNING, most: int = 1_000) -> Sealer:
    return Sealer(store, lambda: signing, sinks, most=most)


def write(store: EventStore, count: int = 1) -> None:
    """Append so many facts in one transaction."""
    log(store, *[file_written(f"{number}.py") for number in range(count)])


def checkpoints(store: EventStore) -> list[StoredCheckpoint]:
    """Return all checkpoints, oldest first."""
    with store.read() as reader:
        return reader.seals.checkpoints(before=None, limit=10_000)[::-1]


def leaves(store: EventStore) -> list[bytes]:
    """Return the leaf hashes of the whole log, from its canonical lines."""
    with store.read() as reader:
        return [leaf_hash(canonical_line(event)) for event in reader.stored_events(EventFilter(limit=100_000))]


def opened(checkpoint: StoredCheckpoint, *keys: PublicKey) -> Checkpoint:
    return open_checkpoint(checkpoint.note, keys or [KEY.public])


def check_chain(store: EventStore, *keys: PublicKey) -> None:
    """Every checkpoint has the root of the log's beginning, and proves that the one before is its own beginning."""
    hashes, chain = leaves(store), checkpoints(store)
    for one in chain:
        head = opened(one, *keys)
        assert head.root == root_of(hashes[: one.tree_size])
        assert (head.size, head.position, head.sealed_at) == (one.tree_size, one.position, one.sealed_at)
    for before, after in pairwise(chain):
        proof = [b64decode(node) for node in after.consistency]
        assert after.previous_size == before.tree_size
        assert is_consistent(
            before.tree_size, after.tree_size, opened(before, *keys).root, opened(after, *keys).root, proof
        )
