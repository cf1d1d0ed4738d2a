"""``orchestrator up``: API, worker and beat in one process on SQLite; with ``--watch`` it supervises a command too."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import structlog

from orchestrator import __version__
from orchestrator.api.app import create_app
from orchestrator.api.protocol.names import check_name
from orchestrator.bootstrap import Services, make_first_key, open_services, pool_of_up
from orchestrator.cli.commands.watched_program import Watched, WatchedProgram
from orchestrator.cli.http_server import HttpServer
from orchestrator.cli.key_at_hand import OWNER_KEY, note_where
from orchestrator.cli.lifecycle import RUNNING_CYCLES_S, Lifecycle
from orchestrator.cli.serve import WorkerParts
from orchestrator.domain.events import ProcessExited
from orchestrator.domain.own_writes import ROUNDS, remedy_of
from orchestrator.domain.paths import escape_path
from orchestrator.domain.policy import DEFAULT_FLEET, Policy, PolicyPatch, render_policy
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.errors import ExecutionCancelled, InvalidInput
from orchestrator.logs import configure_logs
from orchestrator.owner_key import make_owner_key
from orchestrator.ports.workspaces import StoredWorkspace
from orchestrator.private_files import lock_folder, private_folder
from orchestrator.replace_file import replace_file
from orchestrator.service.change_policy import note_floor
from orchestrator.service.dead_worker import abandon_cycles_of
from orchestrator.service.record import Write, record_writes
from orchestrator.settings import Settings
from orchestrator.sources.folder import WatchedWrite, watch_folder
from orchestrator.sources.ignores import includes_of
from orchestrator.sources.own_writes import OwnWrites
from orchestrator.storage.migrate import upgrade
from orchestrator.storage.privileges import Roles
from orchestrator.storage.urls import database_name
from workers.celery_threads import BeatThread
from workers.executors.bounded_run import RecordedUnder
from workers.supervision.record import end_commands
from workers.supervision.supervisor import ProcessSupervisor
from workers.supervision.worker_name import new_token, worker_name

_log = structlog.get_logger("orchestrator")

_CHILD_END_S = 3.0
"""Left of the whole stop once the child's grace must be over: a KILL, a reaping, the process's own end."""
_FAILED_GRACE_S = 5.0
_HTTP_STOP_S = 3.0


def run_up(settings: Settings, watched: Watched | None) -> int:
    """Run everything until a signal; return the exit code.

    Raises ``InvalidInput`` if another ``up`` has the data folder, the port is taken, or there is no such folder.
    """
    configure_logs(form=settings.log_format, level=settings.log_level, lasting=True)
    if watched is not None and not watched.directory.is_dir():
        raise InvalidInput(f"--watch: {watched.directory} is not a folder; name an existing one", field="watch")
    if watched is not None:
        includes_of(watched.include)  # refused here, before anything is recorded
    settings, own_key = settings.sealing_in_data_folder(), settings.seal_key is None
    if watched is not None and watched.workspace is not None:
        check_name(watched.workspace, "--workspace")
    private_folder(settings.data, named_by="--data")
    lock = lock_folder(settings.data, named_by="--data")
    settings = _with_owner_key(settings)
    exits = _Exits()
    commands = _end_commands_left(settings.data)
    supervisor = ProcessSupervisor(settings.data / "process", exits.report)
    lifecycle = Lifecycle(at_once=supervisor.kill_now)
    under = RecordedUnder(directory=commands, worker=worker_name(new_token()))
    pool = pool_of_up(settings.data, watched.directory) if watched else None
    services = open_services(settings, embedded=True, supervisor=supervisor, under=under, watched_pool=pool)
    exits.services = services
    with ExitStack() as ways_out:  # whichever is taken: none leaves the child, and its port, behind
        ways_out.callback(lock.close)
        ways_out.callback(services.store.close)
        ways_out.callback(supervisor.close, _FAILED_GRACE_S)
        # Bound before anything is recorded or migrated: a port that is taken must leave no trace.
        server = HttpServer(create_app(services), host=settings.host, port=settings.port)
        ways_out.callback(server.close)
        note_where(settings.data, server.url)
        upgrade(settings.url, Roles(app=settings.app_role, reader=settings.reader_role))
        note_floor(services.store, services.ids, settings.floor)
        _bury_earlier(settings.data, services)
        if own_key:
            make_first_key(services.store, settings)
        return _Up(settings, services, supervisor, server, watched).run(lifecycle)


def _with_owner_key(settings: Settings) -> Settings:
    """Return the settings with the key of the data folder where none is named; it is made where it is missing."""
    if settings.owner_key is not None:
        return settings
    file = settings.data / OWNER_KEY
    if not file.exists():
        make_owner_key(file)
    return settings.model_copy(update={"owner_key": file})


def _end_commands_left(data: Path) -> Path:
    """End what the restart commands of an earlier ``up`` left, which is dead: we have its lock. Return their folder."""
    commands = data / "process" / "commands"
    for folder in (commands.parent, commands):
        private_folder(folder, named_by="--data")
    end_commands(commands)
    return commands


def _bury_earlier(data: Path, services: Services) -> None:
    """Abandon the cycles of the ``up`` that used this data folder before; note our own name for the one after us."""
    noted = data / "worker"
    try:
        earlier = noted.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        earlier = ""
    if earlier:
        abandon_cycles_of(services.store, services.ids, earlier)
    replace_file(noted, f"{services.worker}\n".encode(), mode=0o600)


class _Exits:
    """Records that a supervised child ended by itself."""

    def __init__(self) -> None:
        self.services: Services | None = None

    def report(self, workspace: str, exit_code: int | None, signal: int | None, respawn_after_ms: int) -> None:
        """Record one end; called from a thread of the supervisor."""
        exited = ProcessExited(exit_code=exit_code, signal=signal, respawn_after_ms=respawn_after_ms)
        if self.services is not None:
            self.services.operator.report_exit(workspace, exited)


class _Up:
    def __init__(
        self,
        settings: Settings,
        services: Services,
        supervisor: ProcessSupervisor,
        server: HttpServer,
        watched: Watched | None,
    ) -> None:
        self._settings, self._services, self._supervisor, self._watched = settings, services, supervisor, watched
        self._server = server
        self._worker = WorkerParts(services, embedded=True)
        self._beat = BeatThread(services.celery)
        self._watch_stop = threading.Event()
        self._own_writes = OwnWrites()
        self._program = WatchedProgram(services, watched) if watched else None
        self._workspace = self._program.workspace if self._program else None

    def run(self, lifecycle: Lifecycle) -> int:
        lifecycle.at_first(self._worker.stop_claiming)
        lifecycle.at_first(self._supervisor.start_no_more)
        watcher = self._start_watching()
        self._server.start()
        # Before anything is claimed: a restart that an earlier run left due, and this start, would end each other.
        self._start_child(lifecycle)
        self._worker.start()
        self._worker.drain()
        self._beat.start()
        _say(self._banner())
        code = lifecycle.run({"api": self._server, "worker": self._worker, "beat": self._beat}, self._stop)
        if watcher is not None:
            watcher.join(timeout=1)
        return code

    def _stop(self, until_s: float) -> None:
        """The child begins to end at once, within its own grace; meanwhile writers, beat and cycles stop."""
        self._worker.stop_claiming()
        child_until_s = until_s - _CHILD_END_S
        self._supervisor.begin_close(child_until_s)
        self._watch_stop.set()
        self._server.stop(_HTTP_STOP_S)
        self._beat.stop()
        self._worker.stop(min(RUNNING_CYCLES_S, max(0.0, child_until_s - time.monotonic())))
        self._worker.seal_rest(until_s - time.monotonic())
        self._supervisor.close(max(0.0, child_until_s - time.monotonic()))

    def _start_child(self, lifecycle: Lifecycle) -> None:
        if self._program is None or lifecycle.stopping:
            return
        try:
            self._program.start()
        except ExecutionCancelled:
            _log.info("child.not_started", why="a signal came first")

    def _start_watching(self) -> threading.Thread | None:
        if self._watched is None:
            return None
        ready = threading.Event()
        thread = threading.Thread(
            target=watch_folder,
            args=(self._watched.directory, self._record),
            kwargs={
                "stop": self._watch_stop,
                "ready": ready,
                "ignore": [self._settings.data],
                "include": self._watched.include,
            },
            name="watch",
            daemon=True,
        )
        thread.start()
        while not ready.wait(0.1):
            if not thread.is_alive():
                raise InvalidInput(f"--watch: {self._watched.directory} cannot be watched", field="watch")
        return thread

    def _record(self, writes: Sequence[WatchedWrite]) -> None:
        """Store a batch from the watcher; one that fails is offered again by the watcher."""
        batch, _ = record_writes(
            self._services.store,
            [Write(workspace=self._workspace or "", path=write.path, op=write.op) for write in writes],
            actor=self._services.actor,
            ids=self._services.ids,
            auto=self._services.auto,
        )
        for refused in batch.refused:
            _log.error("watch.refused", workspace=self._workspace, path=writes[refused.index].path, why=refused.detail)
        with self._services.store.read() as reader:
            stored = reader.workspace(self._workspace or "")
        if stored is not None and stored.due_at is not None:
            self._worker.look_if_sooner(stored.due_at)
        if stored is not None and stored.state.last_start_at is not None:
            self._name_own_writes(stored, stored.state.last_start_at, writes)

    def _name_own_writes(
        self, stored: StoredWorkspace, last_start_at: datetime, writes: Sequence[WatchedWrite]
    ) -> None:
        """Say which file the program seems to restart itself by."""
        since_start_s = (datetime.now(UTC) - last_start_at).total_seconds()
        for path in self._own_writes.seen(stored.state.fence, since_start_s, [write.path for write in writes]):
            named = escape_path(path)[0]
            _log.warning(
                "watch_own_writes",
                workspace=self._workspace,
                path=named,
                actor=self._services.actor,
                rounds=ROUNDS,
                reason=f"written as long after each of the last {ROUNDS} starts: a loop of the program itself",
                remedy=remedy_of(named),
            )

    def _banner(self) -> str:
        lines = [f"restart-orchestrator {__version__}", f"  Listening on {self._server.url}"]
        if self._program is not None:
            lines.append(f"  Workspace    {self._program.said()}")
        else:
            lines.append("  Workspace    any: POST /v1/workspaces/{id}/writes registers a simulated one")
        lines.append(f"  Policy       {_numbers(self._policy())}")
        lines.append(f"  Data         {self._settings.data}")
        if self._settings.database_url is not None:
            lines.append(f"  Database     {database_name(self._settings.url)}")
        return "\n".join(lines)

    def _policy(self) -> Policy:
        with self._services.store.read() as reader:
            stored = reader.workspace(self._workspace) if self._workspace else None
            policies = reader.policies()
        return policy_in_force(stored.state, policies) if stored else policies.in_force(DEFAULT_FLEET, PolicyPatch())


def _say(banner: str) -> None:
    """Print the banner. Raises ``InvalidInput`` where nobody reads it any more: who started us has gone."""
    try:
        print(banner, flush=True)
    except OSError as error:
        # What is left in the buffer would fail again at the end of Python, with lines that help nobody.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise InvalidInput(
            f"nobody reads standard output ({error.strerror}), so `up` ended, and its child with it; "
            "send it to a file or to /dev/null"
        ) from None


def _numbers(policy: Policy) -> str:
    rendered = render_policy(policy)
    names = ("quiet", "max_wait", "min_interval", "settle", "edge", "mode")
    return ", ".join(f"{name} {rendered[name]}" for name in names)
