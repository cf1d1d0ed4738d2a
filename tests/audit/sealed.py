"""Sealing a history in memory, and bundles of evidence from it, as ``evidence`` says they are made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.audit.verify import merkle, tiles
from orchestrator.audit.verify.checkpoint import Checkpoint, sign_checkpoint
from orchestrator.audit.verify.evidence import Exhibit, write_bundle
from orchestrator.audit.verify.signed_note import make_key
from orchestrator.ports.store import CoreStore
from tests.log_lines import log_lines

ORIGIN = "log.example.com"
KEY = make_key(ORIGIN, b"k" * 32)


@dataclass
class Sealed:
    """The lines of a log and the tiles of its tree."""

    lines: list[str]

    def __post_init__(self) -> None:
        self.events: list[dict[str, Any]] = [json.loads(line) for line in self.lines]
        leaves = merkle.leaf_hashes(line.encode() for line in self.lines)
        grown = tiles.append(tiles.EMPTY, leaves)
        self.size, self.root = grown.edge.size, grown.root
        self._subtree = tiles.subtree_hashes(lambda level, number: grown.changed[level, number])

    def note(self, size: int | None = None) -> str:
        """Return a checkpoint of the first ``size`` events."""
        size = self.size if size is None else size
        root = merkle.root_at(size, self._subtree)
        return sign_checkpoint(Checkpoint(origin=ORIGIN, size=size, root=root), [KEY])

    def exhibits(self, indexes: Sequence[int], size: int | None = None) -> list[Exhibit]:
        size = self.size if size is None else size
        return [Exhibit(at, self.lines[at], merkle.inclusion_proof(at, size, self._subtree)) for at in indexes]

    def indexes(self, restart: str) -> list[int]:
        """Return the leaves of a bundle: the decision before the range, then all to the settlement."""
        own = [at for at, event in enumerate(self.events) if event["data"].get("restart") == restart]
        queued = self.events[own[0]]
        last = max(at for at in own if self.events[at]["type"] != "LateResultRejected")
        if self.events[last]["type"] == "RestartCancelled":
            last = next(at for at in range(last, self.size) if self.events[at]["type"] == "WritesWaived")
        same = [at for at in range(last + 1) if self.events[at]["workspace"] == queued["workspace"]]
        first = queued["data"]["from_position"]
        before = [at for at in same if self.events[at]["position"] < first and self.events[at]["version"] is not None]
        return before[-1:] + [at for at in same if self.events[at]["position"] >= first]

    def bundle(self, restart: str) -> str:
        return write_bundle(ORIGIN, restart, self.note(), self.exhibits(self.indexes(restart)))


def sealed(store: CoreStore) -> Sealed:
    """Return the store's whole log, sealed."""
    return Sealed(log_lines(store).decode().splitlines())
