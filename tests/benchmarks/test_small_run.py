"""A benchmark, in small, from real processes to a picture."""

from __future__ import annotations

from pathlib import Path

from benchmarks import report
from benchmarks.first_handler import Place, measure
from benchmarks.report import Outcome
from devcluster import Cluster


def test_one_round_gives_a_row_with_its_peer(cluster: Cluster, tmp_path: Path) -> None:
    row = measure(Place(cluster, tmp_path), role_only=False, turns=range(1))
    assert len(row.values) == len(row.peer_values) == 1
    report.save(tmp_path / "results", {}, [Outcome("first_handler", "done", rows=[row])])
    assert "kopf run" in (tmp_path / "results" / "results.md").read_text()
    assert "kopf run" in (tmp_path / "results" / "first_handler.svg").read_text()
