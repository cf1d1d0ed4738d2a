"""Held answers and streams: one read of the log serves all who wait, whom nothing concerns is left alone."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import islice
from typing import Any

import psycopg
import pytest

from orchestrator.api import tail as tail_module
from orchestrator.api.fate_looks import FateLooks
from orchestrator.api.recent import Recent
from orchestrator.api.tail import LogTail
from orchestrator.errors import Unavailable
from orchestrator.history.fate import Fate
from orchestrator.service.access import Permit
from orchestrator.storage.urls import database_url
from tests.api.conftest import Api, served
from tests.api.test_stream import frames, lines_of
from tests.sent_statements import statements
from tests.waiting import wait_until

FOLLOWS = "FROM events \nWHERE events.position > "
"""How the statement of the one that follows the log is known."""
Answers = Future[list[dict[str, Any]]]


def tail_of(api: Api) -> LogTail:
    tail: LogTail = api.server.app.state.tail
    return tail


def address_of(api: Api) -> tuple[str, int]:
    host, port = api.url.removeprefix("http://").split(":")
    return host, int(port)


async def _ask(address: tuple[str, int], path: str) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    try:
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    assert head.startswith(b"HTTP/1.1 200 "), head
    answer: dict[str, Any] = json.loads(body)
    return answer


async def _ask_all(address: tuple[str, int], paths: Sequence[str]) -> list[dict[str, Any]]:
    return await asyncio.gather(*(_ask(address, path) for path in paths))


@contextmanager
def held(api: Api, writes: Sequence[str], *, wait: float = 50) -> Iterator[Answers]:
    """Hold an answer for each of these writes; give what they are answered in the end."""
    paths = [f"/v1/writes/{write}?wait={wait:g}" for write in writes]
    before = tail_of(api).watched_by
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(lambda: asyncio.run(_ask_all(address_of(api), paths)))
        wait_until(
            lambda: answers.done() or tail_of(api).watched_by == before + len(writes),
            what="all answers are held",
            timeout_s=60,
        )
        yield answers


def await_follower(api: Api, position: int) -> None:
    """Wait until it has read up to there."""
    wait_until(lambda: tail_of(api).position >= position, what=f"the follower has read up to {position}")


def cost_of_writes(api: Api, count: int) -> list[str]:
    """Return the statements of so many writes of another workspace, less those of the one that follows the log."""
    with statements() as sent:
        newest = [api.write("other", path=f"f{number}")["position"] for number in range(count)][-1]
        if tail_of(api).follows:
            await_follower(api, newest)
    return [words for words in sent if FOLLOWS not in words]


@pytest.fixture
def files_enough(not_run: Callable[[str], None]) -> Iterator[int]:
    """How many connections a test may have, both of whose ends are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = min(1_000, (hard - 200) // 2) if hard != resource.RLIM_INFINITY else 1_000
    if most < 1_000:
        not_run(f"1,000 held answers: this machine allows {hard} open files, so {most} were tried")
    yield most
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_others_write_costs_those_who_wait_no_statement(any_api: Api) -> None:
    any_api.put_workspace("other")
    write = any_api.write()["id"]
    alone = cost_of_writes(any_api, 10)
    with held(any_api, [write] * 100) as answers:
        beside = cost_of_writes(any_api, 10)
        assert not answers.done()
        any_api.restart_all()
        assert {answer["status"] for answer in answers.result(30)} == {"covered"}
    assert beside == alone


def test_a_write_takes_no_longer_because_300_wait(api: Api) -> None:
    def median_s() -> float:
        took = []
        for number in range(30):
            began = time.monotonic()
            api.write("other", path=f"f{number}")
            took.append(time.monotonic() - began)
        return statistics.median(took)

    api.put_workspace("other")
    write = api.write()["id"]
    median_s()
    alone_s = median_s()
    with held(api, [write] * 300) as answers:
        beside_s = median_s()
        api.restart_all()
        answers.result(30)
    assert beside_s < 5 * alone_s


def test_nobody_waits_nothing_is_read(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "_LONGEST_S", 0.03)
    write = api.write()["id"]
    before = cost_of_writes(api, 5) if api.put_workspace("other") else []
    assert not tail_of(api).follows
    with held(api, [write], wait=0.2) as answers:
        assert tail_of(api).follows
        assert answers.result(10)[0]["status"] == "pending"
    wait_until(lambda: not tail_of(api).follows, what="the follower ends")
    assert tail_of(api).watched_by == 0
    with statements() as sent:
        for number in range(5):
            api.write("other", path=f"g{number}")
    assert sent == before


def test_only_those_of_the_restarted_workspace_are_told(any_api: Api) -> None:
    any_api.put_workspace("other", policy={"quiet": "50s", "max_wait": "60s"})
    mine, others = any_api.write()["id"], any_api.write("other")["id"]
    with held(any_api, [others] * 20) as later, held(any_api, [mine] * 20) as answers:
        with statements() as sent:
            any_api.restart_all()
            found = answers.result(20)
        assert {answer["status"] for answer in found} == {"covered"}
        assert [words for words in sent if "events.id IN" in words] != []
        assert tail_of(any_api).watched_by == 20
        assert not later.done()
        any_api.http.delete("/v1/workspaces/other")
        assert {answer["status"] for answer in later.result(20)} == {"waived"}


def test_a_thousand_held_answers_of_one_process(api: Api, files_enough: int) -> None:
    writes = [api.write(path=f"f{number}")["id"] for number in range(10)]
    asked = [writes[number % 10] for number in range(files_enough)]
    with held(api, asked) as answers, statements() as sent:
        api.restart_all()
        found = answers.result(60)
    assert [answer["id"] for answer in found] == asked
    assert {answer["status"] for answer in found} == {"covered"}
    looks = [words for words in sent if "events.id IN" in words]
    assert len(looks) <= 20, "who is told together looks together"


def test_a_thousand_held_answers_of_two_processes_over_a_cut_connection(app_url: str, files_enough: int) -> None:
    """One process does not see what another one writes but in the log; a database may hang up on either."""
    with ExitStack() as stack:
        apis = [stack.enter_context(served(app_url)) for _ in range(2)]
        apis[0].put_workspace()
        writes = [apis[0].write()["id"]] * (files_enough // 2)
        answers = [stack.enter_context(held(api, writes)) for api in apis]
        name = database_url(app_url).database
        with psycopg.connect(_owner(app_url), autocommit=True) as owner:
            cut = owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                [name],
            ).fetchall()
        assert len(cut) >= 2
        assert not any(each.done() for each in answers)
        wait_until(lambda: _restarted(apis[0]), what="the restart is carried out")
        for each in answers:
            assert {answer["status"] for answer in each.result(60)} == {"covered"}


def _owner(url: str) -> str:
    return database_url(url).set(drivername="postgresql", username="postgres").render_as_string(hide_password=False)


def _restarted(api: Api) -> bool:
    with suppress(Unavailable):  # a connection that was used just now is not asked whether it was cut meanwhile
        api.restart_all()
    return bool(api.get("/v1/restarts", state="succeeded")["items"])


def test_what_came_between_a_look_and_its_watch_is_not_missed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: FateLooks = api.server.app.state.fate_looks
    look, looked = looks.look, []

    def overtake() -> None:
        api.restart_all()
        await_follower(api, api.get("/v1/events", limit=1_000)["next_after"])

    async def look_then_be_overtaken(write: str, permit: Permit) -> tuple[int, Fate]:
        found = await look(write, permit)
        looked.append(found)
        if len(looked) == 1:
            await asyncio.to_thread(overtake)
        return found

    api.put_workspace("other", policy={"quiet": "50s", "max_wait": "60s"})
    other: str = api.write("other")["id"]
    write = api.write()["id"]
    with held(api, [other]):
        monkeypatch.setattr(looks, "look", look_then_be_overtaken)
        assert api.get(f"/v1/writes/{write}", wait=50)["status"] == "covered"
        assert [fate.final for _, fate in looked if fate.id == write] == [False, True]
        monkeypatch.undo()
        api.http.delete("/v1/workspaces/other")


def test_a_caller_that_hangs_up_makes_room(api: Api) -> None:
    write = api.write()["id"]
    with ExitStack() as stack:
        for _ in range(10):
            caller = stack.enter_context(socket.create_connection(address_of(api)))
            caller.sendall(f"GET /v1/writes/{write}?wait=50 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: tail_of(api).watched_by == 10, what="all answers are held")
    wait_until(lambda: tail_of(api).watched_by == 0, what="the server notices that they left")


def test_a_write_of_this_process_is_told_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "_SHORTEST_S", 0.001)
    monkeypatch.setattr(tail_module, "_LONGEST_S", 3_600.0)
    with lines_of(api) as lines:
        next(lines)
        wait_until(lambda: tail_of(api).follows, what="it is followed")
        for number in range(20):
            api.write(path=f"f{number}")
            assert json.loads(next(frames(lines))["data"])["data"]["path"] == f"f{number}"


async def _listen(address: tuple[str, int], events: int) -> list[int]:
    """Return the positions of the next events of a stream."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /v1/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    found: list[int] = []
    while len(found) < events:
        line = await reader.readline()
        if line.startswith(b"id: "):
            found.append(int(line[4:]))
    writer.close()
    return found


def test_many_streams_are_fed_by_one_read(any_api: Api, files_enough: int) -> None:
    streams, writes = min(500, files_enough), 10

    async def listen_all() -> list[list[int]]:
        return await asyncio.gather(*(_listen(address_of(any_api), writes) for _ in range(streams)))

    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(lambda: asyncio.run(listen_all()))
        wait_until(lambda: tail_of(any_api).watched_by == streams, what="all streams are open", timeout_s=60)
        with statements() as sent:
            written = [any_api.write(path=f"f{number}")["position"] for number in range(writes)]
            found = told.result(60)
    assert found == [written] * streams
    assert not [words for words in sent if FOLLOWS in words and "events.position <= " in words], "none reads by itself"


def test_one_who_falls_behind_reads_by_himself_and_holds_back_nobody(api: Api) -> None:
    tail_of(api).recent = Recent(most_events=40)
    most = 30
    with lines_of(api) as slow, lines_of(api) as quick:
        assert next(slow).startswith("retry")
        quick_frames = frames(quick)
        told: list[str] = []
        for batch in range(most):
            body = [{"workspace": "ws", "path": f"{batch}/{number}/{'x' * 3_900}"} for number in range(50)]
            assert api.http.post("/v1/writes", json=body).status_code == 202
            told += [frame["id"] for frame in islice(quick_frames, 50)]
        with statements() as sent:
            caught_up = [frame["id"] for frame in islice(frames(slow), 50 * most)]
        by_himself = [words for words in sent if "events.position <= " in words]
        api.write(path="live again")
        last = json.loads(next(frames(slow))["data"])
    assert caught_up == told
    assert len(by_himself) > 1
    assert last["data"]["path"] == "live again"


def test_a_row_that_cannot_be_read_stops_only_who_reads_it(
    api: Api, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "LOOK_AGAIN_S", 0.01)
    api.put_workspace("other")
    write = api.write("other")["id"]
    path = database_url(sqlite_url).database
    assert path is not None
    with held(api, [write] * 3) as answers, lines_of(api, workspace="other") as lines:
        next(lines)
        wait_until(lambda: tail_of(api).watched_by == 4, what="all watch")
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "INSERT INTO events (id, workspace, type, schema, data, actor, recorded_at) SELECT 'evt_damaged', 'ws',"
                " 'FileWritten', 1, CAST(X'7bff7d' AS TEXT), 'me', max(recorded_at) FROM events"
            )
        api.restart_all()
        assert {answer["status"] for answer in answers.result(20)} == {"covered"}
        told = [json.loads(frame["data"])["type"] for frame in islice(frames(lines), 3)]
    assert told == ["RestartQueued", "CycleStarted", "CycleSucceeded"]


def test_one_unreadable_write_is_not_everybodys(api: Api, sqlite_url: str) -> None:
    """Those that are asked for together are looked up together."""
    good = api.write()["id"]
    path = database_url(sqlite_url).database
    assert path is not None
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO events (id, workspace, type, schema, data, actor, recorded_at) SELECT 'evt_damaged', 'ws',"
            " 'FileWritten', 1, '[', 'me', max(recorded_at) FROM events"
        )
    ids = ["evt_damaged", good, "evt_none"] * 5
    with ThreadPoolExecutor(len(ids)) as pool:
        answers = list(pool.map(lambda write: api.http.get(f"/v1/writes/{write}").status_code, ids))
    assert answers == [503, 200, 404] * 5


def test_a_stop_answers_all_who_wait(sqlite_url: str) -> None:
    with served(sqlite_url) as api:
        api.put_workspace()
        write = api.write()["id"]
        with held(api, [write] * 100) as answers:
            api.server.should_exit = True
            assert {answer["status"] for answer in answers.result(20)} == {"pending"}
