"""The row of ``verifications`` in a SQL database."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from orchestrator.domain.encoding import canonical_json
from orchestrator.ports.verification import VERIFIED_LOG, StoredVerification, Verified
from orchestrator.storage.sql.schema import verifications
from orchestrator.storage.sql.statements import Statements

_MINE = verifications.c.name == VERIFIED_LOG


_SUMMARY = (
    verifications.c.position,
    verifications.c.violations,
    verifications.c.imbalance,
    verifications.c.verified_at,
)


def read_verified(sql: Statements) -> Verified | None:
    """Return how far the log was verified, without the state."""
    row = sql.run(sa.select(*_SUMMARY).where(_MINE)).one_or_none()
    if row is None:
        return None
    return Verified(
        position=row.position,
        violations=msgspec.json.decode(row.violations, type=dict[str, int]),
        imbalance=row.imbalance,
        verified_at=row.verified_at,
    )


def read_verification(sql: Statements) -> StoredVerification | None:
    """Return where the next run goes on; None if the log was never verified."""
    row = sql.run(sa.select(verifications).where(_MINE)).one_or_none()
    if row is None:
        return None
    return StoredVerification(
        position=row.position,
        state=row.state,
        violations=msgspec.json.decode(row.violations, type=dict[str, int]),
        imbalance=row.imbalance,
        verified_at=row.verified_at,
    )


def save_verification(sql: Statements, found: StoredVerification, expected_position: int | None) -> bool:
    """Keep it if the kept one still is at ``expected_position`` (None: there is none); return whether it was."""
    values = {
        "position": found.position,
        "state": found.state,
        "violations": canonical_json(found.violations),
        "imbalance": found.imbalance,
        "verified_at": found.verified_at,
    }
    if expected_position is None:
        first = sql.insert(verifications).values(name=VERIFIED_LOG, **values).on_conflict_do_nothing()
        return sql.run(first.returning(verifications.c.name)).first() is not None
    as_expected = _MINE & (verifications.c.position == expected_position)
    return sql.run(sa.update(verifications).where(as_expected).values(**values)).rowcount == 1
