"""A folder of the cache is worked in by one process at a time; the kernel ends a lock with its holder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.progress import Progress


@contextmanager
def locked(folder: Path, waiting: str, progress: Progress) -> Iterator[None]:
    """Hold the folder, which is made if need be; says `waiting` when another process holds it.

    Raises DevclusterError if it cannot be written.
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
