"""``./dev bench watchers``: ten tasks of whoever edits files, on the product and on what else restarts a program."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench.machine import ROOT, described
from bench.watchers.field import UP, Watcher
from bench.watchers.ground import Seen
from bench.watchers.session import DidNotStart
from bench.watchers.tasks import TASKS, Task
from bench.watchers.tools import found

SUMMARY = "ten tasks on up --watch, watchexec, nodemon, entr and watchfiles: what each restarted, missed and left"
PAGE = ROOT / "docs" / "up.md"
_BEGIN, _END = "<!-- made by ./dev bench watchers --write-page -->", "<!-- end of what was made -->"


@dataclass(frozen=True, kw_only=True)
class Result:
    """All turns of one watcher at one task; ``refused`` is what it printed where it did not start."""

    task: Task
    watcher: str
    turns: Sequence[Seen]
    refused: str = ""

    @property
    def wrong(self) -> list[str]:
        """Say what went wrong, the worst turn of each kind."""
        if self.refused:
            return ["did not start"]
        said = []
        if missed := max(turn.missed for turn in self.turns):
            said.append(f"missed {missed} of {self.needed}")
        if taken := max(turn.port_taken for turn in self.turns):
            said.append(f"port taken at {taken} {_plural('start', taken)}")
        left = max((turn.left for turn in self.turns), key=len)
        counted = (f"{count} times {what}" if count > 1 else what for what, count in Counter(left).items())
        return [*said, f"left: {', '.join(counted)}"] if left else said

    @property
    def needed(self) -> int:
        """Return how many restarts the changes asked for."""
        return max(turn.needed for turn in self.turns)

    @property
    def needless(self) -> int:
        """Return how many restarts there were more than asked for; what a failing program gets does not count."""
        return max(turn.restarts - turn.alone - turn.needed for turn in self.turns) if self.turns else 0

    @property
    def ready_s(self) -> float | None:
        """Return the median over all turns and changes."""
        times = [one for turn in self.turns for one in turn.ready_s]
        return median(times) if times else None

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        turns = [asdict(turn) for turn in self.turns]
        summed = {"wrong": self.wrong, "needless": self.needless, "ready_s": self.ready_s}
        return {
            "task": self.task.name,
            "cell": _cell(self),
            "watcher": self.watcher,
            **summed,
            "turns": turns,
            "refused": self.refused,
        }


def main(args: Sequence[str]) -> int:
    """Run, print; 1 where somebody did better than ``up`` in what counts: missed, port, left, needless restarts."""
    given = _parser().parse_args(args)
    for number in (signal.SIGHUP, signal.SIGINT):  # ignored, as a background job's are, they stay so in all we start
        signal.signal(number, signal.SIG_DFL)
    field = found(given.folder, _say)
    taking_part = [one for one in field.watchers if not given.watcher or one.name in given.watcher]
    pairs = [(task, one) for task in TASKS if not given.task or task.name in given.task for one in taking_part]
    results = _results(pairs, given.turns, given.at_once)
    plain = {
        **described(),
        "watchers": [{"name": one.name, "version": one.version, "command": one.said} for one in taking_part],
        "missing": field.missing,
        "results": [{**result.plain(), "at_once": 1 if result.task.busy else given.at_once} for result in results],
    }
    if given.merge and given.write_json:
        plain = merged(json.loads(given.write_json.read_text()), plain)
    text = table(plain)
    if given.write_json:
        given.write_json.write_text(json.dumps(plain, indent=1) + "\n")
    if given.write_page:
        into_page(PAGE, text)
    print(json.dumps(plain, indent=1) if given.json else text)
    better = list(who_did_better(results))
    for line in better:
        _say(line)
    return 1 if better else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev bench watchers", description=SUMMARY)
    parser.add_argument("--turns", type=int, default=1, help="how often each does each task")
    parser.add_argument("--task", action="append", choices=[task.name for task in TASKS], help="only this one; again")
    parser.add_argument("--watcher", action="append", help="only this one; may be repeated")
    parser.add_argument("--at-once", type=int, default=1, help="how many are measured beside each other")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write-json", type=Path, metavar="FILE", help="write the JSON there too")
    parser.add_argument("--merge", action="store_true", help="keep what that file has and was not measured again")
    parser.add_argument("--write-page", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where the others are kept (.bench)")
    return parser


def _results(pairs: Sequence[tuple[Task, Watcher]], turns: int, at_once: int) -> list[Result]:
    """Let so many of the quiet tasks run at once, and each busy one alone afterwards; keep the order of ``pairs``."""
    found: dict[tuple[str, str], Result] = {}

    def run(pair: tuple[Task, Watcher]) -> None:
        task, watcher = pair
        found[task.name, watcher.name] = _result(task, watcher, turns)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(run, [pair for pair in pairs if not pair[0].busy]))
    for pair in pairs:
        if pair[0].busy:
            run(pair)
    return [found[task.name, watcher.name] for task, watcher in pairs]


def _result(task: Task, watcher: Watcher, turns: int) -> Result:
    seen: list[Seen] = []
    for _ in range(turns):
        with TemporaryDirectory(prefix="bench-watchers-") as name:
            try:
                seen.append(task.run(watcher, Path(name).resolve()))
            except DidNotStart as error:
                _say(str(error))
                return Result(task=task, watcher=watcher.name, turns=(), refused=str(error))
    result = Result(task=task, watcher=watcher.name, turns=seen)
    _say(f"{task.name}: {watcher.name}: {_cell(result)}")
    return result


def who_did_better(results: Sequence[Result]) -> Iterator[str]:
    """Yield a line for each task at which somebody did better than ``up``, times left aside."""
    ours = {result.task.name: result for result in results if result.watcher == UP}
    for result in results:
        own = ours.get(result.task.name)
        if own is None or result.refused or result.watcher == UP:
            continue
        if (len(own.wrong), own.needless) > (len(result.wrong), result.needless):
            yield f"{result.task.name}: {result.watcher} did better than {UP}: {_cell(result)}, not {_cell(own)}"


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of an earlier run in which those that were measured again are the new ones."""
    again = {(one["task"], one["watcher"]): one for one in now["results"]}
    kept = [again.pop((one["task"], one["watcher"]), one) for one in before["results"]]
    versions = {one["name"]: one for one in [*before["watchers"], *now["watchers"]]}
    missing = {name: why for name, why in {**before["missing"], **now["missing"]}.items() if name not in versions}
    together = {"watchers": list(versions.values()), "missing": missing, "results": [*kept, *again.values()]}
    return {**now, **together}


def table(plain: dict[str, Any]) -> str:
    """Return the table of a run's figures as Markdown, with versions and date."""
    names = [one["name"] for one in plain["watchers"]]
    cells = {(one["task"], one["watcher"]): one["cell"] for one in plain["results"]}
    tasks = [task for task in TASKS if any(name == task.name for name, _ in cells)]
    rows = [[f"**{task.name}**: {task.what}", *(cells.get((task.name, name), "") for name in names)] for task in tasks]
    versions = [f"{one['name']} {one['version']}" for one in plain["watchers"]]
    return "\n".join(
        [
            f"{plain['date']}, commit {plain['commit']}, {plain['machine']}.",
            "",
            *_lines([["task", *versions], *rows]),
            "",
            *(f"- {one['name']}: `{one['command']}`" for one in plain["watchers"]),
            *(f"- {name} took no part: {why}." for name, why in plain["missing"].items()),
        ]
    )


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for number, row in enumerate(rows):
        yield f"| {' | '.join(row)} |"
        if number == 0:
            yield f"|{'---|' * len(row)}"


def _cell(result: Result) -> str:
    if result.refused:
        return "did not start"
    turn = max(result.turns, key=lambda one: one.restarts)
    said = []
    if result.needed:
        restarts = turn.restarts - turn.alone
        said.append(f"{restarts} {_plural('restart', restarts)}")
    if turn.alone:
        said.append(f"{turn.alone} more {_plural('try', turn.alone)} meanwhile")
    if result.ready_s is not None:
        said.append(f"{result.ready_s:.2f} s")
    said += [f"**{one}**" for one in result.wrong]
    if not result.needed and not result.wrong:
        said.append(f"nothing left after {median(one.ended_s or 0.0 for one in result.turns):.1f} s")
    return ", ".join(said)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word.removesuffix('y')}ies" if word.endswith("y") else f"{word}s"


def into_page(page: Path, text: str) -> None:
    """Replace what stands between the two marks of a page. Raises ``ValueError`` where it has none."""
    before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    if not after:
        raise ValueError(f"{page} has no place for the table: {_BEGIN} ... {_END}")
    page.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}", encoding="utf-8")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
