"""The processes of production: ``api``, ``worker``, ``beat``, and ``migrate``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from orchestrator.api.app import create_app
from orchestrator.audit.periodic_run import PeriodicVerification
from orchestrator.bootstrap import Services, build_drainer, build_sealer, open_services
from orchestrator.cli.http_server import HttpServer, allow_many_connections
from orchestrator.cli.lifecycle import RUNNING_CYCLES_S, Lifecycle
from orchestrator.cli.worker_parent import Assignment, follow_pipe, require_broker, require_shared_database
from orchestrator.errors import BeyondMigration, InvalidInput, Unavailable
from orchestrator.history.file_counting import file_counting
from orchestrator.history.sum_keeping import sum_keeping
from orchestrator.logs import configure_logs
from orchestrator.private_files import lock_folder
from orchestrator.service.change_policy import note_floor
from orchestrator.service.drain import Drainer
from orchestrator.service.keys import list_keys
from orchestrator.settings import Settings
from orchestrator.storage.migrate import upgrade
from orchestrator.storage.privileges import Roles
from orchestrator.storage.urls import SQLITE, database_name, database_url
from workers.celery_threads import BeatThread, WorkerThread
from workers.chores import Chores
from workers.executors.bounded_run import RecordedUnder
from workers.lease_renewer import LeaseRenewer
from workers.presence import Presence
from workers.tasks import Ticker, register_tasks

_log = structlog.get_logger("orchestrator")

_LAST_LOOK_S = 1.0
"""For a look that is under way at a stop: it claims nothing any more."""

_LAST_SEAL_S = 6.0
"""For a last seal at a stop: a webhook that says nothing is given up after 5 s."""


class WorkerParts:
    """The worker's side of a process: drainer, ticker, lease renewer and Celery's worker around them."""

    def __init__(self, services: Services, *, embedded: bool = False) -> None:
        self.drainer: Drainer = build_drainer(services, embedded=embedded)
        tick_s = services.settings.tick_ms / 1000
        self._tick = timedelta(seconds=tick_s)
        self._looks: list[threading.Thread] = []
        self._looking, self._started = threading.Lock(), False
        if embedded:
            self.drainer.after_cycles = self._look_now
        self._ticker = Ticker(services.store, services.doorbell, services.ids, self.drainer, tick_s=tick_s)
        self._renewer = LeaseRenewer(services.store, self.drainer.leases)
        self._presence = Presence(services.store, self.drainer, every_s=tick_s)
        self._counting = file_counting(services.store)
        self._summing = sum_keeping(services.store)
        self._verifier = PeriodicVerification(services.store)
        self._sealer = build_sealer(services.store, services.settings)
        if services.settings.sealing_declined:
            _log.info("seal.declined", why="ORCHESTRATOR_SEAL_KEY is off", harm="nothing proves the log")
        elif self._sealer is None:
            _log.warning(
                "seal.off",
                why="ORCHESTRATOR_SEAL_KEY names no key",
                harm="nothing proves the log",
                do="make one with `orchestrator audit keys new FILE`, or decline with ORCHESTRATOR_SEAL_KEY=off",
            )
        chores: dict[str, Callable[[], object]] = {
            "count_files": self._counting.run,
            "forget_answers": self._ticker.forget_answers,
            "keep_sums": self._summing.run,
            "verify": self._verifier.run,
        }
        if self._sealer is not None:
            chores["seal"] = self._sealer.run
        register_tasks(services.celery, self._ticker, self.drainer, Chores(chores))
        self._worker = WorkerThread(services.celery, name=f"orchestrator@{self.drainer.worker}")

    def start(self) -> None:
        """Begin renewing leases and taking messages."""
        self._presence.start()
        self._renewer.start()
        self._worker.start()
        self._started = True

    def drain(self) -> None:
        """Take up at once what waits, a dead worker's cycles say: no bell may come for a tick."""
        threading.Thread(target=self.drainer.drain, name="first-drain", daemon=True).start()

    def look_if_sooner(self, due_at: datetime) -> None:
        """See to it that what is due before the next tick comes is folded when it is due, without waiting for one.

        A later instant is not this one's business: the tick before it looks ahead. Before ``start`` nothing is looked
        at.
        """
        if due_at - datetime.now(UTC) <= self._tick:
            self._look_now()

    def _look_now(self) -> None:
        with self._looking:
            if not self._started or self._ticker.look_again():
                return
            self._looks = [thread for thread in self._looks if thread.is_alive()]
            self._looks.append(threading.Thread(target=self._ticker.tick, name="look-sooner", daemon=True))
            self._looks[-1].start()

    @property
    def alive(self) -> bool:
        """False once Celery's worker has ended."""
        return self._worker.alive

    def seal_rest(self, within_s: float) -> None:
        """Seal what is left after the last event: a stopped `up` leaves no tail that could be altered unseen."""
        if self._sealer is not None and within_s > _LAST_SEAL_S:
            self._sealer.finish(within_s=_LAST_SEAL_S)

    def stop_claiming(self) -> None:
        """Claim nothing more. Waits for nothing: a signal handler may call it."""
        self.drainer.stop_claiming()

    def stop(self, grace_s: float) -> None:
        """Claim nothing more; running cycles get ``grace_s``, then are cancelled and given back."""
        self._ticker.stop()
        if self._sealer is not None:
            self._sealer.stop()
        self._counting.stop()
        self._summing.stop()
        self._verifier.stop()
        self.drainer.stop(grace_s=grace_s)
        self._worker.stop()
        with self._looking:
            self._started, looks = False, self._looks
        for look in looks:
            look.join(_LAST_LOOK_S)
        self._renewer.stop()
        self._presence.stop()


def run_api(settings: Settings) -> int:
    """Serve the API until a signal; return the exit code."""
    configure_logs(form=settings.log_format, level=settings.log_level, lasting=True)
    settings.require_named_database()
    with ExitStack() as held:
        _lock_sqlite(settings.url, held)
        return _serve_api(settings)


def _serve_api(settings: Settings) -> int:
    services = open_services(settings)
    if refuse_what_no_migration_helps(services):
        _refuse_to_serve_nobody(services)
    _name_database(settings)
    allow_many_connections()
    lifecycle = Lifecycle()
    server = HttpServer(create_app(services), host=settings.host, port=settings.port)
    server.start()
    print(f"Listening on {server.url}", flush=True)

    def stop(until_s: float) -> None:
        server.stop(until_s - time.monotonic())
        services.store.close()

    return lifecycle.run({"api": server}, stop)


def _lock_sqlite(url: str, held: ExitStack) -> None:
    """Take the folder of a SQLite file as `up` does: it is for one process at a time."""
    parsed = database_url(url)
    if parsed.get_backend_name() == SQLITE:
        folder = Path(parsed.database or "").absolute().parent
        held.enter_context(lock_folder(folder, named_by="ORCHESTRATOR_DATABASE_URL"))


def run_worker(settings: Settings, assignment: Assignment) -> int:
    """Be a worker's child: take ticks and wake-ups until its parent says so or is gone; return the exit code."""
    under = RecordedUnder(directory=assignment.folder.path, worker=assignment.worker)
    services = _broker_services(settings, under)
    refuse_what_no_migration_helps(services)
    _name_database(settings)
    lifecycle = Lifecycle()
    stop_pipe = (assignment.stop_pipe, lifecycle.stop)
    threading.Thread(target=follow_pipe, args=stop_pipe, name="parent", daemon=True).start()
    worker = WorkerParts(services)
    slots = worker.drainer.slots.free  # before the first cycle takes one
    worker.start()
    worker.drain()
    _log.info("worker.started", worker=worker.drainer.worker, slots=slots)

    def stop(until_s: float) -> None:
        worker.stop(RUNNING_CYCLES_S)
        services.store.close()

    return lifecycle.run({"worker": worker}, stop)


def run_beat(settings: Settings) -> int:
    """Fire ticks until a signal; return the exit code."""
    services = _broker_services(settings)
    _name_database(settings)
    lifecycle = Lifecycle()
    beat = BeatThread(services.celery)
    beat.start()
    _log.info("beat.started", tick_ms=settings.tick_ms)
    return lifecycle.run({"beat": beat}, _once(beat.stop))


def run_migrate(settings: Settings) -> int:
    """Bring the database to this version's schema and its roles to their privileges; record the policy floor."""
    configure_logs(form=settings.log_format, level=settings.log_level)
    settings.require_named_database()
    services = open_services(settings)
    try:
        newer = upgrade(settings.url, Roles(app=settings.app_role, reader=settings.reader_role))
        if newer is not None:
            print(f"{newer}, which serves it; nothing was changed: no table, no role's privileges, no policy floor")
            return 0
        layer = note_floor(services.store, services.ids, settings.floor)
    except Unavailable as error:
        raise InvalidInput(f"cannot migrate: {error}") from error
    finally:
        services.store.close()
    print(f"Migrated {database_name(settings.url)}; policy floor at version {layer.version}")
    return 0


def _name_database(settings: Settings) -> None:
    """Say which database this process works on: two that differ in nothing else are told apart by it."""
    _log.info("database.named", database=database_name(settings.url))


def refuse_what_no_migration_helps(services: Services) -> bool:
    """Raise ``BeyondMigration`` where waiting is in vain: the database is too new for this version, or not ours.

    Return whether it is there and can be served.

    One that is away, or is yet to be migrated, is waited for: `/readyz` says so, and its migration may run meanwhile.
    """
    try:
        services.store.check(reads_only=True)
    except BeyondMigration:
        services.store.close()
        raise
    except Unavailable as error:
        _log.warning("database.waited_for", error=str(error))
        return False
    return True


def _refuse_to_serve_nobody(services: Services) -> None:
    """Raise ``InvalidInput`` where the API is closed to callers without a key, and there is no key at all.

    A database that has gone since says nothing of that: the API starts, closed, and knows the keys when it is back.
    """
    settings = services.settings
    if not settings.is_closed or settings.owner_key is not None:
        return
    try:
        keys, now = list_keys(services.store)
    except Unavailable as error:
        _log.warning("keys.waited_for", error=str(error))
        return
    if any(key.is_live(now) for key in keys):
        return
    services.store.close()
    is_said = settings.loopback == "closed"
    why = "ORCHESTRATOR_LOOPBACK is closed" if is_said else f"bind {settings.bind} is not loopback"
    raise InvalidInput(
        f"{why}, so nobody is answered without a key, and no key is live in {database_name(settings.url)}: make one "
        "with `orchestrator keys create --name NAME --role admin` on this machine, or the owner's (`orchestrator keys "
        "owner FILE`, ORCHESTRATOR_OWNER_KEY=FILE)"
        + ("" if is_said else "; or set ORCHESTRATOR_ALLOW_UNAUTHENTICATED=true if something in front checks callers")
    )


def _broker_services(settings: Settings, under: RecordedUnder | None = None) -> Services:
    require_broker(settings)
    require_shared_database(settings)
    configure_logs(form=settings.log_format, level=settings.log_level, lasting=True)
    return open_services(settings, under=under)


def _once(stop: Callable[[], None]) -> Callable[[float], None]:
    def stopped(until_s: float) -> None:
        stop()

    return stopped
