"""The long lane: round after round, faults drawn from a seed while clients write, then healed and judged."""

from __future__ import annotations

import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.chaos.chores import frequent_chores
from tests.chaos.faults import ANY, Fault, faults_of, last
from tests.chaos.judge import Verdict, judge
from tests.chaos.production import ChaosProduction
from tests.chaos.writers import Writers

WORKSPACES = 6


@dataclass
class Figures:
    """What was done and seen, over all rounds."""

    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)


class Campaign:
    """Rounds on one deployment. One seed draws the same faults in the same order; what processes do is their own."""

    def __init__(
        self,
        production: ChaosProduction,
        *,
        seed: int,
        say: Callable[[str], None],
        more: Mapping[str, Fault] = {},
    ) -> None:
        """``more`` are the faults that only this machine allows."""
        self._production, self._seed, self._say = production, seed, say
        self.faults: dict[str, Fault] = {**faults_of(production.servers.broker.name), **more}
        self.figures = Figures()
        self._first = sorted(self.faults)
        random.Random(seed).shuffle(self._first)

    def run(self, *, minutes: float) -> None:
        """Play rounds until the time is over, or until one was violated."""
        until = time.monotonic() + 60 * minutes
        with frequent_chores(
            self._production.servers.broker.url, "seal", "count_files", "keep_sums", "verify", every_s=1.0
        ):
            while time.monotonic() < until and not self.figures.verdict.problems:
                self._round()

    def _round(self) -> None:
        number = self.figures.rounds = self.figures.rounds + 1
        chance = random.Random(f"{self._seed}-{number}")
        chosen = self._choose(chance)
        workspaces = self._production.round_of(WORKSPACES, chance)
        writers = Writers(self._production.url, workspaces, seed=chance.randrange(1 << 30), name=f"r{number}")
        broken: list[str] = []
        with writers.at_work():
            last(chance.uniform(0.1, 0.6))
            with ThreadPoolExecutor(len(chosen)) as pool:
                injected = [pool.submit(self._inject, name, chance.randrange(1 << 30)) for name in chosen]
                broken += [said for said in (each.result() for each in injected) if said]
            self._production.heal()
            healed_at = self._production.now()
            last(0.3)
        verdict = judge(self._production, workspaces, writers.operations, healed_at=healed_at)
        if broken or verdict.problems:
            self._say(f"violated; the logs are kept in {self._production.keep_logs()}")
        verdict.problems = [f"round {number} ({', '.join(chosen)}): {said}" for said in [*broken, *verdict.problems]]
        self.figures.verdict.add(verdict)
        self._say(
            f"round {number}: {', '.join(chosen)}; {verdict.operations} operations, {verdict.unknown} unknown, "
            f"staleness {verdict.staleness_s:.2f} s, {len(verdict.problems)} violations"
        )

    def _choose(self, chance: random.Random) -> list[str]:
        """Draw one to three faults that break different parts."""
        names = chance.sample(sorted(self.faults), k=chance.choice([1, 2, 2, 3]))
        if len(self._first) > 0:
            names = [self._first.pop(), *names[1:]]  # every fault once before any comes by chance
        if self.faults[names[0]].breaks == ANY:
            return names[:1]  # it takes its processes itself, and another fault may have ended one
        by_part = {self.faults[name].breaks: name for name in reversed(names) if self.faults[name].breaks != ANY}
        return list(by_part.values())

    def _inject(self, name: str, seed: int) -> str | None:
        self.figures.faults[name] += 1
        try:
            self.faults[name].inject(self._production, random.Random(seed))
        except Exception:  # noqa: BLE001 (a fault that fails is a finding, and the round must go on to its healing)
            return f"the fault {name!r} failed: {traceback.format_exc()}"
        return None
