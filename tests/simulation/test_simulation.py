"""Fresh seeds in every run, the same log from the same seed, and a detector that is known to detect."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.simulation.campaign import run_seeds
from tests.simulation.detection import detect
from tests.simulation.hub import SECOND
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import SHORTEST, draw_plan
from tests.simulation.planting import planted
from tests.simulation.run import simulate
from tests.simulation.shrink import shrink

FRESH = 160
PARTS = 4


def first_seed() -> int:
    """Return where this commit's seeds begin: every commit tries others, every run of it the same."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    name = found.stdout.strip() if found.returncode == 0 else version("restart-orchestrator").encode().hex()
    return int(name[:10], 16)


KEPT = {
    560033420126: "a tick that was delayed for longer than the faults lasted made a calm restart late",
    1085708: "executors that heard no stop kept slots for seconds after the healing, while the other worker stopped",
    2017400: "a write whose client had given up was committed after the faults had ended, between two restarts",
    3013025: "who had stood still between reading who is there and its commit called the living away",
    3016652: "the only worker was asked to stop, and had not been replaced, when the faults had ended",
    1057273: "a cycle that hung was given the shorter cycle_timeout of a policy that had changed meanwhile",
}
"""Seeds that once broke a promise, and what was wrong."""


@pytest.mark.parametrize("seed", KEPT)
def test_seeds_that_broke_a_promise_keep_it(seed: int) -> None:
    assert simulate(draw_plan(seed)).findings == []


@pytest.mark.parametrize("part", range(PARTS))
def test_fresh_seeds_keep_every_promise(part: int) -> None:
    each = FRESH // PARTS
    first = first_seed() + part * each
    figures = run_seeds(range(first, first + each))

    assert not figures.failures, "\n".join(shrink(*figures.failures[0]).lines())
    assert figures.seeds == each
    assert figures.least >= SHORTEST
    assert figures.fewest_faults >= 1
    assert figures.acknowledged > 20 * each
    assert figures.acts > 5 * each


def test_the_same_seed_gives_the_same_log_byte_for_byte() -> None:
    for seed in range(first_seed(), first_seed() + 5):
        once, again = simulate(draw_plan(seed), story=True), simulate(draw_plan(seed), story=True)

        assert once.log == again.log
        assert once.story == again.story
        assert once.tally == again.tally


def test_the_same_seed_gives_the_same_log_in_another_process() -> None:
    """Where strings hash otherwise, and so sets of them are in another order."""
    words = (
        "from hashlib import sha256",
        "from tests.simulation.plan import draw_plan",
        "from tests.simulation.run import simulate",
        f"seeds = range({first_seed()}, {first_seed() + 5})",
        "print([sha256(simulate(draw_plan(seed)).log).hexdigest() for seed in seeds])",
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", "\n".join(words)],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    }

    assert len(said) == 1
    assert len(said.pop()) > 5 * 64


def test_a_story_does_not_change_what_it_tells() -> None:
    silent, told = simulate(draw_plan(7)), simulate(draw_plan(7), story=True)

    assert silent.log == told.log
    assert silent.tally.interleaving == told.tally.interleaving


def test_other_seeds_give_other_histories() -> None:
    assert len({simulate(draw_plan(seed)).tally.interleaving for seed in range(20)}) == 20


def test_a_run_lasts_at_least_half_an_hour_with_three_workspaces_and_a_fault() -> None:
    for seed in range(30):
        plan = draw_plan(seed)
        assert len(plan.names) >= 3
        assert plan.strikes
    assert SHORTEST == 30 * 60 * SECOND


@pytest.mark.parametrize(
    "name",
    [
        *("no-re-stamp", "pending-cleared-at-start", "no-claim-check", "coverage-fixed-at-finish", "no-lease-rescue"),
        *("retry-skips-act", "backoff-ignored", "leading-edge-drops-tail", "ids-forgotten", "no-max-wait"),
        *("rescued-late", "folded-late", "leases-not-renewed"),
        *("fleet-limit-off-by-one", "late-result-unrecorded", "lease-of-another-renewed", "keys-shared-by-actors"),
        *("hold-never-ends", "history-keeps-given-up-open", "backoff-uncapped", "end-recorded-once"),
    ],
)
def test_a_planted_defect_is_found(name: str) -> None:
    assert detect(name, first=0, most=200, finds=1).right


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.equivalent is not None])
def test_a_defect_that_is_called_equivalent_breaks_nothing(name: str) -> None:
    assert detect(name, first=0, most=20, finds=1).right


def test_a_failing_seed_tells_its_story() -> None:
    figures = run_seeds(range(20), "retry-skips-act")
    seed, findings = figures.failures[0]
    story = shrink(seed, findings, "retry-skips-act")
    lines = list(story.lines())

    assert lines[0].startswith(f"seed {seed}, without ")
    assert any("FAULT" in line for line in lines), "a retry needs a fault before it"
    assert lines[-1].startswith("VIOLATED coverage")
    assert len(story.off) >= 5


def test_taking_a_defect_out_leaves_the_product_as_it_was() -> None:
    before = [simulate(draw_plan(seed)).log for seed in range(3)]
    for mutant in MUTANTS.values():
        with planted(mutant.plant):
            pass

    assert [simulate(draw_plan(seed)).log for seed in range(3)] == before
