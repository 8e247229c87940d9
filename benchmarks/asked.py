"""What each replica asks the API server for: `python -m benchmarks.asked [--minutes 3]`.

All requests of each replica in the same minutes, from the API server's audit log, where each process has a pod of its
own. The reference operator has a leader and two followers, with its policies in force and nothing to do. Two more
operators show followers with other duties: one that serves webhooks with an index on every replica, and one that serves
one namespace. The peer is client-go's election in two kube-controller-managers with the same durations. A replica's
first half minute, in which it starts, is not counted.

The resident memory of leader and followers is noted, too, before and after so many objects are made (`--objects`).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.takeover import World, at, pod_of
from benchmarks.waiting import Claims, tell
from devcluster import ControlPlane, Process
from devcluster.waiting import until
from testbed.replica import Replica, as_pod

#: Of the operators beside the reference operator, and of the peer.
NAMESPACE = "beside"
#: Seconds from a replica's start until its requests count.
STARTED = 30.0
WEBHOOKS = """
import kopf

@kopf.index("configmaps")
def known(name, **_):
    return {name: name}

@kopf.on.startup()
def start(settings, **_):
    settings.admission.server = kopf.WebhookServer(addr="127.0.0.1", host="localhost", insecure=True)

@kopf.on.validate("addressclaims.ipam.kopf-ha.dev")
def allowed(known, **_):
    pass

@kopf.on.create("addressclaims.ipam.kopf-ha.dev")
def made(**_):
    pass
"""


class Beside:
    """Processes with rights of their own, beside the reference operator."""

    def __init__(self, world: World) -> None:
        self.world, self.plane = world, world.plane
        self.plane.kubectl("create", "namespace", NAMESPACE)
        until("the account", lambda: self.plane.kubectl("get", "sa", "default", "-n", NAMESPACE, check=False).stdout)
        who = f"--serviceaccount={NAMESPACE}:default"
        self.plane.kubectl("create", "clusterrolebinding", NAMESPACE, "--clusterrole=cluster-admin", who)

    def operator(self, name: str, *arguments: str) -> Replica:
        """Start a replica of an operator; the first of its kind leads."""
        pod = self.plane.pod_identity(NAMESPACE, "default", name, {"app": name.rpartition("-")[0]})
        config = self.plane.kubeconfig_for(pod.token, name=pod.name)
        command = ["run", f"--lease-name={name.rpartition('-')[0]}", *arguments]
        made = Replica(name, config, command, self.world.folder / f"{name}.log", times={}, env=as_pod(pod, NAMESPACE))
        made.start()
        return made

    def peer(self, name: str) -> Process:
        """Start a kube-controller-manager that does next to nothing when it leads."""
        pod = self.plane.pod_identity(NAMESPACE, "default", name)
        config = self.plane.kubeconfig_for(pod.token, name=pod.name)
        program = self.plane.kubectl_path.with_name("kube-controller-manager")
        argv = [
            str(program), f"--kubeconfig={config}", "--controllers=replicaset", "--leader-elect=true",
            f"--leader-elect-resource-namespace={NAMESPACE}", "--leader-elect-resource-name=peer",
            "--leader-elect-lease-duration=15s", "--leader-elect-renew-deadline=10s", "--leader-elect-retry-period=2s",
            "--authentication-skip-lookup", "--secure-port=0",
        ]  # fmt: skip
        made = Process(name, argv, dict(os.environ), self.world.folder / f"{name}.log")
        made.start()
        return made


def resident(process: Process) -> float:
    """Give the resident memory of a process, in MB."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS:")) / 1000


def counted(world: World, since: float, to: float) -> dict[str, Counter[str]]:
    """Give how often each pod asked for what, by verb and resource."""
    found: dict[str, Counter[str]] = {}
    for event in world.audit():
        if since <= at(event) < to and (pod := pod_of(event)):
            ref = event.get("objectRef") or {}
            dry = " (dry run)" if "dryRun" in event["requestURI"] else ""
            what = ref.get("resource") or event["requestURI"].partition("?")[0]
            found.setdefault(pod, Counter())[f"{event['verb']} {what}{dry}"] += 1
    return found


def run(minutes: float = 3.0, objects: int = 0) -> list[dict[str, Any]]:
    """Measure; give a row for each sort of replica and of request: requests a minute, one value for each replica."""
    rows: list[dict[str, Any]] = []
    with ControlPlane() as plane, tempfile.TemporaryDirectory() as folder:
        world = World(plane, Path(folder))
        beside = Beside(world)
        script = world.folder / "webhooks.py"
        script.write_text(WEBHOOKS)
        sorts: dict[str, Sequence[Process]] = {}
        started: list[Process] = []
        try:
            for sort, names, start in (
                ("", ("leader", "follower", "follower"), lambda _: world.start()),
                ("webhooks and an index: ", ("leader", "follower"), lambda n: beside.operator(n, "-A", str(script))),
                ("-n: ", ("leader", "follower"), lambda n: beside.operator(n, "-n", "default", str(script))),
                ("client-go: ", ("leader", "follower"), beside.peer),
            ):
                for number, name in enumerate(names):
                    key = {"": "ours", "-n: ": "one"}.get(sort, sort.partition(":")[0].partition(" ")[0])
                    process = start(f"{key}-{number}")
                    started.append(process)
                    sorts[f"{sort}{name}"] = [*sorts.get(f"{sort}{name}", ()), process]
                    if number == 0:
                        time.sleep(5.0)  # so that it leads
            time.sleep(STARTED)
            for process in started:
                process.check_running()
            before = {name: [resident(p) for p in many] for name, many in sorts.items()}
            since = time.time()
            time.sleep(minutes * 60)
            found = counted(world, since, since + minutes * 60)
            rows += _rows(sorts, found, minutes)
            if objects:
                tell(Claims(plane), objects, "none", "PoolNotFound", "There is no pool named none.")
                time.sleep(STARTED)
            for name, many in sorts.items():
                values, peers = [resident(p) for p in many], [before[name]]
                told = f"memory of {name}" + (f" with {objects} claims more" if objects else "")
                rows.append({"what": told, "unit": "MB", "values": values, "peer": "before", "peer_values": peers[0]})
        finally:
            for process in started:
                process.kill()
    return rows


def _rows(sorts: dict[str, Sequence[Process]], found: dict[str, Counter[str]], minutes: float) -> list[dict[str, Any]]:
    rows = []
    for name, many in sorts.items():
        role = name.rpartition(" ")[2]
        peers = [found.get(p.name, Counter()) for p in sorts[f"client-go: {role}"]]
        kinds = sorted({what for p in many for what in found.get(p.name, ())})
        for what in ["in all", "but for renewals", *kinds]:
            values = [_count(found.get(p.name, Counter()), what) / minutes for p in many]
            theirs = [_count(p, what) / minutes for p in peers]
            rows.append(
                {
                    "what": f"{name}: {what}",
                    "unit": "requests/min",
                    "values": values,
                    "peer": f"client-go: {role}",
                    "peer_values": theirs,
                }
            )
    return rows


def _count(found: Counter[str], what: str) -> int:
    if what == "in all":
        return found.total()
    if what == "but for renewals":
        return found.total() - found["update leases"]
    return found[what]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--objects", type=int, default=0)
    args = parser.parse_args()
    table = Table("what", "unit", "of each replica", "client-go's, or before")
    for row in run(args.minutes, args.objects):
        shown = (" ".join(f"{x:.1f}" for x in row[key]) for key in ("values", "peer_values"))
        table.add_row(row["what"], row["unit"], *shown)
    console = Console(width=140)
    console.print(table)
    console.print(f"on {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
