"""Where the control plane's programs come from: the first that fits.

1. An existing cluster needs none (`--kubeconfig`, only when asked for; see `devcluster.cluster`).
2. The folder that KUBEBUILDER_ASSETS names, as other operator projects use it.
3. Go modules: what that folder lacks is built by devcluster/go.mod.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster import building
from devcluster.errors import DevclusterError
from devcluster.progress import Progress

# In the order in which a build is fastest: they share packages.
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
#: What a node needs besides.
NODE_PROGRAMS = ("kube-scheduler", "kubelet", "kube-proxy")


def programs(nodes: int) -> tuple[str, ...]:
    """What a cluster with that many nodes is made of."""
    return (*PROGRAMS, *NODE_PROGRAMS) if nodes else PROGRAMS


class Binaries:
    """Programs by name."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)

    def __getitem__(self, name: str) -> Path:
        """The path of a program. Raises DevclusterError if this set lacks it."""
        if name not in self._paths:
            raise DevclusterError(f"{name} is not among {', '.join(self._paths)}")
        return self._paths[name]

    @property
    def paths(self) -> dict[str, Path]:
        """All of them."""
        return dict(self._paths)

    @classmethod
    def find(cls, names: Sequence[str] = PROGRAMS, progress: Progress | None = None) -> Binaries:
        """Find them, building what is missing, which takes minutes the first time and is told on stderr.

        Raises NoBinariesError if some are missing and Go is, too; DevclusterError if a build fails.
        """
        given = from_assets(names)
        missing = [name for name in names if name not in given]
        built = building.build(missing, progress)
        return cls({name: given.get(name) or built[name] for name in names})


def from_assets(names: Sequence[str]) -> dict[str, Path]:
    """Those of `names` that are in the folder of KUBEBUILDER_ASSETS.

    Raises DevclusterError if that is no folder: minutes of building would be a poor answer to a typing error.
    """
    folder = os.environ.get("KUBEBUILDER_ASSETS", "")
    if not folder:
        return {}
    if not Path(folder).is_dir():
        raise DevclusterError(f"KUBEBUILDER_ASSETS names {folder}, which is no folder")
    found = {name: Path(folder, name).resolve() for name in names}
    return {name: path for name, path in found.items() if path.is_file() and os.access(path, os.X_OK)}
