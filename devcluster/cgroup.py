"""The one cgroup that holds all containers of a cluster's nodes, in each hierarchy that the machine has.

Its name is a path from the root of each.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.waiting import until

_ROOT = Path("/sys/fs/cgroup")
#: What a kubelet demands of its cgroup, as far as the machine has it (its cgroup_v2_manager_linux.go).
_CONTROLLERS = frozenset({"cpu", "cpuset", "memory", "hugetlb", "pids"})


def make(name: str) -> None:
    """Make it everywhere; a kubelet demands that its own exists. Raises DevclusterError if the machine refuses."""
    for hierarchy in _hierarchies():
        folder = hierarchy
        for part in Path(name.lstrip("/")).parts:
            if hierarchy == _ROOT:
                _hand_down(folder)
            folder /= part
            folder.mkdir(exist_ok=True)


def remove(name: str) -> None:
    """Remove it everywhere. Its processes are gone or going; raises DevclusterError if one stays."""
    for hierarchy in _hierarchies():
        top = hierarchy / name.lstrip("/")
        if top.is_dir():
            until(f"{top} to be empty", partial(_removed, top), 20)


def _hierarchies() -> list[Path]:
    """Version 2 has one; of version 1 there is one for each controller, and its links are not looked at twice."""
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    entries = _ROOT.iterdir() if _ROOT.is_dir() else ()
    return [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]


def _hand_down(folder: Path) -> None:
    """Let what is made in it have the controllers: in version 2 a cgroup has only those that its parent names."""
    here = set((folder / "cgroup.controllers").read_text().split())
    named = folder / "cgroup.subtree_control"
    wanted = sorted(_CONTROLLERS & here)
    try:
        if wanted:
            named.write_text(" ".join(f"+{controller}" for controller in wanted))
    except OSError as error:
        raise DevclusterError(
            f"a node needs cgroup controllers {', '.join(wanted)}, and {named} cannot name them ({error.strerror});"
            " inside of a container its own processes are in the way"
        ) from error


def _removed(top: Path) -> bool:
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            pass  # something in it is still dying
    return not top.exists()
