"""Which files are written most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.history.storms import check_workspace
from orchestrator.ports.inquiries import FILE_COUNTS, FileWrites, Scope, hottest_first
from orchestrator.ports.store import Reader

MOST_WRITES = 200_000
"""Writes that are counted one by one: the newest ones."""


@dataclass(frozen=True, kw_only=True)
class HotFiles:
    """Files by how often they were written, most first; of equals the one that was written last.

    ``complete`` False: only the newest writes were counted.
    """

    files: Sequence[FileWrites]
    complete: bool


def hot_files(reader: Reader, scope: Scope, limit: int) -> HotFiles:
    """Return the ``limit`` files written most, whatever became of the writes. Raises ``NotFound``.

    Without a span the kept counts (``history.file_counting``) answer, and the few writes that came after them are
    added, so that the answer is exact at every moment. In a span the writes themselves are counted, at most
    ``MOST_WRITES`` of them.
    """
    found = _hot_files(reader, scope, limit)
    if not found.files:
        check_workspace(reader, scope)
    return found


def _hot_files(reader: Reader, scope: Scope, limit: int) -> HotFiles:
    if scope.since is not None or scope.until is not None:
        found = reader.written(scope, most=MOST_WRITES)
        return HotFiles(files=found[:limit], complete=_writes(found) < MOST_WRITES)
    newer = reader.written(scope, after=reader.counters(FILE_COUNTS).position, most=MOST_WRITES)
    kept = {(file.workspace, file.path): file for file in reader.kept_files(scope, limit=limit)}
    # A file outside of the kept first ones can only come among them by newer writes.
    others = [(file.workspace, file.path) for file in newer if (file.workspace, file.path) not in kept]
    kept |= {(file.workspace, file.path): file for file in reader.kept_counts(others)}
    for file in newer:
        before = kept.get((file.workspace, file.path))
        kept[file.workspace, file.path] = replace(file, writes=file.writes + before.writes) if before else file
    return HotFiles(files=sorted(kept.values(), key=hottest_first)[:limit], complete=_writes(newer) < MOST_WRITES)


def _writes(files: Sequence[FileWrites]) -> int:
    return sum(file.writes for file in files)
