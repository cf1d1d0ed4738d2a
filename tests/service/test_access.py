"""Who is admitted: worked out once for each look at the keys, and still judged at each request."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from orchestrator.domain.key_words import digest_of
from orchestrator.domain.scopes import EVERYTHING, Scope
from orchestrator.errors import Unauthenticated
from orchestrator.owner_key import new_key
from orchestrator.service.access import Access, Owner, Principal, Refusal
from orchestrator.service.key_book import LOOK_AGAIN_S
from orchestrator.service.write_budget import WriteBudget
from tests.history import START, TestClock
from tests.service.test_key_book import Desk, Seconds, Troubled

OWNER = new_key()


@pytest.fixture
def desk(sqlite_url: str, clock: TestClock) -> Iterator[Desk]:
    store = Troubled(sqlite_url, clock)
    yield Desk(store, clock, Seconds())
    store.close()


@pytest.fixture
def access(desk: Desk) -> Access:
    return Access(Owner(digest=digest_of(OWNER), name="ann"), desk.book, closed=True)


def reason(access: Access, key: str, scheme: str = "Bearer") -> Refusal:
    with pytest.raises(Unauthenticated) as raised:
        access.admit(f"{scheme} {key}")
    return Refusal(raised.value.reason)


def test_who_was_admitted_is_known_until_the_next_look(desk: Desk, access: Access) -> None:
    one, other = desk.made(), desk.made("other")
    desk.book.look()
    first = access.admit(f"Bearer {one.key}")
    assert (first.actor, first.key, first.grants.spelled()) == ("key:ci", one.stored.id, ["read", "writes"])
    assert access.admit(f"bearer  {one.key} ") is first
    assert access.admit(f"Bearer {other.key}").actor == "key:other"
    desk.after(LOOK_AGAIN_S)
    desk.book.look()
    again = access.admit(f"Bearer {one.key}")
    assert again == first
    assert again is not first, "what the last look found"


def test_a_key_that_was_admitted_is_refused_once_it_is_revoked(desk: Desk, access: Access) -> None:
    one = desk.made()
    desk.book.look()
    access.admit(f"Bearer {one.key}")
    desk.revoke()
    assert access.needs_look(f"Bearer {one.key}")
    desk.book.look()
    assert reason(access, one.key) == Refusal.REVOKED


def test_a_key_that_was_admitted_expires_to_the_instant(desk: Desk, access: Access) -> None:
    one = desk.made(expires_after=timedelta(seconds=60))
    desk.book.look()
    desk.seconds.at += 59.999
    caller = access.admit(f"Bearer {one.key}")
    assert access.is_live(caller)
    desk.seconds.at += 0.001
    assert reason(access, one.key) == Refusal.EXPIRED
    with pytest.raises(Unauthenticated):
        access.need_live(caller)


def test_live_keys_of_one_name_have_one_budget(desk: Desk, access: Access) -> None:
    old = desk.made("ci", writes_per_minute=6)
    desk.made("other", writes_per_minute=6)
    new = desk.keeper.rotate("ci", actor="me", within=EVERYTHING)
    desk.book.look()
    budgets = [access.admit(f"Bearer {one.key}").budget for one in (old, new)]
    assert budgets[0] == budgets[1] == WriteBudget(keys=(old.stored.id, new.stored.id), per_minute=6)
    desk.revoke(old.stored.id)
    desk.book.look()
    assert access.admit(f"Bearer {new.key}").budget == WriteBudget(keys=(new.stored.id,), per_minute=6)


def test_each_request_is_a_use(desk: Desk, access: Access) -> None:
    one = desk.made()
    desk.book.look()
    access.admit(f"Bearer {one.key}")
    desk.seconds.at += 300
    desk.clock.at += timedelta(seconds=300)
    access.admit(f"Bearer {one.key}")
    desk.book.look()
    assert desk.used_at(one) == START.replace(second=0) + timedelta(minutes=5)


def test_a_key_that_was_admitted_is_none_in_another_scheme(desk: Desk, access: Access) -> None:
    one = desk.made()
    desk.book.look()
    access.admit(f"Bearer {one.key}")
    for scheme in ("Basic", "", "Bearer Bearer"):
        assert reason(access, one.key, scheme) == Refusal.MALFORMED
    assert reason(access, OWNER, "Basic") == Refusal.MALFORMED
    assert reason(access, new_key()) == Refusal.UNKNOWN


def test_the_owner_is_in_no_book(desk: Desk, access: Access) -> None:
    owner: Principal = access.admit(f"Bearer {OWNER}")
    assert (owner.actor, owner.key) == ("user:ann", None)
    assert owner.grants.reach(Scope.KEYS).everywhere
    assert not access.needs_look(f"Bearer {OWNER}")
    assert access.needs_look(f"Basic {OWNER}")
    desk.book.look()
    assert access.admit(f"Bearer {OWNER}") == owner


def test_without_an_owner_no_key_is_theirs(desk: Desk) -> None:
    access = Access(None, desk.book, closed=True)
    desk.book.look()
    for key in ("", OWNER):
        with pytest.raises(Unauthenticated):
            access.admit(f"Bearer {key}")
