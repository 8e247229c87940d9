"""Builds the operator's image: with docker if its engine answers, else with buildah, which needs root but no engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from devcluster.progress import Progress
from image import base, cache, twice, wheels
from image.errors import ImageError
from image.tools import need, need_root, run, run_apart
from kopf_ha import __version__

ROOT = wheels.ROOT
# The files that the image is built from, besides its base image.
SOURCES = ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "requirements", "operator",
           "image/wheels.py", "image/build.py")  # fmt: skip


def tag() -> str:
    """Return the image's name with the project's version, as deploy/ uses it."""
    return f"kopf-ha-ipam:{__version__}"


def on_debian(progress: Progress, mirror: str) -> Path:
    """Return the archive of the image on the Debian base. It is kept in the cache until one of its sources changes."""
    key = cache.key_of([base.key(), *(ROOT / name for name in SOURCES)])
    stand_in = base.debian(progress, mirror)

    def make(file: Path, place: Path) -> None:
        if docker_answers():
            run(["docker", "load", "--input", str(stand_in)], "loading the base image")
            _docker(file, base.TAG, progress)
        else:
            _buildah(file, f"docker-archive:{stand_in}", place, progress)

    return cache.kept("operator", key, make, progress)


def on(image: str | None, file: Path, progress: Progress, machine: str | None = None) -> None:
    """Build the image on a base from a registry (None: the Dockerfile's own), and write its archive.

    `machine` is the architecture as images name it, such as arm64; without it, this machine's. The build runs programs
    of that architecture, so for another one the kernel has to emulate it (qemu-user-static).
    """
    with cache.scratch(progress) as place:
        made = place / "made.tar"
        if docker_answers():
            _docker(made, image, progress, machine)
        else:
            _buildah(made, image, place, progress, machine)
        put(made, file)


def again(made: Path, image: str | None, mirror: str | None, progress: Progress, machine: str | None = None) -> None:
    """Build the image that `made` has once more, from nothing but its base and the wheels that were fetched.

    Give the base as `image`, or the `mirror` for the Debian one. Raises ImageError if it is not the same image.
    """
    if docker_answers():
        raise ImageError(
            "docker writes the time of the build into the layers, so no two of its builds are one image. "
            "Run it where no docker engine answers: then buildah builds both."
        )
    source = image if mirror is None else f"docker-archive:{base.debian(progress, mirror)}"
    with cache.scratch(progress) as place:
        file = place / "again.tar"
        _buildah(file, source, place, progress, machine)
        if found := twice.differences(made, file):
            raise ImageError("\n  ".join(["two builds of the same sources gave two images:", *found]))
    progress.line("image: two builds, one digest")


def put(source: Path, file: Path) -> None:
    """Copy a file. The target appears only when it is complete."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".copying-", dir=file.parent) as near:
            os.replace(shutil.copyfile(source, Path(near, "copy")), file)
    except OSError as error:
        raise ImageError(f"{file} cannot be written: {error}") from error


def docker_answers() -> bool:
    """Return whether a docker engine can be used here. A docker client without an engine cannot."""
    if shutil.which("docker") is None:
        return False
    try:
        asked = subprocess.run(["docker", "version", "--format={{.Server.Version}}"], capture_output=True, timeout=10)
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


def _docker(file: Path, image: str | None, progress: Progress, machine: str | None = None) -> None:
    wheels.wheelhouse(progress, machine=machine)
    progress.line(f"image: {tag()} by docker")
    run(["docker", "build", *_platform(machine), *_base(image), "--tag", tag(), str(ROOT)], "building the image")
    run(["docker", "save", "--output", str(file), tag()], "saving the image")


def _buildah(file: Path, image: str | None, place: Path, progress: Progress, machine: str | None = None) -> None:
    need_root("build an image without a docker engine")
    need("buildah", "build an image without a docker engine")
    wheels.wheelhouse(progress, machine=machine)
    progress.line(f"image: {tag()} by buildah")
    # A separate store, which is removed with the scratch folder.
    name = f"docker.io/library/{tag()}"  # the full form of a name without a registry, as nodes use it
    store = ["buildah", "--root", str(place / "store"), "--runroot", str(place / "run"), "--storage-driver", "vfs"]
    # One time for all that it makes, so that the same sources give the same image.
    build = ["build", "--isolation", "chroot", "--timestamp", str(base.EPOCH), *_platform(machine), *_base(image)]
    build += ["--tag", name, "--file", str(ROOT / "Dockerfile")]
    try:
        run_apart([*store, *build, str(ROOT)], "building the image", place / "build.log")
    except ImageError as error:
        hint = "If the base image cannot be pulled from a registry here: scripts/image --debian makes a replacement."
        raise ImageError(f"{error}\n{hint}" if "docker-archive:" not in (image or "") else str(error)) from error
    run_apart([*store, "push", name, f"docker-archive:{file}:{name}"], "writing the image", place / "push.log")


def _base(image: str | None) -> list[str]:
    return [] if image is None else ["--build-arg", f"BASE={image}"]


def _platform(machine: str | None) -> list[str]:
    return [] if machine is None else [f"--platform=linux/{machine}"]
