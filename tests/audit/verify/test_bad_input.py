"""Truncated, edited and foreign exports: a clear finding with the first bad position, and never an exception."""

from __future__ import annotations

import gzip
import json
import random

import pytest

from orchestrator.audit.verify.report import Promise, Report
from tests.audit.verify.logs import Log, broken, verify

LOG = Promise.LOG


def only(report: Report) -> tuple[tuple[int, ...], str]:
    """The one finding about the log itself; every other promise is not good then."""
    [violation] = report.violations
    assert violation.promise is LOG
    assert not report.good
    return violation.positions, violation.text


def unread(report: Report) -> bool:
    return all(verdict.verdict == "not checked" for verdict in report.promises if verdict.promise is not LOG)


def test_a_file_that_ends_inside_of_a_line(good_lines: bytes) -> None:
    report = verify(good_lines[:-40])

    positions, text = only(report)
    assert positions == (98,)
    assert text == "the file is truncated: its last line, 99, ends in the middle; nothing after it was read"
    assert report.violations[0].line == 99
    assert unread(report)


def test_a_last_line_without_its_line_feed_is_whole(good_lines: bytes) -> None:
    assert verify(good_lines.rstrip(b"\n")).good


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("position", "17", "Expected `int`"),
        ("position", 0, ">= 1"),
        ("version", 1.5, "Expected `int | null`"),
        ("recorded_at", 12, "Expected `str`"),
        ("schema", 3, "FileWritten of schema 3 is newer than this verifier"),
        ("schema", 0, ">= 1"),
        ("recorded_at", "2026-11-23 14:02:01", "is no instant"),
        ("recorded_at", "2026-13-23T14:02:01.000000Z", "is no instant of the calendar"),
        ("type", "FileRead", "FileRead"),
        ("data", [], "Expected `object`"),
        ("data", {"path": "a", "action": "ignore"}, "Invalid enum value"),
        ("data", {"action": "restart"}, "missing required field `path`"),
    ],
)
def test_a_line_that_is_no_event_of_this_product(log: Log, field: str, value: object, said: str) -> None:
    log.of("last", "FileWritten")[field] = value

    report = verify(log.encode())
    _, text = only(report)
    assert said in text
    assert report.violations[0].line == 95
    assert unread(report)


def newer_than(log: Log, kind: str, workspace: str | None = None, **data: object) -> dict[str, object]:
    """An event after the last one of the log, as a newer version appends it."""
    last = log.events[-1]
    position = last["position"] + 1
    head = {"position": position, "id": f"evt_{position}", "workspace": workspace, "version": None, "type": kind}
    return {**last, **head, "schema": 2 if workspace else 9, "data": data}


def test_a_newer_type_of_no_workspace_is_passed_over_and_told(log: Log) -> None:
    whole = verify(log.encode())
    log.events.append(newer_than(log, "SessionOpened", key="k1", share=0.5))
    log.events.append(newer_than(log, "SessionOpened", key="k2"))

    report = verify(log.encode())
    assert report.good
    assert report.passed_over == {"SessionOpened": 2}
    assert whole.passed_over == {}
    assert report.sums.accepted == whole.sums.accepted
    assert report.sums.events == whole.sums.events + 2


def test_newer_data_of_a_known_type_of_no_workspace_is_judged_as_far_as_it_is_known(log: Log) -> None:
    policy = {"quiet_ms": 1, "calendar": [{"deny": "Mon"}]}
    log.events.append(newer_than(log, "PolicyChanged", scope="default", policy=policy, policy_version=99, by="me"))
    log.events.append(newer_than(log, "ClockRegressed", by_ms=5, host="h"))
    report = verify(log.encode())
    assert (report.good, report.passed_over) == (True, {})


@pytest.mark.parametrize("kind", ["FileWritten", "CycleSucceeded"])
def test_an_event_of_a_workspace_that_names_none_is_not_passed_over(log: Log, kind: str) -> None:
    log.events.append(newer_than(log, kind))
    assert f"an event {kind} of no workspace is not of this product" in only(verify(log.encode()))[1]


def test_a_newer_type_of_a_workspace_is_not_passed_over(log: Log) -> None:
    log.events.append(newer_than(log, "KeyCreated", workspace="last"))
    assert "an event KeyCreated of a workspace is not of this product" in only(verify(log.encode()))[1]


def test_a_key_too_many_and_a_key_too_few(log: Log) -> None:
    log.of("last", "FileWritten")["comment"] = "nothing to see here"
    assert "comment" in only(verify(log.encode()))[1]

    del log.of("last", "FileWritten")["comment"]
    del log.of("last", "FileWritten")["actor"]
    assert "missing required field `actor`" in only(verify(log.encode()))[1]


@pytest.mark.parametrize(
    "foreign",
    [
        b"PK\x03\x04 some other file",
        b'{"hello": "world"}\n',
        b"[1, 2, 3]\n",
        b"\xff\xfe\n",
        b"\n\n",
        b"[" * 100_000,
        b'{"position":1,"id":"\xed\xa0\x80"}\n',
    ],
)
def test_a_file_of_another_kind(foreign: bytes) -> None:
    positions, text = only(verify(foreign))

    assert positions == ()
    assert "line 1" in text or "last line, 1" in text


def test_an_empty_file_is_not_good() -> None:
    assert only(verify(b"")) == ((), "there is no event in it at all")


def test_a_gzip_file_is_read_and_a_damaged_one_told(good_lines: bytes) -> None:
    packed = gzip.compress(good_lines)

    assert verify(packed).good
    assert "truncated" in only(verify(packed[:-9]))[1]
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    assert not verify(bytes(damaged)).good


def test_a_line_that_is_there_twice(log: Log) -> None:
    log.events.insert(4, log.events[3])

    assert only(verify(log.encode())) == ((4,), "event evt_0004 is there twice")


def test_swapped_lines(log: Log) -> None:
    log.events[2], log.events[3] = log.events[3], log.events[2]
    found = broken(verify(log.encode()))

    assert found[LOG][0] == (3, 4)


def test_recorded_time_that_falls(log: Log) -> None:
    log.of("last", "FileWritten")["recorded_at"] = "2026-11-23T13:00:00.000000Z"
    found = broken(verify(log.encode()))

    assert found[LOG] == [(95,)]


def test_a_decision_that_was_taken_out(log: Log) -> None:
    log.events.remove(log.of("held", "WorkspaceReleased"))
    found = broken(verify(log.encode()))

    assert found[LOG] == [(34,)]


def test_a_fact_with_a_version(log: Log) -> None:
    log.of("last", "FileWritten")["version"] = 3

    assert broken(verify(log.encode())) == {LOG: [(95,)]}


def test_a_log_whose_beginning_is_missing(log: Log) -> None:
    del log.events[:13]
    found = broken(verify(log.encode()))

    assert found[LOG][0] == (14,)


def test_whatever_is_done_to_a_log_there_is_an_answer(log: Log) -> None:
    """Random edits of one value each: never an exception, and a good verdict only for what changes no promise."""
    choice = random.Random(7)
    values: list[object] = [None, 0, -1, 3, 10**30, "", "ws", [], {}, True, 1.5, "2026-11-23T14:02:01.000000Z"]
    untouched = json.dumps(log.events)
    for _ in range(150):
        log.events = json.loads(untouched)
        event = choice.choice(log.events)
        holder = event if choice.random() < 0.4 else event["data"]
        holder[choice.choice(list(holder))] = choice.choice(values)
        report = verify(log.encode())
        assert report.good == (not report.violations)
