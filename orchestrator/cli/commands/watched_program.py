"""The workspace of ``up --watch DIR -- COMMAND``: whose it is, what is kept of its target, and its first start."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.bootstrap import Services, pool_of_up
from orchestrator.domain.events import WorkspaceChanged, WorkspaceRegistered
from orchestrator.domain.policy import DEFAULT_FLEET, PolicyPatch
from orchestrator.domain.state import SUPERVISED, Registration
from orchestrator.errors import InvalidInput, InvalidTarget
from orchestrator.ports.executor import Order
from orchestrator.ports.store import EventFilter
from orchestrator.service.append import Author
from orchestrator.service.operate import refuse_secrets
from orchestrator.sources.folder import workspace_name
from orchestrator.sources.links import as_named
from workers.executors.process import ProcessExecutor

DIRECTORY_LABEL = "directory"
"""The label that says which folder a supervised workspace watches: for people to see, for nobody else to read."""

_FIRST_START_S = 30.0
_REGISTERED = (WorkspaceRegistered.type_name(), WorkspaceChanged.type_name())
_FROM_THE_OPTIONS = {"ready": "--ready", "grace": "--grace", "env": "--env", "stop_signal": "--stop-signal"}


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What ``--watch DIR [--workspace ID] -- COMMAND`` names. ``workspace`` None: DIR's base name.

    ``include``: gitignore patterns of files that are watched though a rule ignores them.
    ``options``: the fields of the target that were given; what was not is kept as the workspace has it.
    """

    directory: Path
    command: Sequence[str]
    workspace: str | None = None
    include: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class WatchedProgram:
    """The workspace of what is watched, registered, or gone on with as it was left."""

    def __init__(self, services: Services, watched: Watched) -> None:
        """Register it. Raises ``InvalidInput`` for an option that cannot be."""
        self._services, self._watched = services, watched
        self._pool = pool_of_up(services.settings.data, watched.directory)
        executor = services.executors[SUPERVISED]
        if not isinstance(executor, ProcessExecutor):
            raise InvalidInput("this process supervises nothing", field="watch")
        self._executor = executor
        self.workspace = watched.workspace or workspace_name(watched.directory, self._belongs_elsewhere)
        self.target = self._register()

    def start(self) -> None:
        """Start the command; from then on the supervisor keeps it alive."""
        with self._services.store.read() as reader:
            stored = reader.workspace(self.workspace)
        self._executor.start(
            Order(
                workspace=self.workspace,
                restart="",
                cycle="",
                fence=stored.state.fence if stored else 0,
                target=self.target,
                reason="started with up",
                deadline_s=time.monotonic() + _FIRST_START_S,
                stop=threading.Event(),
            )
        )

    def said(self) -> str:
        """Return what is done with the command, in a line of the banner."""
        command = shlex.join(self._watched.command)
        does = "runs" if self.target.get("once") else "restarts"
        return f"{self.workspace}: {does} `{command}` when {self._watched.directory} is written to"

    def _register(self) -> dict[str, Any]:
        before = self._registration()
        kept = dict(before.target) if before is not None and before.executor == SUPERVISED else {}
        kept.pop("pool", None)
        given = dict(self._watched.options)
        given["env"] = {**kept.get("env", {}), **given.get("env", {})}
        wanted = {**kept, **given, "argv": list(self._watched.command), "cwd": str(as_named(Path()).absolute())}
        if given.get("once"):
            wanted.pop("ready", None)
            wanted.pop("reload_signal", None)
        target = self._normalised(wanted)
        refuse_secrets(target)
        registration = Registration(
            fleet=before.fleet if before else DEFAULT_FLEET,
            labels={**(before.labels if before else {}), DIRECTORY_LABEL: os.path.abspath(self._watched.directory)},
            executor=SUPERVISED,
            target={**target, "pool": self._pool},
            policy=before.policy if before else PolicyPatch(),
        )
        self._services.operator.register(self.workspace, registration, Author(actor=self._services.actor))
        return target

    def _normalised(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._executor.normalise(wanted)
        except InvalidTarget as error:
            option = _FROM_THE_OPTIONS.get(error.field.partition(".")[0].partition("[")[0])
            raise InvalidInput(f"{option}: {error}" if option else str(error), field=error.field) from error

    def _registration(self) -> Registration | None:
        with self._services.store.read() as reader:
            stored = reader.workspace(self.workspace)
        return stored.state.registration if stored and stored.state.registered else None

    def _belongs_elsewhere(self, workspace: str) -> bool:
        """Say whether a workspace is registered, and was never this folder's: labels and executor may have changed."""
        here = os.path.abspath(self._watched.directory)
        after = 0
        with self._services.store.read() as reader:
            stored = reader.workspace(workspace)
            if stored is None or stored.state.registration is None:
                return False
            now = stored.state.registration
            if now.pool == self._pool or now.labels.get(DIRECTORY_LABEL) == here:
                return False
            while page := reader.events(EventFilter(after=after, workspace=workspace, types=_REGISTERED)):
                for event in page:
                    data = event.data
                    if isinstance(data, WorkspaceRegistered | WorkspaceChanged) and self._names_us(data, here):
                        return False
                after = page[-1].position
        return True

    def _names_us(self, data: WorkspaceRegistered | WorkspaceChanged, here: str) -> bool:
        return data.target.get("pool") == self._pool or data.labels.get(DIRECTORY_LABEL) == here
