"""The one cgroup that holds all containers of a cluster's nodes, in each hierarchy that the machine has.

Its name is a path from the root of each.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from devcluster.waiting import until

_ROOT = Path("/sys/fs/cgroup")


def make(name: str) -> None:
    """Make it everywhere; a kubelet demands that its own exists."""
    for hierarchy in _hierarchies():
        (hierarchy / name.lstrip("/")).mkdir(parents=True, exist_ok=True)


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


def _removed(top: Path) -> bool:
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            pass  # something in it is still dying
    return not top.exists()
