"""What the image installs, fetched before its build, so that the build needs no network.

`build/wheelhouse` gets a wheel of each line of requirements/image.txt, checked by its hash, for every Python that the
project supports, since the base image decides which one it is; pip itself; and the project's own wheel.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from devcluster.progress import Progress
from image.errors import ImageError
from image.tools import run

ROOT = Path(__file__).parents[1]
WHEELHOUSE = ROOT / "build" / "wheelhouse"
PYTHONS = ("3.11", "3.12", "3.13")  # as in pyproject.toml
# The oldest glibc that has to do, and what newer wheels ask for: all below Debian bookworm's 2.36.
GLIBC = (17, 24, 26, 27, 28, 31, 34)
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def wheelhouse(progress: Progress, target: Path = WHEELHOUSE) -> Path:
    """Make the folder anew and return it. Raises ImageError, and then leaves the old one, if a wheel is missing."""
    progress.line(f"wheels: for Python {', '.join(PYTHONS)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wheels-", dir=target.parent) as made:
        new, build, source = Path(made, "new"), Path(made, "build"), Path(made, "source")
        _download(ROOT / "requirements/build.txt", build, PYTHONS[:1])
        _download(ROOT / "requirements/image.txt", new, PYTHONS)
        _own(source, build, new)
        for pip in build.glob("pip-*.whl"):
            shutil.copy2(pip, new)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(new, target)
    return target


def _pip(*arguments: str, doing: str, **environment: str) -> None:
    try:
        run([sys.executable, "-m", "pip", *arguments], doing, {**os.environ, **environment})
    except ImageError as error:
        hint = "Is a package index reachable? PIP_INDEX_URL names a mirror; the hashes are checked in any case."
        raise ImageError(f"{error}\n{hint}") from error


def _download(requirements: Path, folder: Path, pythons: tuple[str, ...]) -> None:
    machine = platform.machine().lower()
    machine = MACHINES.get(machine, machine)
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in GLIBC] + [
        f"--platform=manylinux2014_{machine}"
    ]
    for python in pythons:
        _pip(
            *("download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"),
            *("--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms),
            *(f"--dest={folder}", f"--requirement={requirements}"),
            doing=f"fetching the wheels of {requirements.name} for Python {python}",
        )


def _own(source: Path, build: Path, folder: Path) -> None:
    # From a copy: setuptools leaves a build folder behind, and takes what it finds in an old one.
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "operator/kopf_ha", source / "operator/kopf_ha", ignore=ignored)
    _pip(
        *("wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", f"--find-links={build}"),
        *(f"--wheel-dir={folder}", str(source)),
        doing="building the wheel of this project",
        PIP_FIND_LINKS="",  # the pinned setuptools alone
        SOURCE_DATE_EPOCH="315532800",  # the first that a zip can hold: the same sources give the same wheel
    )
