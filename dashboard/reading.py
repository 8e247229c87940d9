"""Reads a dashboard's JSON as Grafana does: its panels, and what they ask Prometheus once the variables are known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Question:
    """What a panel or an annotation asks.

    Args:
        of: its title.
        expr: in PromQL, with variables.
        legend: the names of the series.
    """

    of: str
    expr: str
    legend: str

    @property
    def labels(self) -> list[str]:
        """The labels that the names of the series contain."""
        return _LABEL.findall(self.legend)


def panels(dashboard: Json) -> Iterator[Json]:
    """Yield the panels, without the titles of rows."""
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel


def asked(panel: Json) -> list[Question]:
    """Return what a panel asks."""
    return [Question(panel["title"], one["expr"], one["legendFormat"]) for one in panel["targets"]]


def questions(dashboard: Json) -> list[Question]:
    """Return what the panels and the annotations ask."""
    found = [question for panel in panels(dashboard) for question in asked(panel)]
    return found + [Question(one["name"], one["expr"], one["textFormat"]) for one in dashboard["annotations"]["list"]]


def filled(text: str, values: Mapping[str, str]) -> str:
    """Replace the variables.

    Raises:
        KeyError: there is no value for one.
    """
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], text)


def named(legend: str, labels: Mapping[str, str]) -> str:
    """Return the name of a series with these labels."""
    return _LABEL.sub(lambda found: labels.get(found[1], ""), legend)
