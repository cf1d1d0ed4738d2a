"""The other watchers, pinned: nodemon and watchfiles from their registries, entr from Debian, watchexec where it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers.installing import NODE, node_program
from bench.watchers import field as watchers
from bench.watchers.field import Watcher
from orchestrator import __version__

_NODEMON, _WATCHFILES = "3.1.14", "1.3.0"


@dataclass(kw_only=True)
class Field:
    """Who takes part. ``missing`` says of the others why they could not be had."""

    watchers: list[Watcher]
    missing: dict[str, str] = field(default_factory=dict)


def found(kept: Path, say: Callable[[str], None]) -> Field:
    """Return the product and those that are there or can be installed below ``kept``."""
    folder = kept.resolve() / "watchers"
    folder.mkdir(parents=True, exist_ok=True)
    here = Field(watchers=[watchers.up(__version__)])
    ways = {
        watchers.WATCHEXEC: _watchexec,
        watchers.NODEMON: _nodemon,
        watchers.ENTR: _entr,
        watchers.WATCHFILES: _watchfiles,
    }
    for name, way in ways.items():
        say(f"looking for {name}")
        try:
            here.watchers.append(way(folder))
        except (subprocess.CalledProcessError, OSError, NotHad) as error:
            said = getattr(error, "stderr", None) or b""
            here.missing[name] = said.decode(errors="replace").strip()[-200:] or str(error)
    return here


class NotHad(Exception):
    """The text says why there is no such program here."""


def _watchexec(folder: Path) -> Watcher:
    there = shutil.which("watchexec")
    if there is None:
        raise NotHad(
            "no watchexec on the PATH, and no registry has it: Debian and PyPI do not, npm's watchexec-bin fetches "
            "another host's file; its releases and crates.io are not asked"
        )
    return watchers.watchexec(Path(there), _version(there, "--version"))


def _nodemon(folder: Path) -> Watcher:
    environment, packages = folder / "venv", folder / "node"
    script = packages / "node_modules" / "nodemon" / "bin" / "nodemon.js"
    made = folder / "nodemon-made"
    if not _is(made, f"{NODE} {_NODEMON}"):
        _environment(environment)
        _run(str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", NODE)
        shutil.rmtree(packages, ignore_errors=True)
        packages.mkdir()
        (packages / "package.json").write_text("{}")
        quietly = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        _run(str(environment / "bin" / "npm"), "install", *quietly, f"nodemon@{_NODEMON}", at=packages)
        made.write_text(f"{NODE} {_NODEMON}")
    node = node_program(environment)
    return watchers.nodemon(node, script, f"{_NODEMON} on Node {_version(str(node), '--version')}")


def _entr(folder: Path) -> Watcher:
    """Return the one on the PATH, or Debian's package, unpacked and not installed."""
    there = shutil.which("entr") or str(folder / "entr" / "usr" / "bin" / "entr")
    if not Path(there).exists():
        if shutil.which("apt-get") is None:
            raise NotHad("no entr on the PATH, and no apt-get to have Debian's package from")
        _run("apt-get", "download", "entr", at=folder)
        _run("dpkg", "-x", str(next(folder.glob("entr_*.deb"))), str(folder / "entr"))
    said = subprocess.run([there], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return watchers.entr(Path(there), _first_version(said.stdout + said.stderr))


def _watchfiles(folder: Path) -> Watcher:
    environment = folder / "venv"
    made = folder / "watchfiles-made"
    if not _is(made, _WATCHFILES):
        _environment(environment)
        _run(str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", f"watchfiles=={_WATCHFILES}")
        made.write_text(_WATCHFILES)
    return watchers.watchfiles(environment / "bin" / "watchfiles", _WATCHFILES)


def _is(made: Path, wanted: str) -> bool:
    return made.exists() and made.read_text() == wanted


def _environment(environment: Path) -> None:
    if not (environment / "bin" / "python").exists():
        _run(sys.executable, "-m", "venv", str(environment))


def _run(*words: str, at: Path | None = None) -> None:
    own = Path(words[0]).parent  # npm's command starts `node`, which lies beside it
    path = f"{own}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    subprocess.run(words, cwd=at, env={**os.environ, "PATH": path}, capture_output=True, check=True)


def _version(*words: str) -> str:
    return _first_version(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def _first_version(said: str) -> str:
    return next(_versions(said), "of an unknown version")


def _versions(said: str) -> Iterator[str]:
    for one in re.finditer(r"\d+(?:\.\d+)+", said):
        yield one.group()
