"""``docs/proof.md`` from the figures of runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tests.proof.runs import Figures, Runs, broker_of, commits, counted, seed_ranges, total

_HEAD = """\
# What was tried
Made by `./dev proof` from the figures that the runs wrote ([proof/](proof)); nothing here is typed by hand.
In short: nothing acknowledged is lost, never two live cycles of a workspace, spacing, coverage, bounded staleness,
whatever breaks.
[faults.md](faults.md) says fault by fault what must come of it, and which test tries that.
"""

_BROKERS = {"redis": "PostgreSQL and Redis", "rabbitmq": "PostgreSQL and RabbitMQ"}


def page(runs: Runs) -> str:
    """Return the page as Markdown."""
    by_broker: dict[str, list[Figures]] = {}
    for run in runs.chaos:
        by_broker.setdefault(broker_of(run), []).append(run)
    processes = (_processes(broker, by_broker[broker]) for broker in _BROKERS if broker in by_broker)
    parts = (_simulated(runs.simulations), _mutants(runs.mutants), *processes, _attacked(runs.fuzz))
    lines = [line for part in parts for line in (*part, "")]
    return f"{_HEAD}Runs up to {runs.newest}.\n\n" + "\n".join(lines).rstrip() + "\n"


def _simulated(runs: Sequence[Figures]) -> Iterator[str]:
    """The simulator: the product's own core and service in virtual time, one seed a run."""
    worst = max(runs, key=lambda run: run["longest_healing_s"])
    broken = [violation for run in runs for violation in run["violations"]]
    points = counted(runs, "crash_points")
    fewest = min(run["fewest_faults_in_a_run"] for run in runs)
    healing = f"{worst['longest_healing_s']:,.0f} s, {worst['its_bound_s']:,.0f} s"
    yield "## Simulated"
    yield f"`./dev sim --seeds A-B`, commit {commits(runs)}, seeds {seed_ranges(runs)}."
    yield ""
    yield from _table(
        ("figure", "value"),
        (
            ("seeds", _sums(runs, "seeds")),
            ("virtual hours", f"{total(runs, 'virtual_hours'):,.0f}"),
            (
                "virtual hours a second of one processor",
                f"{total(runs, 'virtual_hours') / total(runs, 'processor_s'):.0f}",
            ),
            ("shortest run", f"{min(run['shortest_run_minutes'] for run in runs):g} virtual minutes"),
            ("events", _sums(runs, "events")),
            ("I/O boundaries crossed", _sums(runs, "crossings")),
            (
                "faults",
                f"{_sums(runs, 'faults_in_all')}, at least {fewest} a run",
            ),
            ("crash points hit", f"{sum(times > 0 for times in points.values())} of {len(points)}"),
            ("distinct interleavings (within a run of seeds)", _sums(runs, "distinct_interleavings")),
            (
                "acts of executors, and refused by their fence",
                _sums(runs, "acts", "acts_refused_by_fence"),
            ),
            (
                "acknowledged writes and requests, of them lost",
                _sums(runs, "acknowledged", "acknowledged_lost"),
            ),
            ("operations of unknown outcome", _sums(runs, "outcome_unknown")),
            ("longest healing after the last fault, and its bound", healing),
            ("promises broken", f"{len(broken)}"),
        ),
    )
    yield ""
    yield from (f"- seed {one['seed']}: {one['promise']}: {one['text']}" for one in broken[:20])
    yield "Seeds that once broke a promise, and why: `KEPT` in `tests/simulation/test_simulation.py`."
    yield from _counts("fault", counted(runs, "faults"))


def _mutants(mutants: Sequence[Figures]) -> Iterator[str]:
    """Planted defects: what the simulator is able to find."""
    sound = [one for one in mutants if one["equivalent"] is None]
    found = sum(one["found"] for one in sound)
    yield "## Planted defects"
    yield f"`./dev sim --mutants`: {found} of {len(sound)} found, {len(mutants) - len(sound)} equivalent."
    yield ""
    rows = ((f"`{one['name']}`", one["breaks"], _found(one), _by(one), _text(one["median_seeds"])) for one in mutants)
    yield from _table(("defect", "what it breaks", "found", "by", "median seeds"), rows)
    yield ""
    yield from (f"- `{one['name']}`: {one['equivalent']}" for one in mutants if one["equivalent"] is not None)


def _found(mutant: Figures) -> str:
    if mutant["found"]:
        return "yes"
    return "equivalent" if mutant["equivalent"] is not None else f"NO, in {mutant['seeds']} seeds"


def _by(mutant: Figures) -> str:
    return ", ".join(list(mutant["promises"])[:4]) or "-"


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _processes(broker: str, runs: Sequence[Figures]) -> Iterator[str]:
    """Real processes on a real PostgreSQL and a real broker."""
    worst = max(runs, key=lambda run: run["staleness_s"])
    kills: Counter[str] = Counter()
    for run in runs:
        for process, ways in run["kills"].items():
            kills[process] += sum(ways.values())
    staleness = f"{worst['staleness_s']:.1f} s, {worst['staleness_bound_s']:.1f} s"
    hit = {point for run in runs for point in run["crash_points_hit"]}
    yield f"## Real processes, on {_BROKERS[broker]}"
    seeds = ", ".join(str(run["seed"]) for run in runs)
    yield f"`./dev chaos --broker {broker} --minutes N --seed S`, commit {commits(runs)}, seed {seeds}."
    yield ""
    yield from _table(
        ("figure", "value"),
        (
            ("minutes", f"{total(runs, 'minutes'):g}"),
            ("rounds of faults", _sums(runs, "rounds")),
            ("processes killed", f"{kills.total():,} ({', '.join(f'{name} {n}' for name, n in kills.most_common())})"),
            ("crash points hit", f"{len(hit)} of {max(run['crash_points'] for run in runs)}"),
            ("operations checked", _sums(runs, "operations")),
            (
                "acknowledged, of them lost, of them doubled",
                _sums(runs, "acknowledged", "lost", "doubled"),
            ),
            (
                "operations of unknown outcome, of them stored",
                _sums(runs, "unknown", "unknown_stored"),
            ),
            ("answers swallowed by a proxy", _sums(runs, "swallowed_answers")),
            ("largest staleness after healing, and its bound", staleness),
            ("violations", f"{sum(len(run['violations']) for run in runs)}"),
        ),
    )
    yield ""
    yield from (f"- VIOLATION: {text}" for run in runs for text in run["violations"])
    yield from dict.fromkeys(f"- Not run: {reason}." for run in runs for reason in run["not_run"])
    yield from _counts("fault", counted(runs, "faults"))


def _attacked(runs: Sequence[Figures]) -> Iterator[str]:
    """The API and the decoders under bad input."""
    executions = counted(runs, "executions")
    yield "## Bad input"
    yield f"`./dev fuzz --minutes N --seed S`, commit {commits(runs)}: schemathesis on the API, atheris on decoders."
    yield ""
    yield from _table(
        ("figure", "value"),
        (
            ("API cases", _sums(runs, "api_cases")),
            ("executions of decoders", f"{executions.total():,}"),
            ("findings", f"{sum(len(run['findings']) for run in runs)}"),
        ),
    )
    yield ""
    yield from (f"- FINDING: {text.splitlines()[0]}" for run in runs for text in run["findings"])
    yield from dict.fromkeys(f"- Not run: {reason}." for run in runs for reason in run["not_run"])
    yield from _counts("decoder", executions)


def _sums(runs: Sequence[Figures], *names: str) -> str:
    return ", ".join(f"{total(runs, name):,}" for name in names)


def _counts(name: str, counts: Counter[str]) -> Iterator[str]:
    yield ""
    yield from _table((name, "times"), ((each, f"{count:,}") for each, count in counts.most_common()))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
