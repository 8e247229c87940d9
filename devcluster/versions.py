"""Reads go.mod: the versions of the control plane, and the programs that it consists of.

Only go.mod names versions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import DevclusterError

GO_MOD = Path(__file__).with_name("go.mod")

_ETCD = "go.etcd.io/etcd/server/v3"


@dataclass(frozen=True)
class Versions:
    """`go` is the oldest Go that can build the programs. `packages` is the main package of each program, by name."""

    kubernetes: str
    etcd: str
    go: str
    packages: Mapping[str, str]

    @property
    def ldflags(self) -> str:
        """Linker flags that set the version. Without them, the servers report v0.0.0-master."""
        major, minor = self.kubernetes.removeprefix("v").split(".")[:2]
        base = "k8s.io/component-base/version"
        return f"-s -w -X {base}.gitVersion={self.kubernetes} -X {base}.gitMajor={major} -X {base}.gitMinor={minor}"


def read(go_mod: Path = GO_MOD) -> Versions:
    """Read a go.mod. Raises DevclusterError if a version is missing."""
    text = go_mod.read_text()
    packages: list[str] = []
    for block in re.findall(r"^tool \((.*?)^\)", text, re.MULTILINE | re.DOTALL):
        packages += block.split()
    packages += re.findall(r"^tool ([^\s(]+)", text, re.MULTILINE)
    return Versions(
        kubernetes=_find(r"^\s*(?:require )?k8s\.io/kubernetes (v\S+)", text, go_mod),
        etcd=_find(rf"^\s*(?:require )?{re.escape(_ETCD)} (v\S+)", text, go_mod),
        go=_find(r"^go (\S+)", text, go_mod),
        packages={"etcd" if package == _ETCD else package.rsplit("/", 1)[-1]: package for package in packages},
    )


def _find(pattern: str, text: str, where: Path) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise DevclusterError(f"{where} has no line like {pattern}")
    return found[1]
