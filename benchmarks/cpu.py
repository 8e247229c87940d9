"""What a leader spends its CPU on: `python -m benchmarks.cpu [--claims 200] [--rounds 3]`.

The reference operator with everything in deploy/ in force; somebody creates claims, all at once. The CPU is that of a
claim until it is Ready, of the operator, the API server and etcd, by the kernel's account, and the operator's is
divided by what code it executed (`benchmarks.sampled`). Looking costs a little, so that other benchmarks give the
throughput.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.report import values
from benchmarks.result import Row, rounds
from benchmarks.sampled import LOOKING
from benchmarks.takeover import World
from devcluster import ControlPlane, Process
from devcluster.waiting import until
from testbed.deployment import NAME
from testbed.replica import IPAM, Replica, as_pod

SCRIPT = Path(__file__).with_name("sampled.py")
READY = 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'


def seconds_of(process: Process) -> float:
    """Give the seconds of CPU that a process used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Leader:
    """A replica of the reference operator that is looked at, in a cluster with its policies."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.samples, self.made = plane, folder / "samples.json", 0
        World(plane, folder)
        pool = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressPool", "metadata": {"name": "wide"}}
        plane.kubectl("apply", "-f", "-", input=json.dumps(pool | {"spec": {"cidr": "10.64.0.0/20"}}))
        labels = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": "operator"}
        pod = plane.pod_identity(NAME, NAME, "looked-at", labels)
        config = plane.kubeconfig_for(pod.token, name=pod.name)
        arguments = [*IPAM, f"--lease-name={NAME}", "--log-format=plain"]
        program = (SCRIPT, self.samples)
        env = as_pod(pod, NAME)
        self.replica = Replica(pod.name, config, arguments, folder / "log", times={}, program=program, env=env)

    def account(self) -> dict[str, float]:
        """Give the seconds of CPU so far: of each process, and of each kind of code."""
        time.sleep(1.2)  # until what was seen is written
        processes = {"operator": self.replica, "API server": self.plane.apiserver(), "etcd": self.plane.etcd()}
        found = {f"CPU of a claim, {name}": seconds_of(process) for name, process in processes.items()}
        seen: dict[str, float] = json.loads(self.samples.read_text())
        found["CPU of a claim, operator"] -= seen.pop(LOOKING)
        return found | seen

    def ready(self) -> int:
        """Count the claims that have what they want."""
        return self.plane.kubectl("get", "addressclaims", "-o", READY).stdout.split().count("True")

    def serve(self, claims: int) -> dict[str, float]:
        """Have claims made and served; give what that took, in seconds of CPU."""
        first, self.made = self.made, self.made + claims
        claim = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressClaim", "spec": {"poolName": "wide"}}
        names = (f"claim-{n}" for n in range(first, self.made))
        items = [claim | {"metadata": {"name": name, "namespace": "default"}} for name in names]
        before = self.account()
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        self.plane.kubectl("create", "-f", "-", input=text, timeout=300)
        until("the claims", lambda: self.ready() >= self.made, 300, 0.5, [self.replica])
        return {name: value - before.get(name, 0.0) for name, value in self.account().items()}


def measure(plane: ControlPlane, folder: Path, claims: int, turns: Iterable[int]) -> list[Row]:
    """Give the CPU of a claim, and the shares of the operator's."""
    leader = Leader(plane, folder)
    found: dict[str, list[float]] = {}
    with leader.replica:
        until("it to lead", lambda: leader.replica.said("barrier: "), watched=[leader.replica])
        leader.serve(20)
        for _ in turns:
            for name, seconds in leader.serve(claims).items():
                found.setdefault(name, []).append(seconds)
    parts = {name: some for name, some in found.items() if not name.startswith("CPU")}
    rows = [Row(name, "ms", [x * 1000 / claims for x in found[name]]) for name in found if name not in parts]
    sums = [
        sum(some) for some in zip(*(p for p in parts.values() if len(p) == max(map(len, parts.values()))), strict=True)
    ]
    shares = {name: [100 * x / all_ for x, all_ in zip(some, sums, strict=False)] for name, some in parts.items()}
    for name, some in sorted(shares.items(), key=lambda item: -max(item[1])):
        rows.append(Row(f"of the operator's CPU: {name}", "%", some))
    return rows


def run(plane: ControlPlane, folder: Path, seconds: float) -> list[Row]:
    """Give rows; the API server's and etcd's CPU contains what kubectl makes them do to create and to look."""
    return measure(plane, folder, 100 if seconds < 60 else 200, rounds(seconds - 20, least=2, most=8))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    table = Table("what", "measured")
    with tempfile.TemporaryDirectory() as folder, ControlPlane() as plane:
        for row in measure(plane, Path(folder), args.claims, range(args.rounds)):
            table.add_row(row.what, values(row.values, row.unit))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
