"""A cgroup for the memory of one pod, where the machine has the controller and lets us use it.

A process is put into it when it starts (`faults.confined`): today's kernels leave memory that a process has already to
the group in which it got it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
#: Of what the group has, so much is left. Without swap the kernel can only take back pages of files, such as the code
#: that runs, and refuses a limit below what is left then.
PARTS = (0.75, 0.85, 0.95, 1.0)


def _files() -> tuple[Path, str, str, str] | None:
    """Return where groups are made, and the names of their limit, its absence, and what they have."""
    if (_V1 / "memory.limit_in_bytes").exists():
        return _V1, "memory.limit_in_bytes", "-1", "memory.usage_in_bytes"
    with contextlib.suppress(OSError):
        if "memory" in (_V2 / "cgroup.subtree_control").read_text():
            return _V2, "memory.max", "max", "memory.current"
    return None


def missing() -> str:
    """Say why memory cannot be limited; empty if it can."""
    found = _files()
    if found is None:
        return "the machine has no cgroup controller for memory"
    if not os.access(found[0], os.W_OK):
        return "cgroups need root"
    return ""


class Group:
    """A cgroup, without a limit at first.

    Raises:
        OSError: it cannot be made; `missing` says why.
    """

    def __init__(self) -> None:
        found = _files()
        if found is None:
            raise OSError(missing())
        top, self._limit, self._none, self._has = found
        self.folder = top / f"kopf-ha-faults-{secrets.token_hex(4)}"
        self.folder.mkdir()

    def squeeze(self) -> None:
        """Leave it less memory than it has, or no more than that.

        Raises:
            OSError: the kernel takes none of these limits.
        """
        has = int((self.folder / self._has).read_text())
        for part in PARTS:
            with contextlib.suppress(OSError):
                (self.folder / self._limit).write_text(str(int(has * part)))
                return
        raise OSError(f"the kernel can take back none of the {has} bytes of {self.folder}")

    def loosen(self) -> None:
        """Lift the limit."""
        with contextlib.suppress(OSError):
            (self.folder / self._limit).write_text(self._none)

    def remove(self) -> None:
        """Remove it; its processes have ended."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()
