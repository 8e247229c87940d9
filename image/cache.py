"""Keeps archives that take long to make in the user's cache folder. One process at a time makes them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.building import cache_folder
from devcluster.errors import DevclusterError
from devcluster.locking import locked
from devcluster.progress import Progress
from image.errors import ImageError

# How many versions of one archive are kept. Each change of the sources makes another version of the image.
KEPT = 3


def folder() -> Path:
    """Return the folder `image` in the project's cache folder. Raises ImageError if it cannot be created."""
    try:
        found = cache_folder() / "image"
        found.mkdir(parents=True, exist_ok=True)
    except (OSError, DevclusterError) as error:
        raise ImageError(f"the cache cannot be written ({error}): set XDG_CACHE_HOME") from error
    return found


def key_of(parts: Iterable[str | Path]) -> str:
    """Return a short digest of texts and of files (name, mode, content). Folders count with all files but bytecode."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(f"text {part}\n".encode())
            continue
        files = sorted(f for f in part.rglob("*") if f.is_file()) if part.is_dir() else [part]
        for file in files:
            if "__pycache__" not in file.parts and not any(p.endswith(".egg-info") for p in file.parts):
                name = file.relative_to(part.parent).as_posix()
                content = file.read_bytes()
                digest.update(f"file {name} {bool(os.access(file, os.X_OK))} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def kept(kind: str, key: str, make: Callable[[Path, Path], None], progress: Progress) -> Path:
    """Return the archive of this kind and key. If it is missing, `make(file, scratch folder)` makes it.

    If two processes want it at the same time, one makes it and the other waits for it. The scratch folder is removed at
    the end. If this process is killed, the next process removes it.
    """
    wanted = folder() / f"{kind}-{key}.tar"
    if not wanted.exists():
        with scratch(progress) as place:
            if not wanted.exists():  # another process may just have made it
                made = place / "made.tar"
                make(made, place)
                os.replace(made, wanted)
    os.utime(wanted)
    _forget(kind)
    return wanted


@contextmanager
def scratch(progress: Progress) -> Iterator[Path]:
    """Create a scratch folder for the body. Only one process at a time has one."""
    place = folder()
    with locked(place, "another process makes an image: waiting for it", progress):
        for left in place.glob("making-*"):  # left by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="making-", dir=place) as made:
            yield Path(made)


def _forget(kind: str) -> None:
    def used(file: Path) -> float:
        try:
            return file.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    for old in sorted(folder().glob(f"{kind}-*.tar"), key=used, reverse=True)[KEPT:]:
        old.unlink(missing_ok=True)
