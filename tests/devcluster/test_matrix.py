"""What `make matrix` makes of pytest's reports: rows of a table in the documentation."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from devcluster import versions
from testbed import matrix
from testbed.matrix import AREAS, BEGIN, END, PAGE, ROOT, Outcome

REPORT = """<testsuites><testsuite>
<testcase classname="tests.fencing.test_cluster" name="test_a[x.y]"/>
<testcase classname="tests.fencing.test_cluster" name="test_b"><failure message="no"/></testcase>
<testcase classname="tests.ipam.test_ipam_crds" name="test_c"><skipped message="later"/></testcase>
<testcase classname="tests.election.test_faults" name="test_d"><error message="no cluster"/></testcase>
</testsuite></testsuites>"""
TABLE = "before\n" + BEGIN + "| Kubernetes | a |\n|---|---|\n| 1.34.4 | old |\n| 1.36.1 | old |\n" + END + "after\n"


def outcome() -> Outcome:
    made = Outcome("v1.36.3", "v3.6.8", date(2026, 11, 30))
    made.read(REPORT)
    return made


def test_tests_are_counted_by_area() -> None:
    assert outcome().row() == (
        "| 1.36.3 | 3.6.8 | 1 passed, 1 failed, 1 skipped | none ran | 1 failed | none ran | 2026-11-30 |\n"
    )


def test_those_that_failed_are_named() -> None:
    assert outcome().failed == ["tests/fencing/test_cluster.py::test_b", "tests/election/test_faults.py::test_d"]


def test_a_test_of_no_area_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"tests/demo/test_demo\.py belongs to no area"):
        outcome().read('<testsuite><testcase classname="tests.demo.test_demo" name="test_a"/></testsuite>')


def test_a_row_takes_the_place_of_its_minors_and_the_others_stay() -> None:
    page = matrix.written(TABLE, ["| 1.36.3 | new |\n", "| 1.9.1 | new |\n"])
    rows = "| 1.9.1 | new |\n| 1.34.4 | old |\n| 1.36.3 | new |\n"
    assert page == "before\n" + BEGIN + "| Kubernetes | a |\n|---|---|\n" + rows + END + "after\n"


def test_what_is_named_is_there() -> None:
    assert [part for parts in AREAS.values() for part in parts if not (ROOT / part).exists()] == []
    assert matrix.written(PAGE.read_text(), []) == PAGE.read_text()


def test_what_failed_ends_with_status_1_and_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(TABLE)
    monkeypatch.setattr(matrix, "PAGE", page)
    monkeypatch.setattr(matrix, "run", lambda minor: outcome())
    done = CliRunner().invoke(matrix.main, ["1.36"])
    assert done.exit_code == 1
    assert "failed on v1.36.3: tests/fencing/test_cluster.py::test_b" in done.output
    assert "| 1.36.3 | 3.6.8 |" in page.read_text()


def test_a_version_that_nobody_wrote_is_refused_before_anything_runs() -> None:
    done = CliRunner().invoke(matrix.main, ["1.36", "1.99"])
    assert done.exit_code == 2
    assert "1.99" in done.output


def test_the_page_tells_of_each_version_that_can_be_built() -> None:
    """All tests run on the one of devcluster/go.mod, which the first table says."""
    text, usual = PAGE.read_text(), versions.read().kubernetes[1:]
    assert f"| {usual}: all tests." in text
    named = [versions.read(path).kubernetes[1:] for path in versions.minors().values()]
    assert [one for one in named if one != usual and f"\n| {one} |" not in text] == []
