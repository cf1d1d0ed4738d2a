"""Paths of writes are data: none is ever opened, listed, joined or expanded by what stores and shows them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Api

MARK = "canary-of-a-path"


class Opened:
    """What this process opened, listed or looked for while it is watched; a hook can't be taken back."""

    def __init__(self) -> None:
        self.watching = False
        self.names: list[str] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and event.startswith(("open", "os.", "glob.", "shutil.", "pathlib.", "subprocess.")):
            self.names += [repr(argument) for argument in arguments if MARK in repr(argument)]


OPENED = Opened()


@pytest.fixture
def opened() -> Iterator[list[str]]:
    OPENED.names.clear()
    OPENED.watching = True
    yield OPENED.names
    OPENED.watching = False


def test_no_path_of_a_write_is_touched(api: Api, opened: list[str], tmp_path: Path) -> None:
    real = tmp_path / f"{MARK}.txt"
    pipe = tmp_path / f"{MARK}.pipe"
    os.mkfifo(pipe)
    paths = [
        str(real),
        str(pipe),
        f"../../../../{real}",
        f"~/{MARK}",
        f"$HOME/{MARK}",
        f"file://{real}",
        f"{MARK}/*",
        f"{MARK}\n",
        f"{MARK}\x00/etc/passwd",
        f"|touch {real}",
        f"{'x' * 3_000}/{MARK}",
    ]
    opened.clear()
    for number, path in enumerate(paths):
        write = {"path": path, "id": f"{number}"}
        assert api.http.post("/v1/workspaces/ws/writes", json=write).status_code == 202, path
    api.restart_all()
    for shown in (
        "/v1/events",
        "/v1/restarts",
        "/v1/audit/hot-files",
        "/v1/audit/export",
        "/v1/audit/export?format=csv",
    ):
        assert MARK in api.http.get(shown).text or shown == "/v1/restarts"
    assert opened == []
    assert not real.exists()


def test_a_path_that_is_opened_would_be_seen(opened: list[str], tmp_path: Path) -> None:
    (tmp_path / MARK).touch()
    assert len(opened) >= 1
