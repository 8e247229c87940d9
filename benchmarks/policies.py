"""What the policies cost the API server: `python -m benchmarks.policies [--writes 500]`.

One client with the credentials of a pod writes as the reference operator does: a claim's status, a claim's annotation,
a new ConfigMap, and its deletion; and somebody else patches a ConfigMap that no rule is about. The CPU is the API
server's for a write, without policies and with all of them, in turns; with `--rules`, also with each rule alone. The
API server's metrics give the times of the conditions by which policies leave a request out. They give none for a check
that accepts.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.throughput import CLAIMS, MERGE, POLICIES, Client, seconds_of
from devcluster import ControlPlane
from devcluster.waiting import until
from kopf_ha.core.notes import as_metadata, notes_of
from kopf_ha.core.token import Stamp
from testbed.deployment import NAME, ROOT

CHILDREN = "/api/v1/namespaces/default/configmaps"
LEASE = f"{NAME}/{NAME}"
TERM = {"apiVersion": "kopf-ha.dev/v1", "kind": "Term"}
#: Seconds after which policies are in force, or no more.
SETTLE = 3.0


class Writer:
    """Writes as the reference operator does, with its stamp."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane, self.count = plane, 0
        plane.kubectl("apply", "-k", str(ROOT / "crds"))
        plane.wait_established()
        plane.kubectl("apply", "-k", str(ROOT / "deploy" / "base"))
        served = ("get", "addressclaims")
        until("the kind to be served", lambda: plane.kubectl(*served, check=False).returncode == 0, timeout=60)
        pod = plane.pod_identity(NAME, NAME, f"{NAME}-writer")
        self.admin, self.client = Client(plane), Client(plane, pod.token)
        self.stamp: dict[str, Any] = {
            "lease": LEASE,
            "token": 3,
            "holder": f"{pod.name}_{pod.uid}_x",
            "podUID": pod.uid,
        }
        claim = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressClaim", "metadata": {"name": "claim"}}
        made = json.loads(self.admin.ask("POST", CLAIMS, claim | {"spec": {"poolName": "pool"}}))
        self.owner = made["metadata"]["uid"]
        term = {key: self.stamp[key] for key in ("token", "holder", "podUID")}
        meta = {"name": NAME, "namespace": NAME}
        plane.kubectl("apply", "-f", "-", input=json.dumps({**TERM, "metadata": meta, "spec": term}))
        theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}}
        self.admin.ask("POST", CHILDREN, theirs)
        self.notes = self._notes()

    def _notes(self) -> dict[str, str]:
        mine = Stamp(3, self.stamp["holder"], LEASE, self.stamp["podUID"])
        return as_metadata(notes_of(mine, "configmaps"))["annotations"]

    def write(self, what: str) -> None:
        """Send one write; it must be accepted."""
        self.count += 1
        if what == "status":
            condition = {
                "type": "Ready",
                "status": "True",
                "reason": "Bound",
                "message": str(self.count),
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            status = {"fencing": self.stamp, "address": "10.0.0.1", "conditions": [condition]}
            self._claim("PATCH", "/status", {"status": status})
        elif what == "annotation":
            self._claim("PATCH", "", {"metadata": {"annotations": {"count": str(self.count)}}})
        elif what == "create":
            owner = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressClaim", "name": "claim", "uid": self.owner}
            meta = {
                "name": f"child-{self.count}",
                "annotations": self.notes,
                "labels": {"app.kubernetes.io/managed-by": "kopf-ha-ipam"},
                "ownerReferences": [owner],
            }
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"ADDRESS": "10.0.0.1"}}
            self.last = json.loads(self.client.ask("POST", CHILDREN, body))
        elif what == "somebody else's":
            self.admin.ask("PATCH", f"{CHILDREN}/theirs", {"data": {"count": str(self.count)}}, MERGE)
        else:
            meta = self.last["metadata"]
            conditions = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
            self.client.ask("DELETE", f"{CHILDREN}/{meta['name']}", {"preconditions": conditions})

    def _claim(self, method: str, part: str, body: Any) -> None:
        self.client.ask(method, f"{CLAIMS}/claim{part}", body, MERGE)

    def round(self, writes: int) -> tuple[dict[str, float], dict[str, float]]:
        """Give the API server's CPU ms for a write of each kind, and µs for each policy by its metrics."""
        cpu: dict[str, float] = {}
        before = self._checks()
        for group in (("status",), ("annotation",), ("create", "delete"), ("somebody else's",)):
            used = seconds_of(self.plane.apiserver().pid)
            for _ in range(writes):
                for what in group:
                    self.write(what)
            cpu[" + ".join(group)] = (seconds_of(self.plane.apiserver().pid) - used) * 1000 / writes
        checks = {}
        for name, (total, count) in self._checks().items():
            old = before.get(name, (0.0, 0.0))
            if count > old[1]:
                checks[name] = (total - old[0]) * 1e6 / (5 * writes)
        return cpu, checks

    def _checks(self) -> dict[str, tuple[float, float]]:
        """Give sum and count of the times of all checks, by policy; conditions count as `conditions of POLICY`."""
        found: dict[tuple[str, str], float] = collections.defaultdict(float)
        for line in self.admin.ask("GET", "/metrics").decode().splitlines():
            got = re.match(r"apiserver_(\w+)_(sum|count)\{(.*)\} (\S+)", line)
            if got is None:
                continue
            label = dict(re.findall(r'(\w+)="([^"]*)"', got[3]))
            if got[1] == "validating_admission_policy_check_duration_seconds":
                found[label["policy"], got[2]] += float(got[4])
            elif got[1] == "admission_match_condition_evaluation_seconds":
                found[f"conditions of {label['name']}", got[2]] += float(got[4])
        return {name: (found[name, "sum"], found[name, "count"]) for name, _ in list(found)}


def alone(documents: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Yield each rule of the policies for the operator's writes as a policy of its own, with its binding."""
    bindings = {d["metadata"]["name"]: d for d in documents if d["kind"].endswith("Binding")}
    for document in documents:
        name = document["metadata"]["name"]
        if document["kind"].endswith("Binding") or not name.endswith(("-stamped", "-child-configmaps")):
            continue
        for rule in document["spec"]["validations"]:
            named = rule["expression"].rpartition("/")[2].rstrip("'")
            yield f"{name}/{named}", [{**document, "spec": {**document["spec"], "validations": [rule]}}, bindings[name]]


def apply(plane: ControlPlane, documents: Sequence[Mapping[str, Any]]) -> None:
    """Have these policies in force, and no others."""
    plane.kubectl("delete", "validatingadmissionpolicies,validatingadmissionpolicybindings", "--all")
    if documents:
        items = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        plane.kubectl("apply", "-f", "-", input=json.dumps(items))
    time.sleep(SETTLE)


def compare(writer: Writer, writes: int, seconds: float, least: int = 3) -> list[dict[str, Any]]:
    """Measure writes without and with all policies, in turns."""
    documents = list(yaml.safe_load_all(Path(POLICIES).read_text()))
    found: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    began, number, longest = time.monotonic(), 0, 0.0
    writer.round(writes)
    while number < least or (number < 20 and time.monotonic() - began + longest < seconds):
        last = time.monotonic()
        for name, now in (("none", []), ("all", documents)):
            apply(writer.plane, now)
            for what, value in writer.round(writes)[0].items():
                found[name, what].append(value)
        number, longest = number + 1, max(longest, time.monotonic() - last)
    return [
        {
            "what": f"CPU of the API server for a write, {what}",
            "unit": "ms",
            "values": values,
            "peer": "no policies",
            "peer_values": found["none", what],
            "goals": ["ratio <= 1.1"],
        }
        for (name, what), values in found.items()
        if name == "all"
    ]


def run(plane: ControlPlane, folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Give rows for `benchmarks.collect`."""
    return compare(Writer(plane), 300, seconds)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rules", action="store_true")
    args = parser.parse_args()
    console = Console(width=140)
    with ControlPlane() as plane:
        writer = Writer(plane)
        table = Table("what", "all policies, ms", "no policies, ms", "ratio")
        for row in compare(writer, args.writes, 0, args.rounds):
            mine, theirs = statistics.median(row["values"]), statistics.median(row["peer_values"])
            table.add_row(row["what"], f"{mine:.2f}", f"{theirs:.2f}", f"{mine / theirs:.2f}")
        console.print(table)
        documents = list(yaml.safe_load_all(Path(POLICIES).read_text()))
        apply(plane, documents)
        table = Table("of the API server's metrics", "µs for a write, on average of the five")
        for name, took in sorted(writer.round(args.writes)[1].items()):
            table.add_row(name, f"{took:.1f}")
        console.print(table)
        table = Table("rule alone", "write", "CPU of the API server, ms")
        for name, pair in alone(documents) if args.rules else ():
            apply(plane, pair)
            for what, took in writer.round(args.writes)[0].items():
                table.add_row(name, what, f"{took:.2f}")
        console.print(table)


if __name__ == "__main__":
    main()
