"""A namespace of a real control plane, as an administrator sees it."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from devcluster import Cluster, ControlPlane
from devcluster.waiting import until
from kopf_ha.core.hearing import term_path
from tests.kit.client import MERGE, administrator

NAMESPACES = "/api/v1/namespaces"
LEASES = "/apis/coordination.k8s.io/v1/namespaces"


class World:
    """One test's corner of a cluster: its namespace, its Lease and its objects.

    Args:
        cluster: the cluster.
        namespace: of the test.
        group: of the kinds that are meant; of version v1.
        lease: the name of the Lease that replicas of the test elect their leader by.
    """

    def __init__(self, cluster: Cluster, namespace: str, group: str = "", lease: str = "op") -> None:
        self.cluster, self.namespace, self.group = cluster, namespace, group
        self.api = administrator(cluster)
        self.lease_path = f"{LEASES}/{namespace}/leases/{lease}"

    def kubectl(self, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run kubectl in the namespace; see `Cluster.kubectl`."""
        return self.cluster.kubectl("-n", self.namespace, *args, **more)

    def ask(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """Send what has to be accepted; give the answer's body."""
        return self.api.must(method, path, body, content_type)

    def read(self, path: str) -> dict[str, Any]:
        """Give what is at a path, an empty object if nothing is there."""
        answer = self.api("GET", path)
        assert answer.ok or answer.status == 404, f"{path}: {answer.message}"
        return answer.body if answer.ok else {}

    # --- objects

    def path(self, plural: str, name: str = "", version: str = "v1") -> str:
        """Give the path of a kind of the group, or of one object."""
        return f"/apis/{self.group}/{version}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def create(self, kind: str, name: str, **spec: Any) -> Any:
        """Create an object of the group; give it."""
        body = {"apiVersion": f"{self.group}/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        return self.ask("POST", self.path(f"{kind.lower()}s"), body)

    def get(self, plural: str, name: str) -> Any:
        """Give an object of the group, which must be there."""
        return self.ask("GET", self.path(plural, name))

    def stamp(self, plural: str, name: str, token: int, *, lease: str = "", holder: str = "somebody") -> None:
        """Write a stamp as another process would."""
        fencing = {"lease": lease or f"{self.namespace}/op", "token": token, "holder": holder, "podUID": "u"}
        self.ask("PATCH", self.path(plural, name) + "/status", {"status": {"fencing": fencing}}, MERGE)

    def stamp_of(self, plural: str, name: str) -> Any:
        """Give the stamp of an object, an empty one if it has none."""
        return (self.get(plural, name).get("status") or {}).get("fencing") or {}

    def clear(self, *plurals: str) -> None:
        """Remove the objects of these kinds, with finalizers that nobody is left to remove."""
        for plural in plurals:
            for item in self.ask("GET", self.path(plural))["items"]:
                path = self.path(plural, item["metadata"]["name"])
                self.api("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
                self.api("DELETE", path)

    # --- the Lease

    def lease(self) -> dict[str, Any]:
        """Give its spec, an empty one if there is no Lease."""
        return dict(self.read(self.lease_path).get("spec") or {})

    @property
    def lease_version(self) -> str:
        """Its resourceVersion."""
        return str(self.ask("GET", self.lease_path)["metadata"]["resourceVersion"])

    def make_lease(self, **spec: Any) -> None:
        """Create it."""
        folder, _, name = self.lease_path.rpartition("/")
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}
        self.ask("POST", folder, body)

    def edit_lease(self, **spec: Any) -> None:
        """Change some of its spec, whoever holds it."""
        self.ask("PATCH", self.lease_path, {"spec": spec}, MERGE)

    def drop_lease(self) -> None:
        """Delete it, and the Term, which keeps its count: so the stamps alone remember."""
        self.ask("DELETE", self.lease_path)
        self.drop_term()

    def drop_term(self) -> None:
        """Delete it, if there is one."""
        namespace, _, name = self.lease_path.removeprefix(f"{LEASES}/").partition("/leases/")
        term = self.api("DELETE", term_path(namespace, name))
        assert term.ok or term.status == 404, term.message

    def take_lease(self, holder: str = "somebody", seconds: int = 1) -> int:
        """Make another process the holder, as an election of its own would; give its token."""
        token = int(self.lease()["leaseTransitions"]) + 1
        self.edit_lease(holderIdentity=holder, leaseTransitions=token, leaseDurationSeconds=seconds)
        return token

    def events(self) -> dict[str, str]:
        """The last event of each reason on the Lease."""
        items = self.ask("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"]
        lease = self.lease_path.rpartition("/")[2]
        return {e["reason"]: e["message"] for e in items if e["involvedObject"]["name"] == lease}


@contextmanager
def fresh_namespace(cluster: Cluster) -> Iterator[str]:
    """Make a namespace in which Pods can be made.

    In a cluster that lives on it is deleted, and that is not waited for. In one of our own it goes with the cluster: to
    delete it, controllers ask for every kind.
    """
    ask, name = administrator(cluster), f"test-{secrets.token_hex(4)}"
    ask.must("POST", NAMESPACES, {"metadata": {"name": name}})
    try:
        # The controller that makes it took up to a minute after its API server had been stopped and paused.
        ask("POST", f"{NAMESPACES}/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        yield name
    finally:
        if not isinstance(cluster, ControlPlane):
            ask("DELETE", f"{NAMESPACES}/{name}")


def apply_kinds(cluster: Cluster, *kinds: dict[str, Any]) -> None:
    """Make CustomResourceDefinitions, and wait until every version of them is served."""
    cluster.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": kinds}))
    for kind in kinds:
        spec = kind["spec"]
        for version in spec["versions"]:
            path = f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}"
            # until then lists are answered with 404 or 429
            until(f"{path} to be served", partial(_served, cluster, path))


def _served(cluster: Cluster, path: str) -> bool:
    return administrator(cluster)("GET", path).ok
