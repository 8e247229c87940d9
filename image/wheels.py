"""Fills `build/wheelhouse` with the wheels that the image installs, so that its build needs no network.

It contains a wheel for each line of requirements/image.txt, checked by its hash, for every Python that the project
supports (the base image decides which one is used), pip and setuptools, and the project's own wheel.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from devcluster.progress import Progress
from image import cache
from image.errors import ImageError
from image.tools import run

ROOT = Path(__file__).parents[1]
WHEELHOUSE = ROOT / "build" / "wheelhouse"
PYTHONS = ("3.11", "3.12", "3.13")  # as in pyproject.toml
# The oldest supported glibc, and those that newer wheels need. All are below Debian bookworm's 2.36.
GLIBC = (17, 24, 26, 27, 28, 31, 34)
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def wheelhouse(progress: Progress, target: Path = WHEELHOUSE, machine: str | None = None) -> Path:
    """Fill the folder, and return it. Wheels of others are downloaded only if their versions have changed.

    `machine` is an architecture such as arm64; without it, this machine's.

    Raises ImageError if a wheel cannot be downloaded. Then the old folder stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    pinned = [ROOT / "requirements" / name for name in ("build.txt", "image.txt")]
    key = cache.key_of([*pinned, *PYTHONS, *_platforms(machine)])
    with tempfile.TemporaryDirectory(prefix="wheels-", dir=target.parent) as made:
        new = Path(made, "new")
        if _read(target / "key") == key:
            shutil.copytree(target, new, ignore=shutil.ignore_patterns("kopf_ha-*"))
        else:
            progress.line(f"wheels: for Python {', '.join(PYTHONS)}")
            for requirements in pinned:
                for python in PYTHONS:
                    _download(requirements, new, python, machine)
            (new / "key").write_text(key)
        _own(Path(made, "source"), new)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(new, target)
    return target


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _pip(*arguments: str, doing: str, **environment: str) -> None:
    try:
        run([sys.executable, "-m", "pip", *arguments], doing, {**os.environ, **environment})
    except ImageError as error:
        hint = "Is a package index reachable? Set PIP_INDEX_URL to use a mirror; the hashes are always checked."
        raise ImageError(f"{error}\n{hint}") from error


def _platforms(machine: str | None) -> list[str]:
    machine = machine or platform.machine().lower()
    machine = MACHINES.get(machine, machine)
    return [f"--platform={name}_{machine}" for name in ("manylinux2014", *(f"manylinux_2_{n}" for n in GLIBC))]


def _download(requirements: Path, folder: Path, python: str, machine: str | None) -> None:
    _pip(
        *("download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"),
        *("--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *_platforms(machine)),
        *(f"--dest={folder}", f"--requirement={requirements}"),
        doing=f"fetching the wheels of {requirements.name} for Python {python}",
    )


def _own(source: Path, folder: Path) -> None:
    # Built from a copy: setuptools leaves a build folder behind, and would use files of an old one.
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "operator/kopf_ha", source / "operator/kopf_ha", ignore=ignored)
    _pip(
        *("wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", f"--find-links={folder}"),
        *(f"--wheel-dir={folder}", str(source)),
        doing="building the wheel of this project",
        PIP_FIND_LINKS="",  # only the pinned setuptools
        SOURCE_DATE_EPOCH="315532800",  # the earliest time in a zip file, so that the same sources give the same wheel
    )
