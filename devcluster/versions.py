"""Reads go.mod: the versions of the control plane, and the programs that it consists of.

Only go.mod names versions. There is one for each minor of Kubernetes: devcluster/go.mod for the one that everything
runs on, and devcluster/kubernetes/1.36/go.mod for another, which $KUBERNETES chooses. scripts/kubernetes writes those.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import DevclusterError

GO_MOD = Path(__file__).with_name("go.mod")
#: One folder with a go.mod for each other minor.
OTHERS = Path(__file__).with_name("kubernetes")
#: Programs of a node, which stay at the version of GO_MOD, whatever the control plane's is: the newest that runs with
#: containerd 1.6 and cgroup v1.
OF_NODES = ("kubelet", "kube-proxy")

_ETCD = "go.etcd.io/etcd/server/v3"


@dataclass(frozen=True)
class Versions:
    """`go` is the oldest Go that can build the programs. `packages` is the main package of each program, by name."""

    kubernetes: str
    etcd: str
    go: str
    packages: Mapping[str, str]

    @property
    def minor(self) -> str:
        """The minor version of Kubernetes, such as 1.35."""
        return ".".join(self.kubernetes.removeprefix("v").split(".")[:2])

    @property
    def ldflags(self) -> str:
        """Linker flags that set the version. Without them, the servers report v0.0.0-master."""
        major, minor = self.minor.split(".")
        base = "k8s.io/component-base/version"
        return f"-s -w -X {base}.gitVersion={self.kubernetes} -X {base}.gitMajor={major} -X {base}.gitMinor={minor}"


def minors() -> dict[str, Path]:
    """Return the go.mod of each minor of Kubernetes that can be built, by name ("1.36"), the oldest first."""
    found = {path.parent.name: path for path in OTHERS.glob("*/go.mod")} | {read(GO_MOD).minor: GO_MOD}
    return dict(sorted(found.items(), key=lambda item: [int(part) for part in item[0].split(".")]))


def go_mod(program: str = "") -> Path:
    """Return the go.mod that $KUBERNETES chooses, for one of the programs or for the control plane.

    Raises DevclusterError if there is none for that minor.
    """
    chosen = os.environ.get("KUBERNETES", "").strip()
    if not chosen or program in OF_NODES:
        return GO_MOD
    found = minors()
    if chosen not in found:
        raise DevclusterError(
            f"KUBERNETES is {chosen!r}, and there is a go.mod for {', '.join(found)} only: "
            "scripts/kubernetes v1.NN.N writes another one"
        )
    return found[chosen]


def read(path: Path | None = None) -> Versions:
    """Read a go.mod, or the one that $KUBERNETES chooses. Raises DevclusterError if a version is missing."""
    path = path or go_mod()
    text = path.read_text()
    packages: list[str] = []
    for block in re.findall(r"^tool \((.*?)^\)", text, re.MULTILINE | re.DOTALL):
        packages += block.split()
    packages += re.findall(r"^tool ([^\s(]+)", text, re.MULTILINE)
    return Versions(
        kubernetes=_find(r"^\s*(?:require )?k8s\.io/kubernetes (v\S+)", text, path),
        etcd=_find(rf"^\s*(?:require )?{re.escape(_ETCD)} (v\S+)", text, path),
        go=_find(r"^go (\S+)", text, path),
        packages={"etcd" if package == _ETCD else package.rsplit("/", 1)[-1]: package for package in packages},
    )


def _find(pattern: str, text: str, where: Path) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise DevclusterError(f"{where} has no line like {pattern}")
    return found[1]
