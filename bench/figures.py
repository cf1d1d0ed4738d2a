"""What a benchmark found: each figure beside its peer or its limit, measured in turn with it in the same run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row: ``ours`` and ``other`` in ``unit``, one value a turn, and what their ratio is to reach.

    ``other`` is empty where what belongs beside it could not be had; ``note`` says why. Where more is better the
    ratio is to be at least ``least``, at best ``aim``; where less is better at most.
    """

    part: str
    what: str
    store: str
    ours: Sequence[float]
    unit: str
    against: str
    other: Sequence[float] = ()
    more_is_better: bool = True
    least: float | None = None
    aim: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Return ours over the other: the median over turns, each turn's two being neighbours in time."""
        pairs = [ours / other for ours, other in zip(self.ours, self.other, strict=False) if other]
        return median(pairs) if pairs else None

    @property
    def verdict(self) -> str:
        """Return ``aim``, ``met``, ``MISSED``, or nothing where nothing is asked."""
        if self.least is None:
            return ""
        if self.ratio is None:
            return "not measured"
        if self.aim is not None and self._reaches(self.ratio, self.aim):
            return "aim"
        return "met" if self._reaches(self.ratio, self.least) else "MISSED"

    def _reaches(self, ratio: float, bar: float) -> bool:
        return ratio >= bar if self.more_is_better else ratio <= bar

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"ratio": self.ratio, "verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One value against an absolute bound: a latency, say. ``value`` is the median of the turns."""

    part: str
    what: str
    store: str
    values: Sequence[float]
    unit: str
    most: float
    aim: float | None = None
    note: str = ""

    @property
    def value(self) -> float:
        """Return the median."""
        return median(self.values)

    @property
    def verdict(self) -> str:
        """Return ``aim``, ``met`` or ``MISSED``."""
        if self.aim is not None and self.value <= self.aim:
            return "aim"
        return "met" if self.value <= self.most else "MISSED"

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"value": self.value, "verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What must hold in a run, read from its log afterwards. ``found`` says what was seen."""

    part: str
    what: str
    store: str
    holds: bool
    found: str

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a plot: how something grows. ``points`` are (x, y)."""

    part: str
    plot: str
    name: str
    x: str
    y: str
    points: Sequence[tuple[float, float]]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Words and numbers side by side, for what has no one ratio."""

    part: str
    title: str
    heads: Sequence[str]
    lines: Sequence[Sequence[str]]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


@dataclass
class Findings:
    """All that one run of ``./dev bench`` found."""

    figures: list[Figure] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    around: list[str] = field(default_factory=list)
    """What the run was like: how fast the disk and the generator, how busy others kept the machine."""
    missing: list[str] = field(default_factory=list)
    """What could not be had, and why."""

    def plain(self) -> dict[str, Any]:
        """Return all as JSON values."""
        return {
            "figures": [item.plain() for item in self.figures],
            "bounds": [item.plain() for item in self.bounds],
            "gates": [item.plain() for item in self.gates],
            "lines": [item.plain() for item in self.lines],
            "tables": [item.plain() for item in self.tables],
            "around": list(self.around),
            "missing": list(self.missing),
        }

    @property
    def good(self) -> bool:
        """True if every gate holds and every bar that was measured is met."""
        verdicts = {item.verdict for item in self.figures} | {item.verdict for item in self.bounds}
        return all(gate.holds for gate in self.gates) and "MISSED" not in verdicts


def number(value: float) -> str:
    """Return a value as people read it: three digits, thousands with a comma."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def grid(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose columns stand under each other."""
    rows = [tuple(heads), tuple("-" for _ in heads), *(tuple(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    rows[1] = tuple("-" * width for width in widths)
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def tables(plain: dict[str, Any]) -> str:
    """Return the tables of a run, from its JSON values."""
    parts = [figures_grid(plain["figures"])] if plain["figures"] else []
    if plain["bounds"]:
        parts.append(bounds_grid(plain["bounds"]))
    parts += [f"{item['title']}:\n{grid(item['heads'], item['lines'])}" for item in plain["tables"]]
    if plain["gates"]:
        parts.append(gates_grid(plain["gates"]))
    parts += plain["around"]
    parts += [f"Not measured: {reason}" for reason in plain["missing"]]
    return "\n\n".join(parts)


def figures_grid(figures: Sequence[dict[str, Any]]) -> str:
    """Return a table of figures, from their JSON values."""
    lines = []
    for item in figures:
        sign = ">=" if item["more_is_better"] else "<="
        bar = "" if item["least"] is None else f"{sign} {item['least']:g}"
        aim = "" if item["aim"] is None else f"{item['aim']:g}"
        other = number(median(item["other"])) if item["other"] else "none"
        ratio = "" if item["ratio"] is None else f"{item['ratio']:.3g}"
        ours = f"{number(median(item['ours']))} {item['unit']}"
        lines.append(
            (item["what"], item["store"], ours, other, item["against"], ratio, bar, aim, item["verdict"], item["note"])
        )
    return grid(("what", "store", "ours", "beside it", "which is", "ratio", "asked", "aim", "", "note"), lines)


def bounds_grid(bounds: Sequence[dict[str, Any]]) -> str:
    """Return a table of bounds, from their JSON values."""
    lines = []
    for item in bounds:
        aim = "" if item["aim"] is None else f"<= {item['aim']:g}"
        value = f"{number(item['value'])} {item['unit']}"
        lines.append((item["what"], item["store"], value, f"<= {item['most']:g}", aim, item["verdict"], item["note"]))
    return grid(("what", "store", "found", "asked", "aim", "", "note"), lines)


def gates_grid(gates: Sequence[dict[str, Any]]) -> str:
    """Return a table of gates, from their JSON values: one line for those that were asked in several turns."""
    alike: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for item in gates:
        alike.setdefault((item["part"], item["what"], item["store"]), []).append(item)
    lines = []
    for (part, what, store), items in alike.items():
        broken = [item for item in items if not item["holds"]]
        times = f" ({len(broken)} of {len(items)} times)" if len(items) > 1 else ""
        verdict = f"BROKEN{times}" if broken else "holds"
        lines.append((f"{part}: {what}", store, verdict, (broken or items)[0]["found"]))
    return grid(("gate", "store", "", "found"), lines)
