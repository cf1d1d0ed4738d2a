from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from orchestrator.domain.events import ProcessExited
from orchestrator.domain.policy import PolicyPatch
from orchestrator.domain.state import Registration
from orchestrator.service.append import Author
from orchestrator.service.operate import Operator
from orchestrator.storage.opening import open_store
from orchestrator.time_ordered_ids import TimeOrderedIds
from tests.cli.conftest import Run


def test_workspaces_has_a_line_for_a_program_that_dies_again_and_again(
    run: Run, tmp_path: Path, migrate_database: Callable[[str], None]
) -> None:
    url = f"sqlite:///{tmp_path / 'orchestrator.db'}"
    migrate_database(url)
    store = open_store(url)
    operator = Operator(store, TimeOrderedIds())
    target = {"argv": ["x"], "pool": "up-x"}
    program = Registration(fleet="f", labels={}, executor="process", target=target, policy=PolicyPatch())
    for workspace in ("broken", "fine"):
        operator.register(workspace, program, Author(actor="test"))
    for pause_ms in (1_000, 2_000, 4_000):
        operator.report_exit("broken", ProcessExited(exit_code=None, signal=11, respawn_after_ms=pause_ms))
    operator.report_exit("fine", ProcessExited(exit_code=1, signal=None, respawn_after_ms=1_000))
    store.close()

    shown = run("workspaces", "--database-url", url).out
    (line,) = [line for line in shown.splitlines() if "crash looping" in line]
    assert line.startswith("broken is crash looping since")
    assert "died 3 times in a row, last by signal 11; before it began: no restart" in line
    rows = json.loads(run("workspaces", "--database-url", url, "--json").out)["items"]
    assert {row["id"]: row["crash_looping"] for row in rows} == {"broken": True, "fine": False}
