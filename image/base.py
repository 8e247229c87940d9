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
# Folders whose files only apt or people read, or that the container runtime provides. Licences stay.
LEFT_OUT = ("var/cache", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale",
            "dev", "proc", "sys", "tmp", "run")  # fmt: skip
# What debootstrap copies from this machine, and what dpkg keeps of before.
FILES_LEFT_OUT = ("etc/hostname", "etc/resolv.conf", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-",
                  "var/lib/dpkg/status-old", "var/lib/dpkg/diversions-old")  # fmt: skip
# Files have one time, so that the same packages give the same image. It is the earliest one that a zip file can have.
EPOCH = 315532800


def key() -> str:
    """Return the cache key: it depends on everything that the image is made from."""
    return cache.key_of([SUITE, architecture(), *PACKAGES, Path(__file__)])


def debian(progress: Progress, mirror: str = MIRROR) -> Path:
    """Return the archive of the image. If it is not in the cache, debootstrap makes it in about 90 s."""

    def make(file: Path, place: Path) -> None:
        need_root("make a base image with debootstrap")
        need("debootstrap", "make a base image")
        progress.line(f"base: {SUITE} with {', '.join(PACKAGES)} from {mirror}, a minute or two")
        root, layer = place / "root", place / "layer.tar"
        argv = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root), mirror]
        # The epoch is also the day on which the passwords in /etc/shadow, of which there are none, were changed.
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "SOURCE_DATE_EPOCH": str(EPOCH)}
        try:
            run_apart(argv, "making a base image", place / "log", env)
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
    if any(name.startswith(f"{left}/") for left in LEFT_OUT) and not _tells_the_license(name):
        return None  # the folders themselves stay
    # Bytecode is made from the operator's point of view, in a folder of its own.
    if name in FILES_LEFT_OUT or "__pycache__" in name.split("/"):
        return None
    entry.uname = entry.gname = ""
    entry.mtime = EPOCH
    return entry


def _tells_the_license(name: str) -> bool:
    """Whether a file is a package's copyright, or the folder, or link to a folder, that has it."""
    parts = name.split("/")
    return parts[:3] == ["usr", "share", "doc"] and (len(parts) == 4 or parts[4:] == ["copyright"])
