"""The figures of a campaign: judged once more on the whole log, written as JSON, said in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from orchestrator.crash_points import POINTS
from orchestrator.sealing.keys import public_path
from tests.chaos.campaign import Campaign
from tests.chaos.judge import BOUND_S
from tests.chaos.production import ChaosProduction
from tests.run_stamp import commit, today


class Report(msgspec.Struct, kw_only=True):
    """What one run of ``./dev chaos`` did and found. Times are seconds."""

    commit: str
    date: str
    seed: int
    minutes: float
    broker: str
    rounds: int
    operations: int
    acknowledged: int
    lost: int
    doubled: int
    unknown: int
    unknown_stored: int
    resolved: int
    kills: dict[str, dict[str, int]]
    """By process, then by crash point or signal."""
    crash_points_hit: list[str]
    crash_points: int
    frozen_between_claim_and_act: int
    faults: dict[str, int]
    swallowed_answers: int
    staleness_s: float
    staleness_bound_s: float
    events: int
    verified: str
    replayed: str
    not_run: list[str]
    violations: list[str]


def report_of(
    campaign: Campaign, production: ChaosProduction, *, seed: int, minutes: float, not_run: Sequence[str]
) -> Report:
    """Return all figures, with what the whole log says at the end."""
    verdict, kills = campaign.figures.verdict, production.kills
    by_process: dict[str, dict[str, int]] = {}
    for (name, how), count in sorted(kills.items()):
        by_process.setdefault(name, {})[how] = count
    events, verified, replayed, wrong = judge_whole_log(production)
    return Report(
        commit=commit(),
        date=today(),
        seed=seed,
        minutes=minutes,
        broker=production.servers.broker.name,
        rounds=campaign.figures.rounds,
        operations=verdict.operations,
        acknowledged=verdict.acknowledged,
        lost=verdict.lost,
        doubled=verdict.doubled,
        unknown=verdict.unknown,
        unknown_stored=verdict.unknown_stored,
        resolved=verdict.resolved,
        kills=by_process,
        crash_points_hit=sorted({how.partition("/")[0] for _, how in kills} & set(POINTS)),
        crash_points=len(POINTS),
        frozen_between_claim_and_act=production.freezes,
        faults=dict(sorted(campaign.figures.faults.items())),
        swallowed_answers=sum(proxy.swallowed for proxy in production.proxies.values()),
        staleness_s=round(verdict.staleness_s, 3),
        staleness_bound_s=BOUND_S,
        events=events,
        verified=verified,
        replayed=replayed,
        not_run=list(not_run),
        violations=[*verdict.problems, *wrong],
    )


def judge_whole_log(production: ChaosProduction) -> tuple[int, str, str, list[str]]:
    """Export the log, verify the file (by its newest checkpoint too), replay the database.

    Returns the events, both last words, and what is wrong.
    """
    file = production.folder / "export.ndjson"
    from_database = ["--database-url", production.direct_url]
    newest = max((production.sealing / "checkpoints").glob("*.checkpoint"))
    sealed = ["--checkpoint", str(newest), "--pubkey", str(public_path(production.sealing / "seal.key"))]
    last_words, wrong = [], []
    for words in (
        ["audit", "export", *from_database, "--output", str(file)],
        ["audit", "verify", str(file), *sealed],
        ["replay", *from_database],
    ):
        ran = production.run("-".join(word for word in words[:2] if word.isalpha()), *words)
        code = ran.wait(300)
        last_words.append((ran.output.strip().splitlines() or [""])[-1])
        if code != 0:
            wrong.append(f"orchestrator {' '.join(words[:2])} exits with {code}: {ran.output}")
    with file.open("rb") as lines:
        events = sum(1 for _ in lines)
    return events, last_words[1], last_words[2], wrong


def summary_of(report: Report) -> str:
    """Return the last line."""
    kills = ", ".join(
        f"{name} {sum(by.values())} ({', '.join(f'{how} {count}' for how, count in by.items())})"
        for name, by in report.kills.items()
    )
    return (
        f"chaos: seed {report.seed}, {report.minutes:g} min on {report.broker}, {report.rounds} rounds; "
        f"kills: {kills or 'none'}; "
        f"crash points {len(report.crash_points_hit)} of {report.crash_points}; {report.operations} operations, "
        f"{report.acknowledged} acknowledged, {report.lost} lost, {report.doubled} doubled, {report.unknown} of "
        f"unknown outcome ({report.unknown_stored} of them stored), {report.resolved} resolved by another try; "
        f"staleness after healing at most {report.staleness_s:.2f} s, bound {report.staleness_bound_s:.1f} s; "
        f"{report.events} events; {len(report.violations)} violations"
    )


def plain(report: Report) -> bytes:
    """Return the report as indented JSON."""
    return json.dumps(msgspec.to_builtins(report), indent=2).encode() + b"\n"
