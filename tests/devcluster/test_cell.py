"""What programs of a cell find, without making one."""

from __future__ import annotations

from pathlib import Path

import pytest

from devcluster.cell import Cell, run


def test_programs_of_root_are_found_whoever_became_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # as after `su` without a dash
    wanted = "/usr/bin:/bin:/usr/sbin:/sbin"
    assert run("sh", "-c", "echo $PATH").strip() == wanted
    cell = Cell("none", tmp_path / "log")
    assert cell.env is not None
    assert cell.env["PATH"] == wanted
