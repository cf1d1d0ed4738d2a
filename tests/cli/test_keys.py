"""``orchestrator keys``: from the first key, made beside the database, to one that is revoked through the API."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from orchestrator.bootstrap import user_name
from orchestrator.cli.key_at_hand import named_key
from orchestrator.domain.access_events import DataExported, KeyCreated, KeyRevoked
from orchestrator.domain.key_words import is_key
from orchestrator.domain.scopes import ROLES, Role, grants_of
from orchestrator.owner_key import make_owner_key, new_key
from orchestrator.ports.store import EventFilter
from orchestrator.storage.opening import open_store
from tests.cli.conftest import Run, Server
from tests.servers.process import free_port
from tests.system.fork_server import ForkServer
from tests.system.processes import ORCHESTRATOR, OrchestratorProcess
from tests.waiting import wait_until

ADMIN = ("--role", "admin")


@pytest.fixture(params=["app_url", "sqlite_url"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated database that the environment names, on PostgreSQL with no more than the app's privileges."""
    url: str = request.getfixturevalue(request.param)
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", url)
    return url


@contextmanager
def api(folder: Path, forks: ForkServer, **settings: str) -> Iterator[str]:
    """Run an API until the end of the block; give its address on this machine."""
    process = start_api(folder, forks, **settings)
    try:
        yield process.url().replace("0.0.0.0", "127.0.0.1")  # noqa: S104 (what it says, not what is bound)
        process.signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.alive:
            process.kill()


def start_api(folder: Path, forks: ForkServer, **settings: str) -> OrchestratorProcess:
    bind = {"ORCHESTRATOR_BIND": "127.0.0.1:0"}
    given = {f"ORCHESTRATOR_{name}": value for name, value in settings.items()}
    return OrchestratorProcess("api", ["api"], env=os.environ | bind | given, log=folder / "api.log", forks=forks)


def asked(run: Run, *words: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run a command that must succeed; return its JSON."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        ran = run(*words, "--json")
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def status(url: str, key: str | None, path: str = "/v1/whoami", **more: str) -> int:
    headers = {**more, **({} if key is None else {"Authorization": f"Bearer {key}"})}
    return httpx2.get(url + path, headers=headers, trust_env=False, verify=False, timeout=20).status_code


def key_events(url: str) -> list[tuple[str, str, str]]:
    """Return kind, key's name and actor of what the log says of keys."""
    store = open_store(url)
    with store.read() as reader:
        found = [
            (event.type, event.data.name if isinstance(event.data, KeyCreated | KeyRevoked) else "", event.actor)
            for event in reader.events(EventFilter(limit=1000))
            if isinstance(event.data, KeyCreated | KeyRevoked | DataExported)
        ]
    store.close()
    return found


def test_from_the_first_key_to_one_that_is_revoked(
    run: Run, database: str, forks: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = subprocess.run(
        [str(ORCHESTRATOR), "keys", "create", "--name", "root", *ADMIN], capture_output=True, text=True, check=True
    )
    root = made.stdout.removesuffix("\n")
    assert is_key(root)
    assert re.fullmatch(r"key root made, valid until it is revoked; it is shown this once: .*\n", made.stderr)
    with api(tmp_path, forks, LOOPBACK="closed") as url:
        assert (status(url, None), status(url, root)) == (401, 200)
        monkeypatch.setenv("ORCHESTRATOR_KEY", root)
        words = ("keys", "create", "--name", "ci", "--role", "writer", "--scope", "writes@fleet=web-*")
        limits = ("--writes-per-minute", "600", "--reads-per-minute", "60")
        ci = asked(run, *words, "--expires", "90d", *limits, "--url", url)
        assert {"key", "id", "name", "role", "scopes", "expires_at"} <= ci.keys()
        assert (ci["name"], ci["role"], ci["scopes"]) == ("ci", "writer", ["read", "writes@fleet=web-*"])
        assert (ci["writes_per_minute"], ci["reads_per_minute"]) == (600, 60)
        monkeypatch.setenv("ORCHESTRATOR_URL", url)
        anew = asked(run, "keys", "rotate", "ci")
        assert anew["key"] != ci["key"]
        assert anew["scopes"] == ci["scopes"]
        assert (status(url, ci["key"]), status(url, anew["key"])) == (200, 200), "both are valid while it is rotated"
        assert asked(run, "keys", "revoke", ci["id"], "--reason", "it leaked")["revoked"] == [
            {"id": ci["id"], "name": "ci"}
        ]
        assert (status(url, ci["key"]), status(url, anew["key"])) == (401, 200)
        listed = run("keys", "list").out
        monkeypatch.delenv("ORCHESTRATOR_URL")
        told = run("keys", "revoke", "ci")
        assert (told.code, told.out) == (0, f"Revoked ci ({anew['id']}).\n")
        wait_until(lambda: status(url, anew["key"]) == 401, what="the API knows what was revoked beside it")
        assert run("keys", "revoke", "ci").out == "ci was over already.\n"
    rows = [re.split(r"  +", line.strip()) for line in listed.splitlines()]
    states = [("ci", "revoked", "read writes@fleet=web-*"), ("ci", "live", "read writes@fleet=web-*")]
    assert [(row[0], row[2], row[4]) for row in rows[1:]] == [*states, ("root", "live", "the role's")]
    me = f"local:{user_name()}"
    assert key_events(database) == [
        ("KeyCreated", "root", me),
        ("KeyCreated", "ci", "key:root"),
        ("KeyCreated", "ci", "key:root"),
        ("KeyRevoked", "ci", "key:root"),
        ("DataExported", "", "key:root"),
        ("KeyRevoked", "ci", me),
    ]


def test_both_ways_show_the_same_keys(run: Run, database: str, forks: ForkServer, tmp_path: Path) -> None:
    assert run("keys", "list").out == "No key.\n"
    root = asked(run, "keys", "create", "--name", "root", *ADMIN)
    assert root["scopes"] == grants_of(ROLES[Role.ADMIN]).spelled()
    with api(tmp_path, forks) as url:
        through = asked(run, "keys", "list", "--url", url, environment={"ORCHESTRATOR_KEY": root["key"]})
    beside = asked(run, "keys", "list")
    for rows in (through, beside):
        assert rows["items"][0].pop("last_used_at", "") != ""
    assert through == beside
    assert root["key"] not in json.dumps(beside)
    me = f"local:{user_name()}"
    assert [event for event in key_events(database) if event[0] == "DataExported"] == [
        ("DataExported", "", me),
        ("DataExported", "", "key:root"),
        ("DataExported", "", me),
    ]


REFUSED = [
    (("keys", "create", "--name", "x y", *ADMIN), "x y"),
    (("keys", "create", "--name", "x", *ADMIN, "--scope", "writs"), "there is no scope 'writs'"),
    (("keys", "create", "--name", "x", *ADMIN, "--scope", "keys@fleet=a"), "takes no @"),
    (("keys", "create", "--name", "x", *ADMIN, "--expires", "0s"), "would never open anything"),
    (("keys", "create", "--name", "x", *ADMIN, "--expires", "3651d"), "not between 0s and 3650d"),
    (("keys", "create", "--name", "root", *ADMIN), "a live key is named 'root'"),
    (("keys", "rotate", "nobody"), "no live key is named 'nobody'"),
    (("keys", "revoke", "nobody"), "there is no key 'nobody'"),
    (("keys", "revoke", "root", "--reason", " "), "reason"),
]


def test_what_is_refused_is_so_both_ways(run: Run, database: str, forks: ForkServer, tmp_path: Path) -> None:
    root = asked(run, "keys", "create", "--name", "root", *ADMIN)["key"]
    with api(tmp_path, forks) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHESTRATOR_KEY", root)
        for where in ((), ("--url", url)):
            for words, said in REFUSED:
                refused = run(*words, *where)
                assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1), (words, where, refused)
                assert said in refused.err
        writer = asked(run, "keys", "create", "--name", "w", "--role", "writer")["key"]
        patch.setenv("ORCHESTRATOR_KEY", writer)
        forbidden = run("keys", "list", "--url", url)
    assert (forbidden.code, "needs the scope keys" in forbidden.err) == (2, True)
    assert [event[1] for event in key_events(database)] == ["root", "w"]


def test_an_answer_that_is_lost_is_not_asked_for_again(run: Run, sqlite_url: str) -> None:
    away = run("keys", "create", "--name", "x", *ADMIN, "--url", f"http://127.0.0.1:{free_port()}")
    assert (away.code, "`orchestrator keys list` shows it" in away.err, away.err.count("\n")) == (2, True, 1)
    both = run("keys", "list", "--url", "http://127.0.0.1:1", "--database-url", sqlite_url)
    assert (both.code, "not both" in both.err) == (2, True)


def test_a_login_that_only_reads_makes_and_sees_no_key(run: Run, reader_url: str) -> None:
    for words in (("keys", "list"), ("keys", "create", "--name", "x", *ADMIN)):
        refused = run(*words, "--database-url", reader_url)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert "permission denied" in refused.err


def test_a_key_that_is_made_beside_a_running_up_opens_it(run: Run, server: Server) -> None:
    words = ("keys", "create", "--name", "beside", "--role", "auditor", "--data", str(server.data))
    made = asked(run, *words)
    wait_until(lambda: status(server.url, made["key"]) == 200, what="the `up` knows it")
    environment = {"ORCHESTRATOR_KEY": made["key"], "ORCHESTRATOR_DATA": str(server.data)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        refused = run("hold", "ws", "--reason", "r", "--url", server.url)
    assert (refused.code, "key:beside has" in refused.err) == (2, True), "it wins over the owner's, which may"


def test_the_callers_own_key_wins_and_goes_where_it_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_owner_key(tmp_path / "owner.key")
    mine = make_owner_key(tmp_path / "mine.key")
    monkeypatch.setenv("ORCHESTRATOR_OWNER_KEY", str(tmp_path / "owner.key"))
    monkeypatch.setenv("ORCHESTRATOR_KEY_FILE", str(tmp_path / "mine.key"))
    assert named_key() == mine
    monkeypatch.setenv("ORCHESTRATOR_KEY", new_key())
    with pytest.raises(Exception, match="unset one of them"):
        named_key()
    monkeypatch.delenv("ORCHESTRATOR_KEY_FILE")
    assert named_key() == os.environ["ORCHESTRATOR_KEY"]


@pytest.mark.parametrize("spelled", ["", "hunter2", "ro_hunter2", "ro_" + "x" * 32 + "!"])
def test_what_is_no_key_is_refused_and_not_repeated(
    run: Run, spelled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_KEY", spelled)
    refused = run("hold", "ws", "--reason", "r")
    assert (refused.code, "ORCHESTRATOR_KEY holds no key" in refused.err) == (2, True)
    assert not spelled or spelled not in refused.err
    monkeypatch.delenv("ORCHESTRATOR_KEY")
    file = tmp_path / "my.key"
    monkeypatch.setenv("ORCHESTRATOR_KEY_FILE", str(file))
    assert "correct or unset ORCHESTRATOR_KEY_FILE" in run("hold", "ws", "--reason", "r").err
    file.write_text(spelled)
    file.chmod(0o600)
    refused = run("hold", "ws", "--reason", "r")
    assert (refused.code, "does not hold the key of this caller" in refused.err) == (2, True)
    assert not spelled or spelled not in refused.err
    file.chmod(0o644)
    assert "chmod 600" in run("hold", "ws", "--reason", "r").err


CLOSED = [
    {"LOOPBACK": "closed"},
    {"LOOPBACK": "closed", "ALLOW_UNAUTHENTICATED": "true"},
    {"BIND": "0.0.0.0:0", "ALLOWED_HOSTS": "127.0.0.1"},
]


@pytest.mark.parametrize("closed", CLOSED, ids=["loopback", "allowed, but closed", "beyond"])
def test_an_api_that_would_serve_nobody_does_not_start(
    run: Run, database: str, forks: ForkServer, tmp_path: Path, closed: dict[str, str]
) -> None:
    expired = asked(run, "keys", "create", "--name", "root", *ADMIN)
    asked(run, "keys", "revoke", "root")
    process = start_api(tmp_path, forks, **closed)
    assert process.wait(30) == 2
    [line] = [line for line in process.output.splitlines() if "orchestrator: error" in line]
    assert "`orchestrator keys create --name NAME --role admin`" in line
    assert "hunter2" not in line
    live = asked(run, "keys", "create", "--name", "root", *ADMIN)
    (tmp_path / "api.log").unlink()
    with api(tmp_path, forks, **closed) as url:
        assert [status(url, key) for key in (None, expired["key"], live["key"])] == [401, 401, 200]


def test_other_ways_to_answer_somebody_beyond_loopback(database: str, forks: ForkServer, tmp_path: Path) -> None:
    owner = make_owner_key(tmp_path / "owner.key")
    beyond = {"BIND": "0.0.0.0:0", "ALLOWED_HOSTS": "127.0.0.1"}
    with api(tmp_path, forks, **beyond, OWNER_KEY=str(tmp_path / "owner.key")) as url:
        assert [status(url, key) for key in (None, owner)] == [401, 200]
    (tmp_path / "api.log").unlink()
    with api(tmp_path, forks, **beyond, ALLOW_UNAUTHENTICATED="true") as url:
        assert status(url, None) == status(url, None, forwarded="for=10.0.0.7") == 200, "what is in front checks"


@pytest.mark.parametrize("passed_on", ["forwarded", "x-forwarded-for", "x-real-ip", "via"])
def test_what_a_proxy_passed_on_needs_a_key_on_an_open_loopback_too(server: Server, passed_on: str) -> None:
    owner = (server.data / "owner.key").read_text().strip()
    proxied = {passed_on: "10.0.0.7"}
    assert [status(server.url, key, **proxied) for key in (None, owner)] == [401, 200]
    assert status(server.url, None) == 200


def test_with_its_database_away_the_api_starts_closed(forks: ForkServer, tmp_path: Path) -> None:
    away = f"postgresql://ann@127.0.0.1:{free_port()}/x"
    with api(tmp_path, forks, LOOPBACK="closed", DATABASE_URL=away) as url:
        path = "/v1/workspaces"
        assert (status(url, None, path), status(url, new_key(), path)) == (401, 503)
        assert status(url, None, "/livez") == 200


def test_the_earlier_words_for_seal_keys_go_on_with_a_notice(run: Run, tmp_path: Path) -> None:
    file = str(tmp_path / "seal.key")
    made = run("keys", "seal", "new", file, "--origin", "log.example.com", "--json")
    assert (made.code, json.loads(made.out)["file"]) == (0, file)
    assert "`orchestrator audit keys` now" in made.err
    assert run("keys", "seal", "public", file).out == run("audit", "keys", "public", file).out
    assert "now" not in run("audit", "keys", "rotate", file).err
