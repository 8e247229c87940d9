"""The image on its stand-in base, made once, and its files.

Without root, buildah or debootstrap the tests that need it are skipped with the sentence, except in CI.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from devcluster import Progress
from image import base, build
from image.errors import NotHereError
from image.tools import need
from testbed.container import Container
from testbed.unpacked import Image, unpack

T = TypeVar("T")


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
    return unpack(archive, tmp_path_factory.mktemp("image"))


Start = Callable[..., Container]


@pytest.fixture
def start(image: Image, tmp_path: Path) -> Iterator[Start]:
    """Start a program in the image as a node would; it is gone when the test ends."""
    or_skip(lambda: need("runc", "run the image"))
    with ExitStack() as stack:

        def started(*argv: str, **more: Any) -> Container:
            return stack.enter_context(Container(tmp_path, image.root, image.config["config"], argv, **more))

        yield started
