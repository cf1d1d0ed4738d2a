"""What the words of scopes mean."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.key_words import RANDOM_BITS, digest_of, is_key, spell_key
from orchestrator.domain.scopes import EVERYWHERE, ROLES, Reach, Role, Scope, granted, grants_of, parse_grants
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


@given(st.integers(min_value=0, max_value=2**RANDOM_BITS - 1))
def test_keys_check_themselves(bits: int) -> None:
    key = spell_key(bits)
    assert is_key(key)
    assert len(digest_of(key)) == 64
    assert not is_key(key[:-1] + ("0" if key[-1] != "0" else "1"))
