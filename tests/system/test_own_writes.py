"""A program that writes a file of its own watched folder at every start: ``up`` says which file, and what to do."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.system.deployment import Embedded, running
from tests.system.fork_server import ForkServer
from tests.system.processes import OrchestratorProcess

PROGRAM = "import sys, time; open(sys.argv[1], 'a').write('started'); time.sleep(1000)"


class WritesItsOwnFolder(Embedded):
    """The file is one that git ignores: it is a write because ``--include`` names it."""

    def start_up(self, *more: str) -> OrchestratorProcess:
        watched = self.folder / "site"
        watched.mkdir()
        (watched / ".gitignore").write_text("*.log\n")
        windows = ("--quiet", "200ms", "--max-wait", "400ms", "--min-interval", "200ms")
        command = (sys.executable, "-c", PROGRAM, str(watched / "app.log"))
        return super().start_up("--watch", str(watched), "--include", "app.log", *windows, *more, "--", *command)


def test_a_program_that_restarts_itself_is_named_with_the_file_and_the_rule_to_add(
    tmp_path: Path, forks: ForkServer
) -> None:
    with running(WritesItsOwnFolder(tmp_path, forks=forks)) as deployment:
        said = deployment.processes["up"].await_output(re.compile("(.*watch_own_writes.*)"))
    assert "app.log" in said
    assert "local:" in said
    assert "add /app.log to .gitignore" in said
