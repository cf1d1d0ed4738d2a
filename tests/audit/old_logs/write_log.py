"""How ``cb48bf8.ndjson`` and ``cb48bf8-rows.json`` were made: this file, run by the code of commit cb48bf8.

::

    git worktree add ../old cb48bf8
    PYTHONPATH=../old python tests/audit/old_logs/write_log.py tests/audit/old_logs/cb48bf8

It lives through every event type of that version, on SQLite and on a clock that it moves; then the log is exported
and the tables are copied as they are. Nothing runs it again: a log that was written once is never changed.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.domain import commands as cmd
from orchestrator.domain.events import ErrorKind, Operation, ProcessExited, Trigger
from orchestrator.domain.policy import parse_policy
from orchestrator.domain.state import Registration
from orchestrator.history.export import export
from orchestrator.service.append import Author
from orchestrator.service.change_policy import change_policy
from orchestrator.service.record import AutoRegistration, Write, record_writes
from orchestrator.storage.migrate import upgrade
from orchestrator.storage.opening import open_store
from tests.history import START, History, TestClock

TABLES = ("events", "workspaces", "restarts", "policies")
RULES = [
    {"match": ["docs/**", "*.log"], "action": "record"},
    {"match": ["*.css"], "action": "reload", "quiet": "2s"},
    {"match": ["*.lock"], "max_wait": "20s"},
]


def burst_and_retries(history: History) -> None:
    """A burst of every kind of write; a failure, a success on the second attempt, a write during the cycle."""
    history.register("app", fleet="blue", rules=RULES)
    writes = [
        Write(workspace="app", path="src/a.py", op=Operation.CREATED, source="editor", source_id="1", size=3),
        Write(workspace="app", path="src/ünï \u202e code.py", digest="sha256:00", occurred_at=START),
        Write(workspace="app", path="src/\udcff.py", op=Operation.RENAMED),
        Write(workspace="app", path="docs/index.md", source_id="2", traceparent=None),
        Write(workspace="app", path="site.css", op=Operation.DELETED),
        Write(workspace="app", path="poetry.lock"),
    ]
    batch, _ = record_writes(
        history.store, writes, actor="key:ci", ids=history.ids, auto=AutoRegistration(executor="simulated")
    )
    assert not batch.refused
    history.request("look at this", Trigger.MUTATION, "app")
    history.at(15)
    history.queued("app")
    history.start("app")
    history.at(17)
    history.write("src/late.py", workspace="app")
    history.probe("health check failed", "app")
    history.fail("exit code 3", "app", ErrorKind.UNKNOWN)
    history.probe("still bad", "app")
    history.at(30)
    history.start("app")
    history.at(31)
    _finish(history, "app", cmd.Success(generation_before="g1", generation_after="g2", output="ready\n"))
    history.probe("too soon", "app")
    _exit(history, "app", ProcessExited(exit_code=1, signal=None, respawn_after_ms=1_000))
    _exit(history, "app", ProcessExited(exit_code=None, signal=9, respawn_after_ms=2_000))


def give_up_and_go_on(history: History) -> None:
    """All attempts fail, one by its lease; a zombie's result is rejected; the next restart takes everything."""
    history.at(100)
    history.register("bad", max_attempts=2, quiet="1s")
    history.write("x", "y", workspace="bad")
    history.at(101)
    history.queued("bad")
    history.start("bad")
    state = history.state("bad")
    assert state.restart is not None
    assert state.restart.cycle is not None
    zombie = cmd.FinishCycle(
        restart=state.restart.id, cycle=state.restart.cycle.id, fence=state.fence, result=cmd.Success()
    )
    history.at(140)
    history.tick("bad")
    history.start("bad")
    history.carry_out("bad", zombie)
    history.at(141)
    history.fail("no such host", "bad")
    history.write("z", workspace="bad")
    history.at(500)
    history.queued("bad")
    history.start("bad")
    history.at(502)
    history.succeed("bad")


def hold_shut_down_and_cancel(history: History) -> None:
    """A hold that passes, one that is released, a cycle given back at a stop, a cancelled restart."""
    history.at(600)
    history.register("held", fleet="blue", edge="leading", max_count=3)
    history.change(cmd.Hold(reason="deploy", until=START + timedelta(seconds=620)), "held")
    history.write("a", "b", workspace="held")
    history.probe("held", "held")
    history.at(621)
    history.tick("held")
    history.at(640)
    history.queued("held")
    history.start("held")
    state = history.state("held")
    assert state.restart is not None
    assert state.restart.cycle is not None
    given_back = cmd.ShutDownCycle(restart=state.restart.id, cycle=state.restart.cycle.id, fence=state.fence)
    history.carry_out("held", given_back)
    history.at(641)
    history.start("held")
    history.at(642)
    history.succeed("held")
    history.change(cmd.Hold(reason="freeze"), "held")
    history.write("c", "d", "e", workspace="held")
    history.change(cmd.Release(reason="thawed"), "held")
    history.at(720)
    history.cancel(history.queued("held"), "not today")
    history.request("by hand", Trigger.MANUAL, "held")


def remove_while_running(history: History) -> None:
    """A workspace is changed, removed while a cycle runs, and registered again."""
    history.at(800)
    history.register("gone", quiet="1s")
    history.register("gone", fleet="red", quiet="1s", min_interval="5s")
    history.write("a", "b", workspace="gone")
    history.at(801)
    history.queued("gone")
    history.start("gone")
    history.write("c", workspace="gone")
    history.change(cmd.Remove(reason="decommissioned"), "gone")
    history.at(900)
    history.register("gone", fleet="red")
    history.write("d", workspace="gone")


def shadow_policies_and_clock(history: History) -> None:
    """A probe that asks, a shadow cycle, policies of every scope, a clock that steps back, what is open at the end."""
    history.at(1_000)
    shadow = Registration(
        fleet="dark", labels={}, executor="simulated", target={"delay": "1s"}, policy=parse_policy({"mode": "shadow"})
    )
    history.operator.register("dry", shadow, Author(actor="key:ops", source="terraform", source_id="dry-1"))
    history.write("a", workspace="dry")
    history.at(1_015)
    history.queued("dry")
    history.start("dry")
    history.probe("unhealthy", "app")
    for scope, words in (("default", {"quiet": "5s"}), ("fleet:blue", {"max_concurrent": 2, "rules": RULES[:1]})):
        change_policy(history.store, history.ids, scope=scope, patch=parse_policy(words), actor="key:ops")
    history.write("docs/readme.md", "src/b.py", workspace="app")
    history.at(1_010)
    history.write("back in time", workspace="app")
    history.at(1_100)
    history.queued("app")
    history.start("app")
    history.write("while it runs", workspace="app")


def _finish(history: History, workspace: str, result: cmd.Success) -> None:
    state = history.state(workspace)
    assert state.restart is not None
    assert state.restart.cycle is not None
    finish = cmd.FinishCycle(restart=state.restart.id, cycle=state.restart.cycle.id, fence=state.fence, result=result)
    history.carry_out(workspace, finish)


def _exit(history: History, workspace: str, exited: ProcessExited) -> None:
    history.operator.report_exit(workspace, exited)


def main(prefix: str) -> None:
    """Write PREFIX.ndjson and PREFIX-rows.json."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "orchestrator.db"
        upgrade(f"sqlite:///{path}")
        clock = TestClock()
        store = open_store(f"sqlite:///{path}", clock)
        history = History(store, clock)
        burst_and_retries(history)
        give_up_and_go_on(history)
        hold_shut_down_and_cancel(history)
        remove_while_running(history)
        shadow_policies_and_clock(history)
        with Path(f"{prefix}.ndjson").open("w", encoding="utf-8", newline="\n") as file:
            export(store, file.write)
        store.close()
        with closing(sqlite3.connect(path)) as database:
            database.row_factory = sqlite3.Row
            rows = {name: [dict(row) for row in database.execute(f"SELECT * FROM {name}")] for name in TABLES}
        Path(f"{prefix}-rows.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
