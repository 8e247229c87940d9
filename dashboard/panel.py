"""What a panel says, and how Grafana writes that down.

Only what differs from Grafana's defaults is written: it fills in the rest when it loads a dashboard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]

#: stat: the newest value, or its name; states: a band for each series; the others: curves over time.
Kind = Literal["stat", "name", "states", "lines", "bars", "points"]

#: Of every query: the variable that names the Prometheus.
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
#: Grafana's grid has so many columns.
COLUMNS = 24
#: Rows of the grid: of a panel with numbers, of others, of a row's title.
LOW, HIGH, TITLE = 4, 7, 1
#: Of queries that count rare events: the least time between two points. Grafana's `$__rate_interval` is four times that
#: or more, so each counts five minutes. An event counts only if samples before and after it are within that time, and a
#: replica that stands still, as a stale leader does, is not scraped meanwhile.
RARE = "75s"

GREEN, ORANGE, RED, BLUE, NONE = "green", "orange", "red", "blue", "transparent"


@dataclass(frozen=True)
class Query:
    """A question to Prometheus.

    Args:
        expr: in PromQL, with Grafana's variables.
        legend: the name of each series, with labels as `{{label}}`.
    """

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A panel.

    Args:
        kind: how it looks.
        title: its title.
        about: what it tells, and what to do; Grafana shows it at the title.
        queries: what it asks.
        width: in columns of the grid.
        unit: Grafana's name of the unit.
        steps: colours by value, each from this value on; None for the first.
        words: what is shown for a value in its place, and its colour.
        nothing: what is shown if there is no series.
        colours: of series, by their legend; of bands, where the value is 1.
    """

    kind: Kind
    title: str
    about: str
    queries: Sequence[Query]
    width: int
    unit: str = "short"
    steps: Sequence[tuple[float | None, str]] = ((None, GREEN),)
    words: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    nothing: str = ""
    colours: Mapping[str, str] = field(default_factory=dict)

    @property
    def height(self) -> int:
        """In rows of the grid."""
        return LOW if self.kind in ("stat", "name") else HIGH

    def as_json(self, number: int, x: int, y: int) -> Json:
        """Return it as Grafana writes it down, with its id and its place."""
        made: Json = {
            "id": number,
            "type": {"stat": "stat", "name": "stat", "states": "state-timeline"}.get(self.kind, "timeseries"),
            "title": self.title,
            "description": self.about,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "datasource": DATASOURCE,
            "targets": [self._target(i, query) for i, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._field(), "overrides": self._coloured()},
            "options": self._options(),
        }
        return made

    def _target(self, i: int, query: Query) -> Json:
        now = self.kind in ("stat", "name")
        made: Json = {
            "refId": chr(ord("A") + i),
            "datasource": DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
            "instant": now,
            "range": not now,
        }
        return made | {"interval": RARE} if self.kind in ("bars", "points") else made

    def _field(self) -> Json:
        made: Json = {"unit": self.unit, "thresholds": thresholds(self.steps)}
        if self.words:
            texts = {
                str(value): {"index": i, "text": text, "color": colour}
                for i, (value, (text, colour)) in enumerate(self.words.items())
            }
            made["mappings"] = [{"type": "value", "options": texts}]
        if self.nothing:
            made["noValue"] = self.nothing
        if self.kind in ("stat", "name", "states"):
            made["color"] = {"mode": "thresholds"}
        if self.kind == "states":
            made["custom"] = {"fillOpacity": 80, "lineWidth": 0}
        if self.kind in ("lines", "points", "bars"):
            made |= {"min": 0, "color": {"mode": "palette-classic"}}
        if self.kind == "lines":
            made["custom"] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "never"}
        if self.kind == "points":
            made["custom"] = {"drawStyle": "points", "pointSize": 6, "showPoints": "always"}
        if self.kind == "bars":
            stacking = {"mode": "normal", "group": "A"}
            made["custom"] = {"drawStyle": "bars", "lineWidth": 0, "fillOpacity": 80, "stacking": stacking}
            made["custom"] |= {"barAlignment": -1, "axisLabel": "within 5 minutes"}
            made["decimals"] = 0  # Prometheus extrapolates: one event may be 1.2
        return made

    def _coloured(self) -> list[Json]:
        made = []
        for legend, colour in self.colours.items():
            if self.kind == "states":  # with a fixed colour, 0 would have it, too
                changed: Json = {"id": "thresholds", "value": thresholds(((None, NONE), (1, colour)))}
            else:
                changed = {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}
            made.append({"matcher": {"id": "byName", "options": legend}, "properties": [changed]})
        return made

    def _options(self) -> Json:
        if self.kind in ("stat", "name"):
            return {
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "textMode": "name" if self.kind == "name" else "value",
                "colorMode": "background",
                "graphMode": "none",
                "justifyMode": "center",
            }
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": self.kind != "states"}
        if self.kind == "states":
            return {"legend": legend, "mergeValues": True, "showValue": "never", "rowHeight": 0.8}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def thresholds(steps: Sequence[tuple[float | None, str]]) -> Json:
    """Return colours by value as Grafana writes them down."""
    return {"mode": "absolute", "steps": [{"color": colour, "value": value} for value, colour in steps]}


@dataclass(frozen=True)
class Row:
    """Panels below a title; those that find no place beside the others go below them."""

    title: str
    panels: Sequence[Panel]


def placed(rows: Sequence[Row]) -> list[Json]:
    """Return all panels with their places.

    Raises:
        ValueError: panels of different heights are beside each other, or leave a gap.
    """
    made: list[Json] = []
    y = 0
    for row in rows:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": TITLE}
        made.append({"id": len(made) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": []})
        made[-1]["gridPos"] = place
        y += TITLE
        x, height = 0, 0
        for panel in row.panels:
            if (x and panel.height != height) or x + panel.width > COLUMNS:
                raise ValueError(f"{row.title}: {panel.title} does not fit")
            height = panel.height
            made.append(panel.as_json(len(made) + 1, x, y))
            x += panel.width
            if x == COLUMNS:
                x, y = 0, y + height
        if x:
            raise ValueError(f"{row.title}: there is room for more")
    return made
