"""From the fault to the new leader's first fenced write: `python -m benchmarks.failover [--repeat 5]`.

Three replicas of the reference operator on two nodes, idle, with the durations of deploy/ (15/10/2 s). The clock
starts before the kubectl command is started (or the signal sent) and stops when the API server answered, by its
audit log. The peer, in the same run and ended in the same ways, is client-go's election with the same durations:
three kube-schedulers of the same cluster; for it the time to the new holder of its Lease counts, which is all that
it promises. Root only: nodes are real.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.result import Row, rounds
from devcluster.images import single_program
from devcluster.node import load_image
from devcluster.waiting import until
from testbed.deployment import NAME, SELECTOR
from testbed.nodes import cluster
from testbed.stage import Stage, is_fenced_write, writer

PEER = "peer"


class Group:
    """Replicas that elect a leader, and how its beginning is seen."""

    def __init__(self, namespace: str, label: str) -> None:
        self.namespace, self.label = namespace, label

    def leader(self, stage: Stage) -> tuple[str, str]:
        """Give name and uid of the leader's pod, once all replicas are there."""
        stage.rolled_out(self.namespace)

        def look() -> tuple[str, str] | None:
            holder = stage.lease(self.namespace, self.namespace)[0].split("_")[0]
            pods = stage.get("pods", "-n", self.namespace, "-l", self.label)
            ready = [p["metadata"] for p in pods if not p["metadata"].get("deletionTimestamp")]
            return next(((m["name"], m["uid"]) for m in ready if m["name"] == holder), None)

        return until("a leader among the pods", look, 120, 0.2)

    def taken(self, stage: Stage, old: str, since: float) -> float | None:
        """Give when another one wrote its name into the Lease."""
        for event in stage.audited(since):
            ref = event.get("objectRef") or {}
            if ref.get("resource") == "leases" and ref.get("namespace") == self.namespace and writer(event) != old:
                holder = ((event.get("requestObject") or {}).get("spec") or {}).get("holderIdentity")
                if holder and event["responseStatus"]["code"] < 300 and "dryRun" not in event["requestURI"]:
                    return float(event["at"])
        return None


OURS = Group(NAME, SELECTOR)
THEIRS = Group(PEER, "app=peer")


def first_write(stage: Stage, old: str, since: float) -> float | None:
    """Give when the first fenced write of another replica was answered."""
    return next((e["at"] for e in stage.audited(since) if is_fenced_write(e) and writer(e) not in ("", old)), None)


# --- the ways: each is entered when the clock runs, and left when the new leader wrote


def graceful(stage: Stage, pod: dict[str, Any]) -> AbstractContextManager[Any]:
    """Delete the leader's pod."""
    return stage.background("delete", "pod", pod["name"], "-n", pod["namespace"])


def forced(stage: Stage, pod: dict[str, Any]) -> AbstractContextManager[Any]:
    """Delete it with --force --grace-period=0; its process still runs."""
    return stage.background("delete", "pod", pod["name"], "-n", pod["namespace"], "--force", "--grace-period=0")


@contextmanager
def killed(stage: Stage, pod: dict[str, Any]) -> Iterator[None]:
    """SIGKILL the container's process; the kubelet starts it again in the same pod."""
    os.kill(stage.process_of(pod["uid"]), signal.SIGKILL)
    yield


WAYS = {"graceful": graceful, "forced": forced, "container killed": killed, "graceful, kubelet stopped": graceful}


def once(stage: Stage, group: Group, way: str) -> tuple[float, float]:
    """End the leader in one way; give the seconds to the new holder, and to its first fenced write."""
    name, uid = group.leader(stage)
    node = stage.pod(name, group.namespace)["spec"]["nodeName"]
    pod = {"name": name, "uid": uid, "namespace": group.namespace}
    # A container that is killed may win again, in the same pod.
    old = "" if way == "container killed" else uid
    with stage.stopped_kubelet(node) if way.endswith("kubelet stopped") else nullcontext():
        since = time.time()
        with WAYS[way](stage, pod):
            if group is OURS:
                wrote = until("a fenced write", lambda: first_write(stage, old, since), 60, 0.1)
                taken = group.taken(stage, old, since) or wrote
            else:
                wrote = taken = until("a new holder", lambda: group.taken(stage, old, since), 90, 0.1)
    return taken - since, wrote - since


def measure(stage: Stage, repeat: int, peer_repeat: int, ways: list[str], console: Console) -> Table:
    """Try each way some times; medians, and all of ours."""
    table = Table("way", "new holder, s", "fenced write, s", "all of them", "client-go, s", "client-go ÷ ours")
    for way in ways:
        ours = [once(stage, OURS, way) for _ in range(repeat)]
        # The peer does not look at its Pod, and nobody tells it: there is nothing to wait for.
        tries = 0 if way.endswith("kubelet stopped") else peer_repeat
        theirs = [once(stage, THEIRS, way)[0] for _ in range(tries)] or [math.nan]
        holder, wrote = (statistics.median(x[i] for x in ours) for i in (0, 1))
        peer = statistics.median(theirs)
        every = " ".join(f"{w:.2f}" for w in sorted(w for _, w in ours))
        row = (way, f"{holder:.2f}", f"{wrote:.2f}", every, f"{peer:.2f}", f"{peer / wrote:.1f}")
        table.add_row(*row)
        console.print(*row, sep="  ")
    return table


def start_peer(stage: Stage, folder: Path) -> None:
    """Run three kube-schedulers that schedule nothing."""
    tag = "kopf-ha.dev/kube-scheduler:1"
    program = Path(stage.record["kubectl"]).with_name("kube-scheduler")
    load_image(stage.record["cells"].values(), single_program(program, [], tag, folder / "peer.tar"))
    container = {
        "name": "peer",
        "image": tag,
        "args": [
            "--leader-elect=true", f"--leader-elect-resource-namespace={PEER}", f"--leader-elect-resource-name={PEER}",
            "--leader-elect-lease-duration=15s", "--leader-elect-renew-deadline=10s", "--leader-elect-retry-period=2s",
            "--authentication-skip-lookup", "--secure-port=0",
        ],
        "env": [{"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}],
    }  # fmt: skip
    pod = {"containers": [container], "terminationGracePeriodSeconds": 30}
    labels = {"app": PEER}
    spec = {
        "replicas": 3,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    stage.kubectl("create", "namespace", PEER)
    who = f"--serviceaccount={PEER}:default"
    stage.kubectl("create", "clusterrolebinding", PEER, "--clusterrole=cluster-admin", who)
    body: dict[str, Any] = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": PEER}, "spec": spec}
    stage.kubectl("apply", "-n", PEER, "-f", "-", input=json.dumps(body))


def run(stage: Stage, folder: Path, seconds: float) -> list[Row]:
    """Give rows: the ways that a kubelet knows of, in turns with the peer's."""
    began = time.monotonic()
    stage.shell("kubectl apply -f examples/pool.yaml")
    start_peer(stage, folder)
    ours: dict[str, list[tuple[float, float]]] = {"graceful": [], "forced": [], "container killed": []}
    theirs: dict[str, list[float]] = {way: [] for way in ours}
    for _ in rounds(seconds - (time.monotonic() - began), least=1, most=10):
        for way in ours:
            ours[way].append(once(stage, OURS, way))
            theirs[way].append(once(stage, THEIRS, way)[0])
    return [
        Row(f"{way}: {what}", "s", [each[index] for each in ours[way]], "client-go, new holder", theirs[way])
        for way in ours
        for index, what in enumerate(("new holder", "first fenced write"))
    ]


def main() -> None:
    """Set the cluster up, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--peer-repeat", type=int, default=3)
    parser.add_argument("--way", action="append", choices=list(WAYS))
    args = parser.parse_args()
    console = Console(width=140)
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder) / "state") as stage:
        stage.shell("kubectl apply -k crds/ && kubectl wait --for=condition=Established crd --all")
        stage.shell("kubectl apply -k deploy/")
        stage.shell("kubectl apply -f examples/pool.yaml")
        if args.peer_repeat:
            start_peer(stage, Path(folder))
        console.print(measure(stage, args.repeat, args.peer_repeat, args.way or list(WAYS), console))
        console.print(f"on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
