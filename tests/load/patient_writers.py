"""Many clients that write without a rest, and send each write again under its own id until it is acknowledged."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_PATIENCE_S = 15.0
_AGAIN_AFTER_S = 0.1
_JSON = {"content-type": "application/json"}


@dataclass
class PatientWriters:
    """What became of their writes. ``acknowledged``: the answer by the writer's own id.

    ``lost``: tries without an answer; ``refused``: 503s; ``failed``: what no writer should ever be told.
    """

    source: str
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict)
    lost: int = 0
    refused: int = 0
    failed: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def at_work(self, url: str, workspaces: Sequence[str], *, writers: int = 16) -> Iterator[PatientWriters]:
        """Write until the block ends; return when the last write of each is acknowledged."""
        over = threading.Event()
        threads = [
            threading.Thread(target=self._write_on, args=(url, workspaces, f"{self.source}-{number}", over))
            for number in range(writers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            over.set()
            for thread in threads:
                thread.join(60)

    def _write_on(self, url: str, workspaces: Sequence[str], name: str, over: threading.Event) -> None:
        where = urlsplit(url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=_PATIENCE_S)
        number = 0
        while not over.is_set() and not self.failed:
            number += 1
            workspace = workspaces[number % len(workspaces)]
            body = {"path": f"src/{number}.py", "id": f"{name}-{number}", "source": self.source}
            while not self._is_acknowledged(connection, workspace, body):
                threading.Event().wait(_AGAIN_AFTER_S)
        connection.close()

    def _is_acknowledged(self, connection: http.client.HTTPConnection, workspace: str, body: dict[str, str]) -> bool:
        """Try once; True ends it, also where the answer is one that should never come."""
        try:
            connection.request("POST", f"/v1/workspaces/{workspace}/writes", json.dumps(body), _JSON)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            with self._lock:
                self.lost += 1
            return False
        with self._lock:
            if answer.status == 202:
                self.acknowledged[body["id"]] = json.loads(content)
            elif answer.status == 503 and answer.headers["retry-after"]:
                self.refused += 1
                return False
            else:
                self.failed.append(f"{answer.status} {content[:400].decode(errors='replace')}")
        return True
