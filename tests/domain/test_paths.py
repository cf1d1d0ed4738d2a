"""Paths as data: stored exactly, refused with a reason."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.domain.paths import MAX_PATH_BYTES, check_path, escape_path, unescape_path
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
