"""A fenced group of kinds on the real API server, and raw clients that no line 1 or 2 holds back.

The kinds are the reference operator's under a group of its own, so that the tests of others, who write stamps
as administrator, are left alone. The service account may do everything: what refuses here is line 3 alone.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from devcluster import Cluster
from devcluster.waiting import until
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.notes import as_metadata, notes_of
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request, Response
from kopf_ha.manifests import Child, Description, Kind, policies, render, term_crd
from kopf_ha.manifests.cel import QUESTION
from kopf_ha.manifests.term import KNOWN, KNOWN_TERM
from testbed.deployment import ROOT
from tests.kit.client import MERGE, Answer, Client, administrator

GROUP = "fenced.kopf-ha.dev"
POOLS = f"/apis/{GROUP}/v1/fencedpools"
LABEL = ("app.kubernetes.io/managed-by", "fenced-test")


def described(namespace: str) -> Description:
    """What the policies are written from."""
    return Description(
        group=GROUP,
        kinds=(
            Kind("fencedpools", cluster=True, deciding=True, maps=("allocations",)),
            Kind("fencedclaims", values=("address",)),
        ),
        children=(Child("configmaps", labels=(LABEL,)), Child("deployments", "apps")),
        lease=f"{namespace}/leader",
        service_account=f"{namespace}/operator",
        prefix=f"kopf-ha-{namespace}",
    )


class Fenced:
    """The policies in force, an administrator, and three pods of the operator."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.lease = f"{namespace}/leader"
        self.leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self.claims = f"/apis/{GROUP}/v1/namespaces/{namespace}/fencedclaims"
        self.terms = f"/apis/kopf-ha.dev/v1/namespaces/{namespace}/terms"
        self.children = f"/api/v1/namespaces/{namespace}/configmaps"
        self.description = described(namespace)
        self.admin = administrator(cluster)
        self._numbers = itertools.count(1)
        self.installed = False

    # --- setting up and taking down

    def install(self) -> None:
        """Make the account and the policies, and wait until these are in force."""
        self.cluster.kubectl("create", "serviceaccount", "operator", "-n", self.namespace)
        who = f"--serviceaccount={self.namespace}:operator"
        self.cluster.kubectl("create", "clusterrolebinding", self._binding, "--clusterrole=cluster-admin", who)
        self.old, self.new, self.third = (self.pod(name) for name in ("old", "new", "third"))
        self.bare = Client(
            self.cluster.servers[0],
            self.cluster.ca_file,
            self.cluster.kubectl("create", "token", "operator", "-n", self.namespace, "--duration=2h").stdout.strip(),
        )
        self.installed = True
        self.apply_policies()

    def apply_policies(self) -> None:
        # The API server takes them in one after the other, and `in_force` asks for the first ones: they go last.
        self.cluster.kubectl("apply", "-f", "-", input=render(policies(self.description)[::-1]))
        until("the policies to be in force", self.in_force)

    def in_force(self) -> bool:
        """Whether each policy refuses what it must."""
        return all(by.startswith(self.description.prefix) for by in self.refusing())

    def refusing(self) -> list[str]:
        """Give which policies refuse what they must; asked by dry runs, so that nothing changes."""
        probe = {"kind": "FencedPool", "apiVersion": f"{GROUP}/v1", "metadata": {"name": "probe"}}
        probe |= {"spec": {"cidr": "10.9.0.0/28"}}
        self.admin("POST", POOLS, probe)
        lease = {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "x", "leaseTransitions": 1}}
        child = self.child_body("probe", self.new.stamp(1, self.lease))
        dry = "?dryRun=All"
        asked = [
            self.old("PATCH", f"{POOLS}/probe/status{dry}", {"status": {"free": 1}}, MERGE),
            self.admin("PATCH", f"{POOLS}/probe/status{dry}", {"status": {"fencing": self.foreign()}}, MERGE),
            self.old("POST", self.children + dry, child),
            self.admin("POST", self.children + dry, child),
            self.admin("POST", self.leases + dry, lease),
        ]
        return [answer.by for answer in asked]

    def foreign(self) -> dict[str, Any]:
        return Stamp(1, "x_y_z", self.lease, "y").as_status()

    def remove(self) -> None:
        """Remove everything cluster-wide but the kinds; the namespace goes with its fixture."""
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            names = [o["metadata"]["name"] for o in policies(self.description) if o["kind"].lower() == kind]
            self.cluster.kubectl("delete", kind, *names, "--ignore-not-found", check=False)
        ours = self.description.prefix
        if self.installed:
            until("the policies to be out of force", lambda: not any(by.startswith(ours) for by in self.refusing()))
        for path in (POOLS, self.claims):
            for item in self.admin("GET", path).body.get("items") or ():
                one = f"{path}/{item['metadata']['name']}"
                self.admin("PATCH", one, {"metadata": {"finalizers": None}}, MERGE)
                self.admin("DELETE", one)
        self.cluster.kubectl("delete", "clusterrolebinding", self._binding, check=False)

    def pod(self, name: str) -> Client:
        made = self.cluster.pod_identity(self.namespace, "operator", name)
        return Client(self.cluster.servers[0], self.cluster.ca_file, made.token, name, made.uid)

    @property
    def _binding(self) -> str:
        return f"{self.namespace}-operator"

    # --- objects

    def number(self) -> int:
        return next(self._numbers)

    def pool(self, **meta: Any) -> str:
        """Make a pool without a stamp; give its path."""
        n = self.number()
        body = {"apiVersion": f"{GROUP}/v1", "kind": "FencedPool", "metadata": {"name": f"pool-{n}", **meta}}
        body["spec"] = {"cidr": f"10.{n // 250}.{n % 250}.0/28"}
        self.admin.must("POST", POOLS, body)
        return f"{POOLS}/pool-{n}"

    def claim(self, **meta: Any) -> str:
        n = self.number()
        body = {"apiVersion": f"{GROUP}/v1", "kind": "FencedClaim", "metadata": {"name": f"claim-{n}", **meta}}
        self.admin.must("POST", self.claims, body | {"spec": {"poolName": "a-pool"}})
        return f"{self.claims}/claim-{n}"

    def child_body(self, name: str, stamp: Stamp | None) -> dict[str, Any]:
        notes = as_metadata(notes_of(stamp, "configmaps")) if stamp else {}
        meta = {"name": name, "labels": dict([LABEL]), **notes}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "1"}}

    def child(self, by: Client, token: int) -> str:
        name = f"child-{self.number()}"
        by.must("POST", self.children, self.child_body(name, by.stamp(token, self.lease)))
        return f"{self.children}/{name}"

    def stamp(self, by: Client, path: str, token: int, **status: Any) -> dict[str, Any]:
        fencing = by.stamp(token, self.lease).as_status()
        return by.must("PATCH", f"{path}/status", {"status": {**status, "fencing": fencing}}, MERGE)

    def restamp(self, by: Client, path: str, token: int, kind: str = "configmaps") -> dict[str, Any]:
        notes = as_metadata(notes_of(by.stamp(token, self.lease), kind))
        return by.must("PATCH", path, {"metadata": notes}, MERGE)

    def acquire(self, by: Client) -> int:
        """Make a pod the holder, as the election does; give the token."""
        found = self.admin("GET", f"{self.leases}/leader")
        if found.status == 404:
            body: dict[str, Any] = {"metadata": {"name": "leader"}, "spec": {"leaseTransitions": 0}}
        else:
            body = found.body
        token = int(body["spec"]["leaseTransitions"]) + 1
        body["spec"] |= {
            "holderIdentity": by.stamp(1, "").holder,
            "leaseTransitions": token,
            "leaseDurationSeconds": 15,
        }
        where = self.leases if found.status == 404 else f"{self.leases}/leader"
        by.must("POST" if found.status == 404 else "PUT", where, body)
        return token

    def lead(self, by: Client) -> int:
        """Make a pod the holder and write its Term, as a leader does; give the token when the API server knows it."""
        token = self.acquire(by)
        self.write_term(by, token)
        self.wait_heard(by, token)
        return token

    def wait_heard(self, by: Client, token: int) -> None:
        """Wait until the API server has heard of the Term of a pod."""
        ask = f"{self.terms}/leader?dryRun=All&fieldManager={QUESTION}{KNOWN}"
        said = f"{KNOWN_TERM}{token} of pod "
        # The kind of a parameter is looked for every 30 s.
        until("the Term to be known", lambda: said in by("PATCH", ask, {}, MERGE).message)

    def write_term(self, by: Client, token: int) -> None:
        """Write the Term of a pod that holds the Lease. The API server knows it some time later."""
        spec = {"token": token, "holder": by.stamp(1, "").holder, "podUID": by.uid}
        made = by("PATCH", f"{self.terms}/leader", {"spec": spec}, MERGE)
        if made.status == 404:
            body = {"apiVersion": "kopf-ha.dev/v1", "kind": "Term", "metadata": {"name": "leader"}, "spec": spec}
            made = by("POST", self.terms, body)
        assert made.ok, made.message

    def read(self, path: str) -> dict[str, Any]:
        return self.admin.must("GET", path)

    def plain(self, text: str) -> str:
        """Take out of a sentence what is another in each run."""
        for client in (self.old, self.new, self.third):
            text = text.replace(client.uid, f"UID-OF-{client.pod.upper()}")
        text = re.sub(r"(pool|claim|child)-\d+", r"\1", re.sub(r"stamp-[0-9a-f]{16}", "stamp-HASH", text))
        return text.replace(self.namespace, "NAMESPACE")


def make_kinds(cluster: Cluster) -> None:
    """Make the kinds, and wait until they are served."""
    cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all([*crds(), term_crd.definition()]))
    cluster.wait_established()


def crds() -> list[dict[str, Any]]:
    """Give the reference operator's CRDs under other names, which kubectl cannot take for the real ones."""
    made = []
    for path in sorted((ROOT / "crds").glob("address*.yaml")):
        crd = yaml.safe_load(path.read_text())
        names = crd["spec"]["names"]
        for key in ("kind", "listKind", "plural", "singular"):
            names[key] = names[key].replace("Address", "Fenced").replace("address", "fenced")
        del names["shortNames"], names["categories"]
        crd["metadata"]["name"] = f"{names['plural']}.{GROUP}"
        if names["plural"] == "fencedpools":
            # a subresource more, to see that it is no way around
            version = crd["spec"]["versions"][0]
            version["subresources"]["scale"] = {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.free",
            }
            version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["replicas"] = {"type": "integer"}
        crd["spec"]["group"] = GROUP
        made.append(crd)
    return made


def changed(body: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    """Give a Lease with other values of its spec."""
    made = copy.deepcopy(dict(body))
    made["spec"] |= spec
    return made


# --- through the fence, by the process that the API server refuses


def response(answer: Answer) -> Response:
    return Response(answer.status, json.dumps(answer.body).encode())


class Process:
    """A term of a pod, whose writes pass the fence."""

    def __init__(self, by: Client, lease: str, token: int) -> None:
        self.by = by
        self.fence = Fence(lease)
        self.grant = Grant(by.stamp(token, lease), 10.0)

    def patch(self, path: str, body: dict[str, Any], content_type: str = MERGE) -> Response:
        return self("PATCH", path, body, content_type)

    def __call__(self, method: str, path: str, body: Any, content_type: str = "application/json") -> Response:
        request = Request(method, path, "", content_type, json.dumps(body).encode())
        flow = self.fence.flow(request, self.grant, lambda: 0.0)
        out = next(flow)
        while True:
            try:
                out = flow.send(response(self.by(out.method, out.path, out.json, out.content_type)))
            except StopIteration as end:
                answer: Response = end.value
                return answer
