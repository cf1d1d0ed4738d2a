"""Writes on their way to a sink that may be away for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from orchestrator.domain.events import Operation
from orchestrator.errors import OrchestratorError
from orchestrator.sources.tree import WatchedWrite

_log = structlog.get_logger(__name__)

Sink = Callable[[Sequence[WatchedWrite]], None]
"""Takes some writes, all or none; raising means: none of them, offer them again."""

ALL_CHANGED = "."
"""The path of the one write that stands for more than can be kept: assume that everything has changed."""

_SINK_BATCH = 1_000
_MAX_WAITING = 10_000
_MAX_WAITING_PATHS = 100_000
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 5.0


class Outbox:
    """Keeps writes until a sink has taken them: none is lost, and memory stays bounded."""

    def __init__(self, sink: Sink, delivered: Callable[[Sequence[WatchedWrite]], None] | None = None) -> None:
        """``delivered`` is told what the sink has taken."""
        self.waiting: list[WatchedWrite] = []
        self._sink, self._delivered = sink, delivered
        self._failures = 0
        self._retry_at_s = 0.0

    def retry_in_s(self) -> float | None:
        """Return the seconds until the next offer, or None while nothing waits."""
        return max(0.0, self._retry_at_s - time.monotonic()) if self.waiting else None

    def add(self, writes: Sequence[WatchedWrite]) -> None:
        """Queue writes behind those that wait; too many are folded by path."""
        self.waiting += writes
        if len(self.waiting) > _MAX_WAITING:
            self.waiting = list({write.path: write for write in self.waiting}.values())
        if len(self.waiting) > _MAX_WAITING_PATHS:
            self.waiting = [WatchedWrite(ALL_CHANGED, Operation.MODIFIED)]

    def send(self) -> None:
        """Offer what waits, unless a failure is too recent."""
        while self.waiting and time.monotonic() >= self._retry_at_s:
            batch = self.waiting[:_SINK_BATCH]
            try:
                self._sink(batch)
            except Exception as error:  # noqa: BLE001 (whatever ails the sink, the writes must outlive it)
                self._failed(error)
            else:
                del self.waiting[:_SINK_BATCH]
                self._failures = 0
                if self._delivered is not None:
                    self._delivered(batch)

    def _failed(self, error: Exception) -> None:
        delay_s = min(_RETRY_MAX_S, _RETRY_FIRST_S * 2 ** min(self._failures, 10))
        self._failures += 1
        self._retry_at_s = time.monotonic() + delay_s
        said = str(error) if isinstance(error, OrchestratorError) else repr(error)
        _log.warning("watch_sink_failed", error=said, waiting=len(self.waiting), retry_in_s=delay_s)
