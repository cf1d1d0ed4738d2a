"""Workspaces that come and go leave nothing behind in a process: what it keeps, it keeps in the database."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Collection
from dataclasses import dataclass

import structlog

from orchestrator.bootstrap import Services, build_drainer, open_services
from orchestrator.domain import commands as cmd
from orchestrator.domain.policy import parse_policy
from orchestrator.domain.state import Registration
from orchestrator.ports.store import EventFilter
from orchestrator.service.append import Author
from orchestrator.service.change_policy import note_floor
from orchestrator.service.record import Write, record_writes
from orchestrator.service.tick import look
from orchestrator.settings import load_settings

AUTHOR = Author(actor="test")
WORKSPACES = 3_000
RESTARTED_OF_A_HUNDRED = 5
"""The others are removed while they wait: a restart costs four commits."""

GROWTH_MOST_OBJECTS = 300
GROWTH_MOST_BYTES = 40_000
"""Twice what comes and goes by itself (measured), and less than a dictionary grows by that keeps 1,500 more names."""


class SilentBell:
    """Nobody is rung: the test drains by itself."""

    def ring(self, workspace: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Kept:
    """What the garbage collector knows of: how many containers there are, and how large they are themselves."""

    objects: int
    size: int

    @staticmethod
    def now() -> Kept:
        gc.collect()
        found = gc.get_objects()
        return Kept(len(found), sum(sys.getsizeof(item) for item in found))


class Process:
    """The service objects of an embedded process, all of them, over one SQLite file."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.drainer = build_drainer(services, embedded=True)

    def live_through(self, workspaces: Collection[str]) -> None:
        """Register, write to, restart some, and remove them all."""
        restarted = [name for number, name in enumerate(workspaces) if number % 100 < RESTARTED_OF_A_HUNDRED]
        services = self.services
        target = services.executors["simulated"].normalise({})
        at_once = Registration(
            fleet="default", labels={}, executor="simulated", target=target, policy=parse_policy({"quiet": "0s"})
        )
        for workspace in restarted:
            services.operator.register(workspace, at_once, AUTHOR)
        writes = [Write(workspace=workspace, path="a") for workspace in workspaces]
        batch, _ = record_writes(services.store, writes, actor="test", ids=services.ids, auto=services.auto)
        assert len(batch.accepted) == len(writes)
        look(services.store, SilentBell(), services.ids, free_slots=lambda: self.drainer.slots.free)
        assert self.drainer.drain() == len(restarted)
        for workspace in workspaces:
            services.operator.change(workspace, cmd.Remove(reason="gone"), AUTHOR)


def test_thousands_of_workspaces_created_and_removed_leave_nothing_behind_in_a_process(sqlite_url: str) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    settings = load_settings({}, database_url=sqlite_url, policy={"quiet": "1h", "max_wait": "2h"})
    services = open_services(settings, embedded=True)
    note_floor(services.store, services.ids, settings.floor)
    process = Process(services)
    names = [f"ws-{number}" for number in range(WORKSPACES)]
    half, chunk = WORKSPACES // 2, 500
    chunks = [names[start : start + chunk] for start in range(0, WORKSPACES, chunk)]

    for some in chunks[: half // chunk]:
        process.live_through(some)
    before = Kept.now()
    for some in chunks[half // chunk :]:
        process.live_through(some)
    after = Kept.now()

    with services.store.read() as reader:
        removed = reader.events(EventFilter(types=["WorkspaceRemoved"], limit=WORKSPACES + 1))
    services.store.close()
    structlog.reset_defaults()
    assert len(removed) == WORKSPACES
    assert after.objects - before.objects < GROWTH_MOST_OBJECTS
    assert after.size - before.size < GROWTH_MOST_BYTES
