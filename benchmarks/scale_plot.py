"""CPU seconds and peak memory of each step over pages, on logarithmic axes: one SVG, drawn without a library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 430, 300, 62, 34, 46
COLORS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#7F3C8D", "#444444", "#999999", "#A65628")
Results = dict[str, dict[str, dict[str, Any]]]


def drawn(results: Results, steps: Sequence[str]) -> str:
    """The picture, as text."""
    panes = [
        _pane(results, steps, "cpu", "CPU seconds", 0),
        _pane(results, steps, "peak_mb", "peak resident MB", WIDTH + 30),
    ]
    width, height = 2 * WIDTH + 230, HEIGHT + 30
    names = [step for step in steps if step in results]
    legend = [
        f'<line x1="{2 * WIDTH + 50}" y1="{50 + 20 * i}" x2="{2 * WIDTH + 74}" y2="{50 + 20 * i}" '
        f'stroke="{COLORS[steps.index(step)]}" stroke-width="2"/>'
        f'<text x="{2 * WIDTH + 82}" y="{54 + 20 * i}">{escape(step)}</text>'
        for i, step in enumerate(names)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
    return (
        head
        + 'font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join([*panes, *legend, "</svg>"])
    ) + "\n"


def _pane(results: Results, steps: Sequence[str], name: str, title: str, x: int) -> str:
    points = {
        step: sorted((int(size), _value(row, name)) for size, row in results[step].items() if _known(size, row, name))
        for step in steps
        if step in results
    }
    sizes = [size for found in points.values() for size, _ in found]
    values = [max(value, 1e-2) for found in points.values() for _, value in found]
    if not sizes:
        return ""
    low_x, high_x = math.log10(min(sizes)), max(math.log10(max(sizes)), math.log10(min(sizes)) + 1)
    low_y, high_y = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def at(size: float, value: float) -> tuple[float, float]:
        across = (math.log10(size) - low_x) / (high_x - low_x)
        up = (math.log10(max(value, 1e-2)) - low_y) / max(high_y - low_y, 1)
        return x + LEFT + across * (WIDTH - LEFT - 12), TOP + (1 - up) * (HEIGHT - TOP - BOTTOM)

    out = [f'<text x="{x + LEFT}" y="20" font-weight="bold">{escape(title)}</text>']
    for power in range(low_y, high_y + 1):
        y = at(min(sizes), 10.0**power)[1]
        out.append(f'<line x1="{x + LEFT}" y1="{y:.1f}" x2="{x + WIDTH - 12}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{x + LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:,g}</text>')
    for size in sorted(set(sizes)):
        across = at(size, 1)[0]
        out.append(f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{size:,}</text>')
    out.append(f'<text x="{x + (LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">pages</text>')
    for step, found in points.items():
        color, places = COLORS[steps.index(step)], [at(*point) for point in found]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        out.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{color}"/>' for a, b in places]
    return "\n".join(out)


def _known(size: str, row: dict[str, Any], name: str) -> bool:
    """Whether a number is one of a whole step: memory always, time of a part only where steps are all alike."""
    return size.isdecimal() and (name != "cpu" or row.get("part", 1.0) == 1 or "steps" in row)


def _value(row: dict[str, Any], name: str) -> float:
    """A number of a row; CPU seconds are those of the whole step."""
    return float(row[name]) / (float(row.get("part", 1.0)) if name == "cpu" else 1.0)
