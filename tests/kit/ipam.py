"""Replicas of the reference operator on a real control plane, and what an administrator sees of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from devcluster import Cluster
from devcluster.waiting import until
from testbed.deployment import ROOT
from testbed.replica import IPAM, KOPF_HA, PATIENCE, Replica
from tests.kit.client import MERGE
from tests.kit.world import World

GROUP = "ipam.kopf-ha.dev"
API = f"{GROUP}/v1"
KINDS = ("addressclaims", "addresspools")
LEASE = "ipam-test"
#: Runs kopf-ha with a fault at a certain write.
FAULTY = Path(__file__).with_name("faulty.py")
#: Where the kinds are that tests ask for, by their plurals.
PATHS = {
    "addresspools": f"/apis/{API}/addresspools",
    "addressclaims": f"/apis/{API}/namespaces/{{}}/addressclaims",
    "configmaps": "/api/v1/namespaces/{}/configmaps",
    "resourcequotas": "/api/v1/namespaces/{}/resourcequotas",
    "leases": "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
    "namespaces": "/api/v1/namespaces",
    "crds": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
}
ALIASES = {"apool": "addresspool", "aclaim": "addressclaim"}


def install_crds(cluster: Cluster) -> None:
    """Make the operator's kinds."""
    cluster.kubectl("apply", "-k", str(ROOT / "crds"))
    cluster.wait_established()
    served = ("get", "addresspools,addressclaims", "-A")
    until("the CRDs to be served", lambda: cluster.kubectl(*served, check=False).returncode == 0)


class Ipam(World):
    """A cluster with the CRDs, one namespace, and operators.

    Args:
        cluster: the cluster.
        namespace: for claims, and for the Lease.
        folder: for logs.
    """

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        super().__init__(cluster, namespace, GROUP, LEASE)
        self.folder = folder
        self.operators: list[Replica] = []
        #: Those that may end while the test waits for something.
        self.expendable: set[Replica] = set()

    # objects

    def path(self, plural: str, name: str = "", version: str = "v1") -> str:
        """Give the path of a kind, by any of its names, or of one object."""
        singular = plural.removesuffix("s")
        path = PATHS[ALIASES.get(singular, singular) + "s"].format(self.namespace)
        return f"{path}/{name}" if name else path

    def pool(self, name: str, **spec: Any) -> dict[str, Any]:
        return {"apiVersion": API, "kind": "AddressPool", "metadata": {"name": name}, "spec": spec}

    def claim(self, name: str, pool: str, **spec: Any) -> dict[str, Any]:
        meta = {"name": name, "namespace": self.namespace}
        return {"apiVersion": API, "kind": "AddressClaim", "metadata": meta, "spec": {"poolName": pool, **spec}}

    def apply(self, *objects: Mapping[str, Any], check: bool = True) -> subprocess.CompletedProcess[str]:
        many = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.kubectl("apply", "-f", "-", input=json.dumps(many), check=check)

    def get(self, plural: str, name: str) -> dict[str, Any]:
        """Give the object, an empty one if it is not there."""
        return self.read(self.path(plural, name))

    def all(self, kind: str) -> list[dict[str, Any]]:
        return list(self.read(self.path(kind))["items"])

    def children(self) -> list[dict[str, Any]]:
        label = "labelSelector=app.kubernetes.io/managed-by=kopf-ha-ipam"
        return list(self.read(f"{self.path('configmaps')}?{label}")["items"])

    def delete(self, kind: str, *names: str, wait: bool = True) -> None:
        """Delete what is there; with `wait` until it is gone."""
        self.kubectl("delete", kind, *names, f"--wait={str(wait).lower()}", "--timeout=60s", "--ignore-not-found")

    # waiting

    def until(self, what: str, check: Callable[[], Any]) -> Any:
        return until(what, check, PATIENCE, watched=[o for o in self.operators if o not in self.expendable])

    def until_ready(self, *names: str) -> dict[str, str]:
        """Wait until the claims (all, if none are named) are bound, and give their addresses."""

        def check() -> dict[str, str] | None:
            claims = [c for c in self.all("addressclaims") if not names or c["metadata"]["name"] in names]
            bound = {c["metadata"]["name"]: address(c) for c in claims if condition(c) == "Bound"}
            return bound if len(bound) == (len(names) or len(claims)) and bound else None

        return dict(self.until(f"claims {names or 'all'} to be bound", check))

    def until_reason(self, kind: str, name: str, reason: str) -> str:
        """Wait until Ready has the reason, and give its message."""

        def check() -> str | None:
            found = self.get(kind, name)
            return message(found) if condition(found) == reason else None

        return str(self.until(f"{kind} {name} to be {reason}", check))

    def until_gone(self, kind: str, name: str) -> None:
        self.until(f"{kind} {name} to be gone", lambda: not self.get(kind, name))

    def until_quiet(self) -> None:
        """Wait until nobody writes anything of ours for a while (I7)."""
        before: list[Any] = []

        def check() -> bool:
            nonlocal before
            every = [o for k in KINDS for o in self.all(k)] + self.children()
            versions = sorted(o["metadata"]["resourceVersion"] for o in every)
            same, before = versions == before, versions
            return same

        until("writes to stop", check, PATIENCE, every=1.5)

    # operators

    def operator(self, name: str = "a", *, launcher: Path | None = None, **env: str) -> Replica:
        """Start a replica, with a launcher in place of the command's. All of one test share a Lease."""
        arguments = [*IPAM, f"--lease-name={LEASE}", f"--lease-namespace={self.namespace}"]
        pod = {"POD_NAME": name, "POD_NAMESPACE": self.namespace, "KOPF_HA_IPAM_QUARANTINE": "1"}
        log, program = self.folder / f"{name}.log", (launcher,) if launcher else KOPF_HA
        made = Replica(name, self.cluster.kubeconfig, arguments, log, env=pod | env, program=program, warm=True)
        self.operators.append(made)
        if launcher:
            self.expendable.add(made)
        made.start()
        return made

    def until_leader(self, operator: Replica) -> None:
        def check() -> bool:
            return str(self.lease().get("holderIdentity") or "").startswith(f"{operator.name}_")

        until(f"{operator.name} to lead", check, PATIENCE, watched=[operator])

    def vacate_lease(self) -> None:
        """Spare the wait for the expiry, for a leader that is known to be dead or paused."""
        self.edit_lease(holderIdentity="")

    # the promise

    def check_consistent(self) -> None:
        """I5, and that pools, claims and ConfigMaps say the same."""
        claims = self.all("addressclaims")
        held = {a: o for p in self.all("addresspools") for a, o in (p["status"].get("allocations") or {}).items()}
        told = {address(c): owner(c) for c in claims if address(c)}
        assert len(told) == sum(1 for c in claims if address(c)), "one address was given twice"
        assert held == told
        published = {c["metadata"]["ownerReferences"][0]["uid"]: c["data"]["ADDRESS"] for c in self.children()}
        assert published == {c["metadata"]["uid"]: address(c) for c in claims if address(c)}

    def clear(self, *plurals: str) -> None:
        """Stop operators, show their logs and remove everything, finalizers or not."""
        for operator in self.operators:
            operator.kill()
            print(f"--- {operator.name}", *operator.log.splitlines()[-100:], sep="\n")  # pytest shows it on failure
        for kind in plurals or KINDS:
            for item in self.read(f"/apis/{API}/{kind}").get("items", ()):  # of all namespaces
                meta = item["metadata"]
                where = f"namespaces/{meta['namespace']}/" if "namespace" in meta else ""
                path = f"/apis/{API}/{where}{kind}/{meta['name']}"
                self.api("DELETE", path)
                self.api("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)


def condition(body: Mapping[str, Any], field: str = "reason") -> str:
    found = (body.get("status") or {}).get("conditions") or ()
    return next((str(c[field]) for c in found if c["type"] == "Ready"), "")


def message(body: Mapping[str, Any]) -> str:
    return condition(body, "message")


def address(body: Mapping[str, Any]) -> str:
    return str((body.get("status") or {}).get("address") or "")


def owner(body: Mapping[str, Any]) -> str:
    meta = body["metadata"]
    return f"{meta['namespace']}/{meta['name']}/{meta['uid']}"
