"""Where checkpoints go: a folder and a webhook, each in a place that the database's owner should not reach."""

from __future__ import annotations

import os
import re
from pathlib import Path

import httpx2

from orchestrator.errors import SealRefused, SinkUnavailable
from orchestrator.history.views import checkpoint_view
from orchestrator.ports.sealing import StoredCheckpoint
from orchestrator.replace_file import replace_file

WEBHOOK_TIMEOUT_S = 5.0
"""For a connection, and for each wait for the answer."""

_FOR_AUDITORS = 0o644
"""Checkpoints hold sizes and hashes, and are there to be read by others; the folder's own mode bounds who."""
_NAME = re.compile(r"([0-9]{20})\.checkpoint")


class FolderSink:
    """Two files for each checkpoint, named by tree size so that names sort as time does.

    ``SIZE.checkpoint`` is the signed note, ``SIZE.consistency`` the proof that the checkpoint before is its beginning:
    ``old SIZE`` and the hashes in base64, a line each, as C2SP tlog-witness sends it. The folder is a memory of its
    own: a checkpoint that does not go on from what lies there is refused, whatever the database says.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"checkpoint folder {folder}"
        self._folder = folder
        self._largest = -1  # of those that this process has put there, so that a large folder is seldom read

    def put(self, checkpoint: StoredCheckpoint) -> None:
        """Write both files, the note last. Raises ``SinkUnavailable``, and ``SealRefused`` for a second history."""
        stem = f"{checkpoint.tree_size:020}"
        note = self._folder / f"{stem}.checkpoint"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if note.exists():
                self._require_same(note, checkpoint)
                return
            self._require_next(checkpoint)
            proof = consistency_text(checkpoint).encode()
            replace_file(self._folder / f"{stem}.consistency", proof, mode=_FOR_AUDITORS)
            replace_file(note, checkpoint.note.encode(), mode=_FOR_AUDITORS)
            self._largest = checkpoint.tree_size
        except OSError as error:
            raise SinkUnavailable(
                f"{self.name} takes no file: {error.strerror or os.strerror(error.errno or 0)}"
            ) from None

    def _require_same(self, note: Path, checkpoint: StoredCheckpoint) -> None:
        if note.read_bytes() != checkpoint.note.encode():
            raise SealRefused(
                f"{note} and the database hold two different checkpoints of {checkpoint.tree_size} events: verify the"
                " log against the file"
            )

    def _require_next(self, checkpoint: StoredCheckpoint) -> None:
        if self._largest == checkpoint.previous_size:
            return
        names = (_NAME.fullmatch(entry.name) for entry in os.scandir(self._folder))
        largest = max((int(name[1]) for name in names if name is not None), default=0)
        if largest > checkpoint.previous_size:
            raise SealRefused(
                f"{self.name} holds a checkpoint of {largest} events, and the next one in the database follows that of"
                f" {checkpoint.previous_size}: the database was cut, restored or altered; verify it against the file"
            )


class WebhookSink:
    """A POST of JSON for each checkpoint. Any 2xx means it was taken; redirects are not followed."""

    def __init__(self, url: str, *, timeout_s: float = WEBHOOK_TIMEOUT_S) -> None:
        parsed = httpx2.URL(url)
        self.name = f"checkpoint webhook {parsed.scheme}://{parsed.host}"  # a path or a query may hold a token
        self._url, self._timeout_s = url, timeout_s

    def put(self, checkpoint: StoredCheckpoint) -> None:
        """Send the checkpoint. Raises ``SinkUnavailable``."""
        try:
            with (
                httpx2.Client(timeout=self._timeout_s, follow_redirects=False, trust_env=False) as client,
                client.stream("POST", self._url, json=webhook_body(checkpoint)) as response,
            ):
                code = response.status_code  # the body is nobody's business, and may be endless
        except httpx2.HTTPError as error:
            raise SinkUnavailable(f"{self.name} does not answer: {type(error).__name__}: {error}") from None
        if not 200 <= code <= 299:
            raise SinkUnavailable(f"{self.name} answered {code}, not 2xx")


def consistency_text(checkpoint: StoredCheckpoint) -> str:
    """Return the proof as C2SP tlog-witness spells it."""
    return "".join(f"{line}\n" for line in (f"old {checkpoint.previous_size}", *checkpoint.consistency))


def webhook_body(checkpoint: StoredCheckpoint) -> dict[str, object]:
    """Return what the webhook is sent: the note vouches for itself, the rest makes it easy to keep."""
    view = checkpoint_view(checkpoint)
    del view["exported_at"]
    return {"type": "checkpoint", **view}
