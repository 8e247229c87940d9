"""How soon a freed address serves whoever waits: `python -m benchmarks.waiting [--many 5000] [--rounds 10]`.

Two clusters beside each other, each with the reference operator, its policies, one full pool, and no quarantine of
freed addresses. In one of them 5 claims wait, in the other one 5,000. A bound claim is deleted here and there in turns,
and the time is from that request until a watch shows that the next claim is Ready. The peer is the cluster with 5. The
CPU seconds of the leader and its requests for each freed address are counted, too. So are the seconds for which a new
leader is busy with so many that wait, none of which needs anything, and what it writes for them.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pykube
import requests
from rich.console import Console
from rich.table import Table

from benchmarks.takeover import World, at, pod_of
from devcluster import ControlPlane
from devcluster.waiting import until
from testbed.replica import Replica

GROUP = "ipam.kopf-ha.dev"
KIND = {"apiVersion": f"{GROUP}/v1", "kind": "AddressClaim"}
POOL, BOUND, FEW = "full", 6, 5
#: Seconds that a round lasts after the next claim is Ready, so that all that follows from it is counted.
REST = 1.0
#: CPU seconds in one second, below which a leader has nothing to do but to renew.
IDLE = 0.05


class Claims:
    """Requests about claims of the namespace `default`, as administrator."""

    def __init__(self, plane: ControlPlane) -> None:
        self._api = pykube.HTTPClient(pykube.KubeConfig.from_file(str(plane.kubeconfig)))

    def call(self, method: str, path: str, **more: Any) -> Any:
        """Send a request, and give the answer."""
        answer = self._api.request(
            method=method, url=f"addressclaims{path}", version=f"{GROUP}/v1", namespace="default", **more
        )
        answer.raise_for_status()
        return answer


class Cluster:
    """One cluster with a full pool and a leader.

    Args:
        plane: its control plane.
        folder: for logs.
    """

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        folder.mkdir()
        self.world = World(plane, folder, env={"KOPF_HA_IPAM_QUARANTINE": "0"})
        self.claims = Claims(plane)
        self.bound: list[str] = []
        self.more = 0  #: claims that came to wait after a round
        self.over = False  #: whether nobody watches any more
        self.ready: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        pool = {"apiVersion": f"{GROUP}/v1", "kind": "AddressPool", "metadata": {"name": POOL}}
        plane.kubectl("apply", "-f", "-", input=json.dumps(pool | {"spec": {"cidr": "10.99.0.0/29"}}))
        self.leader = self.lead()

    def lead(self) -> Replica:
        """Start a replica, and wait until it leads."""
        leader = self.world.start()
        until("the replica to lead", lambda: leader.said("barrier: "), watched=[leader])
        return leader

    def watch(self) -> None:
        """Note from now on which claims become Ready, and when."""
        threading.Thread(target=self._watch, daemon=True).start()
        time.sleep(1.0)

    def _watch(self) -> None:
        while not self.over:
            with suppress(requests.RequestException):  # it ends a watch that is too slow
                self._note_ready()
            time.sleep(0.1)

    def _note_ready(self) -> None:
        version = self.claims.call("GET", "?limit=1").json()["metadata"]["resourceVersion"]
        with self.claims.call("GET", f"?watch=true&resourceVersion={version}", stream=True, timeout=None) as answer:
            for line in answer.iter_lines():
                event = json.loads(line)
                conditions = (event["object"].get("status") or {}).get("conditions") or ()
                if event["type"] == "MODIFIED" and any(
                    c["type"] == "Ready" and c["status"] == "True" for c in conditions
                ):
                    self.ready.put((time.time(), event["object"]["metadata"]["name"]))

    def fill(self, waiting: int) -> None:
        """Bind what the pool has, and let so many claims wait, which an earlier leader has told so."""
        self.watch()
        for number in range(BOUND):
            self.claims.call("POST", "", json=KIND | {"metadata": {"name": f"a-{number}"}, "spec": {"poolName": POOL}})
        while len(self.bound) < BOUND:
            name = self.ready.get(timeout=120)[1]
            if name not in self.bound:
                self.bound.append(name)
        self.leader.signal(signal.SIGTERM)
        self.leader.wait()
        text = f"Pool {POOL} has no free address. An address that is freed is given again only after a while."
        tell(self.claims, waiting, POOL, "PoolExhausted", text)

    def take_over(self) -> dict[str, float]:
        """Start a new leader among those that wait; give how long it is busy, and what it writes for them."""
        began = time.time()
        self.leader = self.lead()
        used, now = 0.0, cpu(self.leader)
        while now - used > IDLE:
            time.sleep(1.0)
            used, now = now, cpu(self.leader)
        writes = sum(
            1 for e in self.requests(began) if e["verb"] in ("patch", "update", "create", "delete")
            and (e.get("objectRef") or {}).get("resource") == "addressclaims" and "dryRun" not in e["requestURI"]
        )  # fmt: skip
        return {"busy": time.time() - began - 1.0, "cpu": cpu(self.leader), "writes": float(writes)}

    def round(self) -> dict[str, float]:
        """Delete a bound claim; give the seconds until the next one is Ready, and what that cost the leader."""
        while not self.ready.empty():
            self.ready.get()
        name, before, began = self.bound.pop(0), cpu(self.leader), time.time()
        self.claims.call("DELETE", f"/{name}")
        served = 0.0
        while not served:
            when, who = self.ready.get(timeout=120)
            if who != name and who not in self.bound:
                served = when - began
                self.bound.append(who)
        time.sleep(REST)
        asked = [e for e in self.requests(began) if (e.get("objectRef") or {}).get("resource") not in ("leases", None)]
        took = {"served": served, "cpu": cpu(self.leader) - before, "requests": float(len(asked))}
        self.queue_up()
        return took

    def queue_up(self) -> None:
        """Let one more wait in the place of the one that was served."""
        self.more += 1
        name = f"x-{self.more:05}"
        self.claims.call("POST", "", json=KIND | {"metadata": {"name": name}, "spec": {"poolName": POOL}})
        until(
            f"{name} to be told", lambda: "conditions" in self.claims.call("GET", f"/{name}").json().get("status", {})
        )

    def requests(self, since: float) -> Iterator[dict[str, Any]]:
        """Yield the leader's requests, without its watches."""
        events = (e for e in self.world.audit() if at(e) >= since and pod_of(e) == self.leader.name)
        return (e for e in events if e["verb"] != "watch" and "dryRun" not in e["requestURI"])


def tell(claims: Claims, count: int, pool: str, reason: str, message: str) -> None:
    """Make claims that wait for a pool, and that were told so before."""
    handled = json.dumps({"spec": {"poolName": pool}}, separators=(",", ":")) + "\n"
    notes = {f"{GROUP}/last-handled-configuration": handled, f"{GROUP}/kopf-managed": "yes"}
    ready = {"type": "Ready", "status": "False", "observedGeneration": 1, "reason": reason, "message": message}
    status = {"observedGeneration": 1, "conditions": [ready | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]}

    def make(number: int) -> None:
        meta = {"name": f"w-{number:05}", "annotations": notes, "finalizers": [f"{GROUP}/finalizer"]}
        claims.call("POST", "", json=KIND | {"metadata": meta, "spec": {"poolName": pool}})
        patch = {"headers": {"Content-Type": "application/merge-patch+json"}, "json": {"status": status}}
        claims.call("PATCH", f"/w-{number:05}/status", **patch)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(make, range(count)))


def cpu(process: Replica) -> float:
    """Give the CPU seconds that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(many: int = 5000, rounds: int = 10) -> list[dict[str, Any]]:
    """Measure in turns; give a row for each quantity, with a value for each round, and those of the peer with 5."""
    sizes = (FEW, many)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        clusters = [Cluster(stack.enter_context(ControlPlane()), folder / str(size)) for size in sizes]
        try:
            for cluster, size in zip(clusters, sizes, strict=True):
                cluster.fill(size)
            taken = [cluster.take_over() for cluster in clusters]
            took: list[list[dict[str, float]]] = [[], []]
            for _ in range(rounds):
                for number, cluster in enumerate(clusters):
                    took[number].append(cluster.round())
        finally:
            for cluster in clusters:
                cluster.over = True
                cluster.leader.kill()
    return rows_of(many, took, taken)


def rows_of(
    many: int, took: Sequence[Sequence[Mapping[str, float]]], taken: Sequence[Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Give the rows of what was measured with few that wait, and with so many.

    Args:
        many: how many wait in the second cluster.
        took: of each cluster, what each round took.
        taken: of each cluster, what its takeover took.
    """

    def row(
        what: str, unit: str, key: str, scale: float, found: Sequence[Sequence[Mapping[str, float]]]
    ) -> dict[str, Any]:
        few, these = ([one[key] * scale for one in rounds] for rounds in found)
        peer = {"peer": f"{FEW} wait", "peer_values": few}
        return {"what": f"{many} wait: {what}", "unit": unit, "values": these, **peer}

    takeovers = [[one] for one in taken]
    return [
        row("until the next claim is Ready", "ms", "served", 1000.0, took) | {"goals": ["ratio <= 1.25"]},
        row("the leader's CPU for each freed address", "ms", "cpu", 1000.0, took),
        row("the leader's requests for each freed address", "requests", "requests", 1.0, took),
        row("a new leader is busy", "s", "busy", 1.0, takeovers),
        row("CPU of a new leader", "s", "cpu", 1.0, takeovers),
        row("what a new leader writes to claims", "requests", "writes", 1.0, takeovers),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--many", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    table = Table("what", "unit", "median", "most", f"with {FEW}: median", "most", "÷")
    for row in run(args.many, args.rounds):
        ours, theirs = row["values"], row["peer_values"]
        medians = statistics.median(ours), statistics.median(theirs)
        shown = (f"{x:.1f}" for x in (medians[0], max(ours), medians[1], max(theirs)))
        table.add_row(row["what"], row["unit"], *shown, f"{medians[0] / medians[1]:.2f}" if medians[1] else "")
    console = Console(width=140)
    console.print(table)
    console.print(f"on {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
