"""The one cgroup that holds all containers of a cluster's nodes, in each hierarchy that the machine has."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path

from devcluster.waiting import until

_ROOT = Path("/sys/fs/cgroup")


def name_for(state: Path) -> str:
    """Its path from the root of each hierarchy; the state folder's, so that a later owner finds it, too."""
    return f"/devcluster-{hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:12]}"


def remove(name: str) -> None:
    """Remove it everywhere. Its processes are gone or going; raises DevclusterError if one stays."""
    if not _ROOT.is_dir():
        return
    for hierarchy in [_ROOT, *(entry for entry in _ROOT.iterdir() if entry.is_dir())]:
        top = hierarchy / name.lstrip("/")
        if top.is_dir():
            until(f"{top} to be empty", partial(_removed, top), 20)


def _removed(top: Path) -> bool:
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            pass  # something in it is still dying
    return not top.exists()
