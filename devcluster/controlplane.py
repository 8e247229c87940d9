"""A control plane of this process's own: etcd, API servers, controller manager; as they are in production.

It is ready when every API server answers and admits writes, and controllers run. Its parts can be stopped,
paused and started again one by one, which is what the fault tests are made of.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from devcluster import certs, cgroup, components, kubeconfig
from devcluster.audit import POLICY
from devcluster.binaries import Binaries, programs
from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError
from devcluster.https import Client
from devcluster.node import Node, check_possible
from devcluster.place import Hub, Loopback, Place
from devcluster.process import Process
from devcluster.state import StateDir
from devcluster.waiting import until

# What the programs see of the user's environment: etcd, for one, takes every flag from a variable, too.
_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG", "GODEBUG", "GOMAXPROCS")


T = TypeVar("T")


def _started(part: T | None) -> T:
    if part is None:
        raise DevclusterError("the control plane was not started")
    return part


class Server(Process):
    """A process that serves at `url`; `probe` says whether it does."""

    def __init__(self, name: str, argv: Sequence[str], log_path: Path, url: str, probe: Callable[[], bool]) -> None:
        environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
        super().__init__(name, argv, environment, log_path, log_path.parent)
        self.url = url
        self._probe = probe

    def ready(self) -> bool:
        """Whether it serves now."""
        return self._probe()

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until it serves. Raises DevclusterError if it ends, or after `timeout` seconds."""
        until(f"{self.name} to be ready (log: {self.log_path})", self.ready, timeout, watched=[self])


class ControlPlane(Cluster):
    """Runs while it is used as a context manager, or from `start` to `stop`.

    `state_dir` stays if it was given and `keep_state` is true, with the logs and etcd's data, and is emptied by
    the next start; otherwise it goes with the control plane. A given one stays when the start fails. `etcd` is
    1 or 3 members, `apiservers` 1 or more on all of them; the controller manager uses the first.
    `apiserver_args` and `controller_manager_args` add or replace flags, `server_names` are further names in the
    API servers' certificates. With `nodes`, which need root, there are that many, each in a zone of its own, and
    a scheduler.
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
    ) -> None:
        if etcd not in (1, 3) or apiservers < 1:
            raise DevclusterError("a control plane has 1 or 3 etcd members and at least 1 API server")
        self._temporary = state_dir is None
        self._keep_state = keep_state and not self._temporary
        self._state = StateDir(state_dir or Path(tempfile.gettempdir(), f"devcluster-{secrets.token_hex(8)}"))
        self._counts = (etcd, apiservers)
        self._binaries = binaries
        self._apiserver_args = list(apiserver_args)
        self._controller_manager_args = list(controller_manager_args)
        self._server_names = list(server_names)
        self._wanted_nodes = nodes
        self._place: Place = Loopback()
        self._nodes: list[Node] = []
        self._scheduler: Server | None = None
        self._etcd: list[Server] = []
        self._apiservers: list[Server] = []
        self._controller_manager: Server | None = None
        self._pki: certs.Pki | None = None

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 60.0) -> None:
        """Start everything and wait until it is ready.

        Raises DevclusterError when a part ends or is not ready after `timeout` seconds, BusyError if another
        process runs a control plane in this folder; nothing is left running then.
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
            self._client = Client(self._pki.ca, self._pki.admin)
            self._etcd_client = Client(self._pki.etcd_ca, self._pki.etcd_client)
            self._make_etcd()
            self._make_apiservers()
            kubeconfig.write(self.kubeconfig, self.cluster_entry(0), kubeconfig.certificate_user(self._pki.admin))
            for server in [*self._etcd, *self._apiservers]:
                server.start()
            for server in [*self._etcd, *self._apiservers]:
                server.wait_ready(timeout)
            self._make_controller_manager().start()
            self._start_nodes()
            self._wait_usable(timeout)
        except DevclusterError:
            self._keep_state = not self._temporary  # its logs say why
            self.stop()
            raise
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process and give everything back. Does nothing when nothing runs."""
        # Asked nicely, servers wait for their clients, and members of etcd for each other. Nothing is lost: what
        # was answered is in the audit log, and in etcd's log on disk.
        for process in reversed(self.processes):
            process.kill()
        self._place.close()
        cgroup.remove(f"/{self._state.tag}")
        self._etcd, self._apiservers, self._controller_manager = [], [], None
        self._nodes, self._scheduler = [], None
        self._state.release(remove=not self._keep_state)

    @property
    def folder(self) -> Path:
        """Its state folder."""
        return self._state.path

    @property
    def state(self) -> StateDir:
        """Its state folder's lock and record."""
        return self._state

    @property
    def scratch(self) -> Path:
        """Its state folder."""
        return self.folder

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, for the first API server, certificates embedded."""
        return self.folder / "kubeconfig"

    @property
    def kubectl_path(self) -> Path:
        """The kubectl of the same version."""
        return self._program("kubectl")

    @property
    def servers(self) -> list[str]:
        """The addresses (https) of its API servers."""
        return [server.url for server in self._apiservers]

    def cluster_entry(self, server: int) -> dict[str, Any]:
        """The server's address, and the authority of its certificate."""
        return kubeconfig.cluster(self.servers[server], self._certs.ca)

    @property
    def ca_file(self) -> Path:
        """The authority of the API servers' certificates."""
        return self._certs.ca

    @property
    def etcd_endpoints(self) -> list[str]:
        """The addresses (https) of etcd for clients, one for each member."""
        return [server.url for server in self._etcd]

    @property
    def etcd_ca(self) -> Path:
        """The authority of etcd's certificates."""
        return self._certs.etcd_ca

    @property
    def etcd_cert(self) -> Path:
        """The client certificate that etcd accepts."""
        return self._certs.etcd_client.cert

    @property
    def etcd_key(self) -> Path:
        """The key of that certificate."""
        return self._certs.etcd_client.key

    @property
    def audit_logs(self) -> list[Path]:
        """Each API server's audit log: JSON lines, one for each request that ended."""
        return [self._log(f"audit-{number}.jsonl") for number in range(self._counts[1])]

    def versions(self) -> dict[str, str]:
        """What the servers say they are: `kubernetes` and `etcd`. Raises DevclusterError if they do not answer."""
        kubernetes = self._client.ask(f"{self.servers[0]}/version")
        etcd = self._etcd_client.ask(f"{self.etcd_endpoints[0]}/version")
        if kubernetes[0] != 200 or etcd[0] != 200:
            raise DevclusterError(f"no version: {kubernetes[1] if kubernetes[0] != 200 else etcd[1]}")
        return {
            "kubernetes": str(json.loads(kubernetes[1])["gitVersion"]),
            "etcd": "v" + str(json.loads(etcd[1])["etcdserver"]),
        }

    def apiserver(self, number: int = 0) -> Server:
        """An API server, to stop or pause."""
        return self._apiservers[number]

    def etcd(self, number: int = 0) -> Server:
        """A member of etcd, to stop or pause."""
        return self._etcd[number]

    @property
    def controller_manager(self) -> Server:
        """The controller manager."""
        return _started(self._controller_manager)

    @property
    def nodes(self) -> list[Node]:
        """Its nodes."""
        return list(self._nodes)

    @property
    def processes(self) -> list[Process]:
        """All that run or should."""
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

    def _make_etcd(self) -> None:
        names = [f"etcd-{number}" for number in range(self._counts[0])]
        peers = {name: self._url() for name in names}
        for name in names:
            url = self._url()
            argv = components.etcd(self._program("etcd"), name, self.folder / name, self._certs, url, peers)
            self._etcd.append(
                Server(name, self._place.wrap(argv), self._log(f"{name}.log"), url, partial(self._healthy, url))
            )

    def _make_apiservers(self) -> None:
        policy = self.folder / "audit-policy.json"
        policy.write_text(json.dumps(POLICY, indent=2))
        for number in range(self._counts[1]):
            name, port = f"kube-apiserver-{number}", self._place.port()
            url = components.https(self._place.host, port)
            for_nodes = components.for_nodes(self._place.host, self._certs) if self._wanted_nodes else []
            argv = components.apiserver(
                self._program("kube-apiserver"),
                self.folder / name,
                port,
                self._certs,
                self.etcd_endpoints,
                policy,
                self.audit_logs[number],
                [*for_nodes, *self._apiserver_args],
            )
            self._apiservers.append(
                Server(
                    name, self._place.wrap(argv), self._log(f"{name}.log"), url, partial(self._answers, f"{url}/readyz")
                )
            )

    def _make_controller_manager(self) -> Server:
        config = kubeconfig.write(
            self.folder / "controller-manager.kubeconfig",
            self.cluster_entry(0),
            kubeconfig.certificate_user(self._certs.controller_manager),
        )
        name = "kube-controller-manager"
        argv = components.controller_manager(self._program(name), config, self._certs, self._controller_manager_args)
        # it serves nothing: what it does is seen in the API
        made = Server(name, self._place.wrap(argv), self._log(f"{name}.log"), "", lambda: made.running)
        self._controller_manager = made
        return made

    def _start_nodes(self) -> None:
        """Start the scheduler and the nodes, if there shall be any."""
        if not isinstance(self._place, Hub):
            return
        name, entry = "kube-scheduler", self.cluster_entry(0)
        user = kubeconfig.certificate_user(self._certs.scheduler())
        config = kubeconfig.write(self.folder / "scheduler.kubeconfig", entry, user)
        argv = components.scheduler(self._program(name), config)
        made = Server(name, self._place.wrap(argv), self._log(f"{name}.log"), "", lambda: made.running)
        self._scheduler = made
        made.start()
        network, group = self._place.network, f"/{self._state.tag}"
        for number in range(1, self._wanted_nodes + 1):
            node = Node(number, self.folder / f"node-{number}", self._log, network, group)
            self._nodes.append(node)
            node.start(_started(self._binaries), self._certs, entry)

    def _url(self) -> str:
        return components.https(self._place.host, self._place.port())

    def _wait_usable(self, timeout: float) -> None:
        for node in self._nodes:
            until(f"{node.name} to be ready", partial(self._node_ready, node.name), timeout, watched=self.processes)
        # Admission answers 403 until its informers are filled, after /readyz is fine.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        for url in self.servers:
            until(
                "the default service account, which the controller manager makes",
                partial(self._answers, url + account),
                timeout,
                watched=self.processes,
            )
            until(
                f"{url} to admit a write",
                partial(self._admits, url),
                timeout,
                watched=self.processes,
            )

    def _answers(self, url: str) -> bool:
        return self._client.ask(url)[0] == 200

    def _node_ready(self, name: str) -> bool:
        status, text = self._client.ask(f"{self.servers[0]}/api/v1/nodes/{name}")
        conditions = json.loads(text)["status"].get("conditions", []) if status == 200 else []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def _admits(self, url: str) -> bool:
        probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "probe-"}}
        return self._client.ask(f"{url}/api/v1/namespaces/default/configmaps?dryRun=All", "POST", probe)[0] == 201

    def _healthy(self, url: str) -> bool:
        # 200 only if it has a leader
        return self._etcd_client.ask(f"{url}/health")[0] == 200
