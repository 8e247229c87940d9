"""A control plane that runs as child processes: etcd, API servers, controller manager, and nodes if wanted.

It is ready when every API server answers and admits writes, and controllers run. Each process can be stopped, paused
and started again, which the fault tests use.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from devcluster import certs, cgroup, components, kubeconfig
from devcluster.binaries import Binaries, programs
from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError
from devcluster.node import Node, check_possible
from devcluster.place import Hub, Loopback, Place
from devcluster.process import Process
from devcluster.servers import Builder, Probes, Server
from devcluster.state import StateDir
from devcluster.waiting import until
from devcluster.watchlag import WatchLag

T = TypeVar("T")


def _started(part: T | None) -> T:
    if part is None:
        raise DevclusterError("the control plane was not started")
    return part


class ControlPlane(Cluster):
    """Runs while it is used as a context manager, or from `start` to `stop`.

    Args:
        state_dir: the folder for logs and etcd's data. Without it, a temporary folder is used, and removed at the end.
        etcd: 1 or 3 members.
        apiservers: 1 or more. Each uses all etcd members; the controller manager uses the first API server.
        binaries: the programs. Without them, they are found or built at the start.
        apiserver_args: flags that are added to those of the API servers, or replace them.
        controller_manager_args: the same for the controller manager.
        server_names: further names in the API servers' certificates.
        keep_state: keep a given `state_dir` at the end. It is also kept if the start fails. The next start empties it.
        nodes: how many nodes, each in a zone named after it. They need root, and come with a scheduler.
        lagging: put a `WatchLag` between etcd and the last API server, which `watch_lag` then gives. Not with nodes.
    """

    def __init__(
        self,
        state_dir: Path | None = None,
        etcd: int = 1,
        apiservers: int = 1,
        binaries: Binaries | None = None,
        apiserver_args: Sequence[str] = (),
        controller_manager_args: Sequence[str] = (),
        server_names: Sequence[str] = (),
        keep_state: bool = True,
        nodes: int = 0,
        lagging: bool = False,
    ) -> None:
        if etcd not in (1, 3) or apiservers < 1:
            raise DevclusterError("a control plane has 1 or 3 etcd members and at least 1 API server")
        if nodes and lagging:
            raise DevclusterError("an API server in the network of nodes cannot lag")
        self._temporary = state_dir is None
        self._keep_state = keep_state and not self._temporary
        self._state = StateDir(state_dir or Path(tempfile.gettempdir(), f"devcluster-{secrets.token_hex(8)}"))
        self._counts = (etcd, apiservers)
        self._binaries = binaries
        self._apiserver_args = list(apiserver_args)
        self._controller_manager_args = list(controller_manager_args)
        self._server_names = list(server_names)
        self._wanted_nodes = nodes
        self._lagging = lagging
        self._watch_lag: WatchLag | None = None
        self._place: Place = Loopback()
        self._nodes: list[Node] = []
        self._scheduler: Server | None = None
        self._etcd: list[Server] = []
        self._apiservers: list[Server] = []
        self._controller_manager: Server | None = None
        self._pki: certs.Pki | None = None
        self._probes: Probes | None = None

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 150.0) -> None:
        """Start everything and wait until it is ready.

        If this fails, nothing is left running.

        Raises:
            DevclusterError: a process ended, or was not ready after `timeout` seconds.
            BusyError: another process runs a control plane in this folder.
        """
        if self._wanted_nodes:
            check_possible(self.folder)
        if self._binaries is None:
            self._binaries = Binaries.find(programs(self._wanted_nodes))
        self._state.acquire()
        try:
            if self._wanted_nodes:
                self._place = Hub(self._log("control-plane.log"), self._state.tag)
            self._place.open()
            self._pki = certs.make(self.folder / "pki", [self._place.host, *self._server_names])
            self._probes = Probes(self._pki)
            builder = Builder(self.folder, self._place, self._pki, self._binaries, self._probes)
            self._etcd = builder.etcd(self._counts[0])
            for_nodes = components.for_nodes(self._place.host, self._pki) if self._wanted_nodes else []
            flags = [*for_nodes, *self._apiserver_args]
            self._apiservers = builder.apiservers(self._endpoints_by_server(), self.audit_logs, flags)
            kubeconfig.write(self.kubeconfig, self.cluster_entry(0), kubeconfig.certificate_user(self._pki.admin))
            for server in [*self._etcd, *self._apiservers]:
                server.start()
            for server in [*self._etcd, *self._apiservers]:
                server.wait_ready(timeout)
            self._controller_manager = builder.controller_manager(self.cluster_entry(0), self._controller_manager_args)
            self._controller_manager.start()
            self._start_nodes(builder)
            self._wait_usable(timeout)
        except DevclusterError:
            self._keep_state = not self._temporary  # the logs say why it failed
            self.stop()
            raise
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process and release everything. Does nothing if nothing runs."""
        # SIGTERM would make servers wait for their clients, and etcd members for each other. SIGKILL loses nothing:
        # whatever was answered is in the audit log, and in etcd's log on disk.
        for process in reversed(self.processes):
            process.kill()
        if self._watch_lag is not None:
            self._watch_lag.stop()
            self._watch_lag = None
        self._place.close()
        cgroup.remove(f"/{self._state.tag}")
        self._etcd, self._apiservers, self._controller_manager = [], [], None
        self._nodes, self._scheduler = [], None
        self._state.release(remove=not self._keep_state)

    @property
    def folder(self) -> Path:
        """The state folder."""
        return self._state.path

    @property
    def state(self) -> StateDir:
        """Lock and record of the state folder."""
        return self._state

    @property
    def scratch(self) -> Path:
        """The state folder."""
        return self.folder

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig for the first API server. It contains the certificates."""
        return self.folder / "kubeconfig"

    @property
    def kubectl_path(self) -> Path:
        """The kubectl of the same version."""
        return self._program("kubectl")

    @property
    def servers(self) -> list[str]:
        """The URLs of the API servers."""
        return [server.url for server in self._apiservers]

    def cluster_entry(self, server: int) -> dict[str, Any]:
        """The kubeconfig entry of an API server: its URL and its CA."""
        return kubeconfig.cluster(self.servers[server], self._certs.ca)

    @property
    def ca_file(self) -> Path:
        """The CA of the API servers' certificates."""
        return self._certs.ca

    @property
    def etcd_endpoints(self) -> list[str]:
        """The URLs of the etcd members, for clients."""
        return [server.url for server in self._etcd]

    @property
    def etcd_ca(self) -> Path:
        """The CA of etcd's certificates."""
        return self._certs.etcd_ca

    @property
    def etcd_cert(self) -> Path:
        """A client certificate for etcd."""
        return self._certs.etcd_client.cert

    @property
    def etcd_key(self) -> Path:
        """The key of that certificate."""
        return self._certs.etcd_client.key

    @property
    def audit_logs(self) -> list[Path]:
        """The audit log of each API server: JSON lines, one for each request that ended."""
        return [self._log(f"audit-{number}.jsonl") for number in range(self._counts[1])]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the first API server without kubectl, whose start costs more than the request; see `Cluster.ask`."""
        return _started(self._probes).ask(self.servers[0] + path, body)

    def versions(self) -> dict[str, str]:
        """Return the versions of `kubernetes` and `etcd`. Raises DevclusterError if the servers do not answer."""
        return _started(self._probes).versions(self.servers[0], self.etcd_endpoints[0])

    def apiserver(self, number: int = 0) -> Server:
        """An API server, to stop or pause."""
        return self._apiservers[number]

    def etcd(self, number: int = 0) -> Server:
        """A member of etcd, to stop or pause."""
        return self._etcd[number]

    @property
    def watch_lag(self) -> WatchLag:
        """What can delay the last API server's news. Raises DevclusterError if there is none."""
        return _started(self._watch_lag)

    @property
    def controller_manager(self) -> Server:
        """The controller manager."""
        return _started(self._controller_manager)

    @property
    def nodes(self) -> list[Node]:
        """The nodes."""
        return list(self._nodes)

    @property
    def processes(self) -> list[Process]:
        """All processes that run or should run."""
        last = [server for server in (self._controller_manager, self._scheduler) if server]
        hub = [self._place.cell] if isinstance(self._place, Hub) else []
        return [*hub, *self._etcd, *self._apiservers, *last, *(p for node in self._nodes for p in node.processes)]

    @property
    def _certs(self) -> certs.Pki:
        return _started(self._pki)

    def _program(self, name: str) -> Path:
        return _started(self._binaries)[name]

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / name

    def _endpoints_by_server(self) -> list[list[str]]:
        """Start the `WatchLag`, if one is wanted; give the URLs of etcd for each API server."""
        by_server = [self.etcd_endpoints] * self._counts[1]
        if self._lagging:
            port = urlsplit(self.etcd_endpoints[0]).port
            self._watch_lag = WatchLag(self._place.host, self._place.port(), port or 0, self._certs)
            self._watch_lag.start()
            by_server[-1] = [self._watch_lag.url]
        return by_server

    def _start_nodes(self, builder: Builder) -> None:
        """Start the scheduler and the nodes, if any are wanted."""
        if not isinstance(self._place, Hub):
            return
        entry = self.cluster_entry(0)
        self._scheduler = builder.scheduler(entry)
        self._scheduler.start()
        network, group = self._place.network, f"/{self._state.tag}"
        for number in range(1, self._wanted_nodes + 1):
            node = Node(number, self.folder / f"node-{number}", self._log, network, group)
            self._nodes.append(node)
            node.start(_started(self._binaries), self._certs, entry)

    def _wait_usable(self, timeout: float) -> None:
        probes = _started(self._probes)

        def wait(what: str, probe: Callable[[], bool]) -> None:
            until(what, probe, timeout, watched=self.processes)

        for node in self._nodes:
            wait(f"{node.name} to be ready", partial(probes.node_ready, self.servers[0], node.name))
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        for url in self.servers:
            wait("the controller manager to create the default service account", partial(probes.answers, url + account))
            # After /readyz is 200, admission answers 403 until its informers are filled.
            wait(f"{url} to admit a write", partial(probes.admits, url))
