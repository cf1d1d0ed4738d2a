"""The key file: made closed to others, rotated in place, and every trouble with it one sentence without a secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.audit.verify.signed_note import parse_public_keys, parse_signing_keys
from orchestrator.bootstrap import build_sealer, make_first_key
from orchestrator.errors import InvalidInput, SealKeyUnavailable
from orchestrator.ports.store import EventStore
from orchestrator.sealing.keys import make_key_file, public_path, read_keys, rotate
from orchestrator.settings import load_settings
from orchestrator.storage.opening import open_store
from tests.audit.sealing import opened, write


def test_a_new_key_file_is_its_owners_alone_and_has_a_public_half(tmp_path: Path) -> None:
    file = tmp_path / "seal.key"
    key = make_key_file(file, "log.example.com")
    assert file.stat().st_mode & 0o777 == 0o600
    assert public_path(file).stat().st_mode & 0o777 == 0o644
    assert read_keys(file) == (key,)
    assert parse_public_keys((tmp_path / "seal.pub").read_text()) == (key.public,)


def test_a_key_file_is_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / "seal.key"
    make_key_file(file, "log.example.com")
    before = file.read_bytes()
    with pytest.raises(InvalidInput, match="rotate"):
        make_key_file(file, "log.example.com")
    assert file.read_bytes() == before


def test_rotation_adds_a_key_of_the_same_name_and_keeps_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "seal.key"
    old = make_key_file(file, "log.example.com")
    new = rotate(file)
    assert read_keys(file) == (old, new)
    assert (new.name, new.seed != old.seed) == (old.name, True)
    assert file.stat().st_mode & 0o777 == 0o600
    assert parse_public_keys(public_path(file).read_text()) == (old.public, new.public)
    file.write_text("".join(f"{line}\n" for line in file.read_text().splitlines()[1:]))
    assert read_keys(file) == (new,)


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "line\nfeed"])
def test_a_name_that_no_note_can_hold_is_refused(tmp_path: Path, origin: str) -> None:
    with pytest.raises(InvalidInput, match="--origin"):
        make_key_file(tmp_path / "seal.key", origin)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        make_key_file(tmp_path / "nowhere" / "seal.key", "log.example.com")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no private key"),
        (b"not a key\n", "line 1: not a private key"),
        (b"\xff\xfe", "it is not text"),
        (b"#" * 200_000, "longer than"),
    ],
)
def test_a_file_that_holds_no_key_is_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "seal.key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(SealKeyUnavailable, match=said) as raised:
        read_keys(file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_key_that_others_can_read_or_write_is_refused_with_the_way_to_close_it(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "seal.key"
    key = make_key_file(file, "log.example.com")
    file.chmod(mode)
    with pytest.raises(SealKeyUnavailable, match=rf"can be read by others \(mode {mode:o}\).*chmod 600 {file}"):
        read_keys(file)
    file.chmod(0o400)
    assert read_keys(file) == (key,)


def test_a_missing_file_and_a_folder_in_its_place_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SealKeyUnavailable, match="audit keys new"):
        read_keys(tmp_path / "seal.key")
    with pytest.raises(SealKeyUnavailable, match="Is a directory"):
        read_keys(tmp_path)


def test_a_damaged_key_is_refused_without_being_shown(tmp_path: Path) -> None:
    file = tmp_path / "seal.key"
    make_key_file(file, "log.example.com")
    text = file.read_text()
    secret = text.strip().split("+", 4)[4]  # the last part is base64, which has plus signs of its own
    file.write_text(text.replace(secret, secret[:-4]))
    with pytest.raises(SealKeyUnavailable) as raised:
        read_keys(file)
    assert secret[:10] not in str(raised.value)
    assert parse_signing_keys(text)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[EventStore]:
    made = open_store(sqlite_url)
    yield made
    made.close()


def test_the_data_folder_gets_a_key_before_the_first_seal_and_never_a_second_one(
    store: EventStore, tmp_path: Path
) -> None:
    """A key that was lost is missed loudly: a new one would look like an attacker's."""
    settings = load_settings({}, data=tmp_path).sealing_in_data_folder()
    make_first_key(store, settings)
    [key] = read_keys(tmp_path / "seal.key")
    make_first_key(store, settings)
    assert read_keys(tmp_path / "seal.key") == (key,)
    sealer = build_sealer(store, settings)
    assert sealer is not None
    write(store)
    assert sealer.run().problems == []
    (tmp_path / "seal.key").unlink()
    make_first_key(store, settings)
    assert not (tmp_path / "seal.key").exists()
    write(store)
    [problem] = sealer.run().problems
    assert "there is no seal key" in problem


def test_sealing_is_declined_on_purpose(store: EventStore, tmp_path: Path) -> None:
    settings = load_settings({}, data=tmp_path, seal_key="off").sealing_in_data_folder()
    make_first_key(store, settings)
    assert settings.sealing_declined
    assert build_sealer(store, settings) is None
    assert list(tmp_path.glob("*.key")) == []


def test_a_key_that_is_replaced_needs_no_restart(store: EventStore, tmp_path: Path) -> None:
    settings = load_settings({}, data=tmp_path, origin="log.example.com").sealing_in_data_folder()
    sealer = build_sealer(store, settings)
    assert sealer is not None
    write(store)
    assert len(sealer.run().problems) == 1
    make_first_key(store, settings)
    assert sealer.run().problems == []
    new = rotate(tmp_path / "seal.key")
    write(store)
    [checkpoint] = sealer.run().checkpoints
    assert opened(checkpoint, new.public).origin == "log.example.com"


def test_without_a_key_named_there_is_no_sealer(store: EventStore) -> None:
    assert build_sealer(store, load_settings({})) is None
