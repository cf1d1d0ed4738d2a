"""How idle looks, lists and ingest grow with the history behind them, with a million writes pending."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from bench.databases import copy_to_postgres
from bench.due_at_once import Servers
from bench.figures import Bound, Figure, Line
from bench.ingest import Case, recorded
from bench.log_files import Wanted, sqlite_file
from bench.looks import idle_look_ms, leave_pending, pages_ms, settle
from bench.products import POSTGRES, SQLITE
from bench.run import Run
from orchestrator.logs import configure_logs
from orchestrator.ports.store import EventStore
from orchestrator.storage.migrate import upgrade
from orchestrator.storage.opening import open_store

_PART = "scale"
_QUICK_SIZES = (2_000, 20_000)
_LOOK_MOST_MS, _LOOK_GROWS_MOST, _PAGE_GROWS_MOST = 1.0, 1.2, 1.5
_LOOK = "an idle look"
_INGEST = Case(name="one caller, 64 writes a call", callers=1, together=64)

Costs = dict[str, list[float]]
"""Milliseconds by what was asked, one value a turn."""


def measure_history(run: Run, servers: Servers) -> None:
    """Measure all lengths in turns, and add what was found."""
    configure_logs(form="json", level="error")  # what is folded and written here is no news
    lengths = _QUICK_SIZES if run.quick else run.history
    pending, workspaces = run.of(1_000_000, 10_000), run.of(100_000, 1_000)
    for store in (POSTGRES, SQLITE):
        with run.folder() as folder, ExitStack() as stack:
            opened: dict[int, tuple[str, EventStore]] = {}
            for length in lengths:
                url = _filled(run, store, length, folder, servers)
                opened[length] = (url, stack.enter_context(closing(open_store(url))))
                run.say(f"scale: {length:,} events on {store}: settling, then {pending:,} writes stay pending")
                settle(opened[length][1])
                leave_pending(opened[length][1], pending, workspaces=workspaces)
            costs, rates = _measured(run, store, opened)
        run.findings.figures += _figures(store, costs, rates, pending)
        run.findings.bounds.append(_bound(store, costs, pending))
        points = [(length, min(found[_LOOK])) for length, found in costs.items()]
        run.findings.lines.append(
            Line(part=_PART, plot=f"{_LOOK}, by history, ms", name=store, x="events", y="ms", points=points)
        )


def _measured(
    run: Run, store: str, opened: dict[int, tuple[str, EventStore]]
) -> tuple[dict[int, Costs], dict[int, list[float]]]:
    costs: dict[int, Costs] = {length: {} for length in opened}
    rates: dict[int, list[float]] = {length: [] for length in opened}
    for _ in range(run.of(3, 1)):
        for length, (_, log) in opened.items():
            for name, took_ms in {_LOOK: idle_look_ms(log), **pages_ms(log)}.items():
                costs[length].setdefault(name, []).append(took_ms)
            run.say(f"scale: {length:,} events on {store}: {_LOOK} {costs[length][_LOOK][-1]:.2f} ms")
    for _ in range(run.of(2, 1)):
        for length, (url, _) in opened.items():
            rates[length].append(recorded(run.today, url, _INGEST, seconds=run.of(4, 1)).a_second)
    return costs, rates


def _filled(run: Run, store: str, length: int, folder: Path, servers: Servers) -> str:
    """Return the URL of a database of its own with a generated log of that length."""
    source = sqlite_file(Wanted(count=length, folder=run.kept, fresh=False, say=run.say))
    if store == SQLITE:
        return f"sqlite:///{shutil.copy(source, folder / f'{length}.db')}"
    name = servers.postgres.create_database()
    url = servers.postgres.url(name)
    upgrade(url)
    with servers.postgres.connect(name) as connection:
        copy_to_postgres(source, connection)
    return url


def _figures(store: str, costs: dict[int, Costs], rates: dict[int, list[float]], pending: int) -> Iterator[Figure]:
    (short, *_, long) = costs
    for name, ours in costs[long].items():
        yield Figure(
            part=_PART,
            what=f"{name}, {long:,} events of history, {pending:,} writes pending",
            store=store,
            ours=ours,
            unit="ms",
            against=f"{short:,} events of history",
            other=costs[short][name],
            more_is_better=False,
            least=_LOOK_GROWS_MOST if name == _LOOK else _PAGE_GROWS_MOST,
        )
    yield Figure(
        part=_PART,
        what=f"record_writes in one process, {_INGEST.name}, {long:,} events of history",
        store=store,
        ours=rates[long],
        unit="/s",
        against=f"{short:,} events of history",
        other=rates[short],
    )


def _bound(store: str, costs: dict[int, Costs], pending: int) -> Bound:
    long = max(costs)
    return Bound(
        part=_PART,
        what=f"{_LOOK}, {long:,} events of history, {pending:,} writes pending",
        store=store,
        values=costs[long][_LOOK],
        unit="ms",
        most=_LOOK_MOST_MS,
    )
