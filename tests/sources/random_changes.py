"""Random changes in a watched folder, and a second look at the tree that says what the watcher missed."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from pathlib import Path

from orchestrator.sources.folder import FolderWatcher
from orchestrator.sources.ignores import Ignores
from orchestrator.sources.tree import look

NAMES = ("a", "b", "c.py", "d.log", "build", "e")
RULES = ("", "*.log\n", "build/\n", "*\n!*/\n!*.py\n!flush\n")
_PATIENCE_S = 10.0


class RandomChanges:
    """Changes files of a folder of its own. ``missed`` are paths whose content changed without a word."""

    def __init__(self, chance: random.Random, place: Path) -> None:
        self.missed: list[str] = []
        self.differences: list[str] = []
        self._chance, self._root, self._outside = chance, place / "watched", place / "outside"
        for folder in (self._root, self._outside):
            folder.mkdir()
        self._count = 0
        self._watcher = FolderWatcher(self._root)
        self._stop = threading.Event()
        self._before = self._contents()

    def close(self) -> None:
        self._watcher.close()

    def run(self, count: int) -> None:
        """Do so many changes, wait until they are seen, and compare."""
        rules_changed = False
        for _ in range(count):
            rules_changed = self._change() or rules_changed
        told = self._told()
        now = self._contents()
        written = {path for path in self._before | now if self._before.get(path) != now.get(path)}
        ignores = Ignores(frozenset(), rules={})
        seen = look(str(self._root), ignores)
        if not rules_changed:  # what was hidden for a moment is nobody's write
            self.missed += sorted(path for path in written - told if not seen.ignores.ignored(path))
        ours = {path: mark[:3] for path, mark in self._watcher.files.items()}
        if ours != {path: mark[:3] for path, mark in seen.files.items()}:
            self.differences.append(f"after {self._count} changes")
        self._before = now

    def _told(self) -> set[str]:
        told: set[str] = set()
        (self._root / "flush").write_text(str(self._count))
        until_s = time.monotonic() + _PATIENCE_S
        while "flush" not in told and time.monotonic() < until_s:
            told |= {write.path for write in self._watcher.take(self._stop, timeout_s=0.2)}
        assert "flush" in told
        return told | {write.path for write in self._watcher.take(self._stop, timeout_s=0.05)}

    def _contents(self) -> dict[str, bytes]:
        found = {}
        for folder, _, files in os.walk(self._root):
            for name in files:
                path = Path(folder, name)
                found[str(path.relative_to(self._root))] = path.read_bytes()
        return found

    def _any(self, *, folder: bool) -> Path:
        listed = [
            Path(at, name) for at, folders, files in os.walk(self._root) for name in (folders if folder else files)
        ]
        return self._chance.choice(listed) if listed else self._root

    def _change(self) -> bool:
        """Change something; return whether a rules file was touched."""
        self._count += 1
        file, folder = self._any(folder=False), self._any(folder=True)
        name, text = self._chance.choice(NAMES), str(self._count)
        kind = self._chance.choice(list(_KINDS))
        if kind == "rules":
            (self._root / ".gitignore").write_text(self._chance.choice(RULES))
            return True
        try:
            _KINDS[kind](self, file, folder, name, text)
        except OSError:
            pass  # a folder in the way, a file that is none: as good a change as another
        return file.name == ".gitignore"

    def _write(self, file: Path, folder: Path, name: str, text: str) -> None:
        (folder / name).write_text(text)

    def _write_again(self, file: Path, folder: Path, name: str, text: str) -> None:
        file.write_text("x" * self._chance.randint(0, 3) + text)

    def _remove(self, file: Path, folder: Path, name: str, text: str) -> None:
        file.unlink()

    def _rename(self, file: Path, folder: Path, name: str, text: str) -> None:
        file.rename(folder / name)

    def _deep(self, file: Path, folder: Path, name: str, text: str) -> None:
        deep = folder.joinpath(*(self._chance.choice(NAMES) for _ in range(self._chance.randint(1, 3))))
        deep.mkdir(parents=True, exist_ok=True)
        (deep / name).write_text(text)

    def _remove_folder(self, file: Path, folder: Path, name: str, text: str) -> None:
        if folder != self._root:
            shutil.rmtree(folder)

    def _move_folder(self, file: Path, folder: Path, name: str, text: str) -> None:
        if folder != self._root:
            folder.rename(self._any(folder=True) / name)

    def _out_and_in(self, file: Path, folder: Path, name: str, text: str) -> None:
        if folder != self._root:
            outside = self._outside / text
            folder.rename(outside)
            (outside / "inside").write_text(text)
            outside.rename(self._root / name)

    def _link(self, file: Path, folder: Path, name: str, text: str) -> None:
        os.link(file, self._root / f"link{self._count % 5}")

    def _attribute(self, file: Path, folder: Path, name: str, text: str) -> None:
        file.chmod(self._chance.choice([0o600, 0o644]))

    def _same_size_and_time(self, file: Path, folder: Path, name: str, text: str) -> None:
        before = file.stat()
        file.write_bytes(text.encode()[-before.st_size :].rjust(before.st_size, b"0") if before.st_size else b"")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _replace(self, file: Path, folder: Path, name: str, text: str) -> None:
        temporary = file.with_name(f"{file.name}.tmp")
        temporary.write_text(text)
        temporary.replace(file)


_KINDS = {
    "write": RandomChanges._write,
    "write again": RandomChanges._write_again,
    "remove": RandomChanges._remove,
    "rename": RandomChanges._rename,
    "deep": RandomChanges._deep,
    "remove folder": RandomChanges._remove_folder,
    "move folder": RandomChanges._move_folder,
    "out and in": RandomChanges._out_and_in,
    "link": RandomChanges._link,
    "attribute": RandomChanges._attribute,
    "same size and time": RandomChanges._same_size_and_time,
    "replace": RandomChanges._replace,
    "rules": RandomChanges._write,
}
