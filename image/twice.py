"""Whether two archives hold the same image; if not, the files in which they differ."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from image.archive import opened

#: Files that are named.
SHOWN = 10


def differences(one: Path, other: Path) -> list[str]:
    """Say in which files two images differ, a sentence each; none if they have one digest.

    Raises ImageError if an archive is none of docker's.
    """
    (config, files), (other_config, other_files) = _read(one), _read(other)
    if config == other_config:
        return []
    found = [_sentence(path, files.get(path), other_files.get(path)) for path in sorted({*files, *other_files})
             if files.get(path) != other_files.get(path)]  # fmt: skip
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return [*found[:SHOWN], *more] or ["the files are the same, and the image's configuration differs"]


def _sentence(path: str, one: Any, other: Any) -> str:
    if one is None or other is None:
        return f"{path} is in one of them only"
    return f"{path}: {', '.join(name for name in one if one[name] != other[name])}"


def _read(archive: Path) -> tuple[str, dict[str, Any]]:
    """Give the digest of an image's configuration, which has those of all layers, and what each file is."""
    files: dict[str, Any] = {}
    with opened(archive) as (config, layers):
        for number, layer in enumerate(layers, 1):
            files |= {f"layer {number}: /{path}": what for path, what in _files(layer)}
    return hashlib.sha256(config).hexdigest(), files


def _files(layer: tarfile.TarFile) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, entry in enumerate(layer):
        content = layer.extractfile(entry) if entry.isfile() else None
        what = {
            "content": None if content is None else hashlib.sha256(content.read()).hexdigest(),
            "mode": (entry.type, entry.mode),
            "owner": (entry.uid, entry.gid, entry.uname, entry.gname),
            "time": entry.mtime,
            "link": entry.linkname,
            "attributes": dict(entry.pax_headers),
            "place in the layer": place,
        }
        yield entry.name.removeprefix("./"), what
