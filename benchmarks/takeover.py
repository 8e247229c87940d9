"""How soon a follower leads: `python -m benchmarks.takeover [rounds] [--trace]`.

Replicas of the reference operator with the credentials of pods, its policies in force, one pool, no load. All times are
the API server's own, from its audit log: from the answer to the request that makes the Lease free (its release, after
SIGTERM or after the order to hand over, or the deletion of the Pod of a leader that is stopped) to the answer to the
next leader's first stamp. The follower has asked whether the fence is enforced by then, as one that follows for some
seconds has.
"""

from __future__ import annotations

import datetime
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from devcluster import ControlPlane
from devcluster.waiting import until
from kopf_ha.core.lease import HANDOVER
from testbed.deployment import NAME, ROOT
from testbed.replica import IPAM, Replica, as_pod


class World:
    """A control plane with everything in deploy/, and the replicas."""

    def __init__(self, plane: ControlPlane, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.plane, self.folder, self.env = plane, folder, dict(env or {})
        self.names = (f"replica-{n}" for n in itertools.count())
        plane.kubectl("apply", "-k", str(ROOT / "crds"))
        plane.wait_established()
        plane.kubectl("apply", "-k", str(ROOT / "deploy" / "base"))
        plane.kubectl("apply", "-f", str(ROOT / "deploy" / "components" / "policies" / "policies.yaml"))
        pool = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressPool", "metadata": {"name": "pool"}}
        plane.kubectl("apply", "-f", "-", input=json.dumps(pool | {"spec": {"cidr": "10.77.0.0/24"}}))

    def start(self, *more: str) -> Replica:
        labels = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": "operator"}
        pod = self.plane.pod_identity(NAME, NAME, next(self.names), labels)
        config = self.plane.kubeconfig_for(pod.token, name=pod.name)
        arguments = [*IPAM, f"--lease-name={NAME}", "--log-format=plain", *more]
        log = self.folder / f"{pod.name}.log"
        made = Replica(pod.name, config, arguments, log, times={}, env=as_pod(pod, NAME) | self.env)
        made.start()
        return made

    def audit(self) -> Iterator[dict[str, Any]]:
        for path in self.plane.audit_logs:
            for line in path.read_text().splitlines():
                yield json.loads(line)

    def holder(self) -> str:
        done = self.plane.kubectl(
            *("get", "lease", NAME, "-n", NAME, "-o", "jsonpath={.spec.holderIdentity}"), check=False
        )
        return done.stdout.split("_")[0]


def at(event: dict[str, Any]) -> float:
    return datetime.datetime.fromisoformat(event["stageTimestamp"]).timestamp()


def pod_of(event: dict[str, Any]) -> str:
    return next(iter((event["user"].get("extra") or {}).get("authentication.kubernetes.io/pod-name", ())), "")


def freed(event: dict[str, Any], leader: str) -> bool:
    ref = event.get("objectRef") or {}
    if ref.get("resource") == "pods" and event["verb"] == "delete":
        return bool(ref.get("name") == leader)
    real = event["verb"] == "update" and "dryRun" not in event["requestURI"]
    if ref.get("resource") != "leases" or not real or pod_of(event) != leader:
        return False
    return bool(event["requestObject"]["spec"]["holderIdentity"] == "")


def stamped(event: dict[str, Any], leader: str) -> bool:
    ref = event.get("objectRef") or {}
    real = event["verb"] == "patch" and "dryRun" not in event["requestURI"] and event["responseStatus"]["code"] == 200
    return real and ref.get("resource") == "addresspools" and pod_of(event) not in ("", leader)


#: What the next leader does until its first stamp: names, and the request that ends each.
STEPS = {
    "it has the Lease": ("update", "leases"),
    "it read the kind's definition": ("get", "customresourcedefinitions"),
    "it listed the deciding objects": ("list", "addresspools"),
    "its first stamp was accepted": ("patch", "addresspools"),
}


def asked(world: World, replica: Replica) -> int:
    """Count the questions about enforcement that a replica has asked."""
    return sum("fieldManager=kopf-ha-ask" in e["requestURI"] and pod_of(e) == replica.name for e in world.audit())


def has_asked(world: World, replica: Replica) -> bool:
    """Whether a replica asked about enforcement, and has finished."""
    before = asked(world, replica)
    time.sleep(1.0)
    return 0 < before == asked(world, replica)


def steps_of(events: list[dict[str, Any]], begin: float, end: float, replica: Replica) -> dict[str, float]:
    """Give the seconds from `begin` to the end of each step."""
    found = {}
    for name, (verb, resource) in STEPS.items():
        done = [
            at(e)
            for e in events
            if begin < at(e) <= end and pod_of(e) == replica.name and e["verb"] == verb
            and (e.get("objectRef") or {}).get("resource") == resource and "dryRun" not in e["requestURI"]
        ]  # fmt: skip
        if done:
            found[name] = min(done) - begin
    return found


def round_of(world: World, how: str, trace: bool = False) -> dict[str, float]:
    """Give the seconds of one takeover to the end of each step; see `STEPS`."""
    leader, follower = world.start(), None
    until("the first to lead", lambda: leader.said("barrier: "), watched=[leader])
    follower = world.start()
    until("the other one to follow", lambda: follower.said("new leader: "), watched=[follower])
    until("quiet", lambda: world.holder() == leader.name)
    until("the follower's questions", lambda: has_asked(world, follower), every=0.5, watched=[follower])
    if how == "released":
        leader.signal(signal.SIGTERM)
    elif how == "handed over":
        world.plane.kubectl("annotate", "lease", NAME, "-n", NAME, f"{HANDOVER}={follower.name}")
    else:
        leader.pause()
        world.plane.kubectl("delete", "pod", leader.name, "-n", NAME, "--force", "--grace-period=0")
    until("the other one to lead", lambda: follower.said("barrier: "), watched=[follower])

    def found() -> tuple[float, float] | None:
        events = list(world.audit())
        begin = next((at(e) for e in events if freed(e, leader.name)), None)
        if begin is None:
            return None
        end = next((at(e) for e in events if at(e) > begin and stamped(e, leader.name)), None)
        return (begin, end) if end else None

    begin, end = until("the audit log", found)
    steps = steps_of(list(world.audit()), begin, end, follower)
    if trace:
        for event in world.audit():
            if begin - 0.05 < at(event) <= end + 0.3 and pod_of(event) == follower.name:
                began = datetime.datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
                code, what = event["responseStatus"].get("code"), f"{event['verb']} {event['requestURI'][:110]}"
                print(f"{(began - begin) * 1000:7.1f} {(at(event) - began) * 1000:6.1f} ms {code} {what}")
    leader.kill()
    follower.kill()
    world.plane.kubectl("delete", "pod", follower.name, "-n", NAME, "--force", "--grace-period=0")
    patch = '{"spec":{"holderIdentity":""}}'
    world.plane.kubectl("patch", "lease", NAME, "-n", NAME, "--type=merge", "-p", patch)
    return steps


def run(rounds: int = 5, *, trace: bool = False) -> list[dict[str, Any]]:
    """Measure all ways in turns; give a row for each way and step that was seen, with a value for each round."""
    ways = {"its release": "released", "a handover": "handed over", "the Pod's deletion": "deleted"}
    took: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    with ControlPlane() as plane, tempfile.TemporaryDirectory() as folder:
        world = World(plane, Path(folder))
        for _ in range(rounds):
            for name, how in ways.items():
                took[name].append(round_of(world, how, trace))
    return [
        {
            "what": f"{way}: {step}",
            "unit": "ms",
            "values": values,
        }
        for way, many in took.items()
        for step in STEPS
        if (values := [one[step] * 1000 for one in many if step in one])
    ]


def main() -> None:
    """Print the table."""
    rounds = int(next((a for a in sys.argv[1:] if a.isdigit()), "5"))
    table = Table("since the Lease became free by", "rounds", "median, ms", "least", "most")
    for row in run(rounds, trace="--trace" in sys.argv):
        values = row["values"]
        shown = (f"{x:.0f}" for x in (statistics.median(values), min(values), max(values)))
        table.add_row(row["what"], str(len(values)), *shown)
    console = Console()
    console.print(table)
    console.print(f"on {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
