"""A peer's worker ends with its race, and whatever it has started: one that is left takes the next one's jobs."""

from __future__ import annotations

from pathlib import Path

import psutil

from bench.peers.field import PLAIN_CELERY, peer_in_race
from bench.peers.installing import Tools
from tests.waiting import wait_until

_STARTS_ANOTHER = """\
#!/bin/sh
if [ "$2" = reset ]; then exit 0; fi
sleep 600 &
echo $! > "{child}"
echo ready
wait
"""


def test_nothing_of_a_peers_worker_is_left(tmp_path: Path) -> None:
    """As with Node from a wheel, whose command is a program that starts the one that works."""
    child, program = tmp_path / "child", tmp_path / "starts-another"
    program.write_text(_STARTS_ANOTHER.format(child=child))
    program.chmod(0o755)
    tools = Tools(node=program, node_folder=tmp_path, python=program, missing={})
    with peer_in_race(PLAIN_CELERY, tools, tmp_path, server=("redis://127.0.0.1:1", 1)):
        working = psutil.Process(int(child.read_text()))
        assert working.is_running()

    wait_until(
        lambda: not working.is_running() or working.status() == psutil.STATUS_ZOMBIE, what="what it started has ended"
    )
