"""One page out of several ranges of an index: each is read in its own order, and what was read is merged.

Asked for at once (``state IN (...) ORDER BY position``), a database reads all that there is of them and sorts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa


def merged(ranges: Sequence[sa.Select[Any]]) -> sa.Subquery:
    """Return the rows of all ranges; each has its own order and limit."""
    return sa.union_all(*map(wrapped, ranges)).subquery() if len(ranges) > 1 else ranges[0].subquery()


def wrapped(chosen: sa.Select[Any]) -> sa.Select[Any]:
    """Return it as a part of a UNION may be: SQLite takes neither order nor limit in one."""
    return sa.select(chosen.subquery())


def limit_of(wanted: int) -> sa.ColumnElement[int]:
    """Return a limit that is not below ``wanted``, written out for the reason that ``statements.ONE`` gives."""
    return sa.literal_column(str(rounded(wanted)), sa.Integer())


def rounded(wanted: int) -> int:
    """Return a limit that is not below ``wanted``: a power of two, so that few statements differ in it alone."""
    return 1 << (wanted - 1).bit_length()
