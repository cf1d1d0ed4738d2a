"""Folder and webhook: what lies there shows the chain by itself; what fails is made up for in order."""

from __future__ import annotations

import json
import shutil
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator.audit.verify.checkpoint import open_checkpoint
from orchestrator.audit.verify.merkle import is_consistent
from orchestrator.errors import SealRefused, SinkUnavailable
from orchestrator.ports.sealing import Sink, StoredCheckpoint
from orchestrator.ports.store import EventStore
from orchestrator.sealing.seal import seal_next
from orchestrator.sealing.sealer import Sealer
from orchestrator.sealing.sinks import FolderSink, WebhookSink
from orchestrator.storage.opening import open_store
from tests.audit.sealing import KEY, SIGNING, checkpoints, write

CHECKPOINT = StoredCheckpoint(
    tree_size=7,
    position=8,
    root="cm9vdA==",
    note="origin\n7\ncm9vdA==\n\n— origin c2lnbmVk\n",
    previous_size=3,
    consistency=("aGFzaA==", "b3RoZXI="),
    sealed_at=datetime(2026, 11, 24, 1, 2, 3, 4, tzinfo=UTC),
)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[EventStore]:
    made = open_store(sqlite_url)
    yield made
    made.close()


def sealing_to(store: EventStore, sink: Sink) -> Sealer:
    return Sealer(store, lambda: SIGNING, [sink])


def test_a_folder_holds_note_and_proof_by_size(tmp_path: Path) -> None:
    FolderSink(tmp_path / "new" / "folder").put(CHECKPOINT)
    note, proof = sorted((tmp_path / "new" / "folder").iterdir())
    assert (note.name, proof.name) == ("00000000000000000007.checkpoint", "00000000000000000007.consistency")
    assert note.read_text() == CHECKPOINT.note
    assert proof.read_text() == "old 3\naGFzaA==\nb3RoZXI=\n"


def test_a_folder_alone_shows_the_chain(store: EventStore, tmp_path: Path) -> None:
    sealer = sealing_to(store, FolderSink(tmp_path))
    for count in (3, 1, 300, 20):
        write(store, count)
        assert sealer.run().problems == []
    notes = sorted(tmp_path.glob("*.checkpoint"))
    heads = [open_checkpoint(note.read_bytes(), [KEY.public]) for note in notes]
    assert [head.size for head in heads] == [3, 4, 304, 324]
    for (before, after), note in zip(pairwise(heads), notes[1:], strict=True):
        old, *hashes = note.with_suffix(".consistency").read_text().splitlines()
        assert old == f"old {before.size}"
        proof = [b64decode(line) for line in hashes]
        assert is_consistent(before.size, after.size, before.root, after.root, proof)


def test_a_folder_takes_the_same_again_and_no_other_of_that_size(tmp_path: Path) -> None:
    folder = FolderSink(tmp_path)
    folder.put(CHECKPOINT)
    folder.put(CHECKPOINT)
    with pytest.raises(SealRefused, match="two different checkpoints of 7 events"):
        folder.put(replace(CHECKPOINT, note="another history\n"))
    assert (tmp_path / "00000000000000000007.checkpoint").read_text() == CHECKPOINT.note


def test_a_folder_remembers_how_far_the_log_was(store: EventStore, sqlite_template: Path, tmp_path: Path) -> None:
    """As after a backup was restored, or all that was sealed was deleted to have a forgery signed."""
    folder = FolderSink(tmp_path / "checkpoints")
    write(store, 10)
    assert sealing_to(store, folder).run().problems == []
    shutil.copy(sqlite_template, tmp_path / "shorter.db")
    shorter = open_store(f"sqlite:///{tmp_path / 'shorter.db'}")
    write(shorter, 4)
    [problem] = sealing_to(shorter, folder).run().problems
    shorter.close()
    assert "holds a checkpoint of 10 events, and the next one in the database follows that of 0" in problem


def test_a_folder_that_cannot_be_written_is_tried_again(store: EventStore, tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    place.write_text("a file in its place")
    sealer = sealing_to(store, FolderSink(place))
    for expected in (1, 2):
        write(store, 2)
        done = sealer.run()
        assert len(done.checkpoints) == 1
        [problem] = done.problems
        assert str(place) in problem
        with store.read() as reader:
            assert reader.seals.state().unexported == expected
    place.unlink()
    assert sealer.run().problems == []
    assert len(list(place.glob("*.checkpoint"))) == 2
    assert all(one.exported_at for one in checkpoints(store))


def test_a_folder_keeps_no_half_written_file(tmp_path: Path) -> None:
    (tmp_path / "00000000000000000007.consistency").mkdir()  # a rename onto a folder fails, after the file was written
    with pytest.raises(SinkUnavailable):
        FolderSink(tmp_path).put(CHECKPOINT)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


class Auditor(ThreadingHTTPServer):
    """An auditor's web server: keeps what it is sent, and answers as it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.status = 204
        self.received: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/checkpoints?token=secret"


class _Post(BaseHTTPRequestHandler):
    server: Auditor

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.status == 204:
            self.server.received.append(body)
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", self.server.url)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def listening(auditor: Auditor) -> Iterator[Auditor]:
    thread = threading.Thread(target=auditor.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield auditor
    finally:
        auditor.shutdown()
        auditor.server_close()
        thread.join(5)


def test_a_webhook_is_sent_the_note_and_the_proof() -> None:
    with listening(Auditor()) as auditor:
        WebhookSink(auditor.url).put(CHECKPOINT)
    assert auditor.received == [
        {
            "type": "checkpoint",
            "size": 7,
            "position": 8,
            "root": "cm9vdA==",
            "sealed_at": "2026-11-24T01:02:03.000004Z",
            "previous_size": 3,
            "consistency": ["aGFzaA==", "b3RoZXI="],
            "note": CHECKPOINT.note,
        }
    ]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_answers_anything_else_is_tried_again(store: EventStore, status: int) -> None:
    with listening(Auditor()) as auditor:
        auditor.status = status
        sealer = sealing_to(store, WebhookSink(auditor.url))
        for _ in range(2):
            write(store)
            assert sealer.run().problems == [f"checkpoint webhook http://127.0.0.1 answered {status}, not 2xx"]
        auditor.status = 204
        assert sealer.run().problems == []
    assert [body["size"] for body in auditor.received] == [1, 2]


def test_a_webhook_that_is_away_gets_everything_later_and_no_secret_is_told(store: EventStore) -> None:
    auditor = Auditor()
    auditor.server_close()
    sealer = sealing_to(store, WebhookSink(auditor.url))
    write(store, 3)
    [problem] = sealer.run().problems
    assert "does not answer" in problem
    assert "secret" not in problem


def test_a_webhook_that_never_answers_is_given_up() -> None:
    auditor = Auditor()  # listens, and nobody accepts
    with pytest.raises(SinkUnavailable, match="ReadTimeout"):
        WebhookSink(auditor.url, timeout_s=0.2).put(CHECKPOINT)
    auditor.server_close()


def test_a_sealer_of_another_process_sends_what_this_one_could_not(store: EventStore) -> None:
    with listening(Auditor()) as auditor:
        sealer = sealing_to(store, WebhookSink(auditor.url))
        write(store)
        assert seal_next(store, SIGNING) is not None  # committed, and killed before the export
        write(store)
        sealer.run()
    assert [body["size"] for body in auditor.received] == [1, 2]
