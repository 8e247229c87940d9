"""What is made of measured values: statistics, goals, tables, pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import report
from benchmarks.collect import write_docs
from benchmarks.plot import shown, svg
from benchmarks.report import Outcome
from benchmarks.result import Row, p99, rounds, rows_of

ROW = Row("first service", "s", [3.0, 1.0, 2.0], "few", [4.0], goals=["median <= 2", "most <= 2", "ratio <= 0.5"])


def test_goals_are_judged_by_all_values() -> None:
    assert ROW.ratio == 0.5
    assert ROW.missed() == ["most <= 2"]
    assert Row("claims", "claims/s", [50.0, 70.0], goals=["least >= 60"]).missed() == ["least >= 60"]


def test_99_of_100_do_not_exceed_the_p99() -> None:
    assert p99([float(n) for n in range(100, 0, -1)]) == 99
    assert p99([1.0, 2.0, 9.0]) == 9


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": []},
        {"values": [float("nan")]},
        {"values": [1.0], "peer": "few"},
        {"values": [1.0], "peer_values": [1.0]},
        {"values": [1.0], "goals": ["median < 1"]},
        {"values": [1.0], "goals": ["ratio <= 1"]},
    ],
)
def test_what_says_nothing_is_no_row(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^x: |is no goal"):
        rows_of([{"what": "x", "unit": "s", **wrong}])


def test_a_misspelt_field_is_an_error() -> None:
    with pytest.raises(TypeError, match="value"):
        rows_of([{"what": "x", "unit": "s", "value": [1.0]}])


def test_rounds_end_before_the_time_does() -> None:
    def clock(*longer: float) -> Iterator[float]:
        now = 0.0
        yield now
        for each in longer:
            now += each
            yield now

    ticks = clock(4, 1, 1, 1, 1, 1)
    assert list(rounds(9, least=1, most=20, clock=lambda: next(ticks))) == [0, 1, 2]
    assert list(rounds(0, least=3)) == [0, 1, 2]
    assert list(rounds(1000, most=4)) == [0, 1, 2, 3]


OUTCOMES = [
    Outcome("service", "done", rows=[ROW], date="2026-11-29", seconds=9.5, load=0.25),
    Outcome("start", "left out", "root only", rows=[]),
]
MACHINE = {"CPU": "one", "cores": "2"}


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    report.save(tmp_path, MACHINE, OUTCOMES)
    assert report.read(tmp_path) == (MACHINE, OUTCOMES)
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "results.md", "service.svg"}
    assert report.read(tmp_path / "none") == ({}, [])


def test_the_table_has_peer_ratio_spread_and_what_was_missed() -> None:
    page = report.page(MACHINE, OUTCOMES)
    assert "CPU: one, cores: 2." in page
    assert "| first service | 2.00 s (1.00–3.00), 3× | few | 4.00 s, 1× | 0.50 |" in page
    assert "most <= 2 **missed**" in page
    assert "left out: root only" in page


def test_blocks_of_a_page_are_replaced_and_the_rest_stays() -> None:
    text = "a\n<!-- bench:service -->\nold\n<!-- /bench -->\nb\n<!-- bench:cost -->\n<!-- /bench -->\n"
    text += "<!-- bench:missed -->\n<!-- /bench -->\nc\n"
    filled = report.fill(text, MACHINE, OUTCOMES)
    assert filled.startswith("a\n<!-- bench:service -->\n\n![service: ")
    assert "](../benchmarks/results/service.svg)\n\n2026-11-29, load 0.25" in filled
    assert "old" not in filled
    assert "Not measured yet: `make bench BENCH=cost`." in filled
    assert "- service: first service: most <= 2, was 3.00\n" in filled
    assert filled.endswith("<!-- /bench -->\nc\n")
    assert report.fill(filled, MACHINE, OUTCOMES) == filled


def test_the_tables_in_the_documentation_are_those_of_the_results_that_are_kept(tmp_path: Path) -> None:
    """So no number there is typed by hand: `python -m benchmarks.collect --docs` writes them."""
    copy = tmp_path / "page.md"
    copy.write_text(report.PAGE.read_text())
    write_docs(path=copy)
    assert copy.read_text() == report.PAGE.read_text()
    machine, outcomes = report.read(report.RESULTS)
    if outcomes:
        report.save(tmp_path, machine, outcomes)
        for made in tmp_path.glob("*.*"):
            assert made == copy or made.read_text() == (report.RESULTS / made.name).read_text()


SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("values", [[0.0], [0.0, 5.0], [0.001, 50.0], [1e6, 2e6], [3.0, 3.0], [0.2, 0.3]])
def test_a_picture_holds_all_of_its_bars(values: list[float]) -> None:
    rows = [Row("a < b", "s", values, "peer & more", [1.0]), Row("memory", "MB", [100.0])]
    root = ElementTree.fromstring(svg("service", rows))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    bars = [one.attrib for one in root.iter(f"{SVG}rect")]
    assert len(bars) == 1 + 3
    for bar in bars:
        assert 0 <= float(bar["x"]) < float(bar["x"]) + float(bar["width"]) <= width
        assert 0 <= float(bar["y"]) < float(bar["y"]) + float(bar["height"]) <= height
    texts = [(one.text, float(one.attrib["y"])) for one in root.iter(f"{SVG}text")]
    assert {"a < b", "peer & more", "100"} <= {text for text, _ in texts}
    assert all(0 < y < height for _, y in texts)


def test_long_names_and_numbers_stay_inside_the_picture() -> None:
    rows = [Row("x", "ms", [10_000.0, 9_000.0, 11_000.0], "kube-controller-manager, 10000 ReplicaSets", [1.0])]
    for one in ElementTree.fromstring(svg("service", rows)).iter(f"{SVG}text"):
        place, length = float(one.attrib["x"]), len(one.text or "") * 6.5  # a letter of 12 px, or a bit more
        left, right = (place - length, place) if one.get("text-anchor") == "end" else (place, place + length)
        assert one.get("text-anchor") == "middle" or (left >= 0 and right <= 760), one.text


def test_ours_is_drawn_once_beside_several_peers() -> None:
    picture = svg("peers", [Row("SIGTERM", "s", [0.1], peer, [1.0]) for peer in ("one", "other")])
    assert picture.count(">kopf-ha<") == 1
    assert picture.count('class="peer"') == 2


def test_numbers_show_what_counts() -> None:
    assert [shown(x) for x in (0, 0.0123, 0.5, 12.34, 12345.6)] == ["0.00", "0.012", "0.50", "12.3", "12,346"]
