"""What every store promises of history: restarts, ranges, waivers, pages of workspaces and of the log."""

from __future__ import annotations

from msgspec.structs import replace

from orchestrator.domain import events as ev
from orchestrator.domain.canonical_line import StoredEvent
from orchestrator.domain.encoding import encode_data
from orchestrator.domain.policy import Action, Edge
from orchestrator.domain.restart_projection import RestartProjection, RestartState
from orchestrator.domain.state import Phase, WorkspaceState
from orchestrator.ports.store import CoreStore, EventFilter, EventStore, RestartFilter, Waived
from orchestrator.ports.workspaces import WorkspaceFilter
from orchestrator.storage.sql.rows import stored_event_of
from tests.storage.samples import (
    at,
    event,
    file_written,
    log,
    open_window,
    put,
    record,
    requested,
    state,
    waived,
)


def keep(store: CoreStore, *records: RestartProjection) -> None:
    with store.write() as transaction:
        transaction.save_restarts(records)


def ids(store: CoreStore, wanted: RestartFilter) -> list[str]:
    with store.read() as reader:
        return [one.id for one in reader.restarts(wanted)]


def test_a_restart_comes_back_whole_and_is_replaced(store: CoreStore) -> None:
    queued = record(state=RestartState.QUEUED, last_write_at=None)
    keep(store, queued)
    full = replace(
        queued,
        state=RestartState.RETRYING,
        kind=ev.Kind.RELOAD,
        edge=Edge.LEADING,
        to_position=8,
        last_write_at=at(1),
        attempts=2,
        shadow=True,
        cycle="cyc_1",
        first_started_at=at(2),
        started_at=at(3),
        ended_at=at(4),
        retry_at=at(5.000001),
        error="exit code 1",
    )
    with store.write() as transaction:
        assert transaction.restart("rst_1") == queued
        transaction.save_restarts([full, record(2)])
        assert transaction.restart("rst_1") == full
    with store.read() as reader:
        assert reader.restart("rst_1") == full
        assert reader.restart("rst_2") == record(2)
        assert reader.restart("rst_3") is None


def test_restarts_are_listed_newest_first_by_page(store: CoreStore) -> None:
    keep(store, *(record(number) for number in (3, 1, 5, 2, 4)))
    assert ids(store, RestartFilter()) == ["rst_5", "rst_4", "rst_3", "rst_2", "rst_1"]
    assert ids(store, RestartFilter(limit=2)) == ["rst_5", "rst_4"]
    assert ids(store, RestartFilter(limit=2, before=4)) == ["rst_3", "rst_2"]
    assert ids(store, RestartFilter(before=1)) == []
    assert ids(store, RestartFilter(after=2, limit=2)) == ["rst_3", "rst_4"]
    assert ids(store, RestartFilter(after=0, before=3)) == ["rst_1", "rst_2"]


def test_restarts_are_filtered(store: CoreStore) -> None:
    keep(
        store,
        record(1),
        record(2, workspace="other", fleet="blue"),
        record(3, fleet="blue", state=RestartState.GAVE_UP),
        record(4, cause=ev.Cause.MANUAL),
    )
    for wanted, found in (
        (RestartFilter(workspace="other"), ["rst_2"]),
        (RestartFilter(fleet="blue"), ["rst_3", "rst_2"]),
        (RestartFilter(state=RestartState.GAVE_UP), ["rst_3"]),
        (RestartFilter(cause=ev.Cause.MANUAL), ["rst_4"]),
        (RestartFilter(since=at(3)), ["rst_4", "rst_3"]),
        (RestartFilter(until=at(3)), ["rst_2", "rst_1"]),
        (RestartFilter(since=at(2), until=at(4), fleet="blue", workspace="ws"), ["rst_3"]),
        (RestartFilter(fleet="green"), []),
    ):
        assert ids(store, wanted) == found, wanted


def test_restarts_are_found_by_a_path_in_their_range(store: CoreStore) -> None:
    log(store, file_written("a"), file_written("b"), file_written("a", "other"), file_written("c"), file_written("b"))
    keep(
        store,
        record(1, from_position=1, to_position=2),
        record(2, from_position=3, to_position=4),
        record(3, from_position=5, to_position=5),
        record(4, workspace="other", from_position=1, to_position=3),
    )
    assert ids(store, RestartFilter(path="b")) == ["rst_3", "rst_1"]
    assert ids(store, RestartFilter(path="a")) == ["rst_4", "rst_1"]
    assert ids(store, RestartFilter(path="c")) == ["rst_2"]
    assert ids(store, RestartFilter(path="d")) == []


def test_the_restart_that_holds_a_position(store: CoreStore) -> None:
    keep(
        store,
        record(1, from_position=1, to_position=10),
        record(2, from_position=11, to_position=20, state=RestartState.GAVE_UP),
        record(3, from_position=11, to_position=20, state=RestartState.SUCCEEDED),
        record(4, from_position=21, to_position=30, state=RestartState.CANCELLED),
        record(5, from_position=31, to_position=40, state=RestartState.GAVE_UP),
        record(6, from_position=31, to_position=45, state=RestartState.RUNNING),
        record(7, workspace="other", from_position=1, to_position=99),
    )
    held_by = {
        1: "rst_1",
        10: "rst_1",
        11: "rst_3",
        20: "rst_3",
        21: None,
        30: None,
        31: "rst_6",
        45: "rst_6",
        46: None,
    }
    with store.read() as reader:
        found = {position: reader.restart_holding("ws", position) for position in held_by}
        assert {position: one.id if one else None for position, one in found.items()} == held_by
        assert reader.restart_holding("nobody", 1) is None


def test_the_restarts_that_hold_some_events(store: CoreStore) -> None:
    written = log(store, *(file_written(str(number), "ws" if number % 3 else "other") for number in range(1, 31)))
    keep(
        store,
        record(1, from_position=1, to_position=8),
        record(2, from_position=9, to_position=14, state=RestartState.GAVE_UP),
        record(3, from_position=9, to_position=20),
        record(4, from_position=21, to_position=25, state=RestartState.CANCELLED),
        record(5, workspace="other", from_position=6, to_position=29, state=RestartState.QUEUED),
    )
    positions = [event.position for event in written]
    with store.read() as reader:
        each = {event.position: reader.restart_holding(event.workspace or "", event.position) for event in written}
        assert {one.id for one in each.values() if one} == {"rst_1", "rst_3", "rst_5"}
        held = {position: one for position, one in each.items() if one is not None}
        assert len(held) < len(positions)
        assert reader.restarts_holding(positions) == held
        assert reader.restarts_holding([3, 4, 4, 999]) == {4: held[4]}
        assert reader.restarts_holding([]) == {}


def test_events_by_their_ids(store: CoreStore) -> None:
    first, second = log(store, file_written("a"), requested())
    with store.read() as reader:
        assert reader.events_by_id([second.id, "evt_nope", first.id]) == {first.id: first, second.id: second}
        assert reader.events_by_id([]) == {}


def test_an_unsettled_restart_holds_its_range(store: CoreStore) -> None:
    for unsettled in (RestartState.QUEUED, RestartState.RUNNING, RestartState.RETRYING):
        holding = record(1, from_position=1, to_position=3, state=unsettled)
        keep(store, holding)
        with store.read() as reader:
            assert reader.restart_holding("ws", 2) == holding


def test_the_waiver_that_holds_a_position(store: CoreStore) -> None:
    log(store, *(file_written(str(number)) for number in range(4)))
    [first] = log(store, waived(1, 2, version=1))
    log(store, waived(1, 99, workspace="other"), requested(version=2))
    [second] = log(store, waived(4, 7, version=3))
    with store.read() as reader:
        expected = Waived(event=first.id, reason=ev.Waiver.OPERATOR, at=first.recorded_at, actor="local:me")
        assert reader.waived("ws", 1) == expected
        assert reader.waived("ws", 2) == expected
        assert reader.waived("ws", 3) is None
        held = reader.waived("ws", 4)
        assert held is not None
        assert held.event == second.id
        assert reader.waived("ws", 8) is None
        assert reader.waived("nobody", 1) is None


def test_distinct_paths_are_counted_without_what_is_only_recorded(store: CoreStore) -> None:
    log(store, file_written("a"), file_written("b"), file_written("a"), file_written("c", action=Action.RECORD))
    log(store, file_written("d", "other"), file_written('","action":"record"'), requested())
    log(store, file_written("e", action=Action.RELOAD))
    with store.write() as transaction:
        assert transaction.count_paths("ws", 1, 99, None) == 4
        assert transaction.count_paths("ws", 2, 4, None) == 2
        assert transaction.count_paths("ws", 4, 5, None) == 0
        transaction.append([file_written("f")])
        assert transaction.count_paths("ws", 1, 99, None) == 5


def test_paths_are_counted_from_an_instant_on(store: CoreStore) -> None:
    log(store, *(file_written(f"logs/{number}", action=Action.RECORD) for number in range(5)))
    first, _ = log(store, file_written("a"), file_written("b"))
    later, *_ = log(store, file_written("b"), file_written("c"), file_written("x", "other"))
    with store.write() as transaction:
        assert transaction.count_paths("ws", 1, 99, first.recorded_at) == 3
        assert transaction.count_paths("ws", later.position + 1, 99, first.recorded_at) == 1
        assert transaction.count_paths("ws", 1, later.position, first.recorded_at) == 2
        assert transaction.count_paths("other", 1, 99, later.recorded_at) == 1
        assert transaction.count_paths("nobody", 1, 99, later.recorded_at) == 0
        transaction.append([file_written("d"), file_written("c")])
        assert transaction.count_paths("ws", 1, 99, first.recorded_at) == 4


def test_the_log_is_read_by_page(store: CoreStore) -> None:
    recorded = log(
        store,
        file_written("a"),
        requested(version=1),
        file_written("b", "other"),
        event(ev.ClockRegressed(by_ms=1), None),
    )
    recorded += log(store, waived(1, 2, version=2))

    def page(**wanted: object) -> list[int]:
        with store.read() as reader:
            return [one.position for one in reader.events(EventFilter(**wanted))]  # type: ignore[arg-type]

    assert page() == [1, 2, 3, 4, 5]
    assert page(after=2, limit=2) == [3, 4]
    assert page(after=5) == []
    assert page(to_position=3) == [1, 2, 3]
    assert page(to_position=99) == [1, 2, 3, 4, 5]
    assert page(workspace="ws") == [1, 2, 5]
    assert page(workspace="ws", types=("FileWritten",)) == [1]
    assert page(types={"FileWritten", "WritesWaived"}) == [1, 3, 5]
    assert page(types=["ClockRegressed"]) == [4]
    assert page(workspace="nobody") == []
    assert page(newest=True, limit=2) == [4, 5]
    assert page(newest=True, after=1, to_position=4, limit=2) == [3, 4]
    assert page(newest=True, workspace="ws", limit=2) == [2, 5]
    assert page(newest=True, types={"FileWritten", "WritesWaived"}, limit=2) == [3, 5]
    assert page(newest=True, types={"ClockRegressed", "WritesWaived"}, limit=1) == [5]


def test_workspaces_are_read_by_page(store: CoreStore) -> None:
    put(
        store,
        state("b", "blue", {"tier": "gold", 'k"ey': "ü"}),
        state("a", "red", {"tier": "gold"}),
        state("c", "blue", window=open_window(writes=1)),
        state("Z", "blue", {"tier": "golden"}),
        state("gone", "blue", removed=True),
        WorkspaceState(workspace="never-registered"),
    )

    def page(**wanted: object) -> list[str]:
        with store.read() as reader:
            return [one.state.workspace for one in reader.workspaces(WorkspaceFilter(**wanted))]  # type: ignore[arg-type]

    assert page() == ["Z", "a", "b", "c"]
    assert page(limit=2, after="Z") == ["a", "b"]
    assert page(fleet="blue") == ["Z", "b", "c"]
    assert page(fleet="blue", removed=True) == ["Z", "b", "c", "gone"]
    assert page(phase=Phase.REMOVED) == ["gone", "never-registered"]
    assert page(phase=Phase.WINDOW_OPEN) == ["c"]
    assert page(label=("tier", "gold")) == ["a", "b"]
    assert page(label=('k"ey', "ü")) == ["b"]
    assert page(label=("tier", "gold"), fleet="blue", removed=True) == ["b"]
    assert page(label=("nothing", "")) == []


def test_a_restarts_part_of_the_log_ends_with_the_last_event_about_it(audited_store: EventStore) -> None:
    log(
        audited_store,
        file_written("before"),
        file_written("a", source="s", source_id="1"),
        file_written("x", workspace="o"),
    )
    log(audited_store, event(ev.RestartCancelled(restart="rst_1", reason="r"), version=1, correlation_id="rst_1"))
    log(audited_store, file_written("after"))
    about = record(1, from_position=2)
    with audited_store.read() as reader:
        assert [one.position for one in reader.restart_events(about, to_end=True, limit=9)] == [2, 4]
        assert [one.position for one in reader.restart_events(about, to_end=False, limit=9)] == [2, 4, 5]
        [first] = reader.restart_events(about, to_end=True, limit=1)
    assert (first.data, first.actor, first.source_id) == (file_written("a").data, "local:me", None)


def test_the_log_as_it_is_kept_is_the_log(store: CoreStore) -> None:
    log(store, file_written("dépôt/a", occurred_at=at(-1.5), source="s", source_id="1"), requested())
    log(store, event(ev.ClockRegressed(by_ms=7), workspace=None), file_written("b", workspace="other"))
    of_writes = EventFilter(workspace="ws", types=["FileWritten"])
    for wanted in (EventFilter(), EventFilter(after=1, limit=2), of_writes, EventFilter(newest=True, limit=2)):
        with store.read() as reader:
            decoded, kept = reader.events(wanted), reader.stored_events(wanted)
        assert [stored_event_of(one, encode_data(one.data)) for one in decoded] == kept
        assert kept
        assert all(type(one) is StoredEvent for one in kept)
