"""Forgetting what was answered to idempotency keys long ago, in pieces."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from orchestrator.storage.sql.schema import idempotency_keys
from orchestrator.storage.sql.statements import Statements

AT_ONCE = 1_000
"""Measured on SQLite: 600,000 in one statement stopped all writes for 4.4 s, so that so many stop them for 7 ms."""

PAUSE_S = 0.01
"""Between two pieces: SQLite's lock is given to whoever asks first, and we would."""


def forget_some(sql: Statements, before: datetime) -> int:
    """Delete up to ``AT_ONCE`` answers that were remembered before that instant, oldest first; return how many."""
    keys = sa.tuple_(idempotency_keys.c.actor, idempotency_keys.c.key)
    old = sa.select(idempotency_keys.c.actor, idempotency_keys.c.key).where(idempotency_keys.c.remembered_at < before)
    oldest = old.order_by(idempotency_keys.c.remembered_at).limit(AT_ONCE)
    return sql.run(sa.delete(idempotency_keys).where(keys.in_(oldest))).rowcount
