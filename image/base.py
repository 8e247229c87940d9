"""A replacement for the base image where no image registry can be reached: Debian with Debian's Python."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from devcluster.images import architecture, write_image
from devcluster.progress import Progress
from image import cache
from image.errors import ImageError
from image.tools import need, need_root, run_apart

SUITE = "bookworm"
PACKAGES = ("python3", "ca-certificates")
MIRROR = "http://deb.debian.org/debian"  # its packages are signed
TAG = f"kopf-ha-base:{SUITE}"
# Files that only apt or people read, and folders that the container runtime provides.
LEFT_OUT = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale",
            "dev", "proc", "sys", "tmp", "run")  # fmt: skip


def key() -> str:
    """Return the cache key: it depends on everything that the image is made from."""
    return cache.key_of([SUITE, architecture(), *PACKAGES, *LEFT_OUT])


def debian(progress: Progress, mirror: str = MIRROR) -> Path:
    """Return the archive of the image. If it is not in the cache, debootstrap makes it in about 90 s."""

    def make(file: Path, place: Path) -> None:
        need_root("make a base image with debootstrap")
        need("debootstrap", "make a base image")
        progress.line(f"base: {SUITE} with {', '.join(PACKAGES)} from {mirror}, a minute or two")
        root, layer = place / "root", place / "layer.tar"
        argv = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root), mirror]
        try:
            run_apart(argv, "making a base image", place / "log", {**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        except ImageError as error:
            raise ImageError(
                f"{error}\nIf {mirror} cannot be reached from here, choose another mirror with --mirror."
            ) from error
        with tarfile.open(layer, "w") as out:
            out.add(root, ".", filter=_kept)
        write_image(file, TAG, layer, {"Cmd": ["python3"], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]})

    return cache.kept("base", key(), make, progress)


def _kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = entry.name.removeprefix("./")
    if any(name.startswith(f"{left}/") for left in LEFT_OUT):
        return None  # the folders themselves stay
    entry.uname = entry.gname = ""
    return entry
