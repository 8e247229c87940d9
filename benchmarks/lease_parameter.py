"""What an API server pays if a policy's parameter is a Lease: `python -m benchmarks.lease_parameter [nodes …]`.

Parameters come from an informer of the whole kind, in all namespaces. So with a Lease as parameter, each API server
keeps a second copy of every Lease, and decodes every renewal of every node, ten seconds apart. The peers, in the same
run, are no policy at all, and a policy whose parameter is a Term.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from devcluster import ControlPlane
from testbed.terms import MERGE, Raw, administrator, install_kind

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
#: Seconds between two renewals of a node, as a kubelet has them.
RENEWED = 10.0
API = "admissionregistration.k8s.io/v1"


@dataclass(frozen=True)
class Cost:
    """What an API server spent: CPU in ms for each second, memory in MB, watches of Leases, and what they brought."""

    cpu: float
    memory: float
    watches: float
    events: float
    size: float


class Nodes:
    """Leases of nodes, renewed in a thread, as a context manager."""

    def __init__(self, raw: Raw, count: int) -> None:
        self._raw, self._names = raw, [f"node-{n}" for n in range(count)]
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Nodes:
        for name in self._names:
            spec = {"holderIdentity": name, "leaseDurationSeconds": 40}
            must(self._raw, "POST", LEASES, {"metadata": {"name": name}, "spec": spec})
        self._renewing = self._pool.submit(self._renew)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pool.shutdown()
        self._renewing.result()

    def _renew(self) -> None:
        began = time.monotonic()
        for number in itertools.count():
            if self._ended.wait(max(0.0, began + number * RENEWED / len(self._names) - time.monotonic())):
                return
            now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
            path = f"{LEASES}/{self._names[number % len(self._names)]}"
            must(self._raw, "PATCH", path, {"spec": {"renewTime": now}}, MERGE)


def must(raw: Raw, *request: Any) -> dict[str, Any]:
    status, body = raw(*request)
    if status >= 300:
        raise RuntimeError(f"{request[:2]}: {status} {body.get('message')}")
    return body


def cost(plane: ControlPlane, seconds: float) -> Cost:
    """Watch an API server for so many seconds."""
    pid = plane.apiserver().pid
    before, cpu = metrics(plane), used(pid)
    time.sleep(seconds)
    after, spent = metrics(plane), used(pid) - cpu
    status = Path(f"/proc/{pid}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+)", status)
    return Cost(
        cpu=spent * 1000 / seconds,
        memory=int(resident[1]) / 1024 if resident else 0.0,
        watches=after["apiserver_longrunning_requests"],
        events=(after["apiserver_watch_events_total"] - before["apiserver_watch_events_total"]) / seconds,
        size=(after["apiserver_watch_events_sizes_sum"] - before["apiserver_watch_events_sizes_sum"]) / seconds,
    )


def used(pid: int | None) -> float:
    """Give the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def metrics(plane: ControlPlane) -> dict[str, float]:
    """Sum what an API server counts about watches of Leases."""
    text = plane.kubectl("get", "--raw", "/metrics").stdout
    names = ("apiserver_longrunning_requests", "apiserver_watch_events_total", "apiserver_watch_events_sizes_sum")
    found = dict.fromkeys(names, 0.0)
    for line in text.splitlines():
        name = line.partition("{")[0]
        if name in found and 'resource="leases"' in line and ("verb=" not in line or 'verb="WATCH"' in line):
            found[name] += float(line.rpartition(" ")[2])
    return found


def policy(plane: ControlPlane, api_version: str, kind: str) -> None:
    """Have a policy with a parameter of this kind that judges nothing that anybody sends."""
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["bindings"]}]
    spec = {
        "failurePolicy": "Ignore",
        "paramKind": {"apiVersion": api_version, "kind": kind},
        "matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "true"}],
    }
    ref = {"name": "op", "namespace": "default", "parameterNotFoundAction": "Allow"}
    binding = {"policyName": "probe", "paramRef": ref, "validationActions": ["Deny"]}
    items = [
        {"apiVersion": API, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "probe"}, "spec": spec},
        {"apiVersion": API, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "probe"}, "spec": binding},
    ]
    plane.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    time.sleep(3)  # it becomes active within a second, and its informer lists


def measure(count: int, seconds: float) -> list[tuple[str, Cost]]:
    """Measure all three, the Lease last: an API server of 1.35 never starts that informer a second time."""
    rows = []
    with ControlPlane() as plane:
        install_kind(plane)
        with Nodes(administrator(plane), count):
            time.sleep(RENEWED)
            rows.append(("no policy", cost(plane, seconds)))
            policy(plane, "kopf-ha.dev/v1", "Term")
            rows.append(("a Term", cost(plane, seconds)))
            plane.kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "probe")
            policy(plane, "coordination.k8s.io/v1", "Lease")
            rows.append(("a Lease", cost(plane, seconds)))
    return rows


def main() -> None:
    """Print the table."""
    table = Table("nodes", "parameter", "CPU, ms/s", "memory, MB", "watches of Leases", "events/s", "kB/s")
    for count in [int(arg) for arg in sys.argv[1:]] or [200, 1000]:
        for what, c in measure(count, 30.0):
            cells = (f"{c.cpu:.0f}", f"{c.memory:.0f}", f"{c.watches:g}", f"{c.events:.0f}", f"{c.size / 1000:.1f}")
            table.add_row(str(count), what, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
