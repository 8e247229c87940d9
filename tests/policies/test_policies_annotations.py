"""A deciding kind without a status subresource: from a replica that may not lead to one that took over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster, PodIdentity
from devcluster.waiting import until
from kopf_ha.core.notes import as_metadata, note_name, notes_of
from kopf_ha.manifests import Description, Kind, policies, render
from testbed.replica import PATIENCE, Replica, as_pod
from tests.kit.client import MERGE, Client, administrator
from tests.kit.crd import crd, version
from tests.kit.world import apply_kinds

GROUP = "noted.kopf-ha.dev"
KIND = f"racks.{GROUP}"
CODE = f"""
import kopf

@kopf.on.startup()
def configure(settings, **_):
    settings.posting.enabled = False
    settings.scanning.disabled = True

@kopf.on.create("{GROUP}", "v1", "racks")
@kopf.on.update("{GROUP}", "v1", "racks", field="spec")
def place(spec, patch, **_):
    patch.status["size"] = spec.get("size", 1)
"""


class Racks:
    """A namespace with the kind, the account and replicas."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.cluster, self.namespace, self.folder = cluster, namespace, folder
        self.admin = administrator(cluster)
        self.path = f"/apis/{GROUP}/v1/namespaces/{namespace}/racks"
        self.description = Description(
            group=GROUP,
            kinds=(Kind("racks", deciding=True, annotations=True, maps=("slots",)),),
            lease=f"{namespace}/op",
            service_account=f"{namespace}/operator",
            prefix=f"kopf-ha-{namespace}",
        )
        self.note = note_name(self.description.lease, KIND)
        self.running: list[Replica] = []
        cluster.kubectl("create", "serviceaccount", "operator", "-n", namespace)
        who = f"--serviceaccount={namespace}:operator"
        cluster.kubectl("create", "clusterrolebinding", f"{namespace}-operator", "--clusterrole=cluster-admin", who)
        (folder / "op.py").write_text(CODE)

    def pod(self, name: str) -> tuple[PodIdentity, Client]:
        made = self.cluster.pod_identity(self.namespace, "operator", name)
        return made, Client(self.cluster.servers[0], self.cluster.ca_file, made.token, name, made.uid)

    def start(self, pod: PodIdentity) -> Replica:
        lease = ["--lease-name=op", f"--lease-namespace={self.namespace}", "--after-loss=follow"]
        arguments = ["run", "-n", self.namespace, "op.py", f"--deciding={KIND}", *lease]
        config = self.cluster.kubeconfig_for(pod.token, name=pod.name)
        made = Replica(
            pod.name,
            config,
            arguments,
            self.folder / f"{pod.name}.log",
            env=as_pod(pod, self.namespace),
            cwd=self.folder,
            warm=True,
        )
        self.running.append(made)
        made.start()
        return made

    def rack(self, name: str) -> dict[str, Any]:
        return self.admin.must("GET", f"{self.path}/{name}")

    def stamp(self, name: str) -> list[str]:
        """Token, Lease, pod and holder; empty without a stamp."""
        return str((self.rack(name)["metadata"].get("annotations") or {}).get(self.note, "")).split()


@pytest.fixture
def racks(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Racks]:
    apply_kinds(cluster, crd(GROUP, "Rack", version(fencing=None) | {"subresources": {}}))
    made = Racks(cluster, namespace, tmp_path)
    try:
        yield made
    finally:
        for replica in made.running:
            replica.kill()
            print(f"--- {replica.name}", replica.log, sep="\n")  # pytest shows it on failure
        made.cluster.kubectl("delete", "-f", "-", input=render(policies(made.description)), check=False)
        items = made.admin("GET", made.path).body["items"]
        for item in items:
            made.admin("PATCH", f"{made.path}/{item['metadata']['name']}", {"metadata": {"finalizers": None}}, MERGE)
        made.cluster.kubectl("delete", "clusterrolebinding", f"{namespace}-operator", check=False)
        made.cluster.kubectl("delete", "crd", KIND, "--wait=false")


def test_a_deciding_kind_by_annotations(racks: Racks) -> None:
    for name in ("a", "b"):
        body = {"apiVersion": f"{GROUP}/v1", "kind": "Rack", "metadata": {"name": name}, "spec": {"size": 3}}
        racks.admin.must("POST", racks.path, body)
    (first, one), (second, two) = racks.pod("one"), racks.pod("two")
    leader = racks.start(first)
    leader.see(f"deciding kind {KIND} has no status.fencing, so its objects' stamps are annotations")
    assert racks.stamp("a") == []
    assert "status" not in racks.rack("a")

    racks.cluster.kubectl("apply", "-f", "-", input=render(policies(racks.description)))
    until("the racks to be placed", lambda: racks.rack("b").get("status") == {"size": 3}, PATIENCE)
    until("the other one", lambda: racks.rack("a").get("status") == {"size": 3}, PATIENCE)
    token, lease, pod, holder = racks.stamp("a")
    assert (lease, pod) == (racks.description.lease, first.uid)
    assert holder.startswith(f"one_{first.uid}_")

    # Users edit everything but the stamp, and give nothing to what is being deleted.
    racks.admin.must("PATCH", f"{racks.path}/b", {"metadata": {"annotations": {"x": "y"}}, "status": {"y": 1}}, MERGE)
    for value in (None, f"9{token} {lease} {pod} {holder}"):
        answer = racks.admin("PATCH", f"{racks.path}/a", {"metadata": {"annotations": {racks.note: value}}}, MERGE)
        assert answer.by.endswith(f"-annotations-{KIND}")

    # The next leader stamps all of them before its handlers run, also the one that nothing is written to.
    racks.start(second)
    leader.kill()
    until("the next leader", lambda: [racks.stamp(name)[2:3] for name in ("a", "b")] == [[second.uid]] * 2, PATIENCE)
    assert int(racks.stamp("a")[0]) > int(token)
    racks.admin.must("PATCH", f"{racks.path}/a", {"spec": {"size": 4}}, MERGE)
    until("it to work", lambda: racks.rack("a")["status"] == {"size": 4}, PATIENCE)

    # What the first one, which is late, sends past its fence.
    before = racks.rack("a")
    mine: dict[str, Any] = {"status": {"slots": {"s": "me"}}}
    own = as_metadata(notes_of(one.stamp(int(token), lease), KIND))
    for body in (mine, {**mine, "metadata": own}):
        # Both policies refuse it, and the API server names one of them.
        assert one("PATCH", f"{racks.path}/a", body, MERGE).by.endswith((f"-child-{KIND}", "-term"))
    assert racks.rack("a")["status"] == before["status"]

    # What is being deleted gets nothing new, although the status is written with the object.
    racks.admin.must("PATCH", f"{racks.path}/b", {"metadata": {"finalizers": ["example.com/hold"]}}, MERGE)
    racks.admin.must("DELETE", f"{racks.path}/b")
    newer = as_metadata(notes_of(two.stamp(int(racks.stamp("b")[0]) + 5, lease), KIND))
    assert two("PATCH", f"{racks.path}/b", {**mine, "metadata": newer}, MERGE).by.endswith("-terminating-racks")
