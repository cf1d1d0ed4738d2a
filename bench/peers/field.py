"""The peers: what each is, on which server it runs, and how its worker and clients are started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers.installing import NODE_PACKAGES, PYTHON_PACKAGES, Tools
from bench.peers.plan import JOB_S, JOBS_AT_ONCE, QUIET_S
from bench.peers.race import DidNotRun, Runner

PROGRAMS = Path(__file__).resolve().parent / "programs"
POSTGRES, EVERYSEC, ALWAYS = "PostgreSQL", "Redis, appendfsync everysec", "Redis, appendfsync always"
_RESET_WITHIN_S = 60.0
_READY_WITHIN_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One way to do it with something else. ``kind`` is the way within its program, ``what`` says it to a reader."""

    name: str
    what: str
    program: str
    kind: str
    server: str

    @property
    def needs(self) -> str:
        """Return what has to be installed: ``node`` or ``python``."""
        return "node" if self.program.endswith(".mjs") else "python"


def _bullmq(kind: str, server: str) -> Peer:
    call = "addBulk" if kind == "bulk" else "add"
    return Peer(
        name=f"BullMQ {call}, {server.rpartition(' ')[2]}",
        what=f"BullMQ {NODE_PACKAGES['bullmq']}, debounce by `{call}`",
        program="bullmq.mjs",
        kind=kind,
        server=server,
    )


def _celery(kind: str, package: str, what: str) -> Peer:
    name = f"{package} {PYTHON_PACKAGES.get(package, PYTHON_PACKAGES['celery[redis]'])}"
    return Peer(
        name=name if kind != "plain" else f"plain {name}",
        what=what,
        program="celery_peer.py",
        kind=kind,
        server=EVERYSEC,
    )


def _on_postgres(package: str, version: str, what: str, program: str, kind: str = "") -> Peer:
    grouped = " addJobs" if kind == "bulk" else ""
    return Peer(name=f"{package} {version}{grouped}", what=what, program=program, kind=kind, server=POSTGRES)


_GRAPHILE, _PGBOSS = NODE_PACKAGES["graphile-worker"], NODE_PACKAGES["pg-boss"]
BULLMQ_EVERYSEC = _bullmq("one", EVERYSEC)
BULLMQ_ALWAYS = _bullmq("one", ALWAYS)
BULLMQ_BULK = _bullmq("bulk", EVERYSEC)
BULLMQ_BULK_ALWAYS = _bullmq("bulk", ALWAYS)
PLAIN_CELERY = _celery("plain", "celery", "a task for each write")
PGBOSS = _on_postgres("pg-boss", _PGBOSS, "upsert by key, start time moved", "pgboss.mjs")
ON_POSTGRES = (
    _on_postgres("graphile-worker", _GRAPHILE, "job key, one local queue", "graphile.mjs"),
    PGBOSS,
    _on_postgres("procrastinate", PYTHON_PACKAGES["procrastinate"], "lock and queueing lock", "procrastinate_peer.py"),
    _on_postgres("pgqueuer", PYTHON_PACKAGES["pgqueuer"], "dedupe key, skip", "pgqueuer_peer.py"),
)
GRAPHILE_BULK = _on_postgres("graphile-worker", _GRAPHILE, "grouped by the client", "graphile.mjs", "bulk")
PEERS = (
    BULLMQ_EVERYSEC,
    BULLMQ_ALWAYS,
    BULLMQ_BULK,
    BULLMQ_BULK_ALWAYS,
    *ON_POSTGRES,
    GRAPHILE_BULK,
    _celery("singleton", "celery-singleton", "one waiting or running"),
    _celery("once", "celery-once", "one waiting or running"),
    PLAIN_CELERY,
)


@contextmanager
def peer_in_race(
    peer: Peer, tools: Tools, folder: Path, *, server: tuple[str, int], in_flight: int = 64, job_s: float = JOB_S
) -> Iterator[Runner]:
    """Empty the peer's storage, start its worker and yield how to race it. Raises ``DidNotRun``."""
    url, server_pid = server
    program = [str(tools.node if peer.needs == "node" else tools.python), str(PROGRAMS / peer.program)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NODE", "PG"))}
    environment |= {
        "BENCH_SERVER": url,
        "BENCH_KIND": peer.kind,
        "BENCH_QUIET_S": f"{QUIET_S:g}",
        "BENCH_JOB_S": f"{job_s:g}",
        "BENCH_JOBS_AT_ONCE": str(JOBS_AT_ONCE),
        "BENCH_IN_FLIGHT": str(in_flight),
        "BENCH_NODE_FOLDER": str(tools.node_folder),
    }
    stamps, said = folder / "stamps.log", folder / "worker.said"
    reset = subprocess.run(
        [*program, "reset"], env=environment, capture_output=True, text=True, timeout=_RESET_WITHIN_S, check=False
    )
    if reset.returncode != 0:
        raise DidNotRun(f"{peer.name}: {reset.stderr[-600:]}")
    stamps.touch()
    with said.open("wb") as output:
        worker = subprocess.Popen(
            [*program, "worker", str(stamps)], env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _await_ready(peer, worker, said)
        yield Runner(
            client=lambda plan, log: [*program, "client", str(plan), str(log)],
            environment=environment,
            stamps=stamps,
            watched=(worker.pid, server_pid),
            folder=folder,
        )
    finally:
        os.killpg(worker.pid, signal.SIGKILL)  # whatever it started too: one that is left takes the next one's jobs
        worker.wait()


def _await_ready(peer: Peer, worker: subprocess.Popen[bytes], said: Path) -> None:
    until = time.monotonic() + _READY_WITHIN_S
    while "ready" not in said.read_text(errors="replace"):
        if worker.poll() is not None or time.monotonic() > until:
            raise DidNotRun(f"{peer.name}: its worker says {said.read_text(errors='replace')[-600:]}")
        time.sleep(0.05)
