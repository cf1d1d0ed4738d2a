"""Whoever follows the log gets each wanted event once, in order, from whatever place, however little memory holds."""

from __future__ import annotations

import asyncio
import functools
import random
import re
from dataclasses import dataclass, field

import pytest

from orchestrator.api import recent as recent_module
from orchestrator.api import tail as tail_module
from orchestrator.api.listener import Archive, Listener
from orchestrator.api.recent import Recent
from orchestrator.api.tail import LogTail
from orchestrator.api.watches import SETTLING
from orchestrator.domain.policy import Policy
from orchestrator.ports.store import EventFilter
from orchestrator.service.change_policy import note_floor
from orchestrator.service.record import AutoRegistration, Write, record_writes
from orchestrator.time_ordered_ids import TimeOrderedIds
from tests.memory_store.store import MemoryEventStore
from tests.waiting import wait_until

IDS = TimeOrderedIds()
WORKSPACES = ("a", "b", "c")
_ID = re.compile(rb"^id: (\d+)$", re.MULTILINE)


def append(store: MemoryEventStore, rng: random.Random) -> None:
    """Append a few events of one or several workspaces."""
    writes = [Write(workspace=rng.choice(WORKSPACES), path="x" * rng.randint(1, 200)) for _ in range(rng.randint(1, 9))]
    record_writes(store, writes, actor="me", ids=IDS, auto=AutoRegistration(executor="simulated"))


@dataclass
class Follower:
    """A stream that now and then does not read for a while."""

    wanted: EventFilter
    rng: random.Random
    patience_s: float
    got: list[int] = field(default_factory=list)

    async def follow(self, store: MemoryEventStore, archive: Archive, tail: LogTail, newest: int) -> None:
        types = frozenset(self.wanted.types)
        with tail.watching(self.wanted.workspace, types, after=newest, reads=True) as watch:
            listener = Listener(archive, tail, watch, self.wanted)
            while not watch.ended:
                self.got += [int(found) for found in _ID.findall(await listener.frames(self.patience_s))]
                if self.rng.random() < 0.2:
                    await asyncio.sleep(self.rng.random() * 0.05)


def new_follower(rng: random.Random, newest: int) -> Follower:
    after = rng.choice([0, rng.randint(0, newest), newest])
    workspace = rng.choice([None, None, *WORKSPACES, "nobody"])
    types = rng.choice([(), (), ("WorkspaceRegistered",), ("FileWritten", "PolicyChanged")])
    return Follower(EventFilter(after=after, workspace=workspace, types=types), rng, rng.choice([0.02, 3_600.0]))


async def run(store: MemoryEventStore, rng: random.Random) -> list[Follower]:
    tail, archive = LogTail(store), Archive(store)
    tail.recent = Recent(most_events=rng.choice([1, 7, 50, 5_000]), most_bytes=rng.choice([1, 3_000, 10_000_000]))
    followers: list[Follower] = []
    with tail.watching("a", SETTLING, after=0):  # one who reads nothing: until others come, memory holds nothing
        async with asyncio.TaskGroup() as tasks:
            for step in range(80):
                if step > 20 and len(followers) < 12 and rng.random() < 0.4:
                    with store.read() as reader:
                        newest = reader.last_position()
                    followers.append(new_follower(rng, newest))
                    tasks.create_task(followers[-1].follow(store, archive, tail, newest))
                append(store, rng)
                tail.nudge()
                await asyncio.sleep(rng.random() * 0.004)
            with store.read() as reader:
                wanted = [[event.position for event in reader.events(all_of(each.wanted))] for each in followers]
            enough = functools.partial(have_enough, followers, wanted)
            await asyncio.to_thread(wait_until, enough, what="all have what they want", timeout_s=30)
            tail.stop()
    assert [each.got for each in followers] == wanted
    return followers


def all_of(wanted: EventFilter) -> EventFilter:
    return EventFilter(after=wanted.after, workspace=wanted.workspace, types=wanted.types, limit=100_000)


def have_enough(followers: list[Follower], wanted: list[list[int]]) -> bool:
    return all(len(each.got) >= len(asked) for each, asked in zip(followers, wanted, strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_each_gets_each_wanted_event_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(tail_module, "_SHORTEST_S", 0.001)
    monkeypatch.setattr(tail_module, "_LONGEST_S", 0.01)
    monkeypatch.setattr(tail_module, "_PAGE", rng.choice([3, 500]))
    monkeypatch.setattr(recent_module, "_CHUNK_BYTES", rng.choice([1, 2_000, 64_000]))
    store = MemoryEventStore()
    note_floor(store, IDS, Policy())
    followers = asyncio.run(run(store, rng))
    assert followers
