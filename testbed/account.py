"""The folder of a pod's service account, as a kubelet keeps it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Where a container sees it.
MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def project(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files into a new folder, and then move the link to it, so that they change at once."""
    made = folder / f"..{len(list(folder.glob('..*')))}"
    made.mkdir()
    for name, content in files.items():
        (made / name).write_text(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..new").symlink_to(made.name)
    (folder / "..new").rename(folder / "..data")


def seen_in(folder: Path, argv: Sequence[str]) -> list[str]:
    """Give the command line by which a program sees the folder where a container would; with its own process id."""
    mine = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = 'mount -t tmpfs run /var/run; mkdir -p "$1"; mount --bind "$0" "$1"; shift; exec "$@"'
    return ["unshare", "--mount", *mine, "--", "sh", "-euc", script, str(folder), str(MOUNTED), *argv]
