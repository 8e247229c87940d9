"""Subresources of children with the policies in force: by the stamp of the object, where a policy sees it (I3, I9)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster import Cluster
from devcluster.waiting import until
from kopf_ha.core.notes import as_metadata, note_name, notes_of
from kopf_ha.errors import Denied, StaleLeader
from kopf_ha.manifests import Child, Description, Kind, policies, render
from kopf_ha.manifests.policies import all_policies
from tests.kit.client import MERGE, STRATEGIC, Client, administrator
from tests.kit.world import fresh_namespace
from tests.policies.fenced import Process

CSRS = "certificatesigningrequests.certificates.k8s.io"
RESOURCES = {"requests": {"cpu": "2"}, "limits": {"cpu": "4"}}
POD = {"spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i", "resources": RESOURCES}]}}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": POD["spec"]}
WORKLOAD = {"spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}}
DEBUG = {"spec": {"ephemeralContainers": [{"name": "d", "image": "i", "terminationMessagePolicy": "File"}]}}
RESIZE = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}
SCALE = {"spec": {"replicas": 1}}
NODE = {"kind": "Node", "name": "n"}
APPROVED = {"type": "Approved", "status": "True", "reason": "r", "message": "m"}


class Parts:
    """Policies for children of many kinds, two pods of their operator, and an administrator."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace, self.lease = cluster, namespace, f"{namespace}/op"
        self.admin = administrator(cluster)
        self.description = Description(
            group="parts.kopf-ha.dev",
            kinds=(Kind("things"),),
            children=(
                Child("pods", subresources=("eviction", "binding")),
                Child("deployments", "apps", subresources=("scale",)),
                Child("statefulsets", "apps"),
                Child("certificatesigningrequests", "certificates.k8s.io"),
                Child("namespaces"),
                Child("serviceaccounts", subresources=("token",)),
            ),
            lease=self.lease,
            service_account=f"{namespace}/operator",
            prefix=f"kopf-ha-{namespace}",
        )

    def install(self) -> None:
        kubectl = self.cluster.kubectl
        kubectl("create", "serviceaccount", "operator", "-n", self.namespace)
        who = f"--serviceaccount={self.namespace}:operator"
        kubectl("create", "clusterrolebinding", self.namespace, "--clusterrole=cluster-admin", who)
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"
        lease = self.admin.must("POST", leases, {"metadata": {"name": "op"}, "spec": {"leaseTransitions": 7}})
        old, new = (self._pod(name) for name in ("old", "new"))
        kubectl("apply", "-f", "-", input=render(policies(self.description)))

        def asked(policy: str, manager: str) -> bool:
            return new("PUT", f"{leases}/op?dryRun=All&fieldManager={manager}", lease).by == policy

        # Nobody leads here, so there is no Term that the policies of line 4 could compare with.
        first = {p.name: p.rules[0].asked(p.name) for p in all_policies(self.description) if not p.by_term}
        until("the policies to be in force", lambda: all(asked(*one) for one in first.items()))
        holder = {**lease["spec"], "holderIdentity": new.stamp(8, "").holder, "leaseTransitions": 8}
        new.must("PUT", f"{leases}/op", {**lease, "spec": holder})
        self.old, self.new = old, new
        self.leader, self.stale = Process(new, self.lease, 8), Process(old, self.lease, 7)

    def _pod(self, name: str) -> Client:
        made = self.cluster.pod_identity(self.namespace, "operator", name)
        return Client(self.cluster.servers[0], self.cluster.ca_file, made.token, name, made.uid)

    def remove(self) -> None:
        self.cluster.kubectl("delete", "-f", "-", input=render(policies(self.description)), check=False)
        self.cluster.kubectl("delete", "clusterrolebinding", self.namespace, check=False)

    def at(self, plural: str, name: str = "") -> str:
        start = "/apis/apps/v1" if plural in ("deployments", "statefulsets") else "/api/v1"
        return f"{start}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def make(self, collection: str, name: str, body: dict[str, Any]) -> str:
        self.admin.must("POST", collection, {**body, "metadata": {"name": name}})
        return f"{collection}/{name}"

    def notes(self, by: Client, token: int, kind: str) -> dict[str, Any]:
        return as_metadata(notes_of(by.stamp(token, self.lease), kind))

    def is_the_leaders(self, path: str, kind: str) -> bool:
        """Whether the object has the leader's stamp."""
        metadata = self.admin.must("GET", path)["metadata"]
        recorded = {**(metadata.get("annotations") or {}), **(metadata.get("labels") or {})}
        return self.new.uid in recorded.get(note_name(self.lease, kind), "")


@pytest.fixture(scope="module")
def parts(cluster: Cluster) -> Iterator[Parts]:
    with fresh_namespace(cluster) as namespace:
        made = Parts(cluster, namespace)
        try:
            made.install()
            yield made
        finally:
            made.remove()


@pytest.mark.parametrize(
    ("sub", "body"),
    [("ephemeralcontainers", DEBUG), ("resize", RESIZE), ("status", {"status": {"message": "mine"}})],
)
def test_what_shows_the_stamp_is_the_leaders(parts: Parts, sub: str, body: dict[str, Any]) -> None:
    path = parts.make(parts.at("pods"), f"pod-{sub}", POD)
    assert parts.leader.patch(f"{path}/{sub}", body, STRATEGIC).ok
    assert parts.is_the_leaders(path, "pods")
    for metadata in ({}, parts.notes(parts.old, 7, "pods")):
        answer = parts.old("PATCH", f"{path}/{sub}", {**body, "metadata": metadata}, STRATEGIC)
        assert answer.by.endswith("-child-pods"), answer


def test_the_approval_of_a_signing_request(parts: Parts) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name)
    pem = made.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    spec = {"request": base64.b64encode(pem).decode(), "signerName": "test.dev/x", "usages": ["client auth"]}
    path = parts.make("/apis/certificates.k8s.io/v1/certificatesigningrequests", parts.namespace, {"spec": spec})
    try:
        asked = {"status": {"conditions": [APPROVED]}}
        assert parts.leader.patch(f"{path}/approval", asked).ok
        assert parts.is_the_leaders(path, CSRS)
        assert parts.old("PATCH", f"{path}/approval", asked, MERGE).by.endswith(f"-child-{CSRS}")
    finally:
        parts.admin("DELETE", path)


def test_the_end_of_a_namespace(parts: Parts) -> None:
    name = f"{parts.namespace}-ends"
    path = parts.make("/api/v1/namespaces", name, {"spec": {"finalizers": ["test.dev/x"]}})
    ended = {"metadata": {"name": name}, "spec": {"finalizers": []}}
    try:
        parts.leader.patch(path, {"metadata": {"labels": {"a": "b"}}})
        assert parts.old("PUT", f"{path}/finalize", ended).by.endswith("-child-namespaces")
        # It takes annotations, so others could take the stamp away by it.
        assert parts.admin("PUT", f"{path}/finalize", ended).by.endswith("-annotations-namespaces")
        assert parts.leader("PUT", f"{path}/finalize", ended).ok
        assert parts.is_the_leaders(path, "namespaces")
    finally:
        parts.admin("DELETE", path)


def test_a_subresource_that_shows_none_is_refused_unless_it_is_named(parts: Parts) -> None:
    path = parts.make(parts.at("statefulsets"), "x", WORKLOAD)
    with pytest.raises(Denied, match=r"a write to scale shows no stamp.* --child statefulsets\.apps:scale"):
        parts.leader.patch(f"{path}/scale", SCALE)
    assert parts.admin("PATCH", f"{path}/scale", SCALE, MERGE).ok
    other = parts.make(parts.at("deployments"), "x", WORKLOAD)
    assert parts.leader.patch(f"{other}/scale", SCALE).ok
    assert parts.is_the_leaders(other, "deployments.apps")
    assert parts.admin.must("GET", other)["spec"]["replicas"] == 1
    with pytest.raises(StaleLeader):
        parts.stale.patch(f"{other}/scale", {"spec": {"replicas": 9}})
    assert parts.admin.must("GET", other)["spec"]["replicas"] == 1


@pytest.mark.parametrize("sub", ["eviction", "binding", "bindings"])
def test_an_eviction_and_a_binding_have_to_name_a_revision(parts: Parts, sub: str) -> None:
    path = parts.make(parts.at("pods"), f"pod-{sub}", POD)
    name = path.rpartition("/")[2]
    where = parts.at("bindings") if sub == "bindings" else f"{path}/{sub}"
    body: dict[str, Any] = {"metadata": {"name": name}}
    other: dict[str, Any] = {"metadata": {"name": name, "resourceVersion": "1"}}
    if sub != "eviction":
        body["target"] = NODE
        other = {**body, "deleteOptions": {"preconditions": {"resourceVersion": "1"}}}
    # Also of the leader's pod, past the fence. What another kind of write would name does not count.
    for bare in (body, other):
        answer = parts.new("POST", where, bare)
        assert answer.by.endswith("-revision-pods"), answer
        assert "must name the revision that was decided from" in answer.message
    assert parts.leader.patch(path, {"metadata": {"labels": {"a": "b"}}}).ok
    with pytest.raises(StaleLeader):
        parts.stale("POST", where, body)
    assert parts.leader("POST", where, body).ok
    gone = parts.admin("GET", path)
    assert gone.status == 404 if sub == "eviction" else gone.body["spec"]["nodeName"] == "n"


def test_a_token_is_asked_for_where_it_is_named(parts: Parts) -> None:
    path = f"{parts.at('serviceaccounts')}/default/token"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    assert parts.leader("POST", path, asked).ok


def test_the_policies_are_well_typed(parts: Parts) -> None:
    """The API server checks expressions against the schemas of the kinds, and says so in the status."""
    api = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    for policy in all_policies(parts.description):

        def checked(name: str = policy.name) -> Any:
            found = parts.admin.must("GET", f"{api}/{name}")
            ready = found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
            return found if ready else None

        assert not until("the types to be checked", checked)["status"]["typeChecking"]
