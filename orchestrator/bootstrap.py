"""The composition root: settings become a store, executors, a doorbell, a drainer. Nothing else names adapters."""

from __future__ import annotations

import getpass
import os
import random
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from celery import Celery

from orchestrator import crash_points
from orchestrator.domain.key_words import digest_of
from orchestrator.domain.serving import Serving
from orchestrator.domain.state import DEFAULT_POOL, OF_NO_UP
from orchestrator.errors import InvalidInput, UnknownExecutor
from orchestrator.owner_key import read_owner_key
from orchestrator.ports.executor import Executor
from orchestrator.ports.sealing import Sink
from orchestrator.ports.store import EventStore
from orchestrator.sealing.keys import make_key_file, read_keys
from orchestrator.sealing.seal import Signing
from orchestrator.sealing.sealer import Sealer
from orchestrator.sealing.sinks import FolderSink, WebhookSink
from orchestrator.service.access import Access, Owner
from orchestrator.service.drain import Drainer
from orchestrator.service.key_book import KeyBook
from orchestrator.service.operate import Operator
from orchestrator.service.record import AutoRegistration
from orchestrator.settings import Settings
from orchestrator.storage.opening import open_store
from orchestrator.time_ordered_ids import TimeOrderedIds
from workers.app import check_broker, create_celery
from workers.doorbell import CeleryDoorbell
from workers.executors import available
from workers.executors.bounded_run import RecordedUnder
from workers.executors.secret_references import values_behind
from workers.supervision.supervisor import ProcessSupervisor
from workers.supervision.worker_name import new_token, worker_name

SLOTS_EMBEDDED = 4
SLOTS = 16


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the processes share: the API uses the store and the operator, workers the rest.

    ``up_pool`` is the pool of programs that this ``up`` supervises, None outside of one; ``serving`` what a worker
    of this process serves.
    """

    settings: Settings
    store: EventStore
    ids: TimeOrderedIds
    executors: Mapping[str, Executor]
    operator: Operator
    auto: AutoRegistration
    celery: Celery
    doorbell: CeleryDoorbell
    worker: str
    serving: Serving
    up_pool: str | None
    """The name under which this process claims, if it does."""
    actor: str
    """Who acts in what the process does for its own user, as watching a folder: ``local:USER``."""

    def check_broker(self) -> None:
        """Raise ``BrokerUnavailable`` unless the broker answers."""
        check_broker(self.celery)


def open_services(
    settings: Settings,
    *,
    embedded: bool = False,
    supervisor: ProcessSupervisor | None = None,
    under: RecordedUnder | None = None,
    watched_pool: str | None = None,
) -> Services:
    """Wire a process. Embedded: fewer slots, and unregistered workspaces are simulated.

    ``watched_pool`` is that of the folder which an ``up`` watches. Raises ``InvalidInput`` for executors that it is to
    serve and has not.
    A process that carries restarts out has its name and its running commands recorded ``under``.
    """
    under = under or RecordedUnder(worker=worker_name(new_token()))
    crash_points.arm(os.environ)
    ids = TimeOrderedIds()
    store = open_store(settings.url, shares_commits=True, company_wait_ms=settings.commit_wait_ms)
    slots = settings.slots or (SLOTS_EMBEDDED if embedded else SLOTS)
    celery = create_celery(settings.broker_url, tick_s=settings.tick_ms / 1000, slots=slots)
    executors = available(supervisor, under)
    up_pool = pool_of_up(settings.data) if embedded else None
    return Services(
        settings=settings,
        store=store,
        ids=ids,
        executors=executors,
        operator=Operator(store, ids, on_removed=supervisor.stop if supervisor else None),
        auto=_auto_registration(settings, executors, embedded=embedded),
        celery=celery,
        doorbell=CeleryDoorbell(celery),
        worker=under.worker,
        serving=_serving(settings, executors, [pool for pool in (up_pool, watched_pool) if pool]),
        up_pool=up_pool,
        actor=f"local:{user_name()}",
    )


def pool_of_up(data: Path, watched: Path | None = None) -> str:
    """Return the pool of an ``up``: of this host, its data folder and, for what it watches, the folder.

    So two of them on one database leave each other's programs alone, and a plain one starts none of an earlier one's.
    """
    parts = (socket.gethostname(), os.path.abspath(data), os.path.abspath(watched) if watched else "")
    return f"{OF_NO_UP}-{sha256(chr(0).join(parts).encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def _serving(settings: Settings, executors: Mapping[str, Executor], own_pools: Sequence[str]) -> Serving:
    names = settings.executor_names
    missing = sorted(set(names or ()) - set(executors))
    if missing:
        raise InvalidInput(
            f"ORCHESTRATOR_EXECUTORS: no executor {missing[0]!r} here; there are {', '.join(sorted(executors))}"
        )
    pools = settings.pool_names or [socket.gethostname(), DEFAULT_POOL]
    return Serving(executors=frozenset(executors if names is None else names), pools=frozenset([*pools, *own_pools]))


def _auto_registration(settings: Settings, executors: Mapping[str, Executor], *, embedded: bool) -> AutoRegistration:
    """Return with what a first write registers. Raises ``InvalidInput`` for an executor that needs a target."""
    name = "simulated" if embedded and settings.auto_register is None else settings.auto_register_executor
    if name is None:
        return AutoRegistration()
    if name not in executors:
        raise UnknownExecutor(
            f"ORCHESTRATOR_AUTO_REGISTER: no executor {name!r}; there are {', '.join(sorted(executors))}, or off"
        )
    return AutoRegistration(executor=name, target=executors[name].normalise({}))


def build_access(services: Services) -> Access:
    """Return what admits the API's callers. Raises ``InvalidInput`` for an owner's key that cannot be used."""
    settings, book = services.settings, KeyBook(services.store)
    owner = None
    if settings.owner_key is not None:
        owner = Owner(digest=digest_of(read_owner_key(settings.owner_key)), name=user_name())
    return Access(owner, book, closed=settings.is_closed, checked_in_front=settings.allow_unauthenticated)


def build_drainer(services: Services, *, embedded: bool = False) -> Drainer:
    """Return the worker's side of a process. A removal in the same process ends a cycle of it at once."""
    settings = services.settings
    drainer = Drainer(
        store=services.store,
        executors=services.executors,
        ids=services.ids,
        worker=services.worker,
        slots=settings.slots or (SLOTS_EMBEDDED if embedded else SLOTS),
        jitter=random.random,
        running_most=settings.max_concurrent,
        serving=services.serving,
    )
    drainer.secrets = values_behind
    # First of all: told so only afterwards, a cycle could start a child that the supervisor has just been rid of.
    services.operator.tell_first(drainer.leases.stop)
    return drainer


def build_sealer(store: EventStore, settings: Settings, *, trust_stored: bool = False) -> Sealer | None:
    """Return what seals the log; None if no key is named, or ``off``: nobody can prove then that it was not altered."""
    key, origin = settings.seal_key, settings.origin
    if key is None or settings.sealing_declined:
        return None
    sinks: list[Sink] = []
    if settings.checkpoint_dir is not None:
        sinks.append(FolderSink(settings.checkpoint_dir))
    if settings.checkpoint_webhook is not None:
        sinks.append(WebhookSink(settings.checkpoint_webhook))
    return Sealer(store, lambda: Signing(keys=read_keys(key), origin=origin, trust_stored=trust_stored), sinks)


def default_origin(settings: Settings) -> str:
    """Return the name that a new key gives the log: it is in the key from then on, whatever the host is called."""
    return settings.origin or f"restart-orchestrator/{re.sub(r'[^A-Za-z0-9._-]', '-', socket.gethostname())}"


def make_first_key(store: EventStore, settings: Settings) -> None:
    """Make the seal key where nothing was ever sealed; one that was lost is missed, loudly, by the sealer."""
    with store.read() as reader:
        is_sealed = reader.seals.newest() is not None
    if settings.seal_key is None or settings.sealing_declined:
        return
    if not is_sealed and not settings.seal_key.exists():
        make_key_file(settings.seal_key, default_origin(settings))


def user_name() -> str:
    """Return the user this process runs as; its number where it has no name (containers)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
