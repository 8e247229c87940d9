"""What the image holds, and what it does not."""

from __future__ import annotations

import re
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.wheels import ROOT
from kopf_ha import __version__
from testbed.unpacked import Image

pytestmark = pytest.mark.timeout(600)  # the first time it is made, from Debian's packages on

VENV = "opt/kopf-ha"


def on_top(image: Image) -> Iterator[tarfile.TarInfo]:
    """What the image adds to its base, which is its first layer."""
    with tarfile.open(image.archive) as packed:
        for layer in image.layers[1:]:
            content = packed.extractfile(layer)
            assert content is not None
            with content, tarfile.open(fileobj=content) as files:
                yield from files


def packages(image: Image) -> Path:
    (found,) = (image.root / VENV / "lib").glob("python3*/site-packages")
    return found


def test_it_is_small(image: Image) -> None:
    # 108 MB when this was written, 220 at most
    with tarfile.open(image.archive) as packed:
        assert sum(packed.getmember(layer).size for layer in image.layers[1:]) < 150_000_000


def test_it_adds_two_folders_that_only_root_can_write(image: Image) -> None:
    entries = list(on_top(image))
    assert len(entries) > 1000
    for entry in entries:
        name = entry.name.removeprefix("./").rstrip("/")
        assert name in ("", "opt", "app", VENV) or name.startswith((f"{VENV}/", "app/")), name
        assert (entry.uid, entry.gid) == (0, 0), name
        assert entry.issym() or not entry.mode & 0o022, f"{name} can be written by others"
        assert not entry.mode & 0o6000, f"{name} runs as somebody else"


def test_it_starts_the_command_itself_as_nobody(image: Image) -> None:
    config = image.config["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["kopf-ha"]
    script = (image.root / VENV / "bin/kopf-ha").read_text()
    assert script.startswith(f"#!/{VENV}/bin/python3\n")  # the kernel reads it, no shell


def test_its_label_has_the_projects_version(image: Image) -> None:
    labels = image.config["config"]["Labels"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == project["license"]


def test_it_holds_what_is_pinned_and_nothing_else(image: Image) -> None:
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements/image.txt").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    held = dict(folder.name.removesuffix(".dist-info").rsplit("-", 1) for folder in packages(image).glob("*.dist-info"))
    held = {name.replace("_", "-").lower(): version for name, version in held.items()}
    # so no pip, no setuptools
    assert held == {**pinned, project["name"]: __version__}


def test_the_client_that_no_fence_covers_is_left_out(image: Image) -> None:
    assert (packages(image) / "kubernetes/client").is_dir()
    assert not (packages(image) / "kubernetes/aio").exists()


def test_nothing_of_pip_and_setuptools_is_in_it_or_in_its_base(image: Image) -> None:
    found = {path.relative_to(image.root).as_posix() for path in image.root.rglob("*") if not path.is_symlink()}
    theirs = re.compile(
        r"(.*/)?((pip|setuptools|wheel)(-[^/]*\.(dist|egg)-info)?|ensurepip|(pip|setuptools)-[^/]*\.whl)"
    )
    assert [path for path in found if theirs.fullmatch(path)] == []


def test_nothing_of_the_machine_that_made_the_base_is_in_it(image: Image) -> None:
    for name in ("etc/hostname", "etc/resolv.conf", "var/lib/dpkg/status-old"):
        assert not (image.root / name).exists()
    assert list(image.root.glob("usr/share/doc/*/copyright")), "but the licenses of its packages are"
