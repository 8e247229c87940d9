"""Where a real scheduler puts the pods of overlays/three-zones. Nodes are objects only, so nothing runs on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import Binaries, Cluster, ControlPlane, Process, components
from devcluster.waiting import until
from testbed.deployment import NAME, ROOT
from tests.manifests.support import built, get, one

ZONES = ("a", "b", "c")
#: Keeps other tests' pods away.
TAINT = {"key": "kopf-ha.dev/scheduling-test", "effect": "NoSchedule"}


@pytest.fixture
def scheduler(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Process]:
    argv = components.scheduler(Binaries.find(["kube-scheduler"])["kube-scheduler"], control_plane.kubeconfig)
    with Process("kube-scheduler", argv, log_path=tmp_path / "scheduler.log") as running:
        yield running


@pytest.fixture
def nodes(control_plane: ControlPlane) -> Iterator[None]:
    """One in each zone, without local storage that is counted, as rootless ones are."""
    room = {"cpu": "4", "memory": "8Gi", "pods": "110"}
    items = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"zone-{zone}", "labels": {"topology.kubernetes.io/zone": zone}},
            "spec": {"taints": [TAINT]},
            "status": {"capacity": room, "allocatable": room},
        }
        for zone in ZONES
    ]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    control_plane.kubectl("create", "-f", "-", input=listed)
    try:
        yield
    finally:
        control_plane.kubectl("delete", "-f", "-", input=listed)


def test_the_processes_are_those_of_this_folder_s_cluster(cluster: Cluster, control_plane: ControlPlane) -> None:
    """Also after tests of other folders, whose cluster is another one."""
    assert control_plane is cluster


@pytest.mark.timeout(600)  # the scheduler may have to be built first
@pytest.mark.usefixtures("nodes")
def test_a_replica_waits_for_its_zone(
    control_plane: ControlPlane, scheduler: Process, binaries: Binaries, namespace: str
) -> None:
    cluster = control_plane
    deployment = one(built(binaries, ROOT / "deploy/overlays/three-zones"), "Deployment")
    deployment["metadata"]["namespace"] = namespace
    spec = deployment["spec"]["template"]["spec"]
    spec["serviceAccountName"] = "default"
    del spec["priorityClassName"]  # which is for the operator's own pods only
    # of nodes without a kubelet
    missing = [{"key": f"node.kubernetes.io/{why}", "effect": "NoSchedule"} for why in ("not-ready", "unreachable")]
    spec["tolerations"] += [{"operator": "Exists", **taint} for taint in (TAINT, *missing)]
    cluster.kubectl("create", "-f", "-", input=json.dumps(deployment))

    def pods() -> dict[str, dict[str, Any]]:
        found = get(cluster, "pods", f"--namespace={namespace}").get("items", [])
        return {p["metadata"]["name"]: p for p in found if not p["metadata"].get("deletionTimestamp")}

    def placed() -> dict[str, str]:
        return {p["spec"]["nodeName"]: name for name, p in pods().items() if p["spec"].get("nodeName")}

    everywhere = {f"zone-{zone}" for zone in ZONES}
    until("a pod in each zone", lambda: len(pods()) == 3 and set(placed()) == everywhere, watched=[scheduler])

    cluster.kubectl("cordon", "zone-c")
    cluster.kubectl("delete", "pod", placed()["zone-c"], f"--namespace={namespace}", "--force", "--grace-period=0")

    def refused() -> bool:
        waiting = [p for p in pods().values() if not p["spec"].get("nodeName")]
        why = [c.get("message", "") for p in waiting for c in p.get("status", {}).get("conditions", [])]
        return any("topology spread constraints" in text for text in why)

    until("its successor to wait", refused, watched=[scheduler])
    assert set(placed()) == {"zone-a", "zone-b"}

    cluster.kubectl("uncordon", "zone-c")
    until("it to be there again", lambda: set(placed()) == everywhere, watched=[scheduler])
    assert one([deployment], "Deployment", NAME)["spec"]["replicas"] == len(pods())
