"""A node: containerd, kubelet and kube-proxy in a cell, as on a separate machine."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from devcluster import cgroup, images, kubeconfig, nodeconfig
from devcluster.binaries import Binaries
from devcluster.cell import HIDDEN, Cell, Inside, entering, environment, run
from devcluster.certs import Pki
from devcluster.errors import DevclusterError, NoNodeError
from devcluster.network import Network
from devcluster.waiting import until

#: Where CNI plugins are: of Debian's containernetworking-plugins, and of other distributions.
_CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_PROGRAMS = (
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "ip",
    "iptables",
    "conntrack",
    "nsenter",
    "unshare",
)


def check_possible(state: Path) -> None:
    """Raise NoNodeError if a node cannot run here."""
    if not sys.platform.startswith("linux"):
        raise NoNodeError(f"a node needs Linux, this is {platform.system()}")
    if os.geteuid() != 0:
        raise NoNodeError("a node needs root: it creates namespaces, mounts and cgroups")
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_path()) is None]
    missing += [] if _cni_plugins() else ["CNI plugins"]
    missing += [] if _pause_program() else ["busybox-static"]
    if missing:
        raise NoNodeError(f"a node needs {', '.join(missing)}: on Debian, `scripts/node-packages` installs them")
    for path in (state.resolve(), Path(__file__).resolve()):
        if any(path.is_relative_to(hidden) for hidden in HIDDEN):
            raise NoNodeError(f"a node cannot use {path}: inside the node, {', '.join(HIDDEN)} are other folders")


def _path() -> str:
    return environment()["PATH"]


def _cni_plugins() -> Path | None:
    return next((folder for folder in _CNI_FOLDERS if (folder / "bridge").exists()), None)


def _pause_program() -> str | None:
    # Debian's busybox-static has this name. Another busybox may need libraries.
    return shutil.which("busybox", path=_path())


class Node:
    """One node of a cluster.

    Args:
        number: 1 or more. It determines name, address and pod network.
        folder: the folder for its files.
        log: returns the path of a log by its name.
        network: the network that it joins.
        group: the cluster's cgroup, as a path from the root of each hierarchy.
    """

    def __init__(self, number: int, folder: Path, log: Callable[[str], Path], network: Network, group: str) -> None:
        self.name = f"node-{number}"
        self.address = network.node(number)
        self.cell = Cell(self.name, log(f"{self.name}.log"))
        self._number, self._folder, self._log, self._network = number, folder, log, network
        self._cgroup = f"{group}/{self.name}"
        self.containerd: Inside | None = None
        self.kubelet: Inside | None = None
        self.proxy: Inside | None = None

    def start(self, binaries: Binaries, pki: Pki, cluster: Mapping[str, Any]) -> None:
        """Start its programs. It registers itself at the API server, whose kubeconfig entry is `cluster`."""
        self._folder.mkdir(parents=True)
        cgroup.make(self._cgroup)
        self.cell.start()
        self._network.join(self.cell, self._number)
        self._start_containerd()
        serving, user = pki.node(self.name, self.address)
        self._write("resolv.conf", "nameserver 127.0.0.1\n")
        config = self._write("kubelet.json", nodeconfig.kubelet_config(self._folder, pki.ca, serving, self._cgroup))
        access = kubeconfig.write(self._folder / "kubelet.kubeconfig", cluster, kubeconfig.certificate_user(user))
        labels = [f"topology.kubernetes.io/zone=zone-{self._number}"]
        argv = nodeconfig.kubelet(binaries["kubelet"], config, access, self.name, self.address, labels)
        self.kubelet = self._inside("kubelet", argv)
        access = kubeconfig.write(
            self._folder / "kube-proxy.kubeconfig", cluster, kubeconfig.certificate_user(pki.proxy())
        )
        self.proxy = self._inside("kube-proxy", nodeconfig.proxy(binaries["kube-proxy"], access, self.name))

    @property
    def processes(self) -> list[Inside | Cell]:
        """All processes that run or should run, in the order of their start."""
        inside = [p for p in (self.containerd, self.kubelet, self.proxy) if p is not None]
        return [self.cell, *inside]

    def _start_containerd(self) -> None:
        plugins, program = _cni_plugins(), _pause_program()
        if plugins is None or program is None:
            raise DevclusterError("the programs of a node were removed")
        self._write("cni/10-bridge.conflist", nodeconfig.cni(self._network.pods(self._number)))
        config = self._write("containerd.toml", nodeconfig.containerd(self._folder, plugins))
        self.containerd = self._inside("containerd", ["containerd", f"--config={config}"])
        until("containerd to answer", self._answers, 30, watched=[self.containerd])
        pause = images.single_program(
            Path(program), ["sleep", "2147483647"], nodeconfig.PAUSE, self._folder / "pause.tar"
        )
        load_image([self.cell.init], pause)

    def _answers(self) -> bool:
        try:
            self.cell.run("ctr", "--address", nodeconfig.SOCKET, "version", timeout=10)
        except DevclusterError:
            return False
        return True

    def _inside(self, program: str, argv: list[str]) -> Inside:
        name = f"{program}-{self._number}"
        made = Inside(self.cell, name, argv, self._log(f"{name}.log"))
        made.start()
        return made

    def _write(self, name: str, content: str) -> Path:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path


def load_image(cells: Iterable[int], archive: Path) -> None:
    """Import a docker archive into the containerd of each cell. Cells are given by the process ids of their inits.

    Raises DevclusterError if one cannot import it.
    """
    argv = ["ctr", "--address", nodeconfig.SOCKET, "--namespace", "k8s.io", "images", "import", str(archive)]
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(lambda init: run(*entering(init, argv), timeout=300), cells):
            pass  # reading the result raises the error
