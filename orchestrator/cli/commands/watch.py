"""``orchestrator watch``: the file writes under a folder, reported to a server as they happen."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from orchestrator.cli.client import Client, Refused, new_id
from orchestrator.cli.commands.act import post_writes, problem_text
from orchestrator.cli.commands.first_write import is_registered, near_names
from orchestrator.cli.terminal.options import DEFAULT_URL, Include, Json, Url
from orchestrator.cli.terminal.output import emit_line, fail, note, say
from orchestrator.domain.explain import counted
from orchestrator.domain.paths import escape_path
from orchestrator.errors import InvalidInput, NotFound, Unavailable
from orchestrator.settings import load_settings
from orchestrator.sources.explain import explain as explain_path
from orchestrator.sources.folder import watch_folder
from orchestrator.sources.kept_marks import KeptMarks, marks_file
from orchestrator.sources.links import as_named
from orchestrator.sources.tree import WatchedWrite


def watch(
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="The folder to watch.", show_default="the current one")
    ] = None,
    *,
    workspace: Annotated[str | None, typer.Option(help="The workspace that its files belong to.")] = None,
    include: Include = None,
    explain: Annotated[
        list[str] | None,
        typer.Option("--explain", metavar="PATH", help="Say whether PATH is watched and by which rule, and end."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where it is kept what has been delivered [ORCHESTRATOR_DATA]."),
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Report every write under a folder until Ctrl-C; a line for each batch.

    While the server does not answer the writes wait and are sent later; writes that it refuses are dropped. What was
    written while this command did not run, or could not be delivered, is reported at its next start; it exits with 1
    where a write was refused for good, and while something is undelivered.
    """
    folder = as_named(directory or Path())
    data = load_settings(data=data).data
    if explain:
        _explain(folder, explain, data, include or (), as_json=as_json)
        return
    if workspace is None:
        raise InvalidInput("watch needs --workspace ID: the workspace that the folder's files belong to")
    stop, ready = threading.Event(), threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with ExitStack() as stack:
        client = stack.enter_context(Client(url, retries=0))
        kept = _kept_marks(marks_file(data, url, workspace, os.path.abspath(folder)))
        if kept is not None:
            stack.enter_context(kept)
        sink = _Sink(client, workspace, as_json=as_json)
        announcer = threading.Thread(target=_announce, args=(ready, stop, folder, workspace, url), daemon=True)
        announcer.start()
        left = watch_folder(folder, sink, stop=stop, ready=ready, ignore=[data], include=include or (), kept=kept)
    if left:
        later = "; its next start reports them" if kept is not None else ""
        fail(f"{counted(left, 'write')} not delivered{later}")
    if sink.dropped:
        fail(f"{counted(sink.dropped, 'write')} of {folder} reached nobody: the server refused them for good")
    if left or sink.dropped:
        raise typer.Exit(1)


def _say_if_unknown(client: Client, workspace: str) -> None:
    """Say that the workspace is not there yet. A server that is away now is no reason not to watch."""
    try:
        if is_registered(client, workspace):
            return
        near = near_names(client, workspace)
    except Unavailable:
        return
    listed = f"; near that name: {', '.join(near)}" if near else ""
    note(
        f"{workspace} is not registered: where the server does not register workspaces by itself, `orchestrator "
        f"register {workspace} --executor E` first{listed}"
    )


def _kept_marks(file: Path) -> KeptMarks | None:
    try:
        return KeptMarks(file)
    except OSError as error:
        note(f"what has been delivered is not kept ({file}: {error.strerror}); name another folder with --data")
        return None


def _explain(folder: Path, paths: Sequence[str], data: Path, include: Sequence[str], *, as_json: bool) -> None:
    for path in paths:
        found = explain_path(folder, path, ignore=[data], include=include)
        if not as_json:
            say(found.sentence())
            continue
        rule = found.rule
        emit_line(
            {
                "path": escape_path(found.path)[0],
                "watched": found.watched,
                "rule": None if rule is None else {"source": rule.source, "line": rule.line, "text": rule.text},
                "matches": None if rule is None else escape_path(found.entry)[0],
                "leads_out": found.leads_out,
            }
        )


def _announce(ready: threading.Event, stop: threading.Event, directory: Path, workspace: str, url: str) -> None:
    while not stop.is_set():
        if ready.wait(0.1):
            note(f"watching {directory} for {workspace} at {url}; Ctrl-C ends")
            with Client(url, retries=0) as client:
                _say_if_unknown(client, workspace)
            return


class _Sink:
    """Posts batches. A write keeps its id for as long as it waits, so that a batch sent twice is stored once."""

    def __init__(self, client: Client, workspace: str, *, as_json: bool) -> None:
        self._client, self._workspace, self._as_json = client, workspace, as_json
        self.dropped = 0
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
            self.dropped += len(writes)
            fail(f"{counted(len(writes), 'write')} dropped: {error}")
        else:
            for refused in answer["rejected"]:
                fail(f"{writes[refused['index']].path} dropped: {problem_text(refused['problem'])}")
            self.dropped += len(answer["rejected"])
            refused_ones = {refused["index"] for refused in answer["rejected"]}
            self._report([write for index, write in enumerate(writes) if index not in refused_ones])
        self._ids.clear()

    def _id_of(self, write: WatchedWrite) -> str:
        # Keyed by the object, which is kept alive here: equal writes are different facts.
        return self._ids.setdefault(id(write), (write, new_id()))[1]

    def _report(self, writes: Sequence[WatchedWrite]) -> None:
        if not writes:
            return
        if self._as_json:
            paths = [write.path for write in writes]
            emit_line({"workspace": self._workspace, "accepted": len(writes), "paths": paths})
            return
        named = ", ".join(f"{write.path} ({write.op})" for write in writes[:3])
        more = f" and {len(writes) - 3} more" if len(writes) > 3 else ""
        say(f"{counted(len(writes), 'write')} sent: {named}{more}")
