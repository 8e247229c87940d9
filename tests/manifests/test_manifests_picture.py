"""How the dashboard is drawn for the docs, and that the picture there is of this dashboard. Without a Prometheus."""

from __future__ import annotations

import json
import math
from html import unescape
from typing import Any
from xml.etree import ElementTree

import pytest

from dashboard.draw import highest, line, nice, runs, svg
from dashboard.files import FILE
from dashboard.picture import PICTURE
from dashboard.prometheus import seconds_of
from dashboard.reading import panels

DASHBOARD = json.loads(FILE.read_text())
SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[str]:
    return [unescape(found.text or "") for found in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def answers(**series: list[tuple[str, list[tuple[float, str]]]]) -> dict[str, Any]:
    """What Prometheus says to the panels with these titles."""
    by_title = {panel["title"]: str(panel["id"]) for panel in panels(DASHBOARD)}
    shown = {
        by_title[title]: [{"name": name, "points": points} for name, points in found]
        for title, found in series.items()
    }  # fmt: skip
    return {"begin": 0.0, "end": 120.0, "panels": shown, "annotations": {}}


def test_the_picture_is_of_this_dashboard() -> None:
    told = {*texts(PICTURE.read_text())}
    assert {panel["title"] for panel in DASHBOARD["panels"]} <= told, "it is old: make picture"


def test_what_has_no_answer_says_so() -> None:
    told = texts(svg(DASHBOARD, answers()))
    assert {"nobody", "unknown", "no alert fires", "no data: it did not happen"} <= {*told}


def test_names_numbers_and_words() -> None:
    told = texts(
        svg(
            DASHBOARD,
            answers(
                **{
                    "Leader": [("pod-a", [(120.0, "1")])],
                    "Leads for": [("term", [(120.0, "600")])],
                    "Paused": [("paused", [(120.0, "1")])],
                    "Open files": [("pod-a", [(0.0, "0.5"), (2.0, "0.25")])],
                    "Latency": [("p99", [(0.0, "0.05"), (2.0, "NaN"), (4.0, "0.04")])],
                }
            ),
        )
    )
    assert {"pod-a", "10.0 min", "paused", "p99"} <= {*told}
    assert {"60.0 %", "60.0 ms"} <= {*told}, "the axes"


def test_a_name_cannot_be_markup() -> None:
    assert "<b>&" in texts(svg(DASHBOARD, answers(Memory=[("<b>&", [(0.0, "1")])])))


def test_a_band_ends_where_the_value_changes_or_nothing_was_scraped() -> None:
    points = [(0, "0"), (2, "1"), (4, "1"), (6, "1"), (12, "1"), (14, "0")]
    assert [*runs(points)] == [(0, 2, 0), (2, 8, 1), (12, 14, 1), (14, 16, 0)]
    assert [*runs([])] == []


def test_a_line_has_a_gap_where_nothing_was_scraped() -> None:
    def same(value: float) -> float:
        return value

    assert line([(0, 1), (2, 1), (9, 1)], same, same, 5) == "M0.0 1.0L2.0 1.0M9.0 1.0"


@pytest.mark.parametrize(("most", "mark"), [(1.0, 0.5), (14.9, 5), (0.03, 0.01), (7, 5)])
def test_axes_have_round_numbers(most: float, mark: float) -> None:
    assert math.isclose(nice(most, 3), mark)


def test_bars_are_stacked() -> None:
    series = [{"points": [[0, "1"], [2, "3"]]}, {"points": [[2, "2"], [4, "NaN"]]}]
    assert highest(series, stacked=True) == 5
    assert highest(series, stacked=False) == 3
    assert highest([], stacked=True) == 1


def test_durations() -> None:
    assert [seconds_of(text) for text in ("", "30s", "1m", "1h5m")] == [0, 30, 60, 3900]
