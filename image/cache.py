"""Keeps what takes long to make, in the user's cache folder: whole or not at all, and made by one process at a time."""

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

# Of one thing in several versions (the image, with each change of the sources) as many are kept.
KEPT = 3


def folder() -> Path:
    """Where images are kept: `image` under the project's cache folder. Raises ImageError if it cannot be made."""
    try:
        found = cache_folder() / "image"
        found.mkdir(parents=True, exist_ok=True)
    except (OSError, DevclusterError) as error:
        raise ImageError(f"the cache cannot be written ({error}): set XDG_CACHE_HOME") from error
    return found


def key_of(parts: Iterable[str | Path]) -> str:
    """A short digest of texts and of files: names, modes and contents; of folders, all below but bytecode."""
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
    """Return the archive of that kind and key, made by `make(file, scratch folder)` if it is not there.

    Two at once: one makes it, the other waits and takes it. The scratch folder is removed at the end, and by the
    next one if this process is killed.
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
    """A folder for one's work, while no other process has one."""
    place = folder()
    with locked(place, "another process makes an image: waiting for it", progress):
        for left in place.glob("making-*"):  # by a process that was killed
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
