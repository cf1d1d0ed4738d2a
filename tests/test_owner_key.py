"""The owner's key and its file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from orchestrator.domain.key_words import is_key
from orchestrator.errors import InvalidInput
from orchestrator.owner_key import make_owner_key, new_key, read_owner_key


def test_a_key_is_new_each_time_and_checks_itself() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(is_key(key) and key.startswith("ro_") and len(key) == 36 for key in keys)
    key = keys.pop()
    last = "0" if key[-1] != "0" else "1"
    for wrong in (key[:-1] + last, key[:-1], key + "0", key[3:], key[4] + key[1:], "", key.swapcase()):
        assert not is_key(wrong)


def test_the_file_is_its_owners_alone_and_made_once(tmp_path: Path) -> None:
    file = tmp_path / "owner.key"
    key = make_owner_key(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_owner_key(file) == key
    with pytest.raises(InvalidInput, match="is there already"):
        make_owner_key(file)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602, 0o666])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "owner.key"
    make_owner_key(file)
    file.chmod(mode)
    with pytest.raises(InvalidInput, match="chmod 600"):
        read_owner_key(file)


@pytest.mark.parametrize("content", [b"", b"ro_", b"\xff\xfe", b"ro_" + b"0" * 33, b"x" * 5000])
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "owner.key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(InvalidInput, match="does not hold the owner's key") as raised:
        read_owner_key(file)
    assert "0000" not in str(raised.value)
    with pytest.raises(InvalidInput, match=r"there is no file .* with the owner's key"):
        read_owner_key(tmp_path / "none")
