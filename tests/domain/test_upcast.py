"""Older, newer and unknown events: lifted, read as far as they are known, or refused in words."""

from __future__ import annotations

import msgspec
import pytest

from orchestrator.domain.access_events import KeyCreated
from orchestrator.domain.encoding import decode_data, encode_data
from orchestrator.domain.event_types import EVENT_TYPES
from orchestrator.domain.events import CycleStarted
from orchestrator.domain.upcast import STEPS, upcast
from orchestrator.errors import Unreadable

STARTED_1 = (
    '{"attempt":1,"cycle":"cyc_1","fence":3,"fenced":true,"files":7,"from_position":1,"iteration":2,'
    '"kind":"restart","lease_until":"2026-11-23T12:01:00.000000Z","previous_started_at":null,"requests":1,'
    '"restart":"rst_1","shadow":false,"started_at":"2026-11-23T12:00:00.123456Z","to_position":9,"worker":"w",'
    '"writes":8}'
)


def test_a_start_of_schema_1_names_no_policy_and_is_shown_as_it_is_stored() -> None:
    data = decode_data("CycleStarted", 1, STARTED_1)
    assert isinstance(data, CycleStarted)
    assert data.policy_version is None
    assert encode_data(data) == STARTED_1


def test_a_start_of_schema_2_must_name_its_policy() -> None:
    with pytest.raises(Unreadable, match=r"its data is no CycleStarted of schema 2: .*policy_version"):
        decode_data("CycleStarted", 2, STARTED_1)


KEY_1 = (
    '{"expires_at":null,"key":"key_1","name":"ci","reads_per_minute":null,"replaces":null,"role":"writer",'
    '"scopes":["read"],"writes_per_minute":null}'
)


def test_a_key_of_schema_1_has_no_digest_and_is_shown_as_it_is_stored() -> None:
    data = decode_data("KeyCreated", 1, KEY_1, of_nobody=True)
    assert isinstance(data, KeyCreated)
    assert (data.digest, data.name) == (None, "ci")
    assert encode_data(data) == KEY_1


def test_upcasting_leaves_the_given_data_alone() -> None:
    given = msgspec.json.decode(STARTED_1)
    lifted = upcast("CycleStarted", 1, given, to=2)
    assert "policy_version" not in given
    assert lifted == {**given, "policy_version": None}
    assert upcast("CycleStarted", 2, lifted, to=2) is lifted


def test_every_older_schema_has_its_step_and_every_step_its_schema() -> None:
    older = {(name, number) for name, kind in EVENT_TYPES.items() for number in range(1, kind.SCHEMA)}
    assert older == set(STEPS)


def test_newer_data_is_read_as_far_as_it_is_known() -> None:
    newer = '{"more":{"a":[1.5]},"policy_version":7,' + STARTED_1[1:]
    assert decode_data("CycleStarted", 3, newer) == decode_data("CycleStarted", 2, newer)


@pytest.mark.parametrize(
    ("type_name", "schema", "text", "words"),
    [
        ("SomethingElse", 1, "{}", "'SomethingElse' is not one that this version knows: a newer one wrote it"),
        ("WorkspaceHeld", 9, '{"why":"x"}', "no WorkspaceHeld of schema 9: .*required field `reason`"),
        ("WorkspaceHeld", 0, '{"reason":"x","until":null}', "there is no schema 0 of WorkspaceHeld"),
        ("WorkspaceHeld", "one", '{"reason":"x","until":null}', "there is no schema 'one' of WorkspaceHeld"),
        ("CycleStarted", -1, STARTED_1, "there is no schema -1 of CycleStarted"),
        ("CycleStarted", 1, "[]", "no CycleStarted of schema 1: Expected `object`"),
        ("CycleStarted", 1, STARTED_1[:-1], "no CycleStarted of schema 1: .*truncated"),
        ("CycleStarted", 1, "", "truncated"),
        ("WorkspaceRemoved", 1, b'{"reason":"\xff"}', "no WorkspaceRemoved of schema 1: .*(?i:utf-8)"),
        ("WorkspaceRemoved", 1, '{"reason":"\udc80"}', "no WorkspaceRemoved of schema 1: .*(?i:utf-8)"),
        ("ClockRegressed", 1, '{"by_ms":1.5}', "no ClockRegressed of schema 1: Expected `int`"),
        ("WorkspaceRemoved", 1, '{"x":' + "[" * 100_000, "no WorkspaceRemoved of schema 1: "),
    ],
)
def test_what_cannot_be_read_is_said_in_words(type_name: str, schema: int, text: str | bytes, words: str) -> None:
    with pytest.raises(Unreadable, match=words):
        decode_data(type_name, schema, text)
