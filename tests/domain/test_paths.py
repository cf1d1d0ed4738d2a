"""Paths as data: stored exactly, refused with a reason, matched without surprises."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.domain.paths import (
    MAX_PATH_BYTES,
    MAX_PATTERN_CHARACTERS,
    MAX_PATTERNS,
    check_path,
    check_patterns,
    escape_path,
    matches,
    unescape_path,
)
from orchestrator.errors import InvalidInput

SURROGATES = st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF, categories=["Cs"])
ANY_TEXT = st.text(st.one_of(st.characters(), SURROGATES, st.sampled_from("%/\x00aé")))


def restored(stored: str, encoded: bool) -> str:
    return unescape_path(stored) if encoded else stored


@given(ANY_TEXT)
@example("\udcc3\udca9")
@example("\udcc3\udca9\x00é")
@example("\udced\udca0\udcbd\ud83d")
@example("100%25\x00")
def test_every_string_comes_back_exactly_and_what_is_stored_is_storable(raw: str) -> None:
    stored, encoded = escape_path(raw)
    assert restored(stored, encoded) == raw
    assert "\x00" not in stored
    stored.encode("utf-8")
    assert encoded is (stored != raw)


@given(st.binary().map(os.fsdecode))
def test_every_file_name_comes_back_exactly(name: str) -> None:
    stored, encoded = escape_path(name)
    assert restored(stored, encoded) == name


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        ("caf\udce9.txt", "caf%E9.txt"),
        ("a/b\x00c", "a/b%00c"),
        ("é%\x00", "%C3%A9%25%00"),
        ("\ud83d", "%ED%A0%BD"),
    ],
)
def test_odd_paths_are_percent_encoded_whole(raw: str, stored: str) -> None:
    assert escape_path(raw) == (stored, True)


@pytest.mark.parametrize("raw", ["a.py", "100%25", "é/ü", "\x01\n\x7f", "/etc/passwd", "../..", "a\\b", "😀"])
def test_plain_paths_stay_as_they_are_and_are_legal(raw: str) -> None:
    assert escape_path(raw) == (raw, False)
    check_path(raw)


@pytest.mark.parametrize("raw", ["x" * MAX_PATH_BYTES, "é" * (MAX_PATH_BYTES // 2), "\x00" * (MAX_PATH_BYTES // 3)])
def test_length_is_counted_in_stored_bytes(raw: str) -> None:
    check_path(raw)
    with pytest.raises(InvalidInput, match=str(MAX_PATH_BYTES)):
        check_path(raw + raw[0] * 2)


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(InvalidInput, match="empty") as refusal:
        check_path("")
    assert refusal.value.field == "path"


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        (("docs/**", "*.md"), "docs/a/b.txt", True),
        (("docs/**", "*.md"), "src/README.md", True),
        (("docs/**", "*.md"), "src/a.py", False),
        (("*.md", "!README.md"), "src/README.md", False),
        (("!README.md", "*.md"), "README.md", True),
        (("/build",), "build/x", True),
        (("/build",), "src/build/x", False),
        (("*.py",), "/srv/app/x.py", True),
        (("srv/app/",), "///srv/app/x.py", True),
        (("logs/",), "logs", False),
        (("a?c",), "a\udce9c", True),
        (("**",), "a\x00\nb", True),
        (("a\\b",), "a\\b", False),
    ],
)
def test_patterns_match_as_gitignore_does(patterns: tuple[str, ...], path: str, expected: bool) -> None:
    assert matches(patterns, path) is expected


@given(ANY_TEXT)
@example("")
@example("..")
@example("/")
def test_no_path_makes_matching_raise(path: str) -> None:
    assert matches(("*", "!*.md", "a/**/b", "[a-z]/"), path) in (True, False)


@pytest.mark.parametrize(
    "pattern", ["[z-a]", "!", "a\\", "", "  ", "# words", "a[", "x" * (MAX_PATTERN_CHARACTERS + 1)]
)
def test_a_bad_pattern_is_named(pattern: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_patterns(("*.py", pattern))
    assert repr(pattern[:40])[:-1] in str(refusal.value)
    assert refusal.value.field == "match"


@example("[[]")
# Odd brackets such as gitignore's "[[]": Python's re may read it otherwise one day and says so; today both agree.
@pytest.mark.filterwarnings("ignore:Possible .*set:FutureWarning")
@given(st.text(st.sampled_from("a*?[]!-^\\/#. \x00é\udce9"), max_size=12))
@example("[[]")
def test_a_pattern_is_refused_or_works_but_never_breaks(pattern: str) -> None:
    try:
        check_patterns((pattern,))
    except InvalidInput:
        with pytest.raises(InvalidInput):
            matches((pattern,), "a/b")
    else:
        assert matches((pattern,), "a/b") in (True, False)


@pytest.mark.parametrize("patterns", [(), ("*.py",) * (MAX_PATTERNS + 1)])
def test_an_empty_or_endless_list_is_refused(patterns: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        check_patterns(patterns)


@pytest.mark.parametrize("pattern", ["**/a/**/b/**/c", "**/a/**/b/**/c/**/d", "a*a*a*a*a*b"])
@pytest.mark.parametrize("path", ["a/b/" * 1000 + "x", "a" * 4000])
@pytest.mark.timeout(20)  # backtracking takes minutes to hours here; RE2 takes milliseconds
def test_no_path_keeps_the_matcher_busy(pattern: str, path: str) -> None:
    assert not matches((pattern,), path)
