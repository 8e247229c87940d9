"""Where the control plane's programs come from. The first way that works is used.

1. An existing cluster needs no programs (only with `--kubeconfig`; see `devcluster.cluster`).
2. The folder that KUBEBUILDER_ASSETS names, as in other operator projects.
3. What was built before.
4. kubectl alone: the one in PATH, if Kubernetes supports it with this control plane: at most one minor older or newer.
5. Go modules: programs that are still missing are built from devcluster/go.mod.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster import building, versions
from devcluster.errors import DevclusterError
from devcluster.progress import Progress

# In the order that builds fastest, since they share packages.
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
#: The programs that a node needs in addition.
NODE_PROGRAMS = ("kube-scheduler", "kubelet", "kube-proxy")


def programs(nodes: int) -> tuple[str, ...]:
    """Return the programs of a cluster with this many nodes."""
    return (*PROGRAMS, *NODE_PROGRAMS) if nodes else PROGRAMS


class Binaries:
    """The paths of programs, by name."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)

    def __getitem__(self, name: str) -> Path:
        """Return the path of a program. Raises DevclusterError if it is not in this set."""
        if name not in self._paths:
            raise DevclusterError(f"{name} is not among {', '.join(self._paths)}")
        return self._paths[name]

    @property
    def paths(self) -> dict[str, Path]:
        """All paths, by name."""
        return dict(self._paths)

    @classmethod
    def find(
        cls, names: Sequence[str] = PROGRAMS, progress: Progress | None = None, *, exact: bool = False
    ) -> Binaries:
        """Find the programs, and build those that are missing. That takes minutes, with progress on stderr.

        With `exact`, kubectl is of the control plane's version, too, as tests want it.

        Raises:
            NoBinariesError: programs are missing, and so is Go.
            DevclusterError: a build failed.
        """
        given = from_assets(names)
        if "kubectl" in names and "kubectl" not in given and not exact:
            given |= _fitting_kubectl()
        missing = [name for name in names if name not in given]
        built = building.build(missing, progress)
        return cls({name: given.get(name) or built[name] for name in names})


def from_assets(names: Sequence[str]) -> dict[str, Path]:
    """Return those of the programs that are in the folder of KUBEBUILDER_ASSETS.

    Raises DevclusterError if that is not a folder: a typing error should not start minutes of building.
    """
    folder = os.environ.get("KUBEBUILDER_ASSETS", "")
    if not folder:
        return {}
    if not Path(folder).is_dir():
        raise DevclusterError(f"KUBEBUILDER_ASSETS names {folder}, which is not a folder")
    found = {name: Path(folder, name).resolve() for name in names}
    return {name: path for name, path in found.items() if path.is_file() and os.access(path, os.X_OK)}


def _fitting_kubectl() -> dict[str, Path]:
    """Return kubectl from PATH if none was built and that one fits. It spares a minute of building."""
    found = shutil.which("kubectl")
    if found is None or (building.bin_folder() / "kubectl").exists():
        return {}
    try:
        asked = subprocess.run([found, "version", "--client", "--output=json"], capture_output=True, timeout=20)
        told = json.loads(asked.stdout)["clientVersion"]["gitVersion"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        return {}
    release = re.match(r"v(\d+)\.(\d+)\.", str(told))
    major, minor = (int(part) for part in versions.read().minor.split("."))
    fits = release is not None and int(release[1]) == major and abs(int(release[2]) - minor) <= 1
    return {"kubectl": Path(found).absolute()} if fits else {}
