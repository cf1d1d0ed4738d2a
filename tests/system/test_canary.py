"""A secret that goes through every executor and every way to fail is nowhere afterwards but where it was put."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest
from psycopg import sql

from orchestrator.domain import events as ev
from orchestrator.history.export_formats import Format
from orchestrator.ports.store import EventFilter
from tests.api.access_page import listed
from tests.servers.postgres import READER, PostgresServer, as_login
from tests.servers.redis import RedisServer
from tests.system import leaky_plugin
from tests.system.deployment import Deployment, Embedded, Production, running
from tests.system.processes import ORCHESTRATOR, OrchestratorProcess
from tests.system.test_sealing import SEALED_WITHIN_S
from tests.waiting import wait_until

VARIABLE = "CANARY_OF_THE_WORKER"
SPOKEN = "kanarienvogel-7f3a"
"""What no path and no name of the tests holds."""

SECRETS = {"env": f"of-a-variable-{SPOKEN}", "file": f"of-a-file-{SPOKEN}"}
WATCHED = "site"

_PROVES = 'printf %s "$TOKEN" | sha256sum >>"$PROOF"; '
_SERVER = """
import hashlib, os, subprocess, sys
with open(os.environ["PROOF"], "a") as proof:
    proof.write(hashlib.sha256(os.environ["TOKEN"].encode()).hexdigest() + "\\n")
if os.path.exists(os.environ["PROOF"] + ".fail"):
    sys.exit(3)
words = ["sh", "-c", "sleep 1000; :", os.environ["TOKEN"]]
subprocess.Popen(words, start_new_session=True).wait()
"""
"""It leaves a process in a session of its own that has the secret in its command line."""

COMMANDS = {
    "printed": 'echo "it is $TOKEN"',
    "left": 'sh -c "sleep 1000; : $TOKEN" &',
    "failed": 'echo "bad $TOKEN" >&2; exit 1',
    "tried": 'echo "again $TOKEN"; exit 75',
    "swept": 'sh -c "sleep 1000; : $TOKEN" & exit 3',
    "killed": 'echo "$TOKEN"; kill -9 $$',
    "late": 'echo "late $TOKEN"; sleep 1000',
}
LEAKS = ("returned", "transient", "permanent", "timeout", "unknown", "defect")


class Canary:
    """Registers what is to fail, with the secret behind a reference, on a deployment that has the plug-in."""

    def __init__(self, deployment: Deployment, folder: Path, database_url: str) -> None:
        self.deployment, self.database_url = deployment, database_url
        self.proof = folder / "proof"
        self.secret_file = folder / "canary.secret"
        self.references = {"env": {"env": VARIABLE}, "file": {"file": str(self.secret_file)}}
        self.workspaces: dict[str, str] = {}

    def put(self, workspace: str, executor: str, target: Mapping[str, Any], secret: str = "") -> None:
        """Register it and ask for a restart; ``secret`` says which one it must prove that it had."""
        policy = {"max_attempts": 1, "cycle_timeout": "10s", "give_up_backoff": "1h"}
        self.deployment.client.register(workspace, {"executor": executor, "target": target, "policy": policy})
        self.deployment.write(workspace, "app.py")
        self.workspaces[workspace] = secret

    def put_all(self) -> None:
        for kind, reference in self.references.items():
            for name, script in COMMANDS.items():
                target: dict[str, Any] = {
                    "argv": ["/bin/sh", "-c", _PROVES + script],
                    "env": {"TOKEN": reference, "PROOF": self._proof(f"command-{name}-{kind}")},
                    "grace": "100ms",
                }
                if name == "late":
                    target["timeout"] = "500ms"
                self.put(f"command-{name}-{kind}", "command", target, kind)
            for how in LEAKS:
                target = {"secret": reference, "how": how, "proof": self._proof(f"leaky-{how}-{kind}")}
                self.put(f"leaky-{how}-{kind}", "leaky", target, kind)
        whole = {"OK": self.references["env"]}
        for name, missing in (("env", {"env": "NOBODY_SET_THIS"}), ("file", {"file": "/nonexistent/canary"})):
            target = {"argv": ["/bin/sh", "-c", ":"], "env": {**whole, "TOKEN": missing}}
            self.put(f"command-missing-{name}", "command", target)
            self.put(f"leaky-missing-{name}", "leaky", {"secret": missing, "how": "returned", "proof": "/dev/null"})
        self.put("simulated-good", "simulated", {})
        self.put("simulated-fails", "simulated", {"fail_first": 1})
        self.put("simulated-hangs", "simulated", {"hang_first": 1})

    def refuse_all(self) -> list[httpx2.Response]:
        """Try to register the plain secret with each executor, in good and in bad targets; return the refusals."""
        secret = SECRETS["env"]
        targets: list[tuple[str, dict[str, Any]]] = [
            ("command", {"argv": ["true"], "env": {"API_TOKEN": secret}}),
            ("command", {"argv": [1], "env": {"API_TOKEN": secret}}),
            ("command", {"argv": ["true"], "env": {"API_TOKEN": [secret]}}),
            ("command", {"argv": ["deploy", f"--password={secret}"], "grace": "never"}),
            ("command", {"argv": ["true"], "token": secret}),
            ("command", {"argv": ["true"], "ready": {"type": "http", "url": f"ftp://h/?token={secret}"}}),
            ("simulated", {"token": secret}),
            ("simulated", {"delay": f"password={secret}"}),
            ("leaky", {"secret": secret, "how": "returned", "proof": "/dev/null"}),
            ("leaky", {"secret": secret, "unknown": True}),
            ("nobody's", {"token": secret}),
        ]
        http = self.deployment.client.http
        return [
            http.put(f"/v1/workspaces/refused-{number}", json={"executor": executor, "target": target})
            for number, (executor, target) in enumerate(targets)
        ]

    def await_ends(self, workspaces: Mapping[str, str]) -> dict[str, str]:
        """Wait until a cycle of each has ended; return what the log has of the ends, by workspace."""

        def ended() -> dict[str, str] | None:
            types = tuple(kind.type_name() for kind in (ev.CycleSucceeded, ev.CycleFailed))
            with self.deployment.store.read() as reader:
                found = reader.events(EventFilter(types=types, limit=1_000))
            said = {str(event.workspace): str(event.data) for event in found}
            return said if set(workspaces) <= set(said) else None

        return wait_until(ended, what="a cycle of each has ended", timeout_s=60, every_s=0.1)

    def again(self, workspace: str, *, ended: str) -> None:
        """Ask for another restart, and wait until an end of it says ``ended``."""
        self.deployment.client.restart(workspace, "manual")

        def said() -> bool:
            with self.deployment.store.read() as reader:
                found = reader.events(EventFilter(workspace=workspace, limit=1_000))
            return any(ended in str(event.data) for event in found)

        wait_until(said, what=f"{workspace} says {ended!r}", timeout_s=30, every_s=0.1)

    def settled(self) -> list[str]:
        """Return the restarts that are settled: they can be proved once they are sealed."""
        items = self.deployment.client.get("/v1/restarts?limit=200")["items"]
        return [item["id"] for item in items if item["state"] not in ("queued", "running", "retrying")]

    def _proof(self, workspace: str) -> str:
        return f"{self.proof}-{workspace}"

    def check_proofs(self) -> None:
        """Assert that every one had its secret: what was never told cannot be found."""
        for workspace, kind in self.workspaces.items():
            if kind:
                told = Path(self._proof(workspace)).read_text().split()
                assert sha256(SECRETS[kind].encode()).hexdigest() in told, workspace

    def shown(self) -> dict[str, str]:
        """Return all that the product shows: the API's answers, the commands' output, the processes' logs."""
        with self.deployment.store.read() as reader:
            queued = reader.events(EventFilter(types=("RestartQueued",), limit=1_000))
            write = reader.events(EventFilter(types=("FileWritten",), limit=1))[0].id
        restarts = [event.data.restart for event in queued if isinstance(event.data, ev.RestartQueued)]
        found = {f"log of {name}": process.output for name, process in self.deployment.processes.items()}
        for operation in listed():
            if operation.method == "GET" and not operation.path.endswith("/stream"):
                for path in self._filled(operation.path, restarts, write):
                    found[path] = self.deployment.client.http.get(path).text
        for form in Format:
            found[f"export as {form}"] = self.deployment.client.http.get(f"/v1/audit/export?format={form}").text
        for words in (["tail", "--json"], ["workspaces", "--json"], ["audit", "export"], ["why", restarts[0]]):
            found[" ".join(words)] = self._told(*words)
        return found

    def _filled(self, path: str, restarts: Sequence[str], write: str) -> list[str]:
        if "{workspace}" in path:
            return [path.format(workspace=name) for name in self.workspaces]
        if "{restart}" in path:
            return [path.format(restart=name) for name in restarts]
        return [path.format(write=write, fleet="default")]

    def _told(self, *words: str) -> str:
        command = [str(ORCHESTRATOR), *words, "--database-url", self.database_url]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        assert ran.returncode == 0, ran.stderr
        return f"{ran.stdout}{ran.stderr}"

    def files(self) -> dict[str, str]:
        """Return every file that the processes have, but for the one that the secret was put into."""
        folder = self.deployment.folder
        return {
            str(path.relative_to(folder)): path.read_bytes().decode("latin-1")
            for path in folder.rglob("*")
            if path.is_file() and path != self.secret_file
        }


def where(found: Mapping[str, str]) -> list[str]:
    """Return the names of what holds the secret, or what is left of it where it was cut or spelled otherwise."""
    return [name for name, text in found.items() if SPOKEN in text or SPOKEN[:10] in text]


@contextmanager
def leaky_installed(folder: Path) -> Iterator[dict[str, str]]:
    """Install the plug-in; yield the settings of processes that have it, and the secrets."""
    place = folder / "plugins"
    (place / "leaky-1.dist-info").mkdir(parents=True)
    shutil.copy(leaky_plugin.__file__, place)
    (place / "leaky-1.dist-info" / "METADATA").write_text(leaky_plugin.METADATA)
    (place / "leaky-1.dist-info" / "entry_points.txt").write_text(leaky_plugin.ENTRY_POINT)
    (folder / "canary.secret").write_text(f"{SECRETS['file']}\n")
    yield {"PYTHONPATH": str(place), VARIABLE: SECRETS["env"]}


class WatchingCanary(Embedded):
    """``up`` with a folder to watch, whose program proves what it was told."""

    def __init__(self, folder: Path, given: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._given = given

    def settings(self) -> dict[str, str]:
        return {**self._given, "PROOF": str(self.folder / f"proof-{WATCHED}"), "ORCHESTRATOR_SLOTS": "16"}

    def start_up(self, *more: str) -> OrchestratorProcess:
        (self.folder / WATCHED).mkdir()
        return super().start_up("--watch", str(self.folder / WATCHED), *more, "--", "sleep", "1000")


class ProductionCanary(Production):
    """The separate processes, with the plug-in."""

    SLOTS = 16

    def __init__(self, folder: Path, given: Mapping[str, str], *, database_url: str, broker_url: str) -> None:
        super().__init__(folder, database_url=database_url, broker_url=broker_url)
        self._given = given

    def settings(self) -> dict[str, str]:
        return {**super().settings(), **self._given}


def judged(canary: Canary) -> None:
    """Put the secret through everything; assert that it came through, and is nowhere."""
    refused = canary.refuse_all()
    assert [answer.status_code for answer in refused] == [422] * len(refused)
    assert where({answer.request.url.path: answer.text for answer in refused}) == []
    canary.put_all()
    ends = canary.await_ends(canary.workspaces)
    canary.check_proofs()
    hidden = {name for name, secret in canary.workspaces.items() if secret and "***" not in ends[name]}
    assert hidden == set(), f"the secret was not even said: {[ends[name] for name in hidden]}"

    newest = canary.settled()[0]

    def bundled() -> bool:
        return canary.deployment.client.http.get(f"/v1/audit/evidence/{newest}").status_code == 200

    wait_until(bundled, what="all that is settled is sealed", timeout_s=SEALED_WITHIN_S, every_s=0.2)
    assert where(canary.shown()) == []


def test_it_is_nowhere_in_an_up_with_a_program(tmp_path: Path) -> None:
    with leaky_installed(tmp_path) as given, running(WatchingCanary(tmp_path, given)) as deployment:
        canary = Canary(deployment, tmp_path, f"sqlite:///{tmp_path / 'data' / 'orchestrator.db'}")
        target = {
            "argv": [sys.executable, "-c", _SERVER],
            "env": {"TOKEN": canary.references["file"]},
            "ready": {"type": "none", "interval": "1s"},
            "grace": "1s",
        }
        canary.put(WATCHED, "process", target, "file")
        canary.await_ends({WATCHED: ""})
        canary.again(WATCHED, ended="ended too")
        (tmp_path / f"proof-{WATCHED}.fail").touch()
        canary.again(WATCHED, ended="exit code 3")
        del canary.workspaces[WATCHED]  # its end was looked at already, and says no secret
        judged(canary)
    assert where(canary.files()) == [], "after the stop: what was kept of the log, the records, the seals"


def test_it_is_nowhere_in_separate_processes(
    tmp_path: Path, postgres_server: PostgresServer, postgres_template: str, shared_redis: RedisServer
) -> None:
    database = postgres_server.create_database(postgres_template)
    url = postgres_server.url(database)
    with leaky_installed(tmp_path) as given:
        production = ProductionCanary(tmp_path, given, database_url=url, broker_url=shared_redis.url)
        with running(production) as deployment:
            canary = Canary(deployment, tmp_path, as_login(url, READER))
            judged(canary)
    assert where(canary.files() | rows_of(postgres_server, database)) == []


def rows_of(server: PostgresServer, database: str) -> dict[str, str]:
    """Return all rows of all tables, callers' answers too, as the superuser sees them."""
    with server.connect(database) as connection:
        named = "SELECT relname FROM pg_stat_user_tables"
        tables = [row[0] for row in connection.execute(named).fetchall()]
        assert {"events", "idempotency_keys", "restarts", "workspaces"} <= set(tables)
        return {
            table: str(connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))).fetchall())
            for table in tables
        }


@pytest.mark.parametrize("said", [SECRETS["env"], SECRETS["file"][:24], f"x{SPOKEN}x"])
def test_a_canary_that_is_there_is_found(said: str) -> None:
    assert where({"clean": "***", "dirty": f"a {said} b"}) == ["dirty"]
