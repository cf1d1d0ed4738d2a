"""What the words of scopes mean."""

from __future__ import annotations

import fnmatch
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.key_words import RANDOM_BITS, digest_of, is_key, spell_key
from orchestrator.domain.scopes import (
    EVERYTHING,
    EVERYWHERE,
    ROLES,
    Grants,
    Reach,
    Role,
    Scope,
    granted,
    grants_of,
    parse_grants,
)
from orchestrator.errors import InvalidInput

NAMES = st.text("ab.-:_*?", min_size=1, max_size=8)


def test_roles_are_what_the_contract_says() -> None:
    assert {Scope.REGISTER_CODE, Scope.KEYS}.isdisjoint(ROLES[Role.WRITER] | ROLES[Role.OPERATOR] | ROLES[Role.AUDITOR])
    assert all(Scope.READ in scopes for scopes in ROLES.values())
    assert ROLES[Role.ADMIN] == frozenset(Scope)
    assert ROLES[Role.WRITER] == {Scope.READ, Scope.WRITES}
    assert {Scope.AUDIT, Scope.EXPORT} <= ROLES[Role.AUDITOR]
    assert Scope.WRITES not in ROLES[Role.AUDITOR]


def test_a_named_scope_takes_the_place_of_the_roles() -> None:
    grants = granted(Role.WRITER, ["writes@fleet=web-*", "writes@workspace=one", "cancel"])
    assert grants.spelled() == ["cancel", "read", "writes@fleet=web-*", "writes@workspace=one"]
    writes = grants.reach(Scope.WRITES)
    assert writes.holds("any", "web-1")
    assert writes.holds("one", "api")
    assert not writes.holds("two", "api")
    assert not writes.holds("web-1", "api")
    assert writes.holds_fleet("web-")
    assert not writes.holds_fleet("one")
    assert grants.reach(Scope.HOLDS).is_empty


@given(
    st.lists(st.sampled_from(["read", "read@fleet=a*", "writes@workspace=b?", "holds@fleet=c", "audit"]), max_size=8)
)
def test_what_is_spelled_is_read_back(words: list[str]) -> None:
    grants = parse_grants(words)
    assert parse_grants(grants.spelled()) == grants
    if "read" in words:
        assert grants.reach(Scope.READ) == EVERYWHERE


@given(NAMES, st.text("ab.-:_", min_size=1, max_size=8))
def test_globs_match_as_globs_do(glob: str, name: str) -> None:
    assert Reach(fleets=(glob,)).holds("w", name) == (re.fullmatch(fnmatch.translate(glob), name) is not None)


@pytest.mark.parametrize(
    "word",
    ["", "reads", "READ", "read@", "read@fleet", "read@fleet=", "read@label=x", "read@fleet=a/b", "read@fleet=[ab]",
     "keys@fleet=a", "audit@workspace=*", "metrics@fleet=*", "read@fleet=" + "a" * 129, "read fleet=a", "read@fleet=ä"],
)  # fmt: skip
def test_words_that_are_none_are_refused_by_name(word: str) -> None:
    with pytest.raises(InvalidInput, match="scope"):
        parse_grants([word])


def test_a_glob_of_many_stars_is_quick() -> None:
    assert not Reach(workspaces=("*" * 100 + "b",)).holds_workspace("a" * 128)
    assert grants_of(Scope).reach(Scope.KEYS).everywhere


GLOBS = st.text("ab*?", min_size=1, max_size=6)
PLAIN = st.text("ab", max_size=8)
BOUNDS = st.lists(GLOBS, max_size=3).map(tuple)
REACHES = st.builds(Reach, everywhere=st.booleans(), fleets=BOUNDS, workspaces=BOUNDS)
SEVERAL = st.dictionaries(st.sampled_from([Scope.READ, Scope.WRITES, Scope.HOLDS]), REACHES).map(Grants)


def narrower(glob: str, draws: random.Random) -> str:
    """Return a glob that matches some of what another does."""
    parts = {"*": ["", "*", "?", "a", "b*", "?b", "**"], "?": ["?", "a", "b"]}
    return "".join(draws.choice(parts.get(letter, [letter])) for letter in glob) or "a"


@given(REACHES, REACHES, PLAIN, PLAIN)
def test_what_is_within_reaches_nothing_that_the_other_does_not(
    one: Reach, other: Reach, name: str, fleet: str
) -> None:
    if one.is_within(other):
        assert not one.holds(name, fleet) or other.holds(name, fleet)
        assert not one.holds_fleet(fleet) or other.holds_fleet(fleet)
        assert not one.holds_workspace(name) or other.holds_workspace(name)
        assert not one.everywhere or other.everywhere


@given(GLOBS, st.randoms(use_true_random=False), PLAIN)
def test_a_narrower_glob_is_within(glob: str, draws: random.Random, name: str) -> None:
    narrow = narrower(glob, draws)
    assert Reach(fleets=(narrow,)).is_within(Reach(fleets=(glob,)))
    assert not Reach(fleets=(narrow,)).holds_fleet(name) or Reach(fleets=(glob,)).holds_fleet(name)


@pytest.mark.parametrize(
    ("one", "other", "is_within"),
    [
        ("web-*", "web-*", True),
        ("web-1", "web-*", True),
        ("web-*", "web-1", False),
        ("web-1*", "web-*", True),
        ("web-*-x", "web-*", True),
        ("web*", "web-*", False),
        ("*", "web-*", False),
        ("web-*", "*", True),
        ("web-**", "web-*", True),
        ("web-?", "web-*", True),
        ("web-*", "web-?", False),
        ("web-1", "web-?", True),
        ("web-12", "web-?", False),
        ("web-", "web-?", False),
        ("w?b", "w?b", True),
        ("w*b", "w?b", False),
        ("a.b", "a?b", True),
    ],
)
def test_which_globs_are_within_which(one: str, other: str, is_within: bool) -> None:
    assert Reach(fleets=(one,)).is_within(Reach(fleets=("no", other))) == is_within
    assert Reach(workspaces=(one,)).is_within(Reach(workspaces=(other,))) == is_within
    assert Reach(fleets=(one,)).is_within(EVERYWHERE)
    assert not EVERYWHERE.is_within(Reach(fleets=(other, "*"), workspaces=("*",)))
    assert not Reach(fleets=(one,)).is_within(Reach(workspaces=("*",))), "whole fleets have policies of their own"
    assert not Reach(workspaces=(one,)).is_within(Reach(fleets=("*",)))


@given(SEVERAL, SEVERAL, PLAIN, PLAIN)
def test_nothing_is_beyond_what_is_held(some: Grants, others: Grants, name: str, fleet: str) -> None:
    assert some.beyond(some) == []
    assert some.beyond(EVERYTHING) == []
    beyond = some.beyond(others)
    assert set(beyond) <= set(some.spelled())
    for scope in Scope:
        if scope not in {word.partition("@")[0] for word in beyond}:
            assert not some.reach(scope).holds(name, fleet) or others.reach(scope).holds(name, fleet)
    left = [word for word in some.spelled() if word not in beyond]
    assert parse_grants(left).beyond(others) == []


def test_what_is_beyond_is_named() -> None:
    held = granted(Role.WRITER, ["writes@fleet=web-*", "keys"])
    assert granted(Role.WRITER, ["writes@fleet=web-1"]).beyond(held) == []
    assert granted(Role.WRITER, []).beyond(held) == ["writes"]
    assert granted(Role.WRITER, ["writes@fleet=web-1", "writes@fleet=db", "cancel@workspace=x"]).beyond(held) == [
        "cancel@workspace=x",
        "writes@fleet=db",
    ]
    assert "register-code" in granted(Role.ADMIN, []).beyond(held)


@given(st.integers(min_value=0, max_value=2**RANDOM_BITS - 1))
def test_keys_check_themselves(bits: int) -> None:
    key = spell_key(bits)
    assert is_key(key)
    assert len(digest_of(key)) == 64
    assert not is_key(key[:-1] + ("0" if key[-1] != "0" else "1"))
