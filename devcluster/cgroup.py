"""The cgroup that holds all containers of a cluster's nodes, in each cgroup hierarchy of the machine.

Its name is a path from the root of each hierarchy.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.waiting import until

_ROOT = Path("/sys/fs/cgroup")
#: The controllers that a kubelet demands of its cgroup, where the machine has them (cgroup_v2_manager_linux.go).
_CONTROLLERS = frozenset({"cpu", "cpuset", "memory", "hugetlb", "pids"})


def make(name: str) -> None:
    """Create it in each hierarchy: a kubelet demands that its cgroup exists. Raises DevclusterError if that fails."""
    for hierarchy in _hierarchies():
        folder = hierarchy
        for part in Path(name.lstrip("/")).parts:
            if hierarchy == _ROOT:
                _hand_down(folder)
            folder /= part
            folder.mkdir(exist_ok=True)


def remove(name: str) -> None:
    """Remove it from each hierarchy, once its processes have ended. Raises DevclusterError if one does not end."""
    for hierarchy in _hierarchies():
        top = hierarchy / name.lstrip("/")
        if top.is_dir():
            until(f"{top} to be empty", partial(_removed, top), 20)


def _hierarchies() -> list[Path]:
    """Return the hierarchies: one with cgroup v2, one per controller with v1. Links to them are skipped."""
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    entries = _ROOT.iterdir() if _ROOT.is_dir() else ()
    return [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]


def _hand_down(folder: Path) -> None:
    """Enable the controllers for child cgroups: with cgroup v2, the parent has to name them."""
    here = set((folder / "cgroup.controllers").read_text().split())
    named = folder / "cgroup.subtree_control"
    wanted = sorted(_CONTROLLERS & here)
    try:
        if wanted:
            named.write_text(" ".join(f"+{controller}" for controller in wanted))
    except OSError as error:
        raise DevclusterError(
            f"a node needs cgroup controllers {', '.join(wanted)}, but {named} cannot name them ({error.strerror});"
            " in a container, this fails because of the container's own processes"
        ) from error


def _removed(top: Path) -> bool:
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            pass  # something in it is still dying
    return not top.exists()
