"""How soon a new leader serves: `python -m benchmarks.service [--claims 100 10000 …] [--rounds 5] [--trace]`.

Replicas of the reference operator with the credentials of pods, its policies in force, and so many claims that have
their addresses (`testbed.copies`). The leader is asked to stop, and at the same moment somebody makes a claim, deletes
another one, and changes a pool. The times are from the new leader's acquisition of the Lease until each of these is
done, by the API server's audit log. Without `kopf-ha` there is no takeover, so the peer is the same with the first
number of claims, in the same run: the ratio is what the other claims cost.

In one more takeover of each size, somebody makes 100 claims while the new leader catches up.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pykube
from rich.console import Console
from rich.table import Table

from benchmarks.takeover import World, at, pod_of
from devcluster import ControlPlane
from devcluster.waiting import until
from testbed.copies import POOL, Copies
from testbed.replica import Replica

#: Claims made while a new leader catches up, and seconds between two of them.
MORE, EVERY = 100, 0.05
#: A replica is quiet if it takes less CPU than this part of a core for so many seconds. After that it still reads the
#: ConfigMaps of all claims, in a tenth of the time at most, for minutes.
QUIET, LOOK = 0.2, 2.0
API = "ipam.kopf-ha.dev/v1"
#: What is measured at each takeover.
WHATS = ("creation", "update", "deletion")


class Audit:
    """Reads the audit log from where it was read last."""

    def __init__(self, plane: ControlPlane) -> None:
        (self._path,) = plane.audit_logs
        self._offset = 0
        self.skip()

    def skip(self) -> None:
        self._offset = self._path.stat().st_size
        self._seen: list[dict[str, Any]] = []

    def events(self) -> list[dict[str, Any]]:
        """Give the events since `skip`, without watches."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                if b'"verb":"watch"' not in line:
                    self._seen.append(json.loads(line))
        return self._seen


def acquired(event: dict[str, Any], replica: str) -> bool:
    """Whether the event is a replica's acquisition of the Lease."""
    return _did(event, replica, "update", "leases") and bool(event["requestObject"]["spec"]["holderIdentity"])


def bound(event: dict[str, Any], replica: str, name: str) -> bool:
    """Whether the event is the write that makes a claim Ready."""
    body = event.get("requestObject")
    return _did(event, replica, "patch", "addressclaims", name) and isinstance(body, dict) and any(
        one.get("type") == "Ready" and one.get("status") == "True"
        for one in (body.get("status") or {}).get("conditions") or ()
    )  # fmt: skip


def let_go(event: dict[str, Any], replica: str, name: str) -> bool:
    """Whether the event removes a claim's finalizer."""
    return _did(event, replica, "patch", "addressclaims", name) and "finalizers" in json.dumps(event["requestObject"])


def followed(event: dict[str, Any], replica: str, name: str, generation: int) -> bool:
    """Whether the event says that a pool's spec of this generation was taken in."""
    body = event.get("requestObject")
    done = _did(event, replica, "patch", "addresspools", name) and isinstance(body, dict)
    return done and ((body or {}).get("status") or {}).get("observedGeneration") == generation


def _did(event: dict[str, Any], replica: str, verb: str, resource: str, name: str = "") -> bool:
    ref = event.get("objectRef") or {}
    real = event["verb"] == verb and "dryRun" not in event["requestURI"] and event["responseStatus"]["code"] == 200
    return (
        real
        and ref.get("resource") == resource
        and name in ("", ref.get("name"))
        and pod_of(event) == replica
        and isinstance(event.get("requestObject"), dict | list)
    )


@dataclass
class Size:
    """What was measured with one number of claims."""

    claims: int
    took: dict[str, list[float]] = field(default_factory=lambda: {what: [] for what in WHATS})  #: seconds
    caught_up: list[float] = field(default_factory=list)  #: seconds that each of the further claims took
    cpu: list[float] = field(default_factory=list)  #: seconds of CPU of a new leader until it was quiet
    until_quiet: list[float] = field(default_factory=list)  #: seconds
    leader: list[float] = field(default_factory=list)  #: MB
    peak: list[float] = field(default_factory=list)  #: MB
    follower: list[float] = field(default_factory=list)  #: MB


class Bench:
    """One cluster, and the replicas that serve it."""

    def __init__(self, plane: ControlPlane, folder: Path, *, trace: bool = False) -> None:
        self.world = World(plane, folder)
        self.trace = trace
        self._user = pykube.HTTPClient(pykube.KubeConfig.from_file(str(plane.kubeconfig)))
        plane.kubectl("delete", "addresspool", "pool")
        self.audit = Audit(plane)
        self.leader: Replica | None = None
        self.count = self.made = 0
        self._lead(self.world.start())
        for name, cidr in (("fresh", "10.90.0.0/20"), ("edited", "10.91.0.0/24")):
            self._post(f"/apis/{API}/addresspools", _object("AddressPool", name, {"cidr": cidr}))
        self.make("original")
        until("the original", lambda: self._is_ready("original"), timeout=180)
        self._stop()
        self._copies = Copies(plane, "default", "original")

    def fill(self, total: int) -> None:
        """Have so many claims, while nobody leads."""
        self._stop()
        if self.count < total:
            self._copies.write(self.count, total)
            self.count = total
        self._lead(self.world.start())
        self.quiet(self.leading)

    @property
    def leading(self) -> Replica:
        if self.leader is None:
            raise AssertionError("nobody leads")
        return self.leader

    def make(self, name: str) -> None:
        body = _object("AddressClaim", name, {"poolName": "fresh"})
        self._post(f"/apis/{API}/namespaces/default/addressclaims", body)

    def takeover(self, size: Size, *, further: int = 0) -> None:
        """Measure one takeover."""
        follower, old = self.world.start(), f"new-{self.made}"
        until("the other one to follow", lambda: follower.said("new leader: "), timeout=180, watched=[follower])
        if not self.made:
            self.make(old)
        until("the claim to delete", lambda: self._is_ready(old), timeout=180)
        self.quiet(follower)
        self.made += 1
        new, leader = f"new-{self.made}", self.leading
        self.audit.skip()
        size.follower.append(memory(follower)[0])
        before = cpu(follower)
        leader.signal(signal.SIGTERM)
        self.make(new)
        self._ask("delete", f"/apis/{API}/namespaces/default/addressclaims/{old}")
        spec = {"excluded": [f"10.91.0.{100 + self.made % 50}"]}
        generation = self._patch(f"/apis/{API}/addresspools/edited", {"spec": spec})["metadata"]["generation"]
        made_at = {}
        if further:
            self._find("the Lease", lambda e: acquired(e, follower.name), follower)
            for number in range(further):
                made_at[name := f"{new}-{number}"] = time.time()
                self.make(name)
                time.sleep(EVERY)
        ends: Mapping[str, Callable[[dict[str, Any]], bool]] = {
            "creation": lambda e: bound(e, follower.name, new),
            "update": lambda e: followed(e, follower.name, "edited", generation),
            "deletion": lambda e: let_go(e, follower.name, old),
        }
        began = self._find("the Lease", lambda e: acquired(e, follower.name), follower)
        for what, done in ends.items():
            size.took[what].append(self._find(f"the {what}", done, follower) - began)
        for name, since in made_at.items():
            size.caught_up.append(self._find(name, lambda e, n=name: bound(e, follower.name, n), follower) - since)  # type: ignore[misc]
        size.until_quiet.append(self.quiet(follower) - began)
        size.cpu.append(cpu(follower) - before)
        now, peak = memory(follower)
        size.leader.append(now)
        size.peak.append(peak)
        if self.trace:
            print(f"--- {size.claims} claims: " + ", ".join(f"{w} {size.took[w][-1]:.2f}" for w in WHATS))
            print(f"cpu {size.cpu[-1]:.2f} s, quiet after {size.until_quiet[-1]:.1f} s, {now:.0f} MB, peak {peak:.0f}")
            for line in self._traced(follower.name, began, began + size.took["creation"][-1]):
                print(line)
            print(*(x for x in follower.log.splitlines() if "benchmark" in x), sep="\n")
        leader.wait()
        self.leader = follower

    def quiet(self, replica: Replica) -> float:
        """Wait until a replica takes hardly any CPU; return since when."""
        last, since = cpu(replica), time.time()
        while True:
            time.sleep(LOOK)
            now = cpu(replica)
            if now - last < QUIET * LOOK:
                return since
            last, since = now, time.time()

    def close(self) -> None:
        if self.leader is not None:
            self.leader.kill()

    def _find(self, what: str, which: Callable[[dict[str, Any]], bool], follower: Replica) -> float:
        def look() -> float | None:
            return next((at(e) for e in self.audit.events() if which(e)), None)

        return float(until(f"{what} in the audit log", look, timeout=120, every=0.1, watched=[follower]))

    def _traced(self, replica: str, began: float, ended: float) -> Iterator[str]:
        for event in self.audit.events():
            if pod_of(event) == replica and began - 0.1 < at(event) < ended + 0.3:
                since = datetime.datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
                what = f"{event['verb']} {event['requestURI'][:100]}"
                code = event["responseStatus"].get("code")
                yield f"{(since - began) * 1000:8.1f} {(at(event) - since) * 1000:6.1f} ms {code} {what}"

    def _lead(self, replica: Replica) -> None:
        until("one to lead", lambda: replica.said("barrier: "), timeout=180, watched=[replica])
        self.leader = replica

    def _stop(self) -> None:
        if self.leader is not None:
            self.leader.signal(signal.SIGTERM)
            self.leader.wait()
            self.leader = None

    def _is_ready(self, name: str) -> bool:
        body = self._ask("get", f"/apis/{API}/namespaces/default/addressclaims/{name}")
        return any(c["type"] == "Ready" and c["status"] == "True" for c in body.get("status", {}).get("conditions", ()))

    def _post(self, path: str, body: dict[str, Any]) -> None:
        self._ask("post", path, json=body)

    def _patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("patch", path, json=body, headers={"Content-Type": "application/merge-patch+json"})

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        answer = getattr(self._user.session, method)(self._user.url + path, **more)
        answer.raise_for_status()
        return dict(answer.json())


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def cpu(replica: Replica) -> float:
    """Give the seconds of CPU that a process took so far."""
    fields = Path(f"/proc/{replica.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(replica: Replica) -> tuple[float, float]:
    """Give the MB that a process has resident, and the most that it had."""
    lines = Path(f"/proc/{replica.pid}/status").read_text().splitlines()
    found = {key: text for key, _, text in (line.partition(":") for line in lines)}
    return float(found["VmRSS"].split()[0]) / 1024, float(found["VmHWM"].split()[0]) / 1024


def measure(bench: Bench, sizes: list[int], rounds: int) -> list[Size]:
    made = []
    for claims in sizes:
        bench.fill(claims)
        size = Size(claims)
        for _ in range(rounds):
            bench.takeover(size)
        bench.takeover(late := Size(claims), further=MORE)
        size.caught_up = late.caught_up
        made.append(size)
    return made


def rows(sizes: list[Size]) -> list[dict[str, Any]]:
    """Give what was measured, with the smallest number of claims as the peer."""
    few, made = sizes[0], []
    for size in sizes[1:] or sizes:
        peer = f"{few.claims} claims"

        def row(what: str, unit: str, values: list[float], peers: list[float], *goals: str) -> None:
            made.append(
                {"what": f"{what}, {size.claims} claims", "unit": unit, "values": values,  # noqa: B023
                 "peer": peer, "peer_values": peers, "goals": goals}  # noqa: B023
            )  # fmt: skip

        for what in WHATS:
            row(f"first {what} served", "s", size.took[what], few.took[what], "median <= 1", "most <= 2")
        row("claims made while the leader catches up", "s", size.caught_up, few.caught_up, "p99 <= 1")
        each = [(used - statistics.median(few.cpu)) * 1000 / (size.claims - few.claims or 1) for used in size.cpu]
        made.append(
            {"what": f"CPU of catching up for each object, {size.claims} claims", "unit": "ms", "values": each,
             "goals": ("median <= 1",)}
        )  # fmt: skip
        row("memory of the leader", "MB", size.leader, few.leader, "most <= 200")
        row("memory of the leader, peak", "MB", size.peak, few.peak)
        row("memory of a follower", "MB", size.follower, few.follower, "most <= 75")
    return made


def run(plane: ControlPlane, folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Give the rows of 100, 1,000 and 10,000 claims, with as many rounds as there is time for."""
    bench = Bench(plane, folder)
    try:
        return rows(measure(bench, [100, 1000, 10_000], rounds=max(3, min(20, int((seconds - 90) / 36)))))
    finally:
        bench.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trace", action="store_true")
    args = parser.parse_args()
    with ControlPlane() as plane, tempfile.TemporaryDirectory() as folder:
        bench = Bench(plane, Path(folder), trace=args.trace)
        try:
            sizes = measure(bench, args.claims, args.rounds)
        finally:
            bench.close()
    table = Table("what", "unit", "median", "least", "most", "peer's median")
    for row in rows(sizes):
        values, peers = row["values"], row.get("peer_values")
        shown = [f"{x:.2f}" for x in (statistics.median(values), min(values), max(values))]
        table.add_row(row["what"], row["unit"], *shown, f"{statistics.median(peers):.2f}" if peers else "")
    console = Console(width=130)
    console.print(table)
    console.print(f"on {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}; pools of {POOL} claims")


if __name__ == "__main__":
    main()
