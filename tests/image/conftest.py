"""The image on its stand-in base, made once, and its files.

Without root, buildah or debootstrap the tests that need it are skipped with the sentence, except in CI.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from devcluster import Progress
from image import base, build
from image.errors import NotHereError
from image.tools import need
from tests.image.container import Container

T = TypeVar("T")


@dataclass(frozen=True)
class Image:
    """A docker-archive, and where its files are unpacked: they are changed by no test."""

    archive: Path
    root: Path
    config: dict[str, Any]
    layers: list[str]


def or_skip(make: Callable[[], T]) -> T:
    try:
        return make()
    except NotHereError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def archive() -> Path:
    """The archive that `scripts/image --debian` gives."""
    return or_skip(lambda: build.on_debian(Progress(sys.stderr), base.MIRROR))


@pytest.fixture(scope="session")
def image(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image, unpacked as a node would: with owners and modes."""
    folder = tmp_path_factory.mktemp("image")
    root = folder / "root"
    root.mkdir()
    with tarfile.open(archive) as packed:
        (manifest,) = read_json(packed, "manifest.json")
        config = read_json(packed, manifest["Config"])
        for layer in manifest["Layers"]:
            content = packed.extractfile(layer)
            assert content is not None
            with content, (folder / "layer.tar").open("wb") as out:
                while block := content.read(1 << 20):
                    out.write(block)
            unpack = ["tar", "-x", "-p", "--numeric-owner", "-f", str(folder / "layer.tar"), "-C", str(root)]
            subprocess.run(unpack, check=True)
            (folder / "layer.tar").unlink()
    return Image(archive, root, config, manifest["Layers"])


Start = Callable[..., Container]


@pytest.fixture
def start(image: Image, tmp_path: Path) -> Iterator[Start]:
    """Start a program in the image as a node would; it is gone when the test ends."""
    or_skip(lambda: need("runc", "run the image"))
    with ExitStack() as stack:

        def started(*argv: str, **more: Any) -> Container:
            return stack.enter_context(Container(tmp_path, image.root, image.config["config"], argv, **more))

        yield started


def read_json(packed: tarfile.TarFile, name: str) -> Any:
    content = packed.extractfile(name)
    assert content is not None
    with content:
        return json.loads(content.read())
