"""A PostgreSQL connection that gives up on a server that has stopped answering.

``statement_timeout`` is kept by the server, so a frozen one keeps nobody's. TCP helps as little: the kernel of a
host whose processes stand still goes on acknowledging. Without this a caller waits for ever (measured with SIGSTOP).
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

ResultT = TypeVar("ResultT")
AnyGenerator = Generator[Any, Any, ResultT]


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed when an answer takes longer than ``answer_within_s``."""

    answer_within_s: float = 35.0
    """Above ``statement_timeout``: a server that is alive says itself that a statement took too long."""

    def wait(self, gen: AnyGenerator[ResultT], interval: float = 0.1, timeout: float | None = None) -> ResultT:
        """Run ``gen`` to its end. Raises ``psycopg.OperationalError`` when the server stays silent too long."""
        try:
            return super().wait(_bounded(gen, self.answer_within_s), interval, timeout)
        except TimeoutError as error:
            self.pgconn.finish()  # the answer may still come: nobody may read it as that of another question
            raise psycopg.OperationalError(str(error)) from None


def _bounded(gen: AnyGenerator[ResultT], within_s: float) -> AnyGenerator[ResultT]:
    """Pass everything through, and raise ``TimeoutError`` where nothing was ready past the deadline."""
    deadline = time.monotonic() + within_s
    try:
        waits_for = next(gen)
        while True:
            ready = yield waits_for
            if not ready and time.monotonic() > deadline:
                raise TimeoutError(f"the server has not answered for {within_s:g} s")
            waits_for = gen.send(ready)
    except StopIteration as ended:
        result: ResultT = ended.value
        return result
