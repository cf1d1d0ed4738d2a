"""A failing seed told as short as it can be: what is not needed for the failure is left out, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulation.judge import Finding
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import draw_plan, parts, without
from tests.simulation.planting import planted
from tests.simulation.run import Outcome, simulate

_STORY_MOST = 150


@dataclass(frozen=True, kw_only=True)
class Story:
    """The smallest failing run that was found: what was left out, and its timeline."""

    seed: int
    off: tuple[str, ...]
    outcome: Outcome

    def lines(self) -> Iterator[str]:
        """Yield the story as a person reads it: faults, clients and events in order of time."""
        plan = self.outcome.plan
        yield f"seed {self.seed}, without {', '.join(self.off) or 'nothing'}"
        yield f"  {plan.workers} workers of {plan.slots} slots, {plan.beats} beats, {len(plan.actions)} actions"
        told = self.outcome.story
        if len(told) > _STORY_MOST:
            yield f"  ... {len(told) - _STORY_MOST} earlier lines"
        yield from told[-_STORY_MOST:]
        for finding in self.outcome.findings[:5]:
            yield f"VIOLATED {finding.promise}: {finding.text}"


def shrink(seed: int, findings: list[Finding], mutant: str | None = None) -> Story:
    """Leave out one part after the other for as long as the same promise is still broken."""
    promises = {finding.promise for finding in findings}
    off: set[str] = set()
    with planted(MUTANTS[mutant].plant if mutant is not None else None):
        for part in parts(draw_plan(seed)):
            tried = without(draw_plan(seed), frozenset(off | {part}))
            if promises & {finding.promise for finding in simulate(tried).findings}:
                off.add(part)
        outcome = simulate(without(draw_plan(seed), frozenset(off)), story=True)
    return Story(seed=seed, off=tuple(sorted(off)), outcome=outcome)
