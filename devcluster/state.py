"""The folder of one cluster: its lock, its record of what runs, and how it is removed.

The lock is a POSIX record lock. The kernel releases it when its owner ends, in whatever way, and tells who the owner
is, so a stale process id is never trusted. A process loses such a lock when it closes *any* descriptor of the file. So
an owner never opens its own lock file again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import struct
from functools import partial
from pathlib import Path
from typing import Any

from devcluster import building, cgroup
from devcluster.errors import BusyError, DevclusterError
from devcluster.waiting import until

_LOCK, _RECORD = "devcluster.lock", "cluster.json"
_FLOCK = struct.Struct("hhqqi")  # struct flock: type, whence, start, len, pid

# the folders that this process owns: its own lock does not stop it
_ours: set[Path] = set()


def folder_for(name: str) -> Path:
    """Return the folder of the cluster with this name."""
    if not name or not all(letter.isalnum() or letter in "-_." for letter in name) or name.startswith("."):
        raise DevclusterError(f"{name!r} is not a valid name: use letters, digits, '-', '_' and '.'")
    return building.cache_folder() / "clusters" / name


class StateDir:
    """A cluster's folder. It need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._handle: int | None = None

    @property
    def tag(self) -> str:
        """The name of what the cluster creates outside of the folder. A later owner finds it by this name."""
        return f"dvc-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:8]}"

    @property
    def exists(self) -> bool:
        """Whether a cluster is or was here."""
        return (self.path / _LOCK).exists()

    def owner(self) -> int | None:
        """Return the process id of the owner, or None without one."""
        if self.path in _ours:
            return os.getpid()
        try:
            handle = os.open(self.path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            asked = fcntl.fcntl(handle, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        finally:
            os.close(handle)
        kind, _, _, _, pid = _FLOCK.unpack(asked)
        return None if kind == fcntl.F_UNLCK else int(pid)

    def acquire(self) -> None:
        """Become the owner, and remove what an earlier owner left.

        Raises:
            BusyError: another process is the owner.
            DevclusterError: the folder is not empty, and not the folder of a cluster.
        """
        if self.path in _ours:
            raise BusyError(f"this process runs a cluster in {self.path} already", os.getpid())
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.exists and any(name != _LOCK for name in os.listdir(self.path)):
            raise DevclusterError(f"{self.path} is not empty, and not the folder of a cluster")
        while True:
            handle = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(handle)
                pid = self.owner()
                if pid is None:  # it ended in between
                    continue
                raise BusyError(f"process {pid} runs a cluster in {self.path}", pid) from None
            # The owner before us may have removed the file while we opened it.
            if _same_file(handle, self.path / _LOCK):
                break
            os.close(handle)
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handle = handle
        _ours.add(self.path)
        self._clear()

    def release(self, remove: bool) -> None:
        """Stop being the owner. With `remove`, also remove the folder and everything in it."""
        if self._handle is None:
            return
        if remove:
            self._clear()
            # The lock file is removed last, while it is locked: only a folder that has it may be cleared.
            (self.path / _LOCK).unlink(missing_ok=True)
            try:
                self.path.rmdir()
            except OSError:
                pass  # another process acquires it at this moment
        os.close(self._handle)
        self._handle = None
        _ours.discard(self.path)

    def write(self, record: dict[str, Any]) -> None:
        """Write the record of what runs here. It is replaced atomically."""
        scratch = self.path / f".{_RECORD}.{os.getpid()}"
        scratch.touch(mode=0o600)
        scratch.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(scratch, self.path / _RECORD)

    def read(self) -> dict[str, Any] | None:
        """Return the record of what runs here, or None without one."""
        try:
            record: dict[str, Any] = json.loads((self.path / _RECORD).read_text())
        except FileNotFoundError:
            return None
        return record

    def _clear(self) -> None:
        # The record comes first: nobody should read of a cluster whose files are being removed.
        (self.path / _RECORD).unlink(missing_ok=True)
        cgroup.remove(f"/{self.tag}")
        for entry in self.path.iterdir():
            if entry.name == _LOCK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                # Children of a killed owner may still be ending, and write files.
                until(f"{entry} to be removed", partial(_removed, entry), timeout=10.0)
            else:
                entry.unlink()


def _removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
