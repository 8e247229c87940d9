"""Limits the memory of one process, where the machine has the cgroup controller and lets us use it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from faults.seat import memory

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
#: Of what a process has, so much is left, if the kernel can take the rest back: with swap, or of files.
LEFT = 0.75


def _top() -> tuple[Path, str] | None:
    if (_V1 / "memory.limit_in_bytes").exists():
        return _V1, "memory.limit_in_bytes"
    if "memory" in _read(_V2 / "cgroup.subtree_control"):
        return _V2, "memory.max"
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def missing() -> str:
    """Say why memory cannot be limited; empty if it can."""
    found = _top()
    if found is None:
        return "the machine has no cgroup controller for memory"
    if not os.access(found[0], os.W_OK):
        return "cgroups need root"
    return ""


class Group:
    """A cgroup with one process."""

    def __init__(self, folder: Path, limit: str) -> None:
        self.folder, self._limit = folder, limit

    def release(self) -> None:
        """Lift the limit, and remove the group if its process has ended."""
        try:
            (self.folder / self._limit).write_text("-1" if self._limit.endswith("in_bytes") else "max")
            for pid in (self.folder / "cgroup.procs").read_text().split():
                (self.folder.parent / "cgroup.procs").write_text(pid)
            self.folder.rmdir()
        except OSError:
            pass  # what is left is an empty group


def squeeze(pid: int) -> Group:
    """Give a process less memory than it has."""
    found = _top()
    if found is None:
        raise OSError(missing())
    top, limit = found
    folder = top / f"kopf-ha-faults-{secrets.token_hex(4)}"
    folder.mkdir()
    if limit == "memory.limit_in_bytes":  # pages that it has already count with it, too
        (folder / "memory.move_charge_at_immigrate").write_text("3")
    (folder / "cgroup.procs").write_text(str(pid))
    has = memory(pid)
    for part in (LEFT, 0.85, 0.95, 1.0, 1.05):
        try:
            (folder / limit).write_text(str(int(has * part)))
            break
        except OSError:
            continue  # without swap, the kernel refuses a limit below what it cannot take back
    return Group(folder, limit)
