"""A watch that runs, for tests: real files, and all that it has reported."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from orchestrator.sources.folder import WatchedWrite, watch_folder
from orchestrator.sources.kept_marks import KeptMarks
from tests.waiting import wait_until

DEADLINE_S = 10.0


class Watch:
    """A running watch and everything it has reported."""

    def __init__(
        self,
        folder: Path,
        sink: Callable[[Sequence[WatchedWrite]], None],
        ignore: Sequence[Path],
        include: Sequence[str],
        kept: Path | None,
    ) -> None:
        self.folder = folder
        self.stop = threading.Event()
        self.ready = threading.Event()
        self.writes: list[WatchedWrite] = []
        self.undelivered: int | None = None
        self._sink = sink
        self.thread = threading.Thread(target=self._run, args=(ignore, include, kept))

    def paths(self) -> set[str]:
        return {write.path for write in self.writes}

    def last_op(self, path: str) -> str | None:
        return next((write.op for write in reversed(self.writes) if write.path == path), None)

    def flushed(self) -> list[WatchedWrite]:
        """Return all that was reported before a last file, written now: so silence is no matter of patience."""
        count = sum(write.path.startswith("flush-") for write in self.writes)
        name = f"flush-{count}"
        (self.folder / name).write_text("x")
        wait_until(lambda: name in self.paths(), timeout_s=DEADLINE_S, what=f"{name} among {self.writes}")
        return [write for write in self.writes if not write.path.startswith("flush-")]

    def _run(self, ignore: Sequence[Path], include: Sequence[str], kept: Path | None) -> None:
        with KeptMarks(kept) if kept else nullcontext() as marks:
            self.undelivered = watch_folder(
                self.folder,
                self._receive,
                stop=self.stop,
                ready=self.ready,
                ignore=ignore,
                include=include,
                kept=marks,
            )

    def _receive(self, writes: Sequence[WatchedWrite]) -> None:
        self._sink(writes)
        self.writes.extend(writes)


@contextmanager
def watching(
    folder: Path,
    *,
    ignore: Sequence[Path] = (),
    include: Sequence[str] = (),
    kept: Path | None = None,
    sink: Callable[[Sequence[WatchedWrite]], None] = lambda writes: None,
) -> Iterator[Watch]:
    watch = Watch(folder, sink, ignore, include, kept)
    watch.thread.start()
    try:
        assert watch.ready.wait(DEADLINE_S)
        yield watch
    finally:
        watch.stop.set()
        watch.thread.join(DEADLINE_S)
    assert not watch.thread.is_alive()
