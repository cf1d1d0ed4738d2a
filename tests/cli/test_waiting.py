"""``--wait``, ``remove``, holds that replace each other, and what is said of a name that was not there before."""

from __future__ import annotations

import json
import re

from tests.cli.conftest import Run, Server, act, register

AT_ONCE = ("--policy", "quiet=0s", "--policy", "min_interval=0s")


def test_wait_ends_with_0_only_when_all_is_covered(run: Run, server: Server) -> None:
    act(run, server, "register", "fast", "--executor", "simulated", *AT_ONCE)
    written = run("write", "fast", "a.py", "b.py", "--wait", "--json", "--url", server.url)
    assert written.code == 0
    assert [fate["status"] for fate in json.loads(written.out)["fates"]] == ["covered", "covered"]
    told = run("restart", "fast", "--reason", "now", "--wait", "--url", server.url)
    assert told.code == 0
    assert re.search(r"^evt_\S+  requested.*\nevt_\S+  covered: ", told.out)


def test_wait_ends_with_1_when_the_time_is_over(run: Run, server: Server) -> None:
    register(run, server, "slow")
    ran = run("write", "slow", "a.py", "--timeout", "50ms", "--url", server.url)
    assert ran.code == 1
    assert "  pending: " in ran.out


def test_wait_ends_with_1_for_what_a_rule_only_records(run: Run, server: Server) -> None:
    rule = 'rules=[{"match": ["*.md"], "action": "record"}]'
    act(run, server, "register", "docs", "--executor", "simulated", "--policy", rule)
    ran = run("write", "docs", "x.md", "--wait", "--json", "--url", server.url)
    assert (ran.code, json.loads(ran.out)["fates"][0]["status"]) == (1, "recorded")


def test_wait_ends_with_1_when_the_restart_is_given_up(run: Run, server: Server) -> None:
    target = '{"fail_first": 9, "error_kind": "permanent"}'
    act(run, server, "register", "broken", "--executor", "simulated", "--target", target, *AT_ONCE)
    ran = run("write", "broken", "x", "--wait", "--url", server.url)
    assert ran.code == 1
    assert re.search(r"pending: .* rst_\S+ was given up: `orchestrator why rst_", ran.out)
    again = run("restart", "broken", "--reason", "again", "--wait", "--json", "--url", server.url)
    assert (again.code, "gave_up" in json.loads(again.out)["fates"][0]) == (1, True)


def test_wait_ends_with_1_when_it_is_waived(run: Run, server: Server) -> None:
    register(run, server, "waived")
    [held] = act(run, server, "write", "waived", "x")["results"]
    told = run("remove", "waived", "--reason", "no longer needed", "--url", server.url)
    assert (told.code, told.out) == (0, "waived is removed; 1 pending write waived\n")
    assert act(run, server, "why", held["id"])["status"] == "waived"
    again = run("remove", "waived", "--url", server.url)
    assert (again.code, again.err.count("\n")) == (2, 1)
    refused = run("write", "waived", "x", "--url", server.url)
    assert refused.code == 2
    assert "was removed" in refused.err


def test_a_hold_says_when_it_ends_and_what_it_replaces(run: Run, server: Server) -> None:
    register(run, server, "shop")
    bounded = act(run, server, "hold", "shop", "--reason", "deploy", "--for", "30m")
    assert bounded["replaced"] is None
    told = run("hold", "shop", "--reason", "longer", "--url", server.url).out
    endless = "shop is held until `orchestrator release shop`: it has no end of its own"
    assert told == f"{endless}; before it was held until {bounded['until']}\n"
    assert run("hold", "shop", "--reason", "still", "--url", server.url).out == f"{endless}\n"
    bounded = act(run, server, "hold", "shop", "--reason", "deploy", "--for", "30m")
    assert bounded["replaced"] == {"reason": "still", "until": None}
    act(run, server, "release", "shop")


def test_a_mistyped_workspace_is_said_to_be_new(run: Run, server: Server) -> None:
    register(run, server, "site")
    ran = run("write", "sitee", "x", "--url", server.url)
    assert ran.code == 0
    assert "sitee was not there: this write made a new workspace with executor simulated" in ran.err
    assert "nothing real is restarted. Near that name: site." in ran.err
    assert "`orchestrator remove sitee`" in ran.err
    assert run("write", "sitee", "x", "--url", server.url).err == ""
    answer = act(run, server, "write", "Site", "x")
    assert answer["registered"] == {"workspace": "Site", "executor": "simulated", "near": ["site", "sitee"]}
