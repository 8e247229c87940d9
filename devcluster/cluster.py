"""What tests and the demo do with any cluster: run kubectl, write kubeconfigs, create identities of pods."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster import building, kubeconfig
from devcluster.binaries import from_assets
from devcluster.errors import DevclusterError
from devcluster.progress import Progress
from devcluster.waiting import until


@dataclass(frozen=True)
class PodIdentity:
    """A Pod object and a service account token that is bound to it."""

    name: str
    uid: str
    token: str


class Cluster(ABC):
    """An API server, or several of one cluster, and an administrator's access to it."""

    @property
    @abstractmethod
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""

    @property
    @abstractmethod
    def servers(self) -> list[str]:
        """The URLs of its API servers."""

    @property
    @abstractmethod
    def ca_file(self) -> Path | None:
        """The CA of its servers' certificates (PEM); None for the system's CAs."""

    @abstractmethod
    def cluster_entry(self, server: int) -> dict[str, Any]:
        """Return the kubeconfig entry of the API server with this number."""

    @property
    @abstractmethod
    def kubectl_path(self) -> Path:
        """A kubectl that fits the cluster's version."""

    @property
    @abstractmethod
    def scratch(self) -> Path:
        """A folder for files that belong to this cluster."""

    def kubectl(
        self,
        *args: str,
        input: str | None = None,
        check: bool = True,
        token: str | None = None,
        server: int = 0,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator, or with the bearer token `token`, against the API server with number `server`.

        Raises DevclusterError with kubectl's output if kubectl fails and `check` is true, or after `timeout` seconds.
        """
        if token is not None:
            config = self.kubeconfig_for(token, server)
            target: list[str] = []
        else:
            config = self.kubeconfig
            # an existing cluster's kubeconfig may contain more than a URL, for example a server name to verify
            target = [f"--server={self.servers[server]}"] if server else []
        argv = [str(self.kubectl_path), f"--kubeconfig={config}", *target, *args]
        try:
            done = subprocess.run(
                argv,
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                env=self.kubectl_env(),
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise DevclusterError(f"kubectl {' '.join(args)} took longer than {timeout:g} s") from None
        if check and done.returncode != 0:
            said = done.stderr.strip() or done.stdout.strip()
            raise DevclusterError(f"kubectl {' '.join(args)} failed with status {done.returncode}: {said}")
        return done

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what a GET of this path of the API answers; with a body, what a POST does. As administrator.

        Raises DevclusterError with the API server's words if it refuses, or does not answer.
        """
        if body is None:
            return dict(json.loads(self.kubectl("get", "--raw", path).stdout))
        return dict(json.loads(self.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(body)).stdout))

    def wait_established(self) -> None:
        """Wait until every CustomResourceDefinition is served.

        `kubectl wait` fails if one was created a moment ago and has no conditions yet.
        """

        def established() -> bool:
            items = self.ask("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]
            conditions = [(item.get("status") or {}).get("conditions") or () for item in items]
            return all(any(c["type"] == "Established" and c["status"] == "True" for c in cs) for cs in conditions)

        until("all CustomResourceDefinitions to be established", established)

    def kubectl_env(self) -> dict[str, str]:
        """Return an environment in which kubectl does not use the user's ~/.kube."""
        return os.environ | {"KUBECACHEDIR": str(self.scratch / "kubectl-cache"), "KUBERC": "off"}

    def kubeconfig_for(self, token: str, server: int = 0, name: str | None = None) -> Path:
        """Write a kubeconfig with a bearer token, without the administrator's credentials. `name` is its file name."""
        if name is None:  # the same file for the same token
            name = "token-" + hashlib.sha256(f"{self.servers[server]} {token}".encode()).hexdigest()[:16]
        path = self.scratch / "kubeconfigs" / name
        return kubeconfig.write(path, self.cluster_entry(server), kubeconfig.token_user(token))

    def pod_identity(
        self, namespace: str, serviceaccount: str, pod_name: str, labels: Mapping[str, str] | None = None
    ) -> PodIdentity:
        """Create a Pod that never runs, and a token of the service account that is bound to it (valid for 2 h).

        To the API server, requests with the token come from a replica in that Pod. The token becomes invalid with the
        Pod. Raises DevclusterError if the service account does not exist.
        """
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod_name, "namespace": namespace, "labels": dict(labels or {})},
            "spec": {
                "serviceAccountName": serviceaccount,
                # no scheduler has this name, so the Pod stays Pending, also on an existing cluster
                "schedulerName": "none.kopf-ha.dev",
                "terminationGracePeriodSeconds": 0,
                # for namespaces with restricted Pod Security
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "replica",
                        "image": "scratch-none",
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            },
        }
        here = f"/api/v1/namespaces/{namespace}"
        uid = str(self.ask(f"{here}/pods", pod)["metadata"]["uid"])
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod_name, "uid": uid}
        wanted = {"boundObjectRef": bound, "expirationSeconds": 7200}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": wanted}
        made = self.ask(f"{here}/serviceaccounts/{serviceaccount}/token", request)
        return PodIdentity(pod_name, uid, str(made["status"]["token"]))


class ExistingCluster(Cluster):
    """A cluster that somebody else runs: the one of the current context in a kubeconfig.

    kubectl is taken from KUBEBUILDER_ASSETS, else from PATH, else it is built. `close`, or the end of the `with`
    statement, removes temporary files. Raises DevclusterError if the file cannot be read or there is no kubectl.
    """

    def __init__(self, kubeconfig: Path, progress: Progress | None = None) -> None:
        self._kubeconfig = kubeconfig.absolute()
        if not self._kubeconfig.is_file():
            raise DevclusterError(f"there is no kubeconfig {kubeconfig}")
        self._kubectl = find_kubectl(progress)
        self._folder = tempfile.TemporaryDirectory(prefix="devcluster-")
        shown = self.kubectl("config", "view", "--minify", "--raw", "--flatten", "--output=json").stdout
        clusters = json.loads(shown)["clusters"]
        if not clusters:
            raise DevclusterError(f"{kubeconfig} has no current context with a cluster")
        self._cluster: dict[str, Any] = clusters[0]["cluster"]
        self._ca: Path | None = None
        if ca := self._cluster.get("certificate-authority-data"):
            self._ca = self.scratch / "ca.crt"
            self._ca.write_bytes(base64.b64decode(ca))

    def __enter__(self) -> ExistingCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary files. The cluster stays as it is."""
        self._folder.cleanup()

    @property
    def kubeconfig(self) -> Path:
        """The file that was given."""
        return self._kubeconfig

    @property
    def servers(self) -> list[str]:
        """The URL in its kubeconfig."""
        return [str(self._cluster["server"])]

    @property
    def ca_file(self) -> Path | None:
        """A copy of the CA in its kubeconfig."""
        return self._ca

    def cluster_entry(self, server: int) -> dict[str, Any]:
        """Return the entry in its own kubeconfig."""
        return self._cluster

    @property
    def kubectl_path(self) -> Path:
        """The kubectl that was found."""
        return self._kubectl

    @property
    def scratch(self) -> Path:
        """A temporary folder, removed with this object."""
        return Path(self._folder.name)


def find_kubectl(progress: Progress | None = None) -> Path:
    """Return a kubectl for an existing cluster: from KUBEBUILDER_ASSETS, from PATH, or built."""
    if given := from_assets(["kubectl"]):
        return given["kubectl"]
    if found := shutil.which("kubectl"):
        return Path(found).absolute()
    return building.build(["kubectl"], progress)["kubectl"]
