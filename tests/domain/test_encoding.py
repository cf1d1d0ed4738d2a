"""The stored form: canonical bytes, one golden line per event type. A change here is a change of the log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from orchestrator.domain import access_events as acc
from orchestrator.domain import encoding
from orchestrator.domain import events as ev
from orchestrator.domain.encoding import (
    canonical_json,
    decode_data,
    decode_old_state,
    decode_projection,
    decode_state,
    encode_data,
    encode_old_state,
    encode_state,
    format_instant,
    parse_instant,
    to_plain,
)
from orchestrator.domain.event_types import EVENT_TYPES, FACT_TYPES
from orchestrator.domain.policy import Action, Edge, Mode, PolicyPatch, Rule
from orchestrator.domain.state import Hold
from orchestrator.domain.state_of_0002 import OldState
from orchestrator.errors import Unreadable
from tests.domain.given_when_then import scenario

AT = datetime(2026, 11, 23, 12, 0, 0, 123_456, tzinfo=UTC)
LATER = datetime(2026, 11, 23, 12, 1, tzinfo=UTC)
PATCH = PolicyPatch(quiet_ms=2_000, edge=Edge.LEADING, rules=(Rule(match=("*.log",), action=Action.RECORD),))
WHAT: dict[str, Any] = {
    "fleet": "blue",
    "labels": {"team": "é", "env": "test"},
    "executor": "command",
    "target": {"argv": ["true"], "env": {}},
    "policy": PATCH,
}
WHAT_TEXT = (
    '{"executor":"command","fleet":"blue","labels":{"env":"test","team":"é"},'
    '"policy":{"edge":"leading","quiet_ms":2000,"rules":[{"action":"record","match":["*.log"]}]},'
    '"target":{"argv":["true"],"env":{}}}'
)

GOLDEN: list[tuple[ev.EventData, str]] = [
    (ev.WorkspaceRegistered(**WHAT), WHAT_TEXT),
    (ev.WorkspaceChanged(**WHAT), WHAT_TEXT),
    (ev.WorkspaceHeld(reason="x", until=AT), '{"reason":"x","until":"2026-11-23T12:00:00.123456Z"}'),
    (ev.WorkspaceReleased(reason="x", until=None), '{"reason":"x","until":null}'),
    (ev.WorkspaceRemoved(reason="gone"), '{"reason":"gone"}'),
    (
        ev.PolicyChanged(scope="fleet:blue", policy=PolicyPatch(mode=Mode.SHADOW), policy_version=3),
        '{"policy":{"mode":"shadow"},"policy_version":3,"scope":"fleet:blue"}',
    ),
    (
        ev.FileWritten(path="a/é.py", op=ev.Operation.MODIFIED, action=Action.RESTART),
        '{"action":"restart","digest":null,"op":"modified","path":"a/é.py","size":null}',
    ),
    (
        ev.FileWritten(
            path="%FF",
            op=ev.Operation.RENAMED,
            action=Action.RELOAD,
            digest="sha256:00",
            size=0,
            path_encoding="percent",
            rule="*",
            quiet_ms=1,
            max_wait_ms=2,
        ),
        '{"action":"reload","digest":"sha256:00","max_wait_ms":2,"op":"renamed","path":"%FF",'
        '"path_encoding":"percent","quiet_ms":1,"rule":"*","size":0}',
    ),
    (ev.RestartRequested(trigger=ev.Trigger.MANUAL, reason="x"), '{"reason":"x","trigger":"manual"}'),
    (ev.ProbeSuppressed(reason=ev.Suppression.SETTLING, detail=""), '{"detail":"","reason":"settling"}'),
    (
        ev.RestartQueued(
            restart="rst_1",
            cause=ev.Cause.MAX_WAIT,
            kind=ev.Kind.RELOAD,
            from_position=1,
            to_position=9,
            writes=8,
            requests=0,
            files=7,
            opened_at=AT,
            last_write_at=None,
            due_at=LATER,
            quiet_ms=1,
            max_wait_ms=2,
            max_count=3,
            edge=Edge.TRAILING,
            min_interval_ms=4,
            policy_version=5,
        ),
        '{"cause":"max_wait","due_at":"2026-11-23T12:01:00.000000Z","edge":"trailing","files":7,"from_position":1,'
        '"kind":"reload","last_write_at":null,"max_count":3,"max_wait_ms":2,"min_interval_ms":4,'
        '"opened_at":"2026-11-23T12:00:00.123456Z","policy_version":5,"quiet_ms":1,"requests":0,"restart":"rst_1",'
        '"to_position":9,"writes":8}',
    ),
    (
        ev.CycleStarted(
            restart="rst_1",
            cycle="cyc_1",
            kind=ev.Kind.RESTART,
            attempt=1,
            iteration=2,
            fence=3,
            worker="w",
            from_position=1,
            to_position=9,
            writes=8,
            requests=1,
            files=7,
            started_at=AT,
            previous_started_at=None,
            lease_until=LATER,
            shadow=False,
            fenced=True,
            policy_version=4,
        ),
        '{"attempt":1,"cycle":"cyc_1","fence":3,"fenced":true,"files":7,"from_position":1,"iteration":2,'
        '"kind":"restart","lease_until":"2026-11-23T12:01:00.000000Z","policy_version":4,"previous_started_at":null,'
        '"requests":1,"restart":"rst_1","shadow":false,"started_at":"2026-11-23T12:00:00.123456Z","to_position":9,'
        '"worker":"w","writes":8}',
    ),
    (
        ev.CycleSucceeded(
            restart="rst_1",
            cycle="cyc_1",
            fence=3,
            writes=8,
            duration_ms=20,
            generation_before=None,
            generation_after="g",
            verified=True,
            shadow=False,
            output='"\n',
        ),
        '{"cycle":"cyc_1","duration_ms":20,"fence":3,"generation_after":"g","generation_before":null,'
        '"output":"\\"\\n","restart":"rst_1","shadow":false,"verified":true,"writes":8}',
    ),
    (
        ev.CycleFailed(
            restart="rst_1",
            cycle="cyc_1",
            fence=3,
            duration_ms=20,
            error_kind=ev.ErrorKind.TIMEOUT,
            message="late",
            retry_at=None,
        ),
        '{"cycle":"cyc_1","duration_ms":20,"error_kind":"timeout","fence":3,"message":"late","restart":"rst_1",'
        '"retry_at":null}',
    ),
    (
        ev.CycleAbandoned(restart="rst_1", cycle="cyc_1", fence=3, reason=ev.Abandonment.LEASE_EXPIRED),
        '{"cycle":"cyc_1","fence":3,"reason":"lease_expired","restart":"rst_1"}',
    ),
    (
        ev.LateResultRejected(restart="rst_1", cycle="cyc_1", fence=3, current_fence=4, result="succeeded"),
        '{"current_fence":4,"cycle":"cyc_1","fence":3,"restart":"rst_1","result":"succeeded"}',
    ),
    (
        ev.RestartGaveUp(restart="rst_1", attempts=3, next_try_at=LATER),
        '{"attempts":3,"next_try_at":"2026-11-23T12:01:00.000000Z","restart":"rst_1"}',
    ),
    (ev.RestartCancelled(restart="rst_1", reason="no"), '{"reason":"no","restart":"rst_1"}'),
    (
        ev.WritesWaived(from_position=1, to_position=9, writes=8, reason=ev.Waiver.OPERATOR, restart="rst_1"),
        '{"from_position":1,"reason":"operator","restart":"rst_1","to_position":9,"writes":8}',
    ),
    (
        ev.WritesWaived(from_position=1, to_position=9, writes=8, reason=ev.Waiver.WORKSPACE_REMOVED),
        '{"from_position":1,"reason":"workspace_removed","to_position":9,"writes":8}',
    ),
    (
        ev.ProcessExited(exit_code=None, signal=9, respawn_after_ms=1_000),
        '{"exit_code":null,"respawn_after_ms":1000,"signal":9}',
    ),
    (
        ev.RestartGaveUp(restart="rst_1", attempts=3, next_try_at=LATER, to_position=7),
        '{"attempts":3,"next_try_at":"2026-11-23T12:01:00.000000Z","restart":"rst_1","to_position":7}',
    ),
    (
        ev.ExecutorAway(executor="docker", pool="host-2", since=LATER),
        '{"executor":"docker","pool":"host-2","since":"2026-11-23T12:01:00.000000Z"}',
    ),
    (ev.ExecutorBack(executor="docker", pool="host-2"), '{"executor":"docker","pool":"host-2"}'),
    (ev.ClockRegressed(by_ms=1_500), '{"by_ms":1500}'),
    (
        acc.KeyCreated(key="key_1", name="ci", role="writer", scopes=["read"], expires_at=AT),
        '{"expires_at":"2026-11-23T12:00:00.123456Z","key":"key_1","name":"ci","reads_per_minute":null,'
        '"replaces":null,"role":"writer","scopes":["read"],"writes_per_minute":null}',
    ),
    (
        acc.KeyCreated(key="key_1", name="ci", role="writer", scopes=["read"], expires_at=None, digest="d1"),
        '{"digest":"d1","expires_at":null,"key":"key_1","name":"ci","reads_per_minute":null,'
        '"replaces":null,"role":"writer","scopes":["read"],"writes_per_minute":null}',
    ),
    (acc.KeyRevoked(key="key_1", name="ci", reason="lost"), '{"key":"key_1","name":"ci","reason":"lost"}'),
    (
        acc.AccessDenied(
            caller="key:ci", reason="scope", what="GET /v1/keys", needs="keys", count=2, first_at=AT, last_at=AT
        ),
        '{"caller":"key:ci","count":2,"first_at":"2026-11-23T12:00:00.123456Z",'
        '"last_at":"2026-11-23T12:00:00.123456Z","needs":"keys","reason":"scope","what":"GET /v1/keys"}',
    ),
    (
        acc.ReadsCounted(reads={"GET /v1/events": 3}, first_at=AT, last_at=AT),
        '{"first_at":"2026-11-23T12:00:00.123456Z","last_at":"2026-11-23T12:00:00.123456Z",'
        '"reads":{"GET /v1/events":3}}',
    ),
    (acc.DataExported(what="export", filter={"of": "events"}), '{"filter":{"of":"events"},"what":"export"}'),
]


def test_there_is_a_golden_line_for_every_event_type() -> None:
    assert {data.type_name() for data, _ in GOLDEN} == set(EVENT_TYPES)


def test_facts_are_the_contracts() -> None:
    assert set(FACT_TYPES) == {"FileWritten", "ProbeSuppressed", "ProcessExited"}


@pytest.mark.parametrize(("data", "text"), GOLDEN, ids=lambda value: type(value).__name__)
def test_the_stored_form_of_each_event(data: ev.EventData, text: str) -> None:
    assert encode_data(data) == text
    assert decode_data(data.type_name(), data.SCHEMA, text) == data
    assert encode_data(decode_data(data.type_name(), data.SCHEMA, text.encode())) == text


# --- canonical bytes


def test_keys_are_sorted_at_every_depth_and_nothing_is_spaced() -> None:
    assert canonical_json({"b": [{"z": 1, "a": None}], "a": True, "Z": "ü"}) == (
        '{"Z":"ü","a":true,"b":[{"a":null,"z":1}]}'
    )


@pytest.mark.parametrize(
    "value", [1.0, 1e22, float("nan"), b"bytes", {1, 2}, object()], ids=["1.0", "1e22", "nan", "bytes", "set", "object"]
)
def test_what_has_no_one_spelling_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="no canonical spelling"):
        canonical_json({"deep": [value]})


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (AT, "2026-11-23T12:00:00.123456Z"),
        (LATER, "2026-11-23T12:01:00.000000Z"),
        (datetime(2026, 11, 23, 14, tzinfo=timezone(timedelta(hours=2))), "2026-11-23T12:00:00.000000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_instants_have_six_digits_in_utc(at: datetime, text: str) -> None:
    assert format_instant(at) == text
    assert parse_instant(text) == at


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_instant_comes_back(at: datetime) -> None:
    assert parse_instant(format_instant(at)) == at


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_instants_sort_as_their_texts_do(one: datetime, other: datetime) -> None:
    assert (one < other) == (format_instant(one) < format_instant(other))


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-23", "2026-11-23T12:00:00", "0001-01-01T00:00:00+05:00"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_instant(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=12,
    )
)
def test_any_target_comes_back_and_its_bytes_do_not_depend_on_order(value: Any) -> None:
    registered = ev.WorkspaceRegistered(**WHAT | {"target": {"value": value, "a": 1}})
    text = encode_data(registered)
    assert decode_data("WorkspaceRegistered", 1, text) == registered
    assert encode_data(replace(registered, target={"a": 1, "value": value})) == text


# --- states and read models


def test_a_state_holds_neither_its_lease_nor_its_registration_and_comes_back_with_what_it_was_left_without() -> None:
    run = scenario(rules=[{"match": "a", "quiet": "1s"}]).at(0).write("a", "b").manual().at(15).tick().start()
    text = encode_state(run.state)
    assert "lease_until" not in text
    assert "simulated" not in text
    assert decode_state(text, run.state.registration) == run.state


def test_a_state_comes_back_from_the_shape_of_revision_0002() -> None:
    run = scenario(rules=[{"match": "a", "quiet": "1s"}]).at(0).write("a", "b").manual().hold(until=60)
    text = encode_old_state(run.state)
    assert decode_old_state(text, registration_position=run.state.registration_position) == run.state
    assert json.loads(text)["window"]["writes"] == 2


def test_code_of_revision_0002_cannot_read_todays_shape_as_nothing_pending() -> None:
    """It decodes the old struct; where that succeeded it would see an empty window and serve nobody."""
    for run in (scenario(), scenario().at(0).write("a"), scenario().at(0).manual()):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(encode_state(run.state), type=OldState)


def test_a_restarts_read_model_comes_back() -> None:
    run = scenario().at(0).write("a").at(15).tick().start().at(16).fail()
    record = run.restarts["rst_1"]
    assert decode_projection(to_plain(record)) == record


def test_an_unknown_type_of_no_workspace_is_kept_as_it_is_stored() -> None:
    stored = '{"big":123456789012345678901234567890,"share":1e22}'
    data = decode_data("MoonRisen", 7, stored, of_nobody=True)
    assert data == ev.UnknownEvent(name="MoonRisen", stored={"big": 123456789012345678901234567890, "share": 1e22})
    assert encode_data(data) == stored
    with pytest.raises(Unreadable, match="no JSON object"):
        decode_data("MoonRisen", 7, "[]", of_nobody=True)
    with pytest.raises(Unreadable, match="'MoonRisen' is not one that this version knows"):
        decode_data("MoonRisen", 7, stored)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ['","decision":null,', "12:00:00Z", '"rule":null,', "at 23:59:59+02:00", '\\"', "é\n\u2028"]
)
INSTANTS = st.datetimes(timezones=st.just(UTC)) | st.datetimes(timezones=st.just(UTC)).map(
    lambda at: at.replace(microsecond=0)
)
NUMBERS = st.integers(min_value=0, max_value=2**53)


DIRECT: list[type[ev.EventData]] = [kind for kind in EVENT_TYPES.values() if kind in encoding._DIRECT]


def built(kind: type[ev.EventData]) -> st.SearchStrategy[ev.EventData]:
    """Return random data of a type, from what its fields may hold."""
    values = {
        str: TEXTS,
        int: NUMBERS,
        bool: st.booleans(),
        datetime: INSTANTS,
    }

    def strategy(annotation: Any) -> st.SearchStrategy[Any]:
        if annotation in values:
            return values[annotation]
        if arguments := get_args(annotation):
            return st.one_of(*(st.none() if one is type(None) else strategy(one) for one in arguments))
        return st.sampled_from(list(annotation))

    fields = {name: strategy(found) for name, found in get_type_hints(kind).items() if name in kind.__struct_fields__}
    return st.builds(kind, **fields)


@given(st.one_of(*(built(kind) for kind in DIRECT)))
def test_what_is_spelled_directly_is_spelled_as_everything_else(data: ev.EventData) -> None:
    assert encode_data(data) == canonical_json(data)


@given(at=INSTANTS, path=TEXTS)
def test_a_state_is_spelled_as_everything_else(at: datetime, path: str) -> None:
    state = scenario().write(path or "a").state
    writes = state.window.writes
    assert writes is not None
    moved = replace(
        state,
        hold=Hold(reason=path, until=at),
        window=replace(state.window, writes=replace(writes, all=replace(writes.all, first_at=at))),
    )
    plain = to_plain(replace(moved, registration=None))
    del plain["registration"]
    assert encode_state(moved) == canonical_json(plain)
