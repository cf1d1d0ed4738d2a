"""The keys as a process knows them: what it knows stays until it knows better, and a change here is never missed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from orchestrator.domain.key_words import digest_of
from orchestrator.domain.scopes import EVERYTHING, Role
from orchestrator.errors import StorageUnavailable
from orchestrator.owner_key import new_key
from orchestrator.ports.store import Reader
from orchestrator.service.key_book import LOOK_AGAIN_S, KeyBook
from orchestrator.service.keys import KeyKeeper, MadeKey, WantedKey
from orchestrator.storage.sqlite import SqliteEventStore
from tests.history import START, CountedIds, TestClock


class Troubled(SqliteEventStore):
    """Something happens while it is read, or while uses are noted; each once."""

    def __init__(self, url: str, clock: TestClock) -> None:
        super().__init__(url, clock)
        self.while_read: list[Callable[[], object]] = []
        self.while_noted: list[Callable[[], object]] = []
        self.reads = 0

    @contextmanager
    def read(self) -> Iterator[Reader]:
        with super().read() as reader:
            self.reads += 1
            yield reader
        while self.while_read:
            self.while_read.pop()()

    def note_key_uses(self, used_at: Mapping[str, datetime]) -> None:
        while self.while_noted:
            self.while_noted.pop()()
        super().note_key_uses(used_at)


@dataclass
class Seconds:
    """A monotonic clock that the test moves."""

    at: float = 1_000.0

    def now(self) -> float:
        return self.at


@dataclass
class Desk:
    """A book, who changes keys beside it, and what moves both clocks."""

    store: Troubled
    clock: TestClock
    seconds: Seconds

    def __post_init__(self) -> None:
        self.book = KeyBook(self.store, self.seconds.now)
        self.keeper = KeyKeeper(self.store, CountedIds(), new_key=new_key, on_change=self.book.forget)

    def made(
        self, name: str = "ci", *, expires_after: timedelta | None = None, writes_per_minute: int | None = None
    ) -> MadeKey:
        wanted = WantedKey(
            name=name, role=Role.WRITER, expires_after=expires_after, writes_per_minute=writes_per_minute
        )
        return self.keeper.create(wanted, actor="me", within=EVERYTHING)

    def is_old(self) -> bool:
        return self.book.is_old

    def revoke(self, name: str = "ci") -> None:
        self.keeper.revoke(name, actor="me", reason="over")

    def after(self, seconds: float) -> None:
        self.seconds.at += seconds
        self.clock.at += timedelta(seconds=seconds)

    def used_at(self, key: MadeKey) -> datetime | None:
        with self.store.read() as reader:
            return next(one.last_used_at for one in reader.access_keys() if one.id == key.stored.id)


@pytest.fixture
def desk(sqlite_url: str, clock: TestClock) -> Iterator[Desk]:
    store = Troubled(sqlite_url, clock)
    yield Desk(store, clock, Seconds())
    store.close()


def test_what_is_known_stays_until_the_next_look(desk: Desk) -> None:
    """Who holds a stream is not cut off, and nobody is told that his key is none, while some key is changed."""
    one = desk.made()
    desk.book.look()
    assert not desk.is_old()
    desk.made("another")
    assert desk.is_old(), "nobody is admitted before the next look"
    assert desk.book.is_live(one.stored.id)
    assert desk.book.find(digest_of(one.key)) is not None
    desk.book.look()
    assert not desk.is_old()
    desk.revoke()
    assert desk.book.is_live(one.stored.id), "as far as the book knows"
    desk.book.look()
    assert not desk.book.is_live(one.stored.id)


def test_a_look_that_began_before_a_change_has_not_seen_it(desk: Desk) -> None:
    one = desk.made()
    desk.book.look()
    desk.after(LOOK_AGAIN_S)
    desk.store.while_read.append(desk.revoke)
    desk.book.look()
    assert desk.book.is_live(one.stored.id)
    assert desk.is_old()
    desk.book.look()
    assert not desk.book.is_live(one.stored.id)
    assert not desk.is_old()


def test_all_that_changes_during_a_look_is_seen_by_the_next(desk: Desk) -> None:
    one, other = desk.made(), desk.made("other")
    desk.store.while_read += [desk.revoke, lambda: desk.revoke("other")]
    desk.book.look()
    assert desk.is_old()
    desk.book.look()
    assert not desk.is_old()
    assert not desk.book.is_live(one.stored.id)
    assert not desk.book.is_live(other.stored.id)


def test_a_look_serves_all_who_asked_before_it_began(desk: Desk) -> None:
    desk.book.look()
    before = desk.store.reads
    desk.book.look()
    assert desk.store.reads == before, "somebody just did"
    desk.book.look(again=True)
    assert desk.store.reads == before + 1, "whoever did"
    desk.after(LOOK_AGAIN_S)
    desk.book.look()
    assert desk.store.reads == before + 2


def test_a_use_that_cannot_be_noted_is_noted_later(desk: Desk) -> None:
    def refuse() -> None:
        raise StorageUnavailable("away")

    one, other = desk.made(), desk.made("other")
    desk.book.look()
    desk.book.used(one.stored.id)
    desk.book.used(other.stored.id)
    desk.after(LOOK_AGAIN_S)
    desk.store.while_noted += [refuse]
    desk.book.look()
    assert desk.used_at(one) is None
    desk.after(90)
    desk.book.used(other.stored.id)
    desk.book.look()
    minute = START.replace(second=0)
    assert desk.used_at(one) == minute, "when it was used, not when that was noted"
    assert desk.used_at(other) == minute + timedelta(minutes=1)


def test_a_use_that_cannot_be_noted_does_not_hide_a_later_one(desk: Desk) -> None:
    one = desk.made()

    def use_and_refuse() -> None:
        desk.after(120)
        desk.book.used(one.stored.id)
        raise StorageUnavailable("away")

    desk.book.look()
    desk.book.used(one.stored.id)
    desk.after(LOOK_AGAIN_S)
    desk.store.while_noted.append(use_and_refuse)
    desk.book.look()
    desk.after(LOOK_AGAIN_S)
    desk.book.look()
    assert desk.used_at(one) == START.replace(second=0) + timedelta(minutes=2)


def test_a_use_while_others_are_noted_is_noted_next(desk: Desk) -> None:
    one, other = desk.made(), desk.made("other")
    desk.book.look()
    desk.book.used(one.stored.id)
    desk.after(LOOK_AGAIN_S)
    desk.store.while_noted.append(lambda: desk.book.used(other.stored.id))
    desk.book.look()
    assert desk.used_at(other) is None
    desk.after(LOOK_AGAIN_S)
    desk.book.look()
    assert desk.used_at(other) == START.replace(second=0)


def test_guesses_cost_ten_looks_at_once_and_ten_a_second(desk: Desk) -> None:
    def looks() -> int:
        return sum(desk.book.take_look() for _ in range(1_000))

    assert looks() == 10
    desk.seconds.at += 0.25
    assert looks() == 2
    desk.seconds.at += 3_600
    assert looks() == 10, "they do not add up"


def test_the_clock_goes_on_between_looks(desk: Desk) -> None:
    one = desk.made(expires_after=timedelta(seconds=60))
    desk.book.look()
    assert desk.book.now() == START
    desk.seconds.at += 59.999
    assert desk.book.is_live(one.stored.id)
    desk.seconds.at += 0.001
    assert not desk.book.is_live(one.stored.id)


def test_each_look_is_another_edition(desk: Desk) -> None:
    editions = {desk.book.edition}
    for _ in range(3):
        desk.book.look(again=True)
        editions.add(desk.book.edition)
        desk.book.forget()
        editions.add(desk.book.edition)
    assert len(editions) == 4, "what is known changes with a look, not before"
