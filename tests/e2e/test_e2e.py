"""The operator on real nodes, used as a user would: by kubectl alone. One cluster, one story, in this order."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.waiting import until
from testbed.deployment import NAME
from testbed.load import Load
from testbed.stage import LIMIT, Stage, is_fenced_write, seconds, writer

pytestmark = pytest.mark.timeout(600)

#: So that the deletions of one test do not use up those of the next: a ReplicaSet brings pods back at its own pace.
TIMES = 10


def test_installing_as_the_tutorial_says(stage: Stage, tutorial: Iterator[str]) -> None:
    block = next(tutorial)
    assert "apply -k deploy/" in block
    stage.shell(block)
    pods = stage.pods()
    assert len(pods) == 3
    assert all(p["status"]["containerStatuses"][0]["ready"] for p in pods)
    assert {p["spec"]["nodeName"] for p in pods} == {"node-1", "node-2"}
    # restricted, as it runs and not only as it is written: no root, nothing to write to
    inside = ("exec", "-n", NAME, pods[0]["metadata"]["name"], "--", "python3", "-c")
    assert stage.kubectl(*inside, "import os; print(os.getuid())").strip() == "65532"
    tried = "try: open('/app/x', 'w')\nexcept OSError as e: print(e.strerror)"
    assert stage.kubectl(*inside, tried).strip() == "Read-only file system"


def test_pools_and_claims(stage: Stage, tutorial: Iterator[str]) -> None:
    block = next(tutorial)
    assert "claims.yaml" in block
    said = stage.shell(block)
    head = next(line for line in said.splitlines() if line.startswith("NAME") and "ADDRESS" in line)
    assert head.split() == ["NAME", "POOL", "ADDRESS", "READY", "TOKEN", "HOLDER", "AGE"]
    row = next(line for line in said.splitlines() if "/vale" in line and "demo-pool" in line).split()
    assert row[1:5] == ["demo-pool", row[2], "True", "1"]
    assert stage.leader().startswith(row[5].split("_")[0])
    assert "Bound" in said  # the event, as kubectl describe shows it
    assert "GATEWAY" in json.dumps(stage.get("configmaps", "-l", f"app.kubernetes.io/managed-by={NAME}"))
    assert "CIDR" in stage.kubectl("explain", "addresspool.spec").upper()


def test_failing_over_as_the_tutorial_says(stage: Stage, tutorial: Iterator[str]) -> None:
    block = next(tutorial)
    assert "delete pod" in block
    old, token = stage.lease()
    said = stage.shell(block)
    assert said.splitlines()[0] == f"{old} {token}"
    stage.next_leader(token)
    assert next(tutorial, None) is None
    until("events of both", lambda: _reasons(stage, "lease", NAME) >= {"Leading", "Stopped"}, LIMIT)


def _reasons(stage: Stage, kind: str, name: str) -> set[str]:
    events = stage.get("events", "-n", NAME, f"--field-selector=involvedObject.name={name}")
    return {e["reason"] for e in events if e["involvedObject"]["kind"].lower() == kind}


def test_the_leader_is_deleted_ten_times_under_load(stage: Stage) -> None:
    with Load(stage, "load") as load:
        for _ in range(TIMES):
            _, token = stage.lease()
            with stage.background("delete", "pod", "-n", NAME, stage.leader(), "--wait=false"):
                stage.next_leader(token)
                load.wait_for(3)
    stage.rolled_out()
    verdict = stage.verdict(min_terms=TIMES)
    assert verdict.ok, verdict


def test_a_forced_deletion_while_the_process_runs(stage: Stage) -> None:
    """The old leader stands still, is deleted by force, and wakes up when another one leads: it changes nothing."""
    old = stage.leader()
    pod, (_, token) = stage.pod(old), stage.lease()
    pid = stage.process_of(pod["metadata"]["uid"])
    with Load(stage, "load") as load, stage.stopped_kubelet(pod["spec"]["nodeName"]):
        os.kill(pid, signal.SIGSTOP)
        try:
            stage.kubectl("delete", "pod", "-n", NAME, old, "--force", "--grace-period=0")
            stage.next_leader(token)
            load.wait_for(6)
        finally:
            os.kill(pid, signal.SIGCONT)
        woken = _now(stage)
        load.wait_for(6)
    accepted = [e for e in stage.audited(woken) if is_fenced_write(e) and writer(e) == pod["metadata"]["uid"]]
    assert accepted == []
    stage.rolled_out()
    verdict = stage.verdict(min_terms=TIMES)
    assert verdict.ok, verdict


def _now(stage: Stage) -> float:
    """Give the API server's time of a request that is just made, as the audit log has it."""
    name = stage.kubectl("create", "configmap", "-n", "default", "now", "-o", "name", "--dry-run=server").strip()
    assert name
    events = [e for e in stage.audited() if "configmaps" in e["requestURI"] and e["verb"] == "create"]
    return max(seconds(e["stageTimestamp"]) for e in events)


def test_a_container_that_is_killed(stage: Stage) -> None:
    pod, (_, token) = stage.pod(stage.leader()), stage.lease()
    os.kill(stage.process_of(pod["metadata"]["uid"]), signal.SIGKILL)
    stage.next_leader(token)
    name = pod["metadata"]["name"]
    until("it to be started again", lambda: _restarts(stage.pod(name)) > _restarts(pod), LIMIT, 0.5)
    stage.rolled_out()


def _restarts(pod: dict[str, Any]) -> int:
    return sum(c["restartCount"] for c in pod["status"]["containerStatuses"] if c["ready"])


def test_a_deletion_while_the_kubelet_stands_still(stage: Stage) -> None:
    """Nobody sends the process a signal; it sees by itself that its Pod is being deleted."""
    pod, (_, token) = stage.pod(stage.leader()), stage.lease()
    with stage.stopped_kubelet(pod["spec"]["nodeName"]):
        stage.kubectl("delete", "pod", "-n", NAME, pod["metadata"]["name"], "--wait=false")
        stage.next_leader(token)
    stage.rolled_out()


def test_a_rolling_update_moves_the_leader_once(stage: Stage) -> None:
    _, token = stage.lease()
    with Load(stage, "load") as load:
        stage.kubectl("-n", NAME, "rollout", "restart", f"deployment/{NAME}")
        stage.rolled_out()
        until("the old pods to be gone", lambda: len(stage.pods()) == 3, LIMIT, 0.5)
        load.wait_for(3)
    assert stage.lease()[1] == token + 1
    verdict = stage.verdict(min_terms=TIMES)
    assert verdict.ok, verdict


def test_one_replica_and_back(stage: Stage) -> None:
    scale = ("-n", NAME, "scale", f"deployment/{NAME}")
    stage.kubectl(*scale, "--replicas=1")
    until("one pod", lambda: len(stage.pods()) == 1, LIMIT, 0.5)
    (pod,) = stage.pods()
    until("the one that is left to lead", lambda: stage.lease()[0].startswith(pod["metadata"]["name"]), LIMIT, 0.5)
    stage.kubectl(*scale, "--replicas=3")
    stage.rolled_out()
    assert len(stage.pods()) == 3
    with Load(stage, "load") as load:
        load.wait_for(3)


def test_a_drained_node(stage: Stage) -> None:
    node = stage.pod(stage.leader())["spec"]["nodeName"]
    with Load(stage, "load") as load:
        stage.kubectl("drain", node, f"--timeout={LIMIT - 10:g}s", "--ignore-daemonsets", "--delete-emptydir-data")
        stage.rolled_out()
        load.wait_for(3)
    assert node not in {p["spec"]["nodeName"] for p in stage.pods()}
    assert stage.pod(stage.leader())["spec"]["nodeName"] != node
    stage.kubectl("uncordon", node)
    verdict = stage.verdict(min_terms=TIMES)
    assert verdict.ok, verdict


def test_metrics_and_probes_of_every_replica(stage: Stage) -> None:
    leads = {}
    for pod in stage.pods():
        path = f"/api/v1/namespaces/{NAME}/pods/{pod['metadata']['name']}"
        assert "ok" in stage.kubectl("get", "--raw", f"{path}:8081/proxy/readyz")
        assert "ok" in stage.kubectl("get", "--raw", f"{path}:8081/proxy/livez")
        lines = stage.kubectl("get", "--raw", f"{path}:8080/proxy/metrics").splitlines()
        value = next(line.split()[-1] for line in lines if line.startswith("leader_election_master_status{"))
        leads[pod["metadata"]["name"]] = float(value)
        assert any(line.startswith("kopf_ha_not_enforced") and line.endswith(" 0.0") for line in lines)
    assert leads == {name: float(name == stage.leader()) for name in leads}
