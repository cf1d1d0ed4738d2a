"""What a terminal gets and a pipe does not, and reading from PostgreSQL."""

from __future__ import annotations

import json
import os
import pty
import sys

import pytest

from orchestrator.domain.events import Trigger
from orchestrator.storage.opening import open_store
from tests.cli.conftest import Recorded, Run
from tests.cli.test_reading import READING
from tests.history import History, TestClock


def in_terminal(*arguments: str, **environment: str) -> str:
    """Run a command on a terminal of its own and return what it printed there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-m", "orchestrator", *arguments], {**os.environ, **environment})
    printed = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # how Linux says that the other end of a terminal is closed
            break
        if not part:
            break
        printed += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, printed
    return printed.decode()


def test_paths_and_reasons_never_drive_the_terminal(recorded: Recorded) -> None:
    printed = in_terminal("why", recorded.restart, "--database-url", recorded.url, TERM="xterm-256color")

    assert "\x1b[1m" in printed
    assert "\x1b[31m" not in printed
    assert "\\x1b[31m" in printed


def test_no_color_on_a_terminal_that_asks_for_none(recorded: Recorded) -> None:
    arguments = ("tail", "--database-url", recorded.url)
    assert "\x1b[3" not in in_terminal(*arguments, TERM="xterm-256color", NO_COLOR="1")


def test_every_reading_command_reads_postgresql_as_an_auditor(run: Run, app_url: str, reader_url: str) -> None:
    store = open_store(app_url)
    history = History(store, TestClock())
    history.register()
    history.write("a.py", "b.py")
    history.request("now", Trigger.MANUAL)
    restart = history.queued()
    history.start()
    history.succeed()
    store.close()

    for name in READING:
        arguments = [*name.split(), *([restart] if name == "why" else []), "--database-url", reader_url, "--json"]
        ran = run(*arguments)
        assert (ran.code, ran.err) == (0, ""), name
        assert isinstance(json.loads(ran.out.splitlines()[-1]), dict)
    assert "together with 2 writes to 2 files" in run("why", restart, "--database-url", reader_url).out


@pytest.mark.parametrize("name", ["workspaces", "why"])
def test_force_color_does_not_colour_a_pipe(
    name: str, run: Run, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    ran = run(name, *([recorded.restart] if name == "why" else []), "--database-url", recorded.url)

    assert ran.code == 0
    assert "\x1b" not in ran.out
