"""Plots of how something grows: a panel for each, a line for each store or process, as SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from math import log10
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 560, 200, 70, 34, 40, 230
_COLOURS = ("#2b6cb0", "#c2703d", "#2e7d32", "#7b4ba0", "#8a6d00", "#b03060")
_WIDE = 30
"""From such a ratio of its ends on an axis is one of powers of ten."""

Point = Sequence[float]


def curves(lines: Sequence[dict[str, Any]]) -> str:
    """Return the panels of some lines, from their JSON values, one under the other. ``y`` begins at 0."""
    plots: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if line["points"]:
            plots.setdefault(line["plot"], []).append(line)
    panel_height = _TOP + _HEIGHT + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} '
        f'{panel_height * len(plots)}" font-family="sans-serif" font-size="12" role="img">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for place, (title, drawn) in enumerate(plots.items()):
        parts += _panel(title, drawn, top=place * panel_height + _TOP)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(title: str, drawn: Sequence[dict[str, Any]], *, top: float) -> Iterator[str]:
    points = [point for line in drawn for point in line["points"]]
    across = _across([x for x, _ in points])
    most = max(y for _, y in points) or 1.0
    bottom = top + _HEIGHT
    yield f'<text x="{_LEFT}" y="{top - 12}" font-weight="bold">{escape(title)}</text>'
    yield f'<path d="M{_LEFT} {top}V{bottom}H{_LEFT + _WIDTH}" fill="none" stroke="#333333"/>'
    for y, said in ((top + 4, f"{most:,.3g}"), (bottom, "0")):
        yield f'<text x="{_LEFT - 8}" y="{y}" text-anchor="end">{said}</text>'
    for x in sorted({x for x, _ in points})[:: max(1, len(points) // len(drawn) // 6)]:
        yield f'<text x="{across(x):.1f}" y="{bottom + 16}" text-anchor="middle">{x:,.3g}</text>'
    yield f'<text x="{_LEFT + _WIDTH}" y="{bottom + 32}" text-anchor="end">{escape(drawn[0]["x"])}</text>'
    for place, line in enumerate(drawn):
        colour = _COLOURS[place % len(_COLOURS)]
        path = " ".join(f"{across(x):.1f},{bottom - y / most * _HEIGHT:.1f}" for x, y in line["points"])
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        name_y = top + 14 + place * 16
        yield f'<text x="{_LEFT + _WIDTH + 12}" y="{name_y}" fill="{colour}">{escape(line["name"])}</text>'


def _across(values: Sequence[float]) -> Callable[[float], float]:
    least, most = min(values), max(values)
    if least > 0 and most / least >= _WIDE:
        span = log10(most / least)
        return lambda x: _LEFT + log10(x / least) / span * _WIDTH
    span = (most - least) or 1.0
    return lambda x: _LEFT + (x - least) / span * _WIDTH
