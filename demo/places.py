"""Where the demo runs: on a control plane of its own, or on a cluster that exists (kind, minikube).

On its own the judge reads each revision from etcd, and the audit log. Nobody may read the etcd of another cluster, so
there watches write down each revision of the objects that the judge looks at, and who sent a write stays unknown.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import yaml

import judge
from demo.replicas import NAMESPACE, ROOT
from devcluster import Binaries, Cluster, ControlPlane, DevclusterError, ExistingCluster
from devcluster.waiting import until
from judge.history import Key, replay

CRDS = ("addresspools.ipam.kopf-ha.dev", "addressclaims.ipam.kopf-ha.dev")
TERMS = "terms.kopf-ha.dev"
#: What the judge looks at, by the path of its list.
_WATCHED = {
    "/apis/ipam.kopf-ha.dev/v1/addresspools": ("ipam.kopf-ha.dev", "addresspools"),
    "/apis/ipam.kopf-ha.dev/v1/addressclaims": ("ipam.kopf-ha.dev", "addressclaims"),
    f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases": ("", "leases"),
    "/api/v1/configmaps?labelSelector=app.kubernetes.io/managed-by%3Dkopf-ha-ipam": ("", "configmaps"),
}


class Place(Protocol):
    """A cluster, and what happened in it."""

    cluster: Cluster
    #: Whether every revision and the audit log can be read.
    whole: bool
    #: Why replicas are processes.
    why: str

    def install(self, kubectl: Callable[..., str]) -> None:
        """Apply the manifests, by a kubectl that shows what it does."""

    def history(self) -> judge.History:
        """Return what happened."""

    def audit(self) -> list[Any]:
        """Return the audit log."""


class Own:
    """A control plane that ends with the demo."""

    whole = True
    why = "there is no node"

    def __init__(self, plane: ControlPlane) -> None:
        self.cluster: Cluster = plane
        self._plane = plane

    def install(self, kubectl: Callable[..., str]) -> None:
        """Apply the manifests as they are: without a node the pods only exist."""
        kubectl("apply", "-k", "crds/")
        self._plane.wait_established()
        kubectl("apply", "-k", "deploy/")

    def history(self) -> judge.History:
        """Read the whole history from etcd."""
        plane = self._plane
        return judge.read_history(plane.etcd_endpoints[0], plane.etcd_ca, plane.etcd_cert, plane.etcd_key)

    def audit(self) -> list[Any]:
        """Read the audit log of all API servers."""
        return judge.read_audit(self._plane.audit_logs)


class Existing:
    """A cluster that stays. What the demo installs there is removed in the end."""

    whole = False
    why = "the image is nowhere"

    def __init__(self, cluster: ExistingCluster) -> None:
        self.cluster: Cluster = cluster
        self._watches: list[_Watch] = []
        taken = [name for name in (*CRDS,) if self._there("crd", name)]
        taken += [f"namespace {NAMESPACE}"] if self._there("namespace", NAMESPACE) else []
        if taken:
            raise DevclusterError(
                f"{cluster.servers[0]} has {', '.join(taken)} already: the demo would change what somebody uses, and"
                " delete it. Use a cluster without the address manager"
            )
        self._terms = self._there("crd", TERMS)

    def _there(self, kind: str, name: str) -> bool:
        return bool(self.cluster.kubectl("get", kind, name, "--ignore-not-found", "-o", "name").stdout)

    def install(self, kubectl: Callable[..., str]) -> None:
        """Apply the manifests. No scheduler takes the pods: processes with their credentials run in their place."""
        kubectl("apply", "-k", "crds/")
        self.cluster.wait_established()
        self._watches = [_Watch(self.cluster, path, *kind) for path, kind in _WATCHED.items()]
        objects = list(yaml.safe_load_all(self.cluster.kubectl("kustomize", "deploy/").stdout))
        for one in objects:
            if one["kind"] == "Deployment":
                one["spec"]["template"]["spec"]["schedulerName"] = "none.kopf-ha.dev"
        kubectl(
            "apply",
            "-f",
            "-",
            stdin="\n---\n".join(json.dumps(one) for one in objects),
            shown="deploy/, without a scheduler",
        )

    def history(self) -> judge.History:
        """Return all revisions of what the judge looks at."""
        for watch in self._watches:
            watch.catch_up()
        writes = sorted((w for watch in self._watches for w in watch.writes), key=lambda w: w[0])
        return replay(writes[-1][0] if writes else 0, writes)

    def audit(self) -> list[Any]:
        """Return nothing: the log is the administrator's."""
        return []

    def remove(self) -> None:
        """Delete what was installed, with the objects that nobody serves any more."""
        for watch in self._watches:
            watch.stop()
        kubectl = self.cluster.kubectl
        kubectl("delete", "-k", "deploy/", "--ignore-not-found", "--wait=false", check=False)
        for crd in CRDS:
            names = kubectl(
                "get",
                crd,
                "-A",
                "--no-headers",
                "-o",
                "custom-columns=A:.metadata.namespace,B:.metadata.name",
                check=False,
            )
            for namespace, name in (line.split() for line in names.stdout.splitlines()):
                where = () if namespace == "<none>" else ("-n", namespace)
                kubectl(
                    "patch", crd, name, *where, "--type=merge", "-p", '{"metadata":{"finalizers":null}}', check=False
                )
            kubectl("delete", "crd", crd, "--ignore-not-found", "--wait=false", check=False)
        if not self._terms:
            kubectl("delete", "crd", TERMS, "--ignore-not-found", "--wait=false", check=False)


class _Watch:
    """Writes down each revision of one kind, from now on."""

    def __init__(self, cluster: Cluster, path: str, group: str, resource: str) -> None:
        self._cluster, self._path, self._group, self._resource = cluster, path, group, resource
        self.writes: list[tuple[int, Key, dict[str, Any] | None]] = []
        began = json.loads(cluster.kubectl("get", "--raw", path).stdout)["metadata"]["resourceVersion"]
        url = f"{path}{'&' if '?' in path else '?'}watch=true&resourceVersion={began}"
        argv = [str(cluster.kubectl_path), f"--kubeconfig={cluster.kubeconfig}", "get", "--raw", url]
        self._child = subprocess.Popen(argv, stdout=subprocess.PIPE, env=cluster.kubectl_env(), text=True)
        self._thread = threading.Thread(target=self._read, name=f"watch of {resource}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._child.stdout or ():
            event = json.loads(line)
            if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                body = event["object"]
                metadata = body["metadata"]
                key = Key(self._group, self._resource, metadata.get("namespace", ""), metadata["name"])
                self.writes.append(
                    (int(metadata["resourceVersion"]), key, None if event["type"] == "DELETED" else body)
                )

    def catch_up(self) -> None:
        """Wait until what is written down is what is there."""

        def caught() -> bool:
            there = json.loads(self._cluster.kubectl("get", "--raw", self._path).stdout)["items"]
            newest: dict[Key, int] = {}
            for revision, key, body in list(self.writes):
                newest.pop(key, None)
                if body is not None:
                    newest[key] = revision
            return sorted(newest.values()) == sorted(int(item["metadata"]["resourceVersion"]) for item in there)

        until(f"the watch of {self._resource} to show all", caught)

    def stop(self) -> None:
        """Watch no more."""
        self._child.kill()
        self._child.wait()
        self._thread.join(10)


@contextmanager
def own(folder: Path, binaries: Binaries) -> Iterator[Place]:
    """Give a control plane of its own."""
    os.chdir(ROOT)
    with ControlPlane(folder / "cluster", binaries=binaries) as plane:
        yield Own(plane)


@contextmanager
def existing(kubeconfig: Path) -> Iterator[Place]:
    """Give a cluster that exists, and leave it as it was.

    Raises DevclusterError if the address manager is there already, or the cluster cannot be reached.
    """
    with ExistingCluster(kubeconfig) as cluster:
        os.chdir(ROOT)
        place = Existing(cluster)
        try:
            yield place
        finally:
            place.remove()
