"""The cgroup of a cluster, on files that look like those of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from devcluster import cgroup
from devcluster.errors import DevclusterError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroup, "_ROOT", tmp_path)
    return tmp_path


def level(folder: Path, controllers: str) -> Path:
    """A cgroup of version 2; the kernel would make its files."""
    folder.mkdir(exist_ok=True)
    (folder / "cgroup.controllers").write_text(controllers)
    control = folder / "cgroup.subtree_control"
    control.touch()
    return control


def test_in_version_2_each_level_hands_the_controllers_down(root: Path) -> None:
    top = level(root, "cpuset cpu io memory pids")
    group = level(root / "dvc-1", "cpuset cpu memory pids")
    cgroup.make("/dvc-1/node-1")
    assert (root / "dvc-1/node-1").is_dir()
    assert top.read_text() == "+cpu +cpuset +memory +pids"
    assert group.read_text() == "+cpu +cpuset +memory +pids"


def test_a_machine_that_refuses_is_named(root: Path) -> None:
    top = level(root, "cpu memory")
    top.unlink()
    top.symlink_to("/dev/full")
    with pytest.raises(DevclusterError, match=r"needs cgroup controllers cpu, memory, .* cannot name them \(No space"):
        cgroup.make("/dvc-1")


def test_version_1_has_a_hierarchy_for_each_controller(root: Path) -> None:
    level(root / "unified", "hugetlb")
    (root / "cpu").mkdir()
    (root / "cpuacct").symlink_to("cpu")
    cgroup.make("/dvc-1/node-1")
    assert (root / "cpu/dvc-1/node-1").is_dir()
    assert (root / "unified/cgroup.subtree_control").read_text() == ""
    cgroup.remove("/dvc-1")
    assert not (root / "cpu/dvc-1").exists()
