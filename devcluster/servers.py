"""The servers of one control plane: how each is built, and how it shows that it is ready."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from devcluster import components, kubeconfig
from devcluster.audit import POLICY
from devcluster.binaries import Binaries
from devcluster.certs import Pair, Pki
from devcluster.errors import DevclusterError
from devcluster.https import Client
from devcluster.place import Place
from devcluster.process import Process
from devcluster.waiting import until

# The servers get only these environment variables. etcd, for example, reads every flag from a variable, too.
_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG", "GODEBUG", "GOMAXPROCS")


class Server(Process):
    """A process that serves at `url`; `probe` returns whether it does."""

    def __init__(self, name: str, argv: Sequence[str], log_path: Path, url: str, probe: Callable[[], bool]) -> None:
        environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
        super().__init__(name, argv, environment, log_path, log_path.parent)
        self.url = url
        self._probe = probe

    def ready(self) -> bool:
        """Return whether it serves now."""
        return self._probe()

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until it serves. Raises DevclusterError if it ends, or after `timeout` seconds."""
        until(f"{self.name} to be ready (log: {self.log_path})", self.ready, timeout, watched=[self])


class Probes:
    """Asks the servers whether they are ready, as an administrator."""

    def __init__(self, pki: Pki) -> None:
        self._apiserver = Client(pki.ca, pki.admin)
        self._patient = Client(pki.ca, pki.admin, 60.0)
        self._etcd = Client(pki.etcd_ca, pki.etcd_client)

    def answers(self, url: str) -> bool:
        """Return whether an API server answers a GET with 200."""
        return self._apiserver.ask(url)[0] == 200

    def admits(self, url: str) -> bool:
        """Return whether an API server admits writes."""
        probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "probe-"}}
        status, _ = self._apiserver.ask(f"{url}/api/v1/namespaces/default/configmaps?dryRun=All", "POST", probe)
        return status == 201

    def ask(self, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what an API server answers to a GET, or to a POST with a body. DevclusterError: it refused."""
        status, text = self._patient.ask(url, "GET" if body is None else "POST", body)
        if status not in (200, 201):
            raise DevclusterError(f"{url} answered {status}: {text}")
        return dict(json.loads(text))

    def node_ready(self, url: str, name: str) -> bool:
        """Return whether a node reports that it is ready."""
        status, text = self._apiserver.ask(f"{url}/api/v1/nodes/{name}")
        conditions = json.loads(text)["status"].get("conditions", []) if status == 200 else []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def etcd_healthy(self, url: str) -> bool:
        """Return whether an etcd member answers and has a leader."""
        return self._etcd.ask(f"{url}/health")[0] == 200

    def versions(self, apiserver: str, etcd: str) -> dict[str, str]:
        """Return the versions that the servers report. Raises DevclusterError if they do not answer."""
        kubernetes, storage = self._apiserver.ask(f"{apiserver}/version"), self._etcd.ask(f"{etcd}/version")
        for status, text in (kubernetes, storage):
            if status != 200:
                raise DevclusterError(f"no version: {text}")
        return {
            "kubernetes": str(json.loads(kubernetes[1])["gitVersion"]),
            "etcd": "v" + str(json.loads(storage[1])["etcdserver"]),
        }


class Builder:
    """Builds the servers of one control plane, without starting them.

    Args:
        folder: the control plane's folder.
        place: where the servers run.
        pki: keys and certificates.
        binaries: the programs.
        probes: says whether the servers are ready.
    """

    def __init__(self, folder: Path, place: Place, pki: Pki, binaries: Binaries, probes: Probes) -> None:
        self._folder = folder
        self._place = place
        self._pki = pki
        self._binaries = binaries
        self._probes = probes

    def etcd(self, count: int) -> list[Server]:
        """Build the members of etcd."""
        names = [f"etcd-{number}" for number in range(count)]
        peers = {name: self._url() for name in names}
        made = []
        for name in names:
            url = self._url()
            argv = components.etcd(self._binaries["etcd"], name, self._folder / name, self._pki, url, peers)
            made.append(self._server(name, argv, url, partial(self._probes.etcd_healthy, url)))
        return made

    def apiservers(
        self, etcd_urls: Sequence[Sequence[str]], audit_logs: Sequence[Path], extra: Sequence[str]
    ) -> list[Server]:
        """Build one API server for each audit log, and for as many lists of URLs of etcd."""
        policy = self._folder / "audit-policy.json"
        policy.write_text(json.dumps(POLICY, indent=2))
        made = []
        for number, (urls, audit_log) in enumerate(zip(etcd_urls, audit_logs, strict=True)):
            name, port = f"kube-apiserver-{number}", self._place.port()
            url = components.https(self._place.host, port)
            program = self._binaries["kube-apiserver"]
            argv = components.apiserver(program, self._folder / name, port, self._pki, urls, policy, audit_log, extra)
            made.append(self._server(name, argv, url, partial(self._probes.answers, f"{url}/readyz")))
        return made

    def controller_manager(self, cluster: Mapping[str, Any], extra: Sequence[str]) -> Server:
        """Build the controller manager; `cluster` is the API server's entry of a kubeconfig."""
        name = "kube-controller-manager"
        config = self._kubeconfig("controller-manager", cluster, self._pki.controller_manager)
        argv = components.controller_manager(self._binaries[name], config, self._pki, extra)
        return self._without_port(name, argv)

    def scheduler(self, cluster: Mapping[str, Any]) -> Server:
        """Build the scheduler; `cluster` is the API server's entry of a kubeconfig."""
        name = "kube-scheduler"
        config = self._kubeconfig("scheduler", cluster, self._pki.scheduler())
        return self._without_port(name, components.scheduler(self._binaries[name], config))

    def _kubeconfig(self, name: str, cluster: Mapping[str, Any], user: Pair) -> Path:
        return kubeconfig.write(self._folder / f"{name}.kubeconfig", cluster, kubeconfig.certificate_user(user))

    def _without_port(self, name: str, argv: Sequence[str]) -> Server:
        # It serves nothing. Its work shows in the API.
        made = self._server(name, argv, "", lambda: made.running)
        return made

    def _server(self, name: str, argv: Sequence[str], url: str, probe: Callable[[], bool]) -> Server:
        return Server(name, self._place.wrap(argv), self._folder / "logs" / f"{name}.log", url, probe)

    def _url(self) -> str:
        return components.https(self._place.host, self._place.port())
