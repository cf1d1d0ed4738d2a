"""``orchestrator watch``: the file writes under a folder, reported to a server as they happen."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from orchestrator.cli.client import Client, Refused, new_id
from orchestrator.cli.commands.act import post_writes, problem_text
from orchestrator.cli.terminal.options import DEFAULT_URL, Json, Url
from orchestrator.cli.terminal.output import emit_line, fail, note, say
from orchestrator.domain.explain import counted
from orchestrator.errors import NotFound
from orchestrator.sources.folder import watch_folder
from orchestrator.sources.tree import WatchedWrite


def watch(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to watch.")],
    *,
    workspace: Annotated[str, typer.Option(help="The workspace that its files belong to.")],
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Report every write under a folder until Ctrl-C; a line for each batch.

    While the server does not answer the writes wait and are sent later; writes that it refuses are dropped.
    """
    stop, ready = threading.Event(), threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with Client(url, retries=0) as client:
        sink = _Sink(client, workspace, as_json=as_json)
        announcer = threading.Thread(target=_announce, args=(ready, stop, directory, workspace, url), daemon=True)
        announcer.start()
        watch_folder(directory, sink, stop=stop, ready=ready)


def _announce(ready: threading.Event, stop: threading.Event, directory: Path, workspace: str, url: str) -> None:
    while not stop.is_set():
        if ready.wait(0.1):
            note(f"watching {directory} for {workspace} at {url}; Ctrl-C ends")
            return


class _Sink:
    """Posts batches. A write keeps its id for as long as it waits, so that a batch sent twice is stored once."""

    def __init__(self, client: Client, workspace: str, *, as_json: bool) -> None:
        self._client, self._workspace, self._as_json = client, workspace, as_json
        self._ids: dict[int, tuple[WatchedWrite, str]] = {}

    def __call__(self, writes: Sequence[WatchedWrite]) -> None:
        """Post; raise if the server may take the same writes later."""
        bodies = [
            {"workspace": self._workspace, "path": write.path, "op": str(write.op), "id": self._id_of(write)}
            for write in writes
        ]
        try:
            answer = post_writes(self._client, bodies)
        except (Refused, NotFound) as error:
            fail(f"{counted(len(writes), 'write')} dropped: {error}")
        else:
            for refused in answer["rejected"]:
                fail(f"{writes[refused['index']].path} dropped: {problem_text(refused['problem'])}")
            self._report(answer["accepted"], writes)
        self._ids.clear()

    def _id_of(self, write: WatchedWrite) -> str:
        # Keyed by the object, which is kept alive here: equal writes are different facts.
        return self._ids.setdefault(id(write), (write, new_id()))[1]

    def _report(self, accepted: int, writes: Sequence[WatchedWrite]) -> None:
        if self._as_json:
            emit_line({"workspace": self._workspace, "accepted": accepted, "paths": [write.path for write in writes]})
            return
        named = ", ".join(f"{write.path} ({write.op})" for write in writes[:3])
        more = f" and {len(writes) - 3} more" if len(writes) > 3 else ""
        say(f"{counted(accepted, 'write')} sent: {named}{more}")
