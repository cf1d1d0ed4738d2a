"""Signed notes and checkpoints: what others sign we read, and nothing in one can be changed unseen."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.audit.verify import merkle
from orchestrator.audit.verify.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint, sign_checkpoint
from orchestrator.audit.verify.signed_note import (
    MOST_BYTES,
    NoteFault,
    NoteRefused,
    PublicKey,
    make_key,
    open_note,
    parse_public_key,
    parse_public_keys,
    parse_signing_keys,
    sign_note,
)

# The example of the documentation of Go's package golang.org/x/mod/sumdb/note.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_SIGNATURE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

OLD, NEW = make_key("log.example.com", b"o" * 32), make_key("log.example.com", b"n" * 32)
OTHER = make_key("other.example.com", b"x" * 32)
SEALED_AT = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
CHECKPOINT = Checkpoint(
    origin="log.example.com", size=8, root=merkle.leaf_hash(b"root"), position=11, sealed_at=SEALED_AT
)


def refused(note: str | bytes, *keys: PublicKey) -> NoteRefused:
    with pytest.raises(NoteRefused) as caught:
        open_checkpoint(note, keys)
    return caught.value


def test_go_example_verifies_and_its_key_is_spelled_alike() -> None:
    key = parse_public_key(GO_KEY)
    opened = open_note(f"{GO_TEXT}\n{GO_SIGNATURE}", [key])

    assert (opened.text, opened.signers) == (GO_TEXT, (key,))
    assert key.line() == GO_KEY


def test_keys_are_read_as_they_are_written() -> None:
    file = f"# first key\n{OLD.line()}\r\n\n{OTHER.line()}\n"

    assert parse_signing_keys(file) == (OLD, OTHER)
    assert OLD.line().startswith(f"PRIVATE+KEY+log.example.com+{OLD.public.key_hash.hex()}+AW")
    assert parse_public_keys(f"{OLD.public.line()}\n{NEW.public.line()}") == (OLD.public, NEW.public)
    assert OLD.public.key_hash != NEW.public.key_hash
    assert "ooo" not in repr(OLD)


def test_text_is_that_of_the_specification() -> None:
    note = sign_checkpoint(CHECKPOINT, [OLD])
    body, signatures = note.split("\n\n")

    assert body.split("\n") == [
        "log.example.com",
        "8",
        b64encode(CHECKPOINT.root).decode(),
        "position 11",
        "sealed_at 2026-11-23T12:00:00.123456Z",
    ]
    assert signatures.startswith("— log.example.com ")
    assert open_checkpoint(note, [OLD.public]) == open_checkpoint(note.encode(), [OLD.public]) == CHECKPOINT


def test_checkpoints_of_others_need_three_lines_and_their_extensions_are_passed_over() -> None:
    root = b64encode(CHECKPOINT.root).decode()
    plain = sign_note(f"log.example.com/2026\n8\n{root}\n", [OLD])
    extended = sign_note(f"log.example.com/2026\n8\n{root}\nsome extension\nother\n", [OLD])

    expected = Checkpoint(origin="log.example.com/2026", size=8, root=CHECKPOINT.root)
    assert open_checkpoint(plain, [OLD.public]) == open_checkpoint(extended, [OLD.public]) == expected


@pytest.mark.parametrize("root", [merkle.EMPTY_ROOT, CHECKPOINT.root])
def test_a_checkpoint_of_no_events_proves_nothing_whoever_signed_it(root: bytes) -> None:
    signed = sign_note(f"log.example.com/2026\n0\n{b64encode(root).decode()}\n", [OLD])

    with pytest.raises(NoteRefused, match="line 2: a checkpoint of no events proves nothing"):
        open_checkpoint(signed, [OLD.public])
    with pytest.raises(NoteRefused, match="line 2: a checkpoint of no events proves nothing"):
        sign_checkpoint(Checkpoint(origin="log.example.com/2026", size=0, root=root), [OLD])


def test_instants_are_written_in_utc() -> None:
    there = SEALED_AT.astimezone(timezone(timedelta(hours=2)))
    local = Checkpoint(origin="o", size=8, root=CHECKPOINT.root, sealed_at=there)

    assert "sealed_at 2026-11-23T12:00:00.123456Z\n" in local.text()


@pytest.mark.parametrize("keys", [[OLD], [OLD, NEW]], ids=["one key", "two keys"])
def test_no_byte_can_be_changed_taken_out_or_added(keys: list[object]) -> None:
    signing = [key for key in (OLD, NEW) if key in keys]
    note = sign_checkpoint(CHECKPOINT, signing).encode()

    for at in range(len(note)):
        for changed in (note[:at] + bytes([note[at] ^ 1]) + note[at + 1 :], note[:at] + note[at + 1 :]):
            refused(changed, OLD.public)
        refused(note[:at] + b"A" + note[at:], OLD.public)
        refused(note[:at], OLD.public)


def test_wrong_key_names_both_sides() -> None:
    found = refused(sign_checkpoint(CHECKPOINT, [OLD]), NEW.public, OTHER.public)

    assert found.fault is NoteFault.WRONG_KEY
    labels = OLD.public.label, NEW.public.label, OTHER.public.label
    assert str(found) == "wrong key: signed by {}, to be verified with {}, {}".format(*labels)
    assert "to be verified with no key" in str(refused(sign_checkpoint(CHECKPOINT, [OLD])))


def test_edited_text_and_foreign_signature_are_bad_signatures() -> None:
    note = sign_checkpoint(CHECKPOINT, [OLD])
    grafted = note.split("\n\n")[0] + "\n\n" + sign_note("x\n", [OLD]).split("\n\n")[1]

    for bad in (note.replace("\n8\n", "\n9\n"), grafted):
        found = refused(bad, OLD.public)
        assert (found.fault, found.line) == (NoteFault.BAD_SIGNATURE, 7)


def test_signatures_of_strangers_are_passed_over() -> None:
    witness = sign_note(CHECKPOINT.text(), [OTHER]).split("\n\n")[1]

    assert open_checkpoint(sign_checkpoint(CHECKPOINT, [OLD]) + witness, [OLD.public]) == CHECKPOINT


def test_who_knows_the_old_key_learns_the_new_one() -> None:
    both = sign_checkpoint(CHECKPOINT, [OLD, NEW])
    after = sign_checkpoint(CHECKPOINT, [NEW])
    learned = open_checkpoint(both, [OLD.public]).keys

    assert learned == (OLD.public, NEW.public)
    assert open_checkpoint(both, [NEW.public]).keys == learned
    assert open_checkpoint(after, learned).keys == ()
    assert refused(after, OLD.public).fault is NoteFault.WRONG_KEY


def test_an_announced_key_must_have_signed() -> None:
    lines = sign_checkpoint(CHECKPOINT, [OLD, NEW]).splitlines(keepends=True)

    found = refused("".join(lines[:-1]), OLD.public)
    assert found.fault is NoteFault.MISSING_SIGNATURE
    assert NEW.public.label in str(found)
    assert refused("".join(lines[:-2] + lines[-1:]), NEW.public).fault is NoteFault.MISSING_SIGNATURE


ROOT = b64encode(CHECKPOINT.root).decode()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", None),
        ("log\n8\n", None),
        (f"log\n8\n{ROOT}", None),
        (f"\n8\n{ROOT}\n", 1),
        (f"log\n08\n{ROOT}\n", 2),
        (f"log\n-8\n{ROOT}\n", 2),
        (f"log\n٨\n{ROOT}\n", 2),
        (f"log\n{'9' * 20}\n{ROOT}\n", 2),
        (f"log\n8\n{ROOT[:-4]}\n", 3),
        (f"log\n8\n{ROOT} \n", 3),
        (f"log\n8\n{ROOT[:-2]}{chr(ord(ROOT[-2]) + 1)}=\n", 3),
        (f"log\n8\n{ROOT}\n\nmore\n", 4),
        (f"log\n8\n{ROOT}\nposition\n", 4),
        (f"log\n8\n{ROOT}\nposition 1\nposition 2\n", 5),
        (f"log\n8\n{ROOT}\nsealed_at yesterday\n", 4),
        (f"log\n8\n{ROOT}\nsealed_at 2026-13-23T12:00:00.123456Z\n", 4),
        (f"log\n8\n{ROOT}\nposition 1\nkey log+00000000+AAAA\n", 5),
    ],
)
def test_a_malformed_checkpoint_names_its_line(text: str, line: int | None) -> None:
    with pytest.raises(NoteRefused) as caught:
        parse_checkpoint(text)

    assert (caught.value.fault, caught.value.line) == (NoteFault.MALFORMED, line)


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ("", "not a signed note"),
        ("text\n", "not a signed note"),
        ("text\n\n", "does not end in a signature line"),
        (f"text\n\n{GO_SIGNATURE}"[:-1], "does not end in a signature line"),
        ("text\n\n- name AAAAAAAA\n", "line 3: not a signature line"),
        ("text\n\n— name\n", "line 3: not a signature line"),
        ("text\n\n— a+b AAAAAAAA\n", "line 3: not a signature line"),
        ("text\n\n— name AAA\n", "line 3: the signature of name is not the base64 of one"),
        ("text\n\n— name AAAA\n", "line 3: the signature of name is not the base64 of one"),
        (f"one\ntwo\t\n\n{GO_SIGNATURE}", "line 2: the text of a note holds no control character"),
        (f"text\r\n\n{GO_SIGNATURE}", "line 1: the text of a note holds no control character"),
        (b"\xff\n\n" + GO_SIGNATURE.encode(), "the note is not UTF-8"),
        (f"\ud800\n\n{GO_SIGNATURE}", "the note is not UTF-8"),
        ("x" * (MOST_BYTES + 1), "longer than"),
        (f"text\n\n{GO_SIGNATURE * 101}", "more than 100 signatures"),
    ],
)
def test_a_malformed_note_says_where(note: str | bytes, message: str) -> None:
    with pytest.raises(NoteRefused, match=message) as caught:
        open_note(note, [parse_public_key(GO_KEY)])

    assert caught.value.fault is NoteFault.MALFORMED


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("", "holds no public key"),
        ("# nothing\n", "holds no public key"),
        (f"{GO_KEY}\nname", "line 2: not a key"),
        (
            GO_KEY.replace("c74f20a3", "c74f20a4"),
            "line 1: the hash of the key of PeterNeumann is c74f20a3, not 'c74f20a4'",
        ),
        (GO_KEY.replace("Peter", "Paul"), "line 1: the hash of the key"),
        (GO_KEY[:-1], "line 1: the key of PeterNeumann is not base64"),
        (GO_KEY[:-4], "line 1: the key of PeterNeumann is not an Ed25519 key"),
        (GO_KEY.replace("ARpc", "AhpC"), "line 1: the key of PeterNeumann is not an Ed25519 key"),
        (OLD.line(), "line 1: this is a private key"),
    ],
)
def test_a_bad_public_key_says_where(file: str, message: str) -> None:
    with pytest.raises(NoteRefused, match=message):
        parse_public_keys(file)


def test_a_bad_private_key_says_where_and_keeps_the_secret() -> None:
    for file, message in [
        (OLD.public.line(), "line 1: not a private key"),
        (f"{OLD.line()}\n{NEW.line()[:-4]}", "line 2: the key of log.example.com is not an Ed25519 key"),
        ("\n", "holds no private key"),
    ]:
        with pytest.raises(NoteRefused, match=message) as caught:
            parse_signing_keys(file)
        assert OLD.line()[-20:] not in str(caught.value)


@pytest.mark.parametrize("name", ["", "two words", "a+b", "line\nfeed", "no\N{NO-BREAK SPACE}break", "\x01", "\ud800"])
def test_an_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(NoteRefused, match="cannot name a key"):
        make_key(name, b"s" * 32)


def test_what_cannot_be_signed_is_refused() -> None:
    for text, keys in [("no line feed", [OLD]), ("tab\t\n", [OLD]), ("\ud800\n", [OLD]), ("text\n", [])]:
        with pytest.raises(NoteRefused):
            sign_note(text, keys)
    with pytest.raises(NoteRefused, match="32 bytes, not 31"):
        make_key("name", b"s" * 31)
    with pytest.raises(NoteRefused, match="line 1: a checkpoint has no empty line"):
        sign_checkpoint(Checkpoint(origin="", size=0, root=merkle.EMPTY_ROOT), [OLD])


PIECES = st.sampled_from(
    ["\n", "\n\n", "— ", "log", " ", "+", "8", ROOT, "key ", GO_KEY, GO_SIGNATURE, "position ", "\x00"]
)
NOTES = st.one_of(st.binary(max_size=200), st.text(max_size=100), st.lists(PIECES, max_size=20).map("".join))


@settings(deadline=None)
@given(NOTES)
def test_nothing_but_a_refusal_is_ever_raised(note: str | bytes) -> None:
    text = note if isinstance(note, str) else note.decode("latin-1")
    for read in (open_checkpoint, open_note):
        with pytest.raises(NoteRefused):
            read(note, [OLD.public])  # nobody forges a signature
    for parse in (parse_checkpoint, parse_public_keys, parse_signing_keys):
        with suppress(NoteRefused):
            parse(text)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_whatever_was_signed_is_a_checkpoint_or_refused(text: str) -> None:
    with suppress(NoteRefused):
        opened = open_checkpoint(sign_note(text + "\n", [OLD]), [OLD.public])
        assert opened.origin == text.split("\n")[0]
