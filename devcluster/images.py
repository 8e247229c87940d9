"""Writes container images of one layer as docker archives, which docker, buildah, containerd and kind can read.

The format is moby's image specification v1.2: manifest.json names a config, tags and layers.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def architecture() -> str:
    """Return this machine's architecture, as images name it."""
    machine = platform.machine().lower()
    return ARCHITECTURES.get(machine, machine)


def write_image(file: Path, tag: str, layer: Path, config: Mapping[str, Any]) -> None:
    """Write an image to `file`: one layer (a tar) with one tag. `config` is the container's configuration."""
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    image = {
        "architecture": architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "devcluster"}],
    }
    described = json.dumps(image, sort_keys=True).encode()
    name = f"{hashlib.sha256(described).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": [f"{digest}.tar"]}]).encode()
    with tarfile.open(file, "w") as out:
        out.add(layer, f"{digest}.tar", filter=_plain)
        for title, text in ((name, described), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(title)
            entry.size = len(text)
            out.addfile(entry, io.BytesIO(text))


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def single_program(program: Path, args: Sequence[str], tag: str, file: Path) -> Path:
    """Write an image with one static program, which its containers run with `args`, as user nobody."""
    with tempfile.TemporaryDirectory() as scratch:
        layer = Path(scratch, "layer.tar")
        with tarfile.open(layer, "w") as out:
            out.add(program.resolve(), f"bin/{program.name}", filter=_program)
        write_image(file, tag, layer, {"Entrypoint": [f"/bin/{program.name}", *args], "User": "65535:65535"})
    return file


def _program(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode = 0o755
    return _plain(entry)
