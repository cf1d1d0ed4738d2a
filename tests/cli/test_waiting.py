"""``--wait``, ``remove``, holds that replace each other, and what is said of a name that was not there before."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Run
from tests.cli.test_acting import Server, act, register, running
from tests.system.fork_server import ForkServer

AT_ONCE = ("--policy", "quiet=0s", "--policy", "min_interval=0s")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, forks: ForkServer) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("asked"), forks) as server:
        yield server


def test_wait_ends_with_0_only_when_all_is_covered(run: Run, asked: Server) -> None:
    act(run, asked, "register", "fast", "--executor", "simulated", *AT_ONCE)
    written = act(run, asked, "write", "fast", "a.py", "b.py", "--wait")
    assert [fate["status"] for fate in written["fates"]] == ["covered", "covered"]
    told = run("restart", "fast", "--reason", "now", "--wait", "--url", asked.url)
    assert told.code == 0
    assert re.search(r"^evt_\S+  requested.*\nevt_\S+  covered: ", told.out)


def test_wait_ends_with_1_when_the_time_is_over(run: Run, asked: Server) -> None:
    register(run, asked, "slow")
    ran = run("write", "slow", "a.py", "--timeout", "50ms", "--url", asked.url)
    assert (ran.code, ran.err) == (1, "")
    assert "  pending: " in ran.out


def test_wait_ends_with_1_for_what_a_rule_only_records(run: Run, asked: Server) -> None:
    rule = 'rules=[{"match": ["*.md"], "action": "record"}]'
    act(run, asked, "register", "docs", "--executor", "simulated", "--policy", rule)
    ran = run("write", "docs", "x.md", "--wait", "--json", "--url", asked.url)
    assert (ran.code, json.loads(ran.out)["fates"][0]["status"]) == (1, "recorded")


def test_wait_ends_with_1_when_the_restart_is_given_up(run: Run, asked: Server) -> None:
    target = '{"fail_first": 9, "error_kind": "permanent"}'
    act(run, asked, "register", "broken", "--executor", "simulated", "--target", target, *AT_ONCE)
    ran = run("write", "broken", "x", "--wait", "--url", asked.url)
    assert ran.code == 1
    assert re.search(r"pending: .* rst_\S+ was given up: `orchestrator why rst_", ran.out)
    again = run("restart", "broken", "--reason", "again", "--wait", "--json", "--url", asked.url)
    assert (again.code, "gave_up" in json.loads(again.out)["fates"][0]) == (1, True)


def test_wait_ends_with_1_when_it_is_waived(run: Run, asked: Server) -> None:
    register(run, asked, "gone")
    [held] = act(run, asked, "write", "gone", "x")["results"]
    told = run("remove", "gone", "--reason", "no longer needed", "--url", asked.url)
    assert (told.code, told.out) == (0, "gone is removed; 1 pending write waived\n")
    assert act(run, asked, "why", held["id"])["status"] == "waived"
    again = run("remove", "gone", "--url", asked.url)
    assert (again.code, again.err.count("\n")) == (2, 1)
    refused = run("write", "gone", "x", "--url", asked.url)
    assert refused.code == 2
    assert "was removed" in refused.err


def test_a_hold_says_when_it_ends_and_what_it_replaces(run: Run, asked: Server) -> None:
    register(run, asked, "shop")
    bounded = act(run, asked, "hold", "shop", "--reason", "deploy", "--for", "30m")
    assert bounded["replaced"] is None
    told = run("hold", "shop", "--reason", "longer", "--url", asked.url).out
    endless = "shop is held until `orchestrator release shop`: it has no end of its own"
    assert told == f"{endless}; before it was held until {bounded['until']}\n"
    assert run("hold", "shop", "--reason", "still", "--url", asked.url).out == f"{endless}\n"
    bounded = act(run, asked, "hold", "shop", "--reason", "deploy", "--for", "30m")
    assert bounded["replaced"] == {"reason": "still", "until": None}


def test_a_mistyped_workspace_is_said_to_be_new(run: Run, asked: Server) -> None:
    register(run, asked, "site")
    ran = run("write", "sitee", "x", "--url", asked.url)
    assert ran.code == 0
    assert "sitee was not there: this write made a new workspace with executor simulated" in ran.err
    assert "nothing real is restarted. Near that name: site." in ran.err
    assert "`orchestrator remove sitee`" in ran.err
    assert run("write", "sitee", "x", "--url", asked.url).err == ""
    answer = act(run, asked, "write", "Site", "x")
    assert answer["registered"] == {"workspace": "Site", "executor": "simulated", "near": ["site", "sitee"]}
