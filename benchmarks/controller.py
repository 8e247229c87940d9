"""A Go controller at size: `python -m benchmarks.controller [--objects 1000 …] [--rounds 5]`.

Two kube-controller-managers with nothing but the ReplicaSet controller, Leases of 4 s, and so many ReplicaSets of zero
replicas. The leader is killed, and meanwhile somebody creates one more. The time is from the new holder's write to the
Lease until the API server has answered the controller's write of `observedGeneration` to the new one: what
`benchmarks.service` measures of the reference operator. The peer is the same with few objects, in the same run.
"""

from __future__ import annotations

import argparse
import base64
import json
import signal
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests
from kubernetes import client, config
from rich.console import Console
from rich.table import Table

from benchmarks.contestants import SPACE, Audit, Contestant
from benchmarks.report import values
from benchmarks.result import Row, rounds
from benchmarks.takeover import at
from devcluster import Binaries, ControlPlane, Process
from devcluster.waiting import until

NAME = "kube-controller-manager"
#: Objects of the peer.
FEW = 100
#: Where the API server keeps ReplicaSets, and how many keys etcd takes at once.
KEYS = f"/registry/replicasets/{SPACE}/"
BATCH = 100
#: The cluster's own manager leaves ReplicaSets to the two.
PLANE: dict[str, Any] = {
    "controller_manager_args": ["--controllers=serviceaccount-controller,root-ca-certificate-publisher-controller"]
}


class Managers:
    """The two managers and their objects."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.folder = plane, folder
        self.program = Binaries.find([NAME])[NAME]
        self.audit = Audit(plane)
        self.count = 0
        plane.kubectl("create", "namespace", SPACE)
        config.load_kube_config(str(plane.kubeconfig))
        self.api = client.AppsV1Api()
        self.etcd = requests.Session()
        self.etcd.trust_env = False
        self.etcd.verify, self.etcd.cert = str(plane.etcd_ca), (str(plane.etcd_cert), str(plane.etcd_key))
        self.both = Contestant(NAME, self._start, "ttempting to acquire leader lease", releases=False, lease=NAME)

    def _start(self, name: str) -> Process:
        flags = [
            f"--kubeconfig={self.plane.kubeconfig}", "--controllers=replicaset-controller", "--secure-port=0",
            "--leader-elect=true", f"--leader-elect-resource-namespace={SPACE}",
            f"--leader-elect-resource-name={NAME}", "--leader-elect-lease-duration=4s",
            "--leader-elect-renew-deadline=3s", "--leader-elect-retry-period=1s",
            "--kube-api-qps=1000", "--kube-api-burst=2000", "--profiling=false",
        ]  # fmt: skip
        made = Process(name, [str(self.program), *flags], log_path=self.folder / f"{name}.log")
        made.start()
        return made

    def make(self, name: str) -> None:
        """Create a ReplicaSet of zero replicas."""
        labels = {"app": name}
        pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "none", "image": "none"}]}}
        spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": pod}
        self.api.create_namespaced_replica_set(SPACE, {"metadata": {"name": name}, "spec": spec})

    def wait_seen(self, name: str) -> None:
        """Wait until the leader has written that it saw it."""
        until(f"{name} to be seen", lambda: seen(self.audit.look(), name), 120, 0.05)

    def fill(self, total: int) -> None:
        """Have so many: one that the leader saw, and copies of it, written into etcd in seconds."""
        original = f"original-{total}"
        self.make(original)
        self.wait_seen(original)
        found = self._etcd("range", {"key": _coded(f"{KEYS}{original}")})
        body = json.loads(base64.b64decode(found["kvs"][0]["value"]))
        for first in range(self.count, total, BATCH):
            puts = []
            for number in range(first, min(total, first + BATCH)):
                name = f"copy-{number:05}"
                copy = body | {"metadata": body["metadata"] | {"name": name, "uid": str(uuid.uuid4())}}
                puts.append({"request_put": {"key": _coded(KEYS + name), "value": _coded(json.dumps(copy))}})
            self._etcd("txn", {"success": puts})
        self.count = total
        last = f"last-{total}"
        self.make(last)  # the leader comes to it when it has looked at all the others
        self.wait_seen(last)

    def _etcd(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.etcd.post(f"{self.plane.etcd_endpoints[0]}/v3/kv/{what}", json=body, timeout=60)
        answer.raise_for_status()
        return dict(answer.json())

    def takeover(self, number: int) -> float:
        """Give the seconds from the next holder to the first new object."""
        both = self.both
        old, name = both.held(self.audit.look()), f"new-{self.count}-{number}"
        leader = both.the(both.leader)
        since = time.time()
        leader.signal(signal.SIGKILL)
        leader.wait()
        self.make(name)

        def look() -> tuple[float, float] | None:
            events = self.audit.look()
            began, served = both.taken(events, since, old), seen(events, name)
            return (began, served) if began and served else None

        began, served = until("the new ReplicaSet", look, 120, 0.05, [both.the(both.follower)])
        both.succeed()
        both.follow()
        both.settle()
        time.sleep(1)
        return served - began


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def seen(events: list[dict[str, Any]], name: str) -> float | None:
    """Give when the controller's write of an object's status was answered."""
    for event in events:
        ref = event["objectRef"]
        if ref["resource"] == "replicasets" and ref.get("subresource") == "status" and ref.get("name") == name:
            return at(event)
    return None


def measure(plane: ControlPlane, folder: Path, sizes: Sequence[int], seconds: float, most: int) -> list[Row]:
    """Take the Lease over among growing numbers of objects, each for its part of the seconds."""
    managers = Managers(plane, folder)
    rows: list[Row] = []
    few: list[float] = []
    try:
        managers.both.begin(managers.audit)
        managers.both.settle()
        end = time.monotonic() + seconds
        for left, size in zip(range(len(sizes) + 1, 0, -1), (FEW, *sizes), strict=True):
            until_then = time.monotonic() + (end - time.monotonic()) / left
            managers.fill(size)
            took = [managers.takeover(n) for n in rounds(until_then - time.monotonic(), least=2, most=most)]
            few = few or took
            if size != FEW:
                what = f"first new object, {size} objects"
                rows.append(Row(what, "s", took, f"{NAME}, {FEW} objects", few, subject=NAME))
    finally:
        managers.both.end()
    return rows


def run(plane: ControlPlane, folder: Path, seconds: float) -> list[Row]:
    """Give rows; the more seconds, the more objects."""
    sizes = [1000] if seconds < 200 else [1000, 10_000]
    return measure(plane, folder, sizes, seconds, 10)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[1000])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ControlPlane(**PLANE) as plane:
        rows = measure(plane, Path(folder), args.objects, 3600, args.rounds)
    table = Table("what", NAME, f"with {FEW} objects", "÷")
    for row in rows:
        table.add_row(row.what, values(row.values, row.unit), values(row.peer_values, row.unit), f"{row.ratio:.1f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
