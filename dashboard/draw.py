"""Draws a dashboard as an SVG: the panels of its JSON, where that places them, with what a Prometheus answered.

It knows what the dashboard uses of Grafana: numbers, bands, lines, bars, points, and vertical lines for annotations.
Colours follow the reader's mode, light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from benchmarks.plot import STYLE as TEXT
from benchmarks.plot import shown
from dashboard.prometheus import STEP, least
from dashboard.reading import Json

#: Of the grid's cells, and around what is in one, in pixels.
COLUMN, ROW, GAP = 42, 27, 4
#: Of a panel: above and below what is drawn, and for the numbers beside it.
HEAD, FOOT, SIDE = 22, 34, 46
#: Pixels of a letter, roughly.
LETTER = 6.4

#: Grafana's names of colours, in light and in dark mode.
NAMED = {
    "green": ("#4f9f57", "#56a64b"), "orange": ("#d9731a", "#e0781f"), "red": ("#cf2f3f", "#d6404f"),
    "blue": ("#3274d9", "#5794f2"), "transparent": ("none", "none"),
}  # fmt: skip
#: Of series that have no colour of their own.
PALETTE = ("#56a64b", "#c99700", "#3274d9", "#e0562c", "#a352cc", "#1f9bb5", "#b5467d", "#7a8b3a", "#6b7fd7", "#8c6d5a")
STYLE = f"""{TEXT}
    .row {{ font-weight: 600; font-size: 13px }} .big {{ font-weight: 600; font-size: 20px; fill: #ffffff }}
    .small {{ font-size: 10px }} .annotation {{ stroke-dasharray: 2 2; opacity: 0.7 }}
    {" ".join(f".f-{name} {{ fill: {light} }} .s-{name} {{ stroke: {light} }}" for name, (light, _) in NAMED.items())}
    @media (prefers-color-scheme: dark) {{
      {" ".join(f".f-{name} {{ fill: {dark} }} .s-{name} {{ stroke: {dark} }}" for name, (_, dark) in NAMED.items())}
    }}"""

Series = Mapping[str, Any]


def svg(dashboard: Json, answers: Json) -> str:
    """Draw it."""
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    width, height = 24 * COLUMN + GAP, bottom * ROW + GAP
    title = f"The dashboard {dashboard['title']}, drawn from its JSON"
    font = 'font-family="system-ui, -apple-system, \'Segoe UI\', Helvetica, Arial, sans-serif" font-size="11"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    pieces = [f"<title>{escape(title)}</title>", f"<style>{STYLE}\n  </style>"]
    pieces.append(f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>')
    for panel in dashboard["panels"]:
        pieces += Drawn(panel, answers, dashboard).pieces()
    return f'{head} role="img" {font}>\n  ' + "\n  ".join(pieces) + "\n</svg>\n"


class Drawn:
    """One panel, or the title of a row."""

    def __init__(self, panel: Json, answers: Json, dashboard: Json) -> None:
        place = panel["gridPos"]
        self.panel, self.answers, self.dashboard = panel, answers, dashboard
        self.x, self.y = int(place["x"]) * COLUMN + GAP, int(place["y"]) * ROW + GAP
        self.width, self.height = int(place["w"]) * COLUMN - GAP, int(place["h"]) * ROW - GAP
        self.series: Sequence[Series] = answers["panels"].get(str(panel["id"]), ())
        self.field: Json = panel.get("fieldConfig", {}).get("defaults", {})

    def pieces(self) -> Iterator[str]:
        """Yield what it consists of."""
        title = escape(self.panel["title"])
        if self.panel["type"] == "row":
            yield f'<text class="text row" x="{self.x + 4}" y="{self.y + 17}">{title}</text>'
            return
        if self.panel["type"] == "stat":
            yield from self._number(title)
            return
        yield f'<rect class="card" x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="3"/>'
        yield f'<text class="text bold" x="{self.x + 8}" y="{self.y + 15}">{title}</text>'
        if not any(one["points"] for one in self.series):
            nothing = escape(self.field.get("noValue", "no data: it did not happen"))
            x, y = self.x + self.width / 2, self.y + self.height / 2 + 8
            yield f'<text class="soft" x="{x}" y="{y}" text-anchor="middle">{nothing}</text>'
            return
        yield from self._bands() if self.panel["type"] == "state-timeline" else self._curves()

    # --- kinds of panels

    def _number(self, title: str) -> Iterator[str]:
        values = [float(one["points"][-1][1]) for one in self.series]
        value = values[0] if values else math.nan
        text, colour = self._said(value)
        if self.panel["options"]["textMode"] == "name" and values:
            text = ", ".join(one["name"] for one in self.series)
            colour = self._colour_of(self.series[0]["name"]) or colour
        yield (
            f'<rect class="f-{colour}" x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="3"/>'
        )
        middle = self.x + self.width / 2
        size = min(20.0, 1.5 * self.width / max(1, len(text)))
        yield f'<text fill="#ffffff" x="{self.x + 8}" y="{self.y + 16}">{title}</text>'
        yield (
            f'<text class="big" style="font-size: {size:.0f}px" x="{middle}" y="{self.y + self.height / 2 + 16}"'
            f' text-anchor="middle">{escape(text)}</text>'
        )

    def _bands(self) -> Iterator[str]:
        left = self.x + 12 + LETTER * max(len(one["name"]) for one in self.series)
        right, top = self.x + self.width - 8, self.y + HEAD
        place = self._time(left, right)
        high = (self.height - HEAD - 18) / len(self.series)
        for i, one in enumerate(self.series):
            y = top + i * high + high * 0.1
            at = f'x="{left - 6:.1f}" y="{y + high * 0.4 + 4:.1f}"'
            yield f'<text class="text" {at} text-anchor="end">{escape(one["name"])}</text>'
            for begin, end, value in runs(one["points"]):
                colour = self._step(value, one["name"])
                if value and colour != "transparent":
                    yield (
                        f'<rect class="f-{colour}" x="{place(begin):.1f}" y="{y:.1f}"'
                        f' width="{max(1.0, place(end) - place(begin)):.1f}" height="{high * 0.8:.1f}"/>'
                    )
        yield from self._marks_of_time(left, right, top, self.y + self.height - 18)

    def _curves(self) -> Iterator[str]:
        left, right = self.x + SIDE, self.x + self.width - 10
        top, bottom = self.y + HEAD + 4, self.y + self.height - FOOT
        custom, place = self.field["custom"], self._time(left, right)
        stacked = custom.get("stacking", {}).get("mode") == "normal"
        most = highest(self.series, stacked)
        mark = nice(most, 3)
        whole = mark * math.ceil(most / mark - 1e-9)

        def level(value: float) -> float:
            return bottom - (bottom - top) * min(1.0, value / whole)

        for n in range(round(whole / mark) + 1):
            y = level(n * mark)
            yield f'<path class="grid" d="M{left} {y:.1f}H{right}"/>'
            text = escape(self._text(n * mark))
            yield f'<text class="soft small" x="{left - 5}" y="{y + 3:.1f}" text-anchor="end">{text}</text>'
        yield from self._marks_of_time(left, right, top, bottom)
        below: dict[float, float] = {}
        step = least(self.panel["targets"][0])
        for i, one in enumerate(self.series):
            fill, stroke = self._paint(one["name"], i)
            points = [(t, float(v)) for t, v in one["points"] if not math.isnan(float(v))]
            if custom["drawStyle"] == "line":
                yield f'<path {stroke} fill="none" stroke-width="1.4" d="{line(points, place, level, 2.5 * step)}"/>'
            for t, value in points if custom["drawStyle"] == "points" else ():
                yield f'<circle {fill} cx="{place(t):.1f}" cy="{level(value):.1f}" r="2.5"/>'
            for t, value in points if custom["drawStyle"] == "bars" else ():
                since = below.get(t, 0.0)
                below[t] = since + value
                x, end = max(left, place(t - step) + 1), min(float(right), place(t) - 1)
                yield (
                    f'<rect {fill} x="{x:.1f}" y="{level(since + value):.1f}" width="{max(1.0, end - x):.1f}"'
                    f' height="{level(since) - level(since + value):.1f}"/>'
                )
        yield from self._legend(left)
        yield from self._annotations(place, top, bottom)

    # --- what they share

    def _paint(self, name: str, number: int) -> tuple[str, str]:
        """Give the attributes that fill and that stroke in a series' colour."""
        if colour := self._colour_of(name):
            return f'class="f-{colour}"', f'class="s-{colour}"'
        colour = PALETTE[number % len(PALETTE)]
        return f'fill="{colour}"', f'stroke="{colour}"'

    def _legend(self, x: float) -> Iterator[str]:
        """Name the series; where there is little room, by the ends of their names, and as many as there is room for."""
        y = self.y + self.height - 8
        room = self.x + self.width - x - 4
        most = max(5, int((room / len(self.series) - 20) / LETTER))
        for i, one in enumerate(self.series):
            name = one["name"] if len(one["name"]) <= most else "…" + one["name"][1 - most :]
            width = 20 + LETTER * len(name)
            if width > room:
                return
            yield f'<rect {self._paint(one["name"], i)[0]} x="{x:.0f}" y="{y - 7}" width="8" height="8" rx="2"/>'
            yield f'<text class="soft small" x="{x + 12:.0f}" y="{y}">{escape(name)}</text>'
            x, room = x + width, room - width

    def _annotations(self, place: Callable[[float], float], top: float, bottom: float) -> Iterator[str]:
        for one in self.dashboard["annotations"]["list"]:
            for found in self.answers["annotations"].get(one["name"], ()):
                for begin, _, _ in runs(found["points"]):
                    x, title = f"{place(begin):.1f}", f"{one['titleFormat']}: {found['name']}"
                    shape = f'class="annotation s-{one["iconColor"]}" d="M{x} {top}V{bottom}"'
                    yield f"<path {shape}><title>{escape(title)}</title></path>"

    def _time(self, left: float, right: float) -> Callable[[float], float]:
        begin, end = float(self.answers["begin"]), float(self.answers["end"])
        return lambda t: left + (right - left) * min(1.0, max(0.0, (t - begin) / (end - begin)))

    def _marks_of_time(self, left: float, right: float, top: float, bottom: float) -> Iterator[str]:
        begin, place = self.answers["begin"], self._time(left, right)
        minutes = int((self.answers["end"] - begin) // 60)
        for minute in range(0, minutes + 1, 1 if right - left > 45 * minutes else 2):
            x, anchor = f"{place(begin + 60 * minute):.1f}", "middle" if minute else "start"
            yield f'<path class="grid" d="M{x} {top}V{bottom}"/>'
            yield f'<text class="soft small" x="{x}" y="{bottom + 11}" text-anchor="{anchor}">{minute} min</text>'

    def _said(self, value: float) -> tuple[str, str]:
        """Give what stands for a value, and its colour."""
        if math.isnan(value):
            return self.field.get("noValue", "no data"), self._step(-math.inf)
        for mapping in self.field.get("mappings", ()):
            if (word := mapping["options"].get(f"{value:g}")) is not None:
                return word["text"], word["color"]
        return self._text(value), self._step(value)

    def _step(self, value: float, name: str = "") -> str:
        steps = self._changed(name).get("thresholds", self.field["thresholds"])["steps"]
        return str([s["color"] for s in steps if s["value"] is None or value >= s["value"]][-1])

    def _colour_of(self, name: str) -> str:
        return str(self._changed(name).get("color", {}).get("fixedColor", ""))

    def _changed(self, name: str) -> Json:
        """What is different for the series of this name."""
        return {
            change["id"]: change["value"]
            for one in self.panel["fieldConfig"]["overrides"]
            if one["matcher"]["options"] == name
            for change in one["properties"]
        }

    def _text(self, value: float) -> str:
        unit = self.field["unit"]
        if unit == "bytes":
            return f"{value / 2**20:.0f} MiB"
        if unit == "percentunit":
            return f"{shown(value * 100)} %"
        if unit == "s" and value > 120:
            return f"{shown(value / 60)} min"
        if unit == "s" and 0 < value < 0.1:
            return f"{shown(value * 1000)} ms"
        text = f"{value:.0f}" if value == round(value) and value < 1e6 else shown(value)
        return text + {"s": " s", "reqps": "/s"}.get(unit, "")


def runs(points: Sequence[Sequence[Any]]) -> Iterator[tuple[float, float, float]]:
    """Yield (begin, end, value) for points that follow each other without a gap and have the same value."""
    begin = last = None
    step = min((b[0] - a[0] for a, b in pairwise(points)), default=STEP)
    value = math.nan
    for t, text in points:
        if begin is None or last is None or float(text) != value or t - last > 1.5 * step:
            if begin is not None and last is not None:
                yield begin, min(last + step, t), value
            begin, value = t, float(text)
        last = t
    if begin is not None and last is not None:
        yield begin, last + step, value


def line(
    points: Sequence[tuple[float, float]],
    place: Callable[[float], float],
    level: Callable[[float], float],
    gap: float,
) -> str:
    """Return a path through the points, which begins anew after a gap of so many seconds."""
    made, last = [], -math.inf
    for t, value in points:
        made.append(f"{'M' if t - last > gap else 'L'}{place(t):.1f} {level(value):.1f}")
        last = t
    return "".join(made)


def highest(series: Sequence[Series], stacked: bool) -> float:
    """Return the greatest value, or the greatest sum at one time; 1 if there is none above 0."""
    sums: dict[float, float] = {}
    for one in series:
        for t, text in one["points"]:
            value = float(text)
            if not math.isnan(value):
                sums[t] = sums.get(t, 0.0) + value if stacked else max(sums.get(t, 0.0), value)
    return max(sums.values(), default=0.0) or 1.0


def nice(most: float, marks: int) -> float:
    """Return a round distance between so many marks, or a few more, up to a value."""
    least = most / marks
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
