"""A tenant with rights in one namespace, against the reference operator behind its policies (I10).

Whatever they do with claims and ConfigMaps of their own, the leader goes on with the same term, and others are served.
"""

from __future__ import annotations

import json
import subprocess
import threading
from typing import Any

from devcluster import ControlPlane
from devcluster.waiting import until
from testbed.deployment import NAME
from tests.kit.client import MERGE, Client, administrator
from tests.policies.deployed import World

RIGHTS = """
apiVersion: v1
kind: Namespace
metadata: {name: tenant}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: somebody, namespace: tenant}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tenant, namespace: tenant}
rules:
- {apiGroups: [ipam.kopf-ha.dev], resources: [addressclaims], verbs: ["*"]}
- {apiGroups: [""], resources: [configmaps], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant, namespace: tenant}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: tenant}
subjects: [{kind: ServiceAccount, name: somebody, namespace: tenant}]
"""
CLAIM = "/apis/ipam.kopf-ha.dev/v1/namespaces/tenant/addressclaims/"


class Tenant:
    """Somebody who may write claims and ConfigMaps in one namespace, and nothing else."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        plane.kubectl("apply", "-f", "-", input=RIGHTS)
        self._token = plane.kubectl("create", "token", "somebody", "-n", "tenant", "--duration=1h").stdout.strip()
        self._client = Client(plane.servers[0], plane.ca_file, self._token)

    def kubectl(self, *args: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        return self._plane.kubectl("-n", "tenant", *args, check=check, token=self._token, **more)

    def apply(self, body: dict[str, Any], check: bool = True) -> str:
        return self.kubectl("apply", "-f", "-", input=json.dumps(body), check=check).stderr

    def claim(self, name: str, *finalizers: str, pool: str = "pool") -> None:
        meta = {"name": name, "namespace": "tenant", "finalizers": list(finalizers)}
        body = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressClaim", "metadata": meta}
        self.apply(body | {"spec": {"poolName": pool}})

    def annotate(self, name: str, **annotations: str) -> None:
        self._client("PATCH", CLAIM + name, {"metadata": {"annotations": annotations}}, MERGE)

    def get(self, name: str) -> dict[str, Any]:
        found = self._client("GET", CLAIM + name)
        assert found.ok or found.status == 404, found.message
        return found.body if found.ok else {}

    def reason(self, name: str) -> str:
        conditions = (self.get(name).get("status") or {}).get("conditions") or ()
        return next((str(c["reason"]) for c in conditions if c["type"] == "Ready"), "")

    def configmap(self, name: str, **meta: Any) -> dict[str, Any]:
        meta |= {"name": name, "namespace": "tenant"}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "b"}}

    def child(self, claim: str) -> str:
        """The name that the claim's ConfigMap will have: it can be computed."""
        return f"{claim}-{self.get(claim)['metadata']['uid'][:8]}"

    def as_child(self, claim: str, **annotations: str) -> dict[str, Any]:
        """A ConfigMap that looks like the claim's own."""
        owner = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressClaim", "name": claim}
        owner["uid"] = self.get(claim)["metadata"]["uid"]
        labels = {"app.kubernetes.io/managed-by": NAME}
        return self.configmap(self.child(claim), labels=labels, ownerReferences=[owner], annotations=annotations)


def until_reason(tenant: Tenant, name: str, reason: str) -> None:
    until(f"claim {name} to be {reason}", lambda: tenant.reason(name) == reason)


def test_what_a_tenant_does_costs_nobody_else_anything(world: World) -> None:
    plane, tenant = world.plane, Tenant(world.plane)
    leader = world.start(plane.pod_identity(NAME, NAME, "one"))
    world.claims("first")
    world.until_bound(1)
    lease = f"{NAME}/{NAME}"

    # names that are taken, with what makes the fence or a policy refuse
    names = ("foreign", "malformed", "elsewhere", "held")
    for name in names:
        tenant.claim(name, pool="later")
        until_reason(tenant, name, "PoolNotFound")
    tenant.apply(tenant.configmap(tenant.child("foreign")))
    tenant.apply(tenant.as_child("malformed", **{"kopf-ha.dev/token": "x"}))
    stamp = {"token": "7", "holder": "h", "lease": "else/where", "pod-uid": "p"}
    tenant.apply(tenant.as_child("elsewhere", **{f"kopf-ha.dev/{k}": v for k, v in stamp.items()}))
    said = tenant.apply(
        tenant.as_child("held", **{f"kopf-ha.dev/{k}": v for k, v in (stamp | {"lease": lease}).items()}), False
    )
    assert "fencing: only system:serviceaccount:kopf-ha-ipam:kopf-ha-ipam writes the annotation" in said
    body = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressPool", "metadata": {"name": "later"}}
    plane.kubectl("apply", "-f", "-", input=json.dumps(body | {"spec": {"cidr": "10.78.0.0/29"}}))
    until_reason(tenant, "foreign", "ConfigMapTaken")
    until_reason(tenant, "malformed", "ConfigMapRefused")
    until_reason(tenant, "elsewhere", "Bound")  # another Lease's stamp says nothing about ours
    until_reason(tenant, "held", "Bound")

    # deleted while it is handled, without its finalizer, under a finalizer, and edited all the time
    over = threading.Event()

    def edit() -> None:
        number = 0
        while not over.wait(0.1):
            number += 1
            tenant.annotate("held", n=str(number))

    editor = threading.Thread(target=edit, daemon=True)
    editor.start()
    try:
        for number in range(5):
            tenant.claim(f"short-{number}")
            tenant.kubectl("delete", "addressclaim", f"short-{number}", "--wait=false")
        tenant.kubectl("patch", "addressclaim", "malformed", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
        tenant.kubectl("delete", "addressclaim", "malformed")
        tenant.claim("kept", "example.com/hold")
        until_reason(tenant, "kept", "Bound")
        tenant.kubectl("delete", "addressclaim", "kept", "--wait=false")
        tenant.kubectl("delete", "configmaps", "-l", f"app.kubernetes.io/managed-by={NAME}")
        world.claims("second")
        world.until_bound(2)
    finally:
        over.set()
        editor.join()

    def records(pool: str) -> set[str]:
        found = administrator(plane).must("GET", f"/apis/ipam.kopf-ha.dev/v1/addresspools/{pool}")
        return {owner.split("/")[1] for owner in found["status"]["allocations"].values()}

    until("addresses to come back", lambda: records("later") == {"foreign", "elsewhere", "held"})
    until("short ones to be gone", lambda: records("pool") == {"first", "second", "kept"})
    assert leader.running
    assert "term 1 of" not in leader.log, "the term ended"
