"""The image that examples/pod.yaml uses, for nodes that cannot reach a registry: Debian's static busybox."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from devcluster.images import write_image
from devcluster.progress import Progress
from image import cache
from image.errors import NotHereError
from image.tools import run

TAG = "docker.io/library/busybox:latest"


def busybox(progress: Progress) -> Path:
    """Return the archive of an image with busybox's shell and programs."""
    program = _program()
    links = run([str(program), "--list"], "asking busybox for its programs").split()

    def make(file: Path, place: Path) -> None:
        layer = place / "layer.tar"
        with tarfile.open(layer, "w") as out:
            for name, mode in (("bin", 0o755), ("tmp", 0o1777)):
                folder = tarfile.TarInfo(name)
                folder.type, folder.mode = tarfile.DIRTYPE, mode
                out.addfile(folder)
            entry = tarfile.TarInfo("bin/busybox")
            entry.size, entry.mode = program.stat().st_size, 0o755
            with program.open("rb") as content:
                out.addfile(entry, content)
            for name in links:
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o777
                if name != "busybox":
                    out.addfile(link)
        write_image(file, TAG, layer, {"Cmd": ["sh"], "Env": ["PATH=/bin"]})

    return cache.kept("busybox", cache.key_of([program, TAG, Path(__file__)]), make, progress)


def _program() -> Path:
    found = shutil.which("busybox")
    if found is None or _has_interpreter(Path(found)):
        raise NotHereError("a static busybox is needed for this image: install the Debian package busybox-static.")
    return Path(found)


def _has_interpreter(program: Path) -> bool:
    """Return whether a 64-bit ELF program names a loader (program header PT_INTERP, elf(5)): then it is not static."""
    content = program.read_bytes()
    offset, size, count = (int.from_bytes(content[a:b], "little") for a, b in ((32, 40), (54, 56), (56, 58)))
    headers = (content[offset + n * size :] for n in range(count))
    return any(int.from_bytes(header[:4], "little") == 3 for header in headers)
