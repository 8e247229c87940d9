"""How soon a new leader serves: `python -m benchmarks.service [--claims 1000 …] [--rounds 5]`.

Replicas of the reference operator with the credentials of pods, its policies in force, and so many claims that have
their addresses. The leader is asked to stop, and at the same moment somebody creates a claim. The time is from the new
leader's acquisition of the Lease, by the API server's audit log, until that claim is Ready. Without `kopf-ha` there is
no takeover, so the peer is the same with 10 claims, in the same run: the ratio is what the other claims cost.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.takeover import World, at, pod_of
from devcluster import ControlPlane
from devcluster.waiting import until
from testbed.replica import Replica

#: Claims of the peer.
FEW = 10
#: Addresses of one pool, at most.
POOL = 4000


def acquired(event: dict[str, Any], replica: str) -> bool:
    """Whether the event is a replica's acquisition of the Lease."""
    ref = event.get("objectRef") or {}
    real = event["verb"] == "update" and "dryRun" not in event["requestURI"]
    if ref.get("resource") != "leases" or not real or event["responseStatus"]["code"] != 200:
        return False
    return pod_of(event) == replica and bool(event["requestObject"]["spec"]["holderIdentity"])


class Claims:
    """The claims of one cluster, and the replicas that serve them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.count = 0

    def names(self, count: int) -> list[str]:
        return [f"claim-{n:05}" for n in range(count)]

    def make(self, *names: str, pool: str) -> None:
        items = [
            {
                "apiVersion": "ipam.kopf-ha.dev/v1",
                "kind": "AddressClaim",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"poolName": pool},
            }
            for name in names
        ]
        self.world.plane.kubectl(
            "create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        )

    def fill(self, total: int) -> None:
        """Make claims until there are so many, and wait until all are Ready."""
        while self.count < total:
            pool, room = f"pool-{self.count // POOL}", POOL - self.count % POOL
            if room == POOL:
                cidr = {"cidr": f"10.{100 + self.count // POOL}.0.0/20"}
                made = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressPool", "metadata": {"name": pool}}
                self.world.plane.kubectl("apply", "-f", "-", input=json.dumps(made | {"spec": cidr}))
            more = min(room, total - self.count, 100)
            self.make(*(f"claim-{n:05}" for n in range(self.count, self.count + more)), pool=pool)
            self.count += more
        until("all claims", lambda: self.ready() >= total, timeout=1200, every=2.0)

    def ready(self) -> int:
        done = self.world.plane.kubectl(
            *("get", "addressclaims", "-o", 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}')
        )
        return done.stdout.split().count("True")

    def is_ready(self, name: str) -> bool:
        path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        return self.world.plane.kubectl("get", "addressclaim", name, "-o", path).stdout == "True"


def takeover(claims: Claims, leader: Replica, number: int) -> tuple[float, Replica]:
    """Give the seconds from the Lease to the new claim, and the new leader."""
    world = claims.world
    follower = world.start()
    until("the other one to follow", lambda: follower.said("new leader: "), watched=[follower])
    name = f"new-{claims.count}-{number}"
    leader.signal(signal.SIGTERM)
    claims.make(name, pool="pool-0")
    until("the new claim", lambda: claims.is_ready(name), every=0.01, timeout=300, watched=[follower])
    served = time.time()
    began = until(
        "the audit log", lambda: next((at(e) for e in world.audit() if acquired(e, follower.name)), None), timeout=60
    )
    return served - began, follower


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", type=int, nargs="+", default=[1000])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    table = Table("claims", "rounds", "first service, s: median", "least", "most", "÷ peer")
    with ControlPlane() as plane, tempfile.TemporaryDirectory() as folder:
        world = World(plane, Path(folder))
        plane.kubectl("delete", "addresspool", "pool")
        claims, leader = Claims(world), world.start()
        until("the first to lead", lambda: leader.said("barrier: "), watched=[leader])
        peer = 0.0
        for total in [FEW, *args.claims]:
            claims.fill(total)
            took = []
            for number in range(args.rounds):
                seconds, leader = takeover(claims, leader, number)
                took.append(seconds)
                time.sleep(5)
            peer = peer or statistics.median(took)
            shown = (statistics.median(took), min(took), max(took), statistics.median(took) / peer)
            table.add_row(str(total), str(args.rounds), *(f"{x:.2f}" for x in shown))
    console = Console()
    console.print(table)
    console.print(f"on {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
