"""A plot of figures beside what is asked of them: a bar each, as SVG that needs nothing to be shown."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10
from typing import Any

_ROW, _LEFT, _WIDTH, _RIGHT = 24, 470, 320, 110
_DECADES = 2
"""From a hundredth of what is asked to a hundred times as much."""
_COLOURS = {"aim": "#2e7d32", "met": "#66a96b", "MISSED": "#c2703d"}


def bars(figures: Sequence[dict[str, Any]]) -> str:
    """Return the plot: how far each figure is from what is asked of it, on a scale of powers of ten.

    To the right of the middle line it is reached. Figures of which nothing is asked, or without a ratio, are left out.
    """
    asked = [item for item in figures if item["least"] and item["ratio"]]
    height = _ROW * (len(asked) + 2)
    middle = _LEFT + _WIDTH / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *(_row(number, item, middle) for number, item in enumerate(asked, 1)),
        f'<line x1="{middle}" y1="{_ROW}" x2="{middle}" y2="{height - _ROW}" stroke="#333333"/>',
        f'<text x="{middle}" y="{height - 7}" text-anchor="middle">asked</text>',
        f'<text x="{_LEFT}" y="{height - 7}" text-anchor="middle">a hundredth</text>',
        f'<text x="{_LEFT + _WIDTH}" y="{height - 7}" text-anchor="middle">a hundred times</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _row(number: int, item: dict[str, Any], middle: float) -> str:
    y = number * _ROW
    reached = item["ratio"] / item["least"] if item["more_is_better"] else item["least"] / item["ratio"]
    reach = max(-1.0, min(1.0, log10(reached) / _DECADES)) * _WIDTH / 2
    x, width = min(middle, middle + reach), max(1.0, abs(reach))
    name = escape(f"{item['what']}, {item['store']}"[:74])
    sign = "≥" if item["more_is_better"] else "≤"
    return (
        f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{name}</text>'
        f'<rect x="{x:.1f}" y="{y - 8}" width="{width:.1f}" height="16" fill="{_COLOURS[item["verdict"]]}"/>'
        f'<text x="{_LEFT + _WIDTH + 12}" y="{y + 4}">{item["ratio"]:.3g} ({sign} {item["least"]:g})</text>'
    )
