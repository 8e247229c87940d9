"""A lock on a folder of the cache: one process at a time. The kernel releases it when the process ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.progress import Progress


@contextmanager
def locked(folder: Path, waiting: str, progress: Progress) -> Iterator[None]:
    """Lock the folder, and create it if needed. Print `waiting` if another process has the lock.

    Raises DevclusterError if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / "lock").open("w")
    except OSError as error:
        raise DevclusterError(f"the cache cannot be written ({error}): set XDG_CACHE_HOME") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.line(waiting)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
