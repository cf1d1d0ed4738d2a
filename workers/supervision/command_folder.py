"""The folder in which one worker's running commands are on record, and those that dead workers of this host left.

Each parent of a worker has one of its own under a common folder (0700), and locks it as long as it or its child lives.
A folder that nobody locks is a dead one's, killed together with its parent: whoever starts next ends its commands.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import structlog

from orchestrator.errors import InvalidInput, PermanentError
from orchestrator.private_files import private_folder
from workers.supervision.record import end_commands

_LOCK = "lock"
_log = structlog.get_logger(__name__)


def common_folder() -> Path:
    """Return where the folders of this user's workers are, unless a setting says otherwise."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"orchestrator-workers-{os.getuid()}"


class CommandFolder:
    """A worker's own folder, locked until this process and its forks have closed it."""

    def __init__(self, common: Path) -> None:
        """Make it. Raises ``InvalidInput`` if ``common`` cannot be used or is another user's."""
        try:
            private_folder(common, named_by="ORCHESTRATOR_COMMANDS_DIR")
            self.path = Path(tempfile.mkdtemp(prefix="worker-", dir=common))
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise InvalidInput(f"ORCHESTRATOR_COMMANDS_DIR: cannot use {common}: {error.strerror}") from None
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def end_left_ones(self) -> None:
        """End the commands of workers that died together with their parents, and remove their folders."""
        for folder in self.path.parent.glob("worker-*"):
            if folder != self.path:
                _end_left(folder)

    def end_commands(self) -> None:
        """End what is on record here. Raises ``PermanentError`` if something cannot be ended."""
        end_commands(self.path)

    def remove(self) -> None:
        """Remove it, at the end of its owner."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _end_left(folder: Path) -> None:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        return  # one that is being made, or removed
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        end_commands(folder)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return  # its owner lives
    except PermissionError as error:
        _log.error("commands_left", folder=str(folder), error=str(error))
    except PermanentError as error:
        _log.error("commands_left", folder=str(folder), error=str(error))
    finally:
        os.close(lock)
