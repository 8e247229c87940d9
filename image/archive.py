"""Reads an image's archive, as docker writes it: the image's configuration, and its layers."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from image.errors import ImageError


@contextmanager
def opened(archive: Path) -> Iterator[tuple[bytes, Iterator[tarfile.TarFile]]]:
    """Give the configuration, and the layers one after the other, the lowest first.

    Raises ImageError if the archive is none of docker's, also for what the body cannot read in it.
    """
    try:
        with tarfile.open(archive) as packed:
            (manifest,) = json.loads(_content(packed, "manifest.json"))
            yield _content(packed, manifest["Config"]), _layers(packed, manifest["Layers"])
    except (OSError, KeyError, TypeError, ValueError, tarfile.TarError) as error:
        raise ImageError(f"{archive} cannot be read as a docker archive: {error}") from error


def _layers(packed: tarfile.TarFile, names: list[str]) -> Iterator[tarfile.TarFile]:
    for name in names:
        with tarfile.open(fileobj=packed.extractfile(name)) as layer:
            yield layer


def _content(packed: tarfile.TarFile, name: str) -> bytes:
    found = packed.extractfile(name)
    if found is None:
        raise ValueError("a folder stands where a file should")
    return found.read()
