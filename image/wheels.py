"""What the image installs, fetched before its build, so that the build needs no network.

`build/wheelhouse` gets a wheel of each line of requirements/image.txt, checked by its hash, for every Python that the
project supports, since the base image decides which one it is; pip and setuptools; and the project's own wheel.
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
# The oldest glibc that has to do, and what newer wheels ask for: all below Debian bookworm's 2.36.
GLIBC = (17, 24, 26, 27, 28, 31, 34)
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def wheelhouse(progress: Progress, target: Path = WHEELHOUSE) -> Path:
    """Make the folder anew and return it; what others made is fetched only if other versions are wanted than it has.

    Raises ImageError, and then leaves the old folder, if a wheel cannot be had.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    pinned = [ROOT / "requirements" / name for name in ("build.txt", "image.txt")]
    key = cache.key_of([*pinned, *PYTHONS, *_platforms()])
    with tempfile.TemporaryDirectory(prefix="wheels-", dir=target.parent) as made:
        new = Path(made, "new")
        if _read(target / "key") == key:
            shutil.copytree(target, new, ignore=shutil.ignore_patterns("kopf_ha-*"))
        else:
            progress.line(f"wheels: for Python {', '.join(PYTHONS)}")
            for requirements in pinned:
                for python in PYTHONS:
                    _download(requirements, new, python)
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
        hint = "Is a package index reachable? PIP_INDEX_URL names a mirror; the hashes are checked in any case."
        raise ImageError(f"{error}\n{hint}") from error


def _platforms() -> list[str]:
    machine = platform.machine().lower()
    machine = MACHINES.get(machine, machine)
    return [f"--platform={name}_{machine}" for name in ("manylinux2014", *(f"manylinux_2_{n}" for n in GLIBC))]


def _download(requirements: Path, folder: Path, python: str) -> None:
    _pip(
        *("download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"),
        *("--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *_platforms()),
        *(f"--dest={folder}", f"--requirement={requirements}"),
        doing=f"fetching the wheels of {requirements.name} for Python {python}",
    )


def _own(source: Path, folder: Path) -> None:
    # From a copy: setuptools leaves a build folder behind, and takes what it finds in an old one.
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "operator/kopf_ha", source / "operator/kopf_ha", ignore=ignored)
    _pip(
        *("wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", f"--find-links={folder}"),
        *(f"--wheel-dir={folder}", str(source)),
        doing="building the wheel of this project",
        PIP_FIND_LINKS="",  # the pinned setuptools alone
        SOURCE_DATE_EPOCH="315532800",  # the first that a zip can hold: the same sources give the same wheel
    )
