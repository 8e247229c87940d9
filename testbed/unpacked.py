"""The image's archive, and its files unpacked as a node would."""

from __future__ import annotations

import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Image:
    """A docker-archive, and where its files are unpacked: they are changed by nobody."""

    archive: Path
    root: Path
    config: dict[str, Any]
    layers: list[str]


def unpack(archive: Path, folder: Path) -> Image:
    """Unpack it into the folder's `root`, with owners and modes, which needs root."""
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


def read_json(packed: tarfile.TarFile, name: str) -> Any:
    content = packed.extractfile(name)
    assert content is not None
    with content:
        return json.loads(content.read())
