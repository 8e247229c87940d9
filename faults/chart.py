"""Draws lines over time as an SVG: a panel for each measure, a line for each replica."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.plot import STYLE, shown

WIDTH, LEFT, RIGHT, HEIGHT, GAP = 760, 70, 740, 120, 44
#: Points of a line, at most.
POINTS = 350
COLOURS = ("#1f6feb", "#bf8700", "#8250df")

Line = tuple[Sequence[float], Sequence[float]]


def svg(title: str, panels: Mapping[str, Mapping[str, Line]]) -> str:
    """Draw them; times are seconds."""
    pieces = [f'<text class="text bold" x="12" y="26" font-size="15">{escape(title)}</text>']
    names = sorted({name for lines in panels.values() for name in lines})
    for at, name in enumerate(names):
        x = LEFT + at * 225
        pieces.append(f'<path stroke="{COLOURS[at % 3]}" stroke-width="2" d="M{x} 44h18"/>')
        pieces.append(f'<text class="soft" x="{x + 24}" y="48">{escape(name)}</text>')
    top = 66.0
    for what, lines in panels.items():
        pieces += _panel(what, lines, names, top)
        top += HEIGHT + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:g}" width="{WIDTH}" height="{top:g}"'
    font = 'font-family="system-ui, -apple-system, \'Segoe UI\', Helvetica, Arial, sans-serif" font-size="12"'
    card = f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{top - 1:g}" rx="8"/>'
    body = "\n  ".join([f"<title>{escape(title)}</title>", f"<style>{STYLE}\n  </style>", card, *pieces])
    return f'{head} role="img" {font}>\n  {body}\n</svg>\n'


def _panel(what: str, lines: Mapping[str, Line], names: Sequence[str], top: float) -> list[str]:
    end = max((times[-1] for times, _ in lines.values()), default=1.0) or 1.0
    most = max((max(values) for _, values in lines.values()), default=1.0) * 1.1 or 1.0
    bottom = top + 16 + HEIGHT - 16
    pieces = [f'<text class="text bold" x="12" y="{top + 8:g}">{escape(what)}</text>']
    for part in (0.0, 0.5, 1.0):
        y = bottom - (HEIGHT - 16) * part
        pieces.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        pieces.append(
            f'<text class="soft" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{shown(most * part)}</text>'
        )
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = LEFT + (RIGHT - LEFT) * part
        text = f"{end * part / 60:.0f}" + (" min" if part == 1 else "")
        pieces.append(f'<text class="soft" x="{x:.0f}" y="{bottom + 14:g}" text-anchor="middle">{text}</text>')
    for name, (times, values) in lines.items():
        step = max(1, len(times) // POINTS)
        points = [
            f"{LEFT + (RIGHT - LEFT) * t / end:.1f},{bottom - (HEIGHT - 16) * v / most:.1f}"
            for t, v in zip(times[::step], values[::step], strict=True)
        ]
        colour = COLOURS[names.index(name) % 3]
        pieces.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.2" points="{" ".join(points)}"/>')
    return pieces
