"""``./dev bench scale``: cost that grows as it should, with workspaces, with history, and over minutes of load."""

from __future__ import annotations

from contextlib import ExitStack

from bench.due_at_once import Servers
from bench.growth_by_history import measure_history
from bench.growth_by_workspaces import measure_workspaces
from bench.run import Run
from bench.servers import durable_postgres, durable_redis
from bench.steady_load import measure_steady

SUMMARY = "growth from 100 to 100,000 workspaces and with the history; memory over minutes of load (--minutes)"


def measure(run: Run) -> None:
    """Measure all three, and add what was found."""
    with ExitStack() as stack:
        servers = Servers(stack.enter_context(durable_postgres()), stack.enter_context(durable_redis()))
        measure_workspaces(run, servers)
        measure_history(run, servers)
        measure_steady(run, servers)
