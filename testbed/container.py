"""Runs the image's files by runc, as a node does, with the security context of deploy/ and no network unless asked."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from devcluster import Process


class Container(Process):
    """One container: started and stopped as a process, which is runc's; its output is in `log_path`.

    Args:
        root: the image's files, mounted read-only.
        config: the image's own configuration, for user and environment.
        argv: the program; with the image's entrypoint if it is to be that.
        env: more of the environment.
        files: files and folders of the host, by the path, which exists in the image or is in `scratch`, at which the
            container finds them.
        scratch: folders in memory that it may write to, as an emptyDir.
        network: the host's; without it there is none, not even a loopback.
    """

    def __init__(
        self,
        folder: Path,
        root: Path,
        config: Mapping[str, Any],
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        files: Mapping[str, Path] | None = None,
        scratch: Sequence[str] = (),
        network: bool = False,
    ) -> None:
        self.id = f"kopf-ha-test-{secrets.token_hex(4)}"
        self.folder = folder / self.id
        self.folder.mkdir()
        spec = specification(root, config, argv, env or {}, files or {}, scratch, network)
        (self.folder / "config.json").write_text(json.dumps(spec))
        self._runc = ["runc", "--root", str(folder / "runc")]
        run = [*self._runc, "run", "--bundle", str(self.folder), self.id]
        super().__init__(self.id, run, None, self.folder / "log")

    def __enter__(self) -> Container:
        super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        subprocess.run([*self._runc, "delete", "--force", self.id], capture_output=True)

    @property
    def log(self) -> str:
        """What it said so far."""
        return self.log_path.read_text() if self.log_path and self.log_path.exists() else ""


def specification(
    root: Path,
    config: Mapping[str, Any],
    argv: Sequence[str],
    env: Mapping[str, str],
    files: Mapping[str, Path],
    scratch: Sequence[str],
    network: bool,
) -> dict[str, Any]:
    """What the kubelet and containerd would tell runc, in the words of the OCI runtime specification."""
    user, group = (int(number) for number in config["User"].split(":"))
    mounts: list[dict[str, Any]] = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    for path in scratch:
        mounts.append({"destination": path, "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777", "size=1m"]})
    for path, source in files.items():
        mounts.append({"destination": path, "type": "bind", "source": str(source), "options": ["bind", "ro"]})
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": True},
        "mounts": mounts,
        "process": {
            "args": list(argv),
            "cwd": config.get("WorkingDir") or "/",
            "env": [*config["Env"], *(f"{name}={value}" for name, value in env.items())],
            "user": {"uid": user, "gid": group},
            "capabilities": {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            "noNewPrivileges": True,
        },
        "linux": {
            # A network namespace of its own is new and empty: not even its loopback is up.
            "namespaces": [{"type": k} for k in ("pid", "ipc", "uts", "mount", *(() if network else ("network",)))],
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys"],
        },
    }
