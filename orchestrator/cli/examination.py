"""What `orchestrator doctor` looks at in an installation, one check after the other, each with what to mend.

It changes nothing, and a check that cannot be made because of an earlier one is left out.
"""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from orchestrator import __version__
from orchestrator.api.routes.health import SEALING_DECLINED, beat_check, claims_check, seal_check
from orchestrator.cli.key_at_hand import OWNER_KEY
from orchestrator.domain.encoding import format_instant
from orchestrator.domain.secret_values import secrets_in
from orchestrator.errors import InvalidInput, MigrationsPending, OrchestratorError
from orchestrator.ports.keys import StoredKey
from orchestrator.ports.store import EventStore, Reader
from orchestrator.ports.workspaces import WorkspaceFilter
from orchestrator.sealing.keys import read_keys
from orchestrator.service.keys import list_keys
from orchestrator.settings import Settings, load_settings
from orchestrator.storage.opening import open_store
from orchestrator.storage.urls import SQLITE, database_name, database_url
from workers.app import check_broker, create_celery

_SEEN_LATELY = timedelta(seconds=30)
_CLOCKS_DIFFER_MOST = timedelta(seconds=2)
_SOON = timedelta(days=14)
_PAGE = 500
_OTHERS = 0o077


class Finding(StrEnum):
    """How a check came out. ``warning``: it works, and something should be mended all the same."""

    GOOD = "good"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One check: what was looked at, how it is, in a sentence, and what to do (empty where it is good)."""

    name: str
    finding: Finding
    detail: str
    mend: str = ""


def examine(data: Path | None) -> Iterator[Checked]:
    """Yield the checks of the installation that the environment, or ``data``, the folder of an `up`, describes."""
    yield _good("versions", f"restart-orchestrator {__version__}, Python {platform.python_version()}")
    try:
        settings = load_settings(data=data)
        name, backend = database_name(settings.url), database_url(settings.url).get_backend_name()
    except InvalidInput as error:
        yield _wrong("settings", str(error), "correct it; the rest is looked at then")
        return
    embedded = settings.database_url is None
    yield _good("settings", "the data folder of an `up`" if embedded else "separate processes")
    if embedded:
        settings = settings.sealing_in_data_folder()
    yield from _files(settings, embedded=embedded)
    yield from _seal_key(settings)
    yield _broker(settings, embedded=embedded)
    if backend == SQLITE and not Path(database_url(settings.url).database or "").is_file():
        yield _wrong("database", f"there is no {name}", "start `orchestrator up`, or set ORCHESTRATOR_DATABASE_URL")
        return
    store = open_store(settings.url)
    try:
        yield from _database(store, name, settings)
    finally:
        store.close()


def _database(store: EventStore, name: str, settings: Settings) -> Iterator[Checked]:
    try:
        store.check()
    except MigrationsPending as error:
        yield _wrong("database", f"{name}: {error}", "run `orchestrator migrate` of this version, or name another one")
        return
    except OrchestratorError as error:
        yield _wrong("database", f"{name}: {error}", "mend what it says; the rest is looked at then")
        return
    yield _good("database", f"{name} answers and is at the revision of this version")
    try:
        with store.read() as reader:
            yield from _running(reader, settings)
    except OrchestratorError as error:
        yield _wrong("log", str(error), "see `orchestrator audit verify` and `orchestrator replay`")
    yield _keys(store, settings)


def _keys(store: EventStore, settings: Settings) -> Checked:
    """Say who can call the API, as the settings here have it."""
    try:
        keys, now = list_keys(store)
    except OrchestratorError as error:
        mend = "look as the app's or the owner's login: a reader's may not see keys"
        return Checked(name="keys", finding=Finding.WARNING, detail=str(error), mend=mend)
    live = [key for key in keys if key.is_live(now)]
    owner = settings.owner_key or settings.data / OWNER_KEY
    has_owner = settings.owner_key is not None or (settings.database_url is None and owner.is_file())
    detail = f"{len(live)} live" + (", and the owner's" if has_owner else "")
    if settings.is_closed and not live and not has_owner:
        detail = f"{detail}, and the API is closed to callers without one: it serves nobody"
        return _wrong("keys", detail, "make one: `orchestrator keys create --name NAME --role admin`")
    ending = _ending_soon(live, now)
    if ending:
        told = ", ".join(f"{key.name} at {format_instant(key.expires_at)}" for key in ending if key.expires_at)
        mend = f"`orchestrator keys rotate {ending[0].name}`, and give the new one to who uses it"
        return Checked(
            name="keys", finding=Finding.WARNING, detail=f"{detail}; within 14 days expires {told}", mend=mend
        )
    open_to = "" if settings.is_closed else "; callers without one may do all but `register-code` and `keys`"
    return _good("keys", detail + open_to)


def _ending_soon(live: Sequence[StoredKey], now: datetime) -> list[StoredKey]:
    """Return the last live key of each name, where it expires soon: one that was replaced is to expire."""
    last: dict[str, StoredKey] = {}
    for key in live:
        before = last.get(key.name)
        if before is None or before.created_at < key.created_at:
            last[key.name] = key
    return [key for key in last.values() if key.expires_at is not None and key.expires_at - now < _SOON]


def _running(reader: Reader, settings: Settings) -> Iterator[Checked]:
    now = reader.clock()
    yield _clock(now - datetime.now(UTC))
    beat = beat_check(reader.last_tick_at(), now, settings.tick_ms)
    yield _told("beat", beat.detail, "start `orchestrator beat` and a worker, or `orchestrator up`", is_good=beat.ok)
    seen = [worker for worker in reader.workers() if now - worker.seen_at < _SEEN_LATELY]
    there = ", ".join(worker.name for worker in seen) or "no worker was seen within 30 s"
    yield _told("worker", there, "start `orchestrator worker`, or `orchestrator up`", is_good=bool(seen))
    claims = claims_check(reader.unclaimable(), reader.away())
    yield _told("claims", claims.detail, "start a worker that serves it", is_good=claims.ok)
    seal = SEALING_DECLINED if settings.sealing_declined else seal_check(reader.seals.state(), now)
    yield _told("seal", seal.detail, "see docs/audit.md", is_good=seal.ok)
    yield _secrets(reader)


def _clock(ahead: timedelta) -> Checked:
    by_s = abs(ahead) / timedelta(seconds=1)
    if abs(ahead) <= _CLOCKS_DIFFER_MOST:
        return _good("clock", "this host's and the database's agree")
    mend = "synchronise both hosts (NTP); decisions use the database's alone"
    return Checked(name="clock", finding=Finding.WARNING, detail=f"the database's differs by {by_s:.0f} s", mend=mend)


def _secrets(reader: Reader) -> Checked:
    found, after = list[str](), ""
    while page := reader.workspaces(WorkspaceFilter(after=after, limit=_PAGE)):
        after = page[-1].state.workspace
        for stored in page:
            registration = stored.state.registration
            if registration is not None and secrets_in(registration.target):
                found.append(stored.state.workspace)
    if not found:
        return _good("secrets", "no target holds a plain one")
    return Checked(
        name="secrets",
        finding=Finding.WARNING,
        detail=f"{len(found)} targets hold what looks like a plain secret: {', '.join(found[:3])}",
        mend='register them again with {"env": NAME} or {"file": PATH}, and exchange the secrets: the log keeps them',
    )


def _files(settings: Settings, *, embedded: bool) -> Iterator[Checked]:
    """Look at what only its owner may open."""
    config = os.environ.get("ORCHESTRATOR_CONFIG")
    paths = [Path(config)] if config else []
    if database_url(settings.url).get_backend_name() == SQLITE:
        database = Path(database_url(settings.url).database or "")
        paths += [database, *(database.with_name(f"{database.name}-{suffix}") for suffix in ("wal", "shm"))]
    if embedded:
        paths = [settings.data, settings.data / "process", *paths]
    there = [(path, path.stat()) for path in paths if path.exists()]
    open_ones = [(path, found) for path, found in there if stat.S_IMODE(found.st_mode) & _OTHERS]
    foreign = [path for path, found in there if found.st_uid != os.geteuid()]
    if open_ones:
        told = ", ".join(f"{path} ({stat.S_IMODE(found.st_mode):o})" for path, found in open_ones)
        closing = " ".join(str(path) for path, _ in open_ones)
        yield _wrong("files", f"others may look into {told}", f"chmod go= {closing}")
    if foreign:
        told = ", ".join(map(str, foreign))
        yield _wrong("files", f"{told}: another user's", "run this as the user that runs the product")
    if there and not open_ones and not foreign:
        yield _good("files", f"{len(there)} looked at, closed to others")


def _seal_key(settings: Settings) -> Iterator[Checked]:
    if settings.sealing_declined:
        yield _good("seal key", "declined: ORCHESTRATOR_SEAL_KEY is off")
    elif settings.seal_key is None:
        detail = "ORCHESTRATOR_SEAL_KEY names none here: right only where no worker runs"
        mend = "`orchestrator audit keys new FILE` for the workers, or decline with ORCHESTRATOR_SEAL_KEY=off"
        yield Checked(name="seal key", finding=Finding.WARNING, detail=detail, mend=mend)
    else:
        try:
            keys = read_keys(settings.seal_key)
        except OrchestratorError as error:
            yield _wrong("seal key", str(error), "mend that, or restore the key from its backup")
        else:
            yield _good("seal key", f"{settings.seal_key}: {', '.join(key.public.label for key in keys)}")


def _broker(settings: Settings, *, embedded: bool) -> Checked:
    if settings.broker_url.startswith("memory://"):
        if embedded:
            return _good("broker", "in the process of `up`")
        return _wrong("broker", "memory:// reaches no other process", "set ORCHESTRATOR_BROKER_URL=redis://HOST:6379/0")
    try:
        check_broker(create_celery(settings.broker_url, tick_s=1, slots=1))
    except OrchestratorError as error:
        return _wrong("broker", str(error), "start it, or correct ORCHESTRATOR_BROKER_URL; writes are stored meanwhile")
    return _good("broker", "answers")


def _told(name: str, detail: str, mend: str, *, is_good: bool) -> Checked:
    return _good(name, detail) if is_good else _wrong(name, detail, mend)


def _good(name: str, detail: str) -> Checked:
    return Checked(name=name, finding=Finding.GOOD, detail=detail)


def _wrong(name: str, detail: str, mend: str) -> Checked:
    return Checked(name=name, finding=Finding.WRONG, detail=detail, mend=mend)
