"""The statements that this process sends to its databases, for tests that count them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.statements import heard


@contextmanager
def statements() -> Iterator[list[str]]:
    """Give the statements that any engine sends inside the block."""
    sent: list[str] = []
    with heard(lambda _, statement, __: sent.append(statement)):
        yield sent
