"""What every store promises of questions over many: sums, waits, storms, failures, files."""

from __future__ import annotations

import random
from contextlib import closing
from datetime import timedelta

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.ports.inquiries import FILE_COUNTS, FileWrites, Percentiles, RestartSum, Scope, Waits
from orchestrator.ports.store import EventStore
from orchestrator.storage.sqlite import SqliteEventStore
from tests.storage.conftest import SetClock
from tests.storage.samples import NOON, at, event, file_written, log, put, record, requested, state

MOST = 1_000


def keep(store: EventStore, *records: RestartProjection) -> None:
    with store.write() as transaction:
        transaction.save_restarts(records)


def succeeded(number: int, wait_us: int, cycle_us: int = 0, **rest: object) -> RestartProjection:
    started = NOON + timedelta(microseconds=wait_us)
    ended = started + timedelta(microseconds=cycle_us)
    return record(number, attempts=1, opened_at=NOON, started_at=started, ended_at=ended, **rest)


def test_restarts_are_summed_by_state_and_cause(audited_store: EventStore) -> None:
    keep(
        audited_store,
        record(1, writes=10, attempts=1),
        record(2, writes=5, attempts=3, shadow=True),
        record(3, writes=7, attempts=2, state=RestartState.GAVE_UP),
        record(4, writes=0, attempts=1, cause=ev.Cause.MANUAL),
        record(5, writes=2, attempts=0, state=RestartState.CANCELLED, workspace="other", fleet="blue"),
    )
    quiet = RestartSum(
        state=RestartState.SUCCEEDED, cause=ev.Cause.QUIET, restarts=2, started=2, shadow=1, writes=15, cycles=4
    )
    gave_up = RestartSum(
        state=RestartState.GAVE_UP, cause=ev.Cause.QUIET, restarts=1, started=1, shadow=0, writes=7, cycles=2
    )
    manual = RestartSum(
        state=RestartState.SUCCEEDED, cause=ev.Cause.MANUAL, restarts=1, started=0, shadow=0, writes=0, cycles=1
    )
    cancelled = RestartSum(
        state=RestartState.CANCELLED, cause=ev.Cause.QUIET, restarts=1, started=0, shadow=0, writes=2, cycles=0
    )
    with audited_store.read() as reader:

        def sums(most: int = MOST, **scope: object) -> set[RestartSum]:
            return set(reader.restart_sums(Scope(**scope), most=most))  # type: ignore[arg-type]

        assert sums() == {quiet, gave_up, manual, cancelled}
        assert sums(workspace="ws") == {quiet, gave_up, manual}
        assert sums(fleet="blue") == sums(workspace="other", fleet="blue") == {cancelled}
        assert sums(since=at(3), until=at(5)) == {gave_up, manual}
        assert sums(most=2) == {manual, cancelled}
        assert sums(workspace="nobody") == sums(since=at(9)) == set()


def test_waits_are_exact_nearest_rank_percentiles(audited_store: EventStore) -> None:
    waits_us = [1_500 * number + 999 for number in range(1, 201)]
    random.Random(7).shuffle(waits_us)
    keep(
        audited_store,
        *(succeeded(number, wait, 2_000_000) for number, wait in enumerate(waits_us, 1)),
        record(500, state=RestartState.QUEUED),
        succeeded(501, 86_400_000_000, workspace="other"),
    )
    ms = sorted(wait // 1_000 for wait in waits_us)
    start = Percentiles(p50=ms[99], p90=ms[179], p99=ms[197], max=ms[199])
    success = Percentiles(**{name: getattr(start, name) + 2_000 for name in ("p50", "p90", "p99", "max")})
    nothing = Percentiles(p50=None, p90=None, p99=None, max=None)
    with audited_store.read() as reader:
        assert reader.waits(Scope(workspace="ws"), most=MOST) == Waits(
            restarts=200, to_start_ms=start, to_success_ms=success
        )
        other = reader.waits(Scope(), most=1)
        assert (other.restarts, other.to_start_ms.p50, other.to_success_ms.max) == (1, 86_400_000, 86_400_000)
        assert reader.waits(Scope(workspace="x"), most=MOST) == Waits(
            restarts=0, to_start_ms=nothing, to_success_ms=nothing
        )


def test_storms_are_those_with_the_most_writes(audited_store: EventStore) -> None:
    keep(audited_store, *(record(number, writes=number % 5, workspace=f"w{number % 2}") for number in range(1, 21)))
    with audited_store.read() as reader:

        def found(limit: int = 3, most: int = MOST, **scope: object) -> list[tuple[int, int]]:
            asked = reader.storms(Scope(**scope), limit=limit, most=most)  # type: ignore[arg-type]
            return [(one.writes, one.queued_position) for one in asked]

        assert found() == [(4, 19), (4, 14), (4, 9)]
        assert found(workspace="w0") == [(4, 14), (4, 4), (3, 18)]
        assert found(since=at(10), until=at(14)) == [(3, 13), (2, 12), (1, 11)]
        assert found(since=at(1), most=2) == [(4, 19), (0, 20)]
        assert found(fleet="none") == []


def failed(kind: ev.ErrorKind, restart: str = "r") -> ev.CycleFailed:
    return ev.CycleFailed(
        restart=restart, cycle="c", fence=1, duration_ms=1, error_kind=kind, message="broken", retry_at=None
    )


def test_failures_are_counted_by_kind_and_listed(audited_store: EventStore) -> None:
    put(audited_store, state("ws", "blue"), state("other", "green"))
    abandoned = ev.CycleAbandoned(restart="r", cycle="c", fence=1, reason=ev.Abandonment.LEASE_EXPIRED)
    gave_up = ev.RestartGaveUp(restart="r", attempts=3, next_try_at=NOON)
    kinds = [failed(ev.ErrorKind.TRANSIENT), failed(ev.ErrorKind.TIMEOUT), failed(ev.ErrorKind.TIMEOUT)]
    mine = log(
        audited_store, *(event(data, "ws", version) for version, data in enumerate([*kinds, abandoned, gave_up], 1))
    )
    log(audited_store, file_written(), requested(version=9))
    other = log(audited_store, event(failed(ev.ErrorKind.PERMANENT, "of-other"), "other", 1))
    with audited_store.write() as transaction:
        transaction.save_restarts([record(1, id="r", fleet="blue"), record(2, id="of-other", fleet="green")])
    of_ws = {
        ("CycleFailed", "timeout"): 2,
        ("CycleFailed", "transient"): 1,
        ("CycleAbandoned", "lease_expired"): 1,
        ("RestartGaveUp", None): 1,
    }
    every = of_ws | {("CycleFailed", "permanent"): 1}
    with audited_store.read() as reader:
        assert reader.failure_counts(Scope(), most=MOST) == every
        assert reader.failure_counts(Scope(workspace="ws"), most=MOST) == of_ws
        assert reader.failure_counts(Scope(fleet="blue"), most=MOST) == of_ws
        assert reader.failure_counts(Scope(workspace="ws"), most=2) == {
            ("RestartGaveUp", None): 1,
            ("CycleAbandoned", "lease_expired"): 1,
        }
        assert reader.failure_counts(Scope(), most=1) == {
            ("CycleFailed", "permanent"): 1,
            ("CycleAbandoned", "lease_expired"): 1,
            ("RestartGaveUp", None): 1,
        }
        assert reader.failures(Scope(), limit=10) == [*other, *reversed(mine)]
        assert reader.failures(Scope(workspace="ws"), limit=2) == [mine[4], mine[3]]
        assert reader.failures(Scope(since=other[0].recorded_at, workspace="other"), limit=5) == other
        assert reader.failures(Scope(until=mine[0].recorded_at), limit=5) == []
        assert reader.failure_counts(Scope(since=other[0].recorded_at + timedelta(seconds=1)), most=MOST) == {}


def writes(*files: tuple[str, str, int]) -> list[tuple[str, str, int]]:
    return list(files)


def plain(files: list[FileWrites]) -> list[tuple[str, str, int]]:
    return [(file.workspace, file.path, file.writes) for file in files]


def test_written_files_are_counted_in_a_range_of_the_log(audited_store: EventStore) -> None:
    put(audited_store, state("ws", "blue"), state("other", "green"))
    recorded = log(
        audited_store,
        *(file_written(path) for path in ("a", "b", "a", "Z", "é", "a")),
        requested(),
        file_written("a", "other"),
        file_written("b"),
    )
    with audited_store.read() as reader:
        every = writes(("ws", "a", 3), ("ws", "b", 2), ("other", "a", 1), ("ws", "é", 1), ("ws", "Z", 1))
        assert plain(reader.written(Scope(), most=MOST)) == every
        assert plain(reader.written(Scope(), most=MOST, limit=4)) == every[:4]
        assert plain(reader.written(Scope(workspace="ws"), after=3, to_position=6, most=MOST)) == writes(
            ("ws", "a", 1), ("ws", "é", 1), ("ws", "Z", 1)
        )
        assert plain(reader.written(Scope(fleet="green"), most=MOST)) == writes(("other", "a", 1))
        assert plain(reader.written(Scope(), most=2)) == writes(("ws", "b", 1), ("other", "a", 1))
        assert reader.written(Scope(), most=2)[0].last_position == recorded[-1].position
        assert reader.written(Scope(until=recorded[0].recorded_at), most=MOST) == []
        assert plain(reader.written(Scope(since=recorded[0].recorded_at), most=MOST)) == every


def counted(path: str, count: int, position: int, workspace: str = "ws") -> FileWrites:
    return FileWrites(workspace=workspace, path=path, writes=count, last_position=position)


def test_kept_counts_grow_from_where_they_are(audited_store: EventStore) -> None:
    put(audited_store, state("ws", "blue"), state("other", "green"))
    long = "é" * 2_000
    assert audited_store.add_file_counts([counted("a", 2, 5), counted(long, 1, 6)], position=7, expected_position=0)
    assert not audited_store.add_file_counts([counted("a", 9, 9)], position=9, expected_position=0)
    assert not audited_store.add_file_counts([counted("a", 9, 9)], position=9, expected_position=6)
    newer = [counted("a", 1, 8), counted("b", 1, 9), counted("a", 4, 9, "other")]
    assert audited_store.add_file_counts(newer, position=10, expected_position=7)
    assert audited_store.add_file_counts([], position=12, expected_position=10)
    with audited_store.read() as reader:
        assert reader.counters(FILE_COUNTS).position == 12
        other, a, b = counted("a", 4, 9, "other"), counted("a", 3, 8), counted("b", 1, 9)
        assert reader.kept_files(Scope(), limit=10) == [other, a, b, counted(long, 1, 6)]
        assert reader.kept_files(Scope(workspace="ws"), limit=2) == [a, b]
        assert reader.kept_files(Scope(fleet="green"), limit=2) == [other]
        found = reader.kept_counts([("ws", long), ("other", "a"), ("ws", "never"), ("nobody", "a")])
        assert sorted(plain(found)) == writes(("other", "a", 4), ("ws", long, 1))
        assert reader.kept_counts([]) == []


@pytest.mark.parametrize("seconds", [-1, 0, 1])
def test_an_instant_has_its_place(sqlite_url: str, set_clock: SetClock, seconds: int) -> None:
    with closing(SqliteEventStore(sqlite_url, set_clock)) as store:
        first = log(store, file_written(), file_written())
        with store.read() as reader:
            place = reader.place_of(first[0].recorded_at + timedelta(seconds=seconds))
        assert (place.position, place.now) == (0 if seconds < 0 else 2, first[0].recorded_at)
