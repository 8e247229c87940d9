"""Draws rows as an SVG: a bar for each median, a line from the least to the most, one panel for each unit.

A scale that has to hold a value and thirty times as much is logarithmic. Colours follow the reader's mode, light or
dark.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import NamedTuple

from benchmarks.result import Row

WIDTH, LEFT, RIGHT = 760, 290, 610
BAR, LINE = 14, 20
#: From here on, the most divided by the least, equal steps are no longer equal differences.
WIDE = 30.0
STYLE = """
    .text { fill: #1f2328 } .soft { fill: #59636e } .grid { stroke: #d0d7de } .spread { stroke: #1f2328 }
    .card { fill: #ffffff; stroke: #d0d7de } .ours { fill: #54aeff } .peer { fill: #afb8c1 }
    @media (prefers-color-scheme: dark) {
      .text { fill: #f0f6fc } .soft { fill: #9198a1 } .grid { stroke: #3d444d } .spread { stroke: #f0f6fc }
      .card { fill: #151b23; stroke: #3d444d } .ours { fill: #1f6feb } .peer { fill: #656c76 }
    }
    .bold { font-weight: 600 }"""


class Bar(NamedTuple):
    """The values of one program."""

    name: str
    kind: str
    values: Sequence[float]


def shown(value: float) -> str:
    """Give a number with two or three digits that count."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 or not size else f"{value:.2g}"


def grouped(rows: Sequence[Row]) -> dict[str, dict[str, list[Bar]]]:
    """Give the bars by unit and by what was measured; what stands beside several others is there once."""
    found: dict[str, dict[str, list[Bar]]] = {}
    for row in rows:
        bars = found.setdefault(row.unit, {}).setdefault(row.what, [])
        both = [Bar(row.subject, "ours", row.values)]
        both += [Bar(row.peer, "peer", row.peer_values)] if row.peer else []
        bars += [bar for bar in both if bar not in bars]
    return found


def is_wide(bars: Sequence[Bar]) -> bool:
    """Whether the values are too far apart for a linear scale."""
    above = [value for bar in bars for value in bar.values if value > 0]
    return bool(above) and max(above) / min(above) > WIDE


def scale(bars: Sequence[Bar]) -> tuple[Callable[[float], float], list[float]]:
    """Give what maps a value to its place, and the values at which the axis is marked."""
    values = [value for bar in bars for value in bar.values]
    most = max(values) or 1.0
    if is_wide(bars):
        least = min(value for value in values if value > 0)
        low, high = math.floor(math.log10(least) - 0.3), math.ceil(math.log10(most))

        def place(value: float) -> float:
            return LEFT + (RIGHT - LEFT) * max(0.0, (math.log10(max(value, 1e-12)) - low) / (high - low))

        return place, [10.0**power for power in range(low, high + 1)]
    step = next(s for s in (10.0 ** math.floor(math.log10(most)) * f for f in (0.2, 0.5, 1, 2)) if most / s <= 6)
    marks = [step * n for n in range(math.ceil(most / step) + 1)]
    return (lambda value: LEFT + (RIGHT - LEFT) * value / marks[-1]), marks


def panel(unit: str, groups: dict[str, list[Bar]], top: float) -> Iterator[tuple[float, str]]:
    """Draw one unit's groups below `top`; give the pieces, each with where it ends."""
    every = [bar for bars in groups.values() for bar in bars]
    place, marks = scale(every)
    y = top + 22
    named = f"{unit}, logarithmic" if is_wide(every) else unit
    yield y, f'<text class="soft" x="{RIGHT}" y="{top + 12}" text-anchor="end">{escape(named)}</text>'
    bottom = y + sum(LINE * (len(bars) + 1) + 6 for bars in groups.values())
    for mark in marks:
        x = f"{place(mark):.1f}"
        yield bottom, f'<path class="grid" d="M{x} {y}V{bottom}"/>'
        number = f"{mark:.6f}".rstrip("0").rstrip(".")
        yield bottom + 22, f'<text class="soft" x="{x}" y="{bottom + 14}" text-anchor="middle">{number}</text>'
    for what, bars in groups.items():
        yield y + LINE, f'<text class="text bold" x="12" y="{y + 14}">{escape(what)}</text>'
        y += LINE
        for bar in bars:
            median, least, most = statistics.median(bar.values), min(bar.values), max(bar.values)
            end, middle = max(place(median) - LEFT, 1), y + BAR / 2
            yield y, f'<rect class="{bar.kind}" x="{LEFT}" y="{y}" width="{end:.1f}" height="{BAR}" rx="2"/>'
            spread = f"M{place(least):.1f} {middle}H{place(most):.1f}"
            yield y, f'<path class="spread" stroke-width="1.5" d="{spread}"/>'
            yield y, f'<text class="soft" x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(bar.name)}</text>'
            numbers = f"{shown(median)} ({shown(least)}–{shown(most)})" if least < most else shown(median)
            yield y + LINE, f'<text class="text" x="{RIGHT + 10}" y="{y + 12}">{numbers}</text>'
            y += LINE
        y += 6


def svg(title: str, rows: Sequence[Row]) -> str:
    """Draw the rows of one benchmark."""
    pieces, height = [f'<text class="text bold" x="12" y="26" font-size="15">{escape(title)}</text>'], 34.0
    for unit, groups in grouped(rows).items():
        for end, piece in panel(unit, groups, height):
            pieces.append(piece)
            height = max(height, end)
    height += 8
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}"'
    )
    font = 'font-family="system-ui, -apple-system, \'Segoe UI\', Helvetica, Arial, sans-serif" font-size="12"'
    card = f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="8"/>'
    body = "\n  ".join([f"<title>{escape(title)}</title>", f"<style>{STYLE}\n  </style>", card, *pieces])
    return f'{head} role="img" {font}>\n  {body}\n</svg>\n'
