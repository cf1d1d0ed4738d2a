"""How often files were written: from the log's ranges, and from the counts that follow it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import sqlalchemy as sa

from orchestrator.ports.inquiries import FileWrites, Scope, hottest_first
from orchestrator.storage.sql.log_spans import of_fleet, recorded_between
from orchestrator.storage.sql.schema import IS_WRITE, events, file_counts, workspaces
from orchestrator.storage.sql.statements import Statements

_KEYS_AT_ONCE = 1_000
_KEPT = [file_counts.c[name] for name in FileWrites.__dataclass_fields__]


def written(
    sql: Statements, scope: Scope, *, after: int, to_position: int | None, most: int, limit: int | None
) -> list[FileWrites]:
    """Return the files written after position ``after``, most writes first; the newest ``most`` writes count."""
    inside = of_fleet(sa.select(events.c.workspace, events.c.subject, events.c.position), scope)
    inside = inside.where(events.c.position > after, *recorded_between(scope.since, scope.until))
    inside = inside.where(IS_WRITE)
    if to_position is not None:
        inside = inside.where(events.c.position <= to_position)
    if scope.workspace is not None:
        inside = inside.where(events.c.workspace == scope.workspace)
    each = inside.order_by(events.c.position.desc()).limit(most).subquery().c
    writes = sa.func.count().label("writes")
    counted = sa.select(each.workspace, each.subject, writes, sa.func.max(each.position).label("last_position"))
    found = counted.group_by(each.workspace, each.subject)
    if limit is not None:
        found = found.order_by(writes.desc(), sa.desc("last_position")).limit(limit)
    files = [
        FileWrites(workspace=row.workspace, path=row.subject, writes=row.writes, last_position=row.last_position)
        for row in sql.run(found)
    ]
    return sorted(files, key=hottest_first)


def kept_files(sql: Statements, scope: Scope, limit: int) -> list[FileWrites]:
    """Return the files with the most writes as they are kept, most first."""
    kept = sa.select(*_KEPT)
    if scope.workspace is not None:
        kept = kept.where(file_counts.c.workspace == scope.workspace)
    if scope.fleet is not None:
        members = sa.select(workspaces.c.id).where(workspaces.c.fleet == scope.fleet)
        kept = kept.where(file_counts.c.workspace.in_(members))
    most_first = kept.order_by(file_counts.c.writes.desc(), file_counts.c.last_position.desc()).limit(limit)
    return _files(sql, most_first)


def kept_counts(sql: Statements, files: Collection[tuple[str, str]]) -> list[FileWrites]:
    """Return what is kept of these files, given as (workspace, path)."""
    found: list[FileWrites] = []
    for workspace in sorted({workspace for workspace, _ in files}):
        digests = sorted(path_digest(path) for of, path in files if of == workspace)
        for start in range(0, len(digests), _KEYS_AT_ONCE):
            some = file_counts.c.path_digest.in_(digests[start : start + _KEYS_AT_ONCE])
            found += _files(sql, sa.select(*_KEPT).where(file_counts.c.workspace == workspace, some))
    return found


def add_counts(sql: Statements, files: Sequence[FileWrites]) -> None:
    """Add newer writes to what is kept."""
    if not files:
        return
    new = sql.insert(file_counts)
    writes = file_counts.c.writes + new.excluded.writes
    changed = {"writes": writes, "last_position": new.excluded.last_position}
    sql.run(
        new.on_conflict_do_update(index_elements=["workspace", "path_digest"], set_=changed),
        [
            {
                "workspace": file.workspace,
                "path_digest": path_digest(file.path),
                "path": file.path,
                "writes": file.writes,
                "last_position": file.last_position,
            }
            for file in sorted(files, key=lambda file: (file.workspace, file.path))
        ],
    )


def path_digest(path: str) -> str:
    """Return what stands for a path in a key: a path may be longer than an entry of an index."""
    return hashlib.sha256(path.encode()).hexdigest()


def _files(sql: Statements, chosen: sa.Select[*tuple[object, ...]]) -> list[FileWrites]:
    return [
        FileWrites(workspace=row.workspace, path=row.path, writes=row.writes, last_position=row.last_position)
        for row in sql.run(chosen)
    ]
