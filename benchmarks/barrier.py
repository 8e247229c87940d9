"""How soon a new leader serves, by its number of pools: `python -m benchmarks.barrier [1 100 1000] [--rounds 3]`.

Replicas of the reference operator with the credentials of pods and its policies in force. The leader is asked to stop,
and at the same moment somebody creates a claim. The time is from the new leader's acquisition of the Lease, by the API
server's audit log, until a client sees that the claim is Ready. Replicas with `--barrier each` and with `--barrier all`
take over in turns, in the same run on the same pools. A second table has what the stamps cost by themselves; the peer
is one plain list of the pools, which any operator has to make before it can decide.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.service import acquired
from benchmarks.takeover import World, at
from devcluster import ControlPlane
from devcluster.waiting import until
from kopf_ha.api import Api
from kopf_ha.run.credentials import make_client
from testbed.replica import Replica

GROUP = "/apis/ipam.kopf-ha.dev/v1"
POOLS, CLAIMS = f"{GROUP}/addresspools", f"{GROUP}/namespaces/default/addressclaims"
MERGE = "application/merge-patch+json"
EACH, ALL = "--barrier=each", "--barrier=all"
#: What tells that a leader has stamped all pools.
DONE = {EACH: "deciding objects.* are stamped, ", ALL: "barrier: "}

#: The number of pools that the goals are for, and the goals of the first claim.
GOAL_FOR, GOALS = 1000, ["median <= 1"]
#: One row: `what`, `unit`, `values`, `peer` and `peer_values`.
Row = dict[str, Any]


def pool(number: int) -> dict[str, Any]:
    """Give a pool of sixteen addresses."""
    cidr = f"10.{number // 4096}.{number // 16 % 256}.{number % 16 * 16}/28"
    return {
        "apiVersion": "ipam.kopf-ha.dev/v1",
        "kind": "AddressPool",
        "metadata": {"name": f"pool-{number}"},
        "spec": {"cidr": cidr},
    }


class Place:
    """A cluster with pools, and the replicas that take over from each other."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.world = World(plane, folder)
        plane.kubectl("delete", "addresspool", "pool")
        os.environ["KUBECONFIG"] = str(plane.kubeconfig)
        self.api = Api(make_client("benchmark", fenced=False))
        self.made = self.claims = 0
        self.leader: Replica | None = None

    def fill(self, count: int) -> None:
        """Make pools until there are so many, all of them active already: to activate them is not measured here."""
        for number in range(self.made, count):
            self.api.call("POST", POOLS, pool(number))
            status = {"status": {"state": "Active", "allocations": {}}}
            answer = self.api.request("PATCH", f"{POOLS}/pool-{number}/status", status, MERGE)
            if not answer.ok:
                raise RuntimeError(answer.message)
        self.made = max(self.made, count)

    def list(self) -> float:
        """Give the seconds of one plain list of the pools."""
        began = time.perf_counter()
        for _ in self.api.items(POOLS):
            pass
        return time.perf_counter() - began

    def takeover(self, mode: str) -> tuple[float, float]:
        """Give the seconds from the Lease until a new claim is Ready, and until all pools have their stamps."""
        follower, before = self.world.start(mode), self.leader
        self.claims += 1
        name = f"claim-{self.claims}"
        if before is not None:
            until("the other one to follow", lambda: follower.said("new leader: "), watched=[follower])
            time.sleep(1)
            before.signal(signal.SIGTERM)
        claim = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressClaim", "metadata": {"name": name}}
        self.api.call("POST", CLAIMS, claim | {"spec": {"poolName": f"pool-{self.claims * 7919 % self.made}"}})
        until("the claim", lambda: self.is_ready(name), every=0.005, timeout=120, watched=[follower])
        served = time.time()
        follower.see(DONE[mode], timeout=280)
        until("a quiet leader", self.is_quiet, every=1.0, timeout=120)
        events = list(self.world.audit())
        began = next(at(e) for e in events if acquired(e, follower.name))
        stamps = [at(e) for e in events if at(e) > began and stamped_by(e, follower.name)]
        self.leader = follower
        return served - began, max(stamps, default=began) - began

    def is_ready(self, name: str) -> bool:
        conditions = (self.api.call("GET", f"{CLAIMS}/{name}").get("status") or {}).get("conditions") or ()
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def is_quiet(self) -> bool:
        """Whether nobody writes a pool."""
        before = self.api.call("GET", f"{POOLS}?limit=1")["metadata"]["resourceVersion"]
        time.sleep(3)
        now = self.api.call("GET", f"{POOLS}?limit=1")["metadata"]["resourceVersion"]
        return int(now) - int(before) < 10  # the Lease is renewed meanwhile


def stamped_by(event: dict[str, Any], replica: str) -> bool:
    """Whether the event is a bare stamp of a pool."""
    ref, user = event.get("objectRef") or {}, event.get("user") or {}
    pods = (user.get("extra") or {}).get("authentication.kubernetes.io/pod-name", ())
    return (
        ref.get("resource") == "addresspools"
        and ref.get("subresource") == "status"
        and event["verb"] == "patch"
        and replica in pods
        and event["responseStatus"]["code"] == 200
        and isinstance(event.get("requestObject"), list)
    )


def run(counts: Sequence[int] = (1, 100, 1000), rounds: int = 3) -> list[Row]:
    """Measure; give a row for each number of pools, and one for the time until all pools have their stamps."""
    rows: list[Row] = []
    with ControlPlane() as plane, tempfile.TemporaryDirectory() as folder:
        place = Place(plane, Path(folder))
        for count in sorted(counts):
            place.fill(count)
            place.takeover(ALL)  # so that the first one measured finds what a leader before it has left
            first: dict[str, list[float]] = {EACH: [], ALL: []}
            last: dict[str, list[float]] = {EACH: [], ALL: []}
            lists = []
            for _ in range(rounds):
                lists.append(place.list())
                for mode in (EACH, ALL):
                    served, stamped = place.takeover(mode)
                    first[mode].append(served)
                    last[mode].append(stamped)
            bound = row(f"first claim bound, {count} pools, {EACH}", first[EACH], ALL, first[ALL])
            rows.append(bound | {"goals": GOALS} if count == GOAL_FOR else bound)
            rows.append(row(f"all {count} pools stamped, {EACH}", last[EACH], ALL, last[ALL]))
            rows.append(row(f"all {count} pools stamped, {ALL}", last[ALL], "one list of them", lists))
        if place.leader is not None:
            place.leader.kill()
    return rows


def row(what: str, values: Iterable[float], peer: str, peer_values: Iterable[float]) -> Row:
    """Give one row."""
    return {"what": what, "unit": "s", "values": list(values), "peer": peer, "peer_values": list(peer_values)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", type=int, nargs="*", default=[1, 100, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    table = Table("what", "s: median", "least", "most", "peer", "s: median", "÷ peer")
    for one in run(args.counts, args.rounds):
        median, peer = statistics.median(one["values"]), statistics.median(one["peer_values"])
        numbers = (f"{x:.2f}" for x in (median, min(one["values"]), max(one["values"])))
        table.add_row(one["what"], *numbers, one["peer"], f"{peer:.2f}", f"{median / peer:.2f}")
    console = Console(width=140)
    console.print(table)
    console.print(f"on {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
