"""How soon the first handler runs: `python -m benchmarks.first_handler [--rounds 5]`.

One small operator under `kopf run` and under `kopf-ha run`, in turns, each time in a new process: with rights in the
whole cluster, and with a Role only and `-n`. The time is from the start of the process to the first handler of an
object that exists. The peer is plain Kopf in the same run. With a Role only it repeats for 54 s what it may not ask, so
that row is measured once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.result import Row, rounds
from devcluster import Cluster, ControlPlane
from testbed.replica import KOPF_HA, Replica, as_pod

NAME = "first"
OPERATOR = """
import time
import kopf

@kopf.on.resume("configmaps", labels={"first": "yes"})
@kopf.on.create("configmaps", labels={"first": "yes"})
def seen(**_):
    print(f"first handler at {time.time():.3f}", flush=True)
"""
#: What a Role has to allow an operator that handles ConfigMaps, and the fence that writes their stamps.
RULES = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "list", "watch", "create", "update"],
    },
]
RBAC = "rbac.authorization.k8s.io"


class Place:
    """A cluster with the operator's account, and what starts there."""

    def __init__(self, plane: Cluster, folder: Path) -> None:
        self.plane, self.folder, self.started = plane, folder, 0
        (folder / "op.py").write_text(OPERATOR)
        role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": NAME, "namespace": NAME}}
        binding: dict[str, Any] = {
            **role,
            "kind": "RoleBinding",
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAME}],
        }
        plane.kubectl("create", "namespace", NAME)
        plane.kubectl("create", "serviceaccount", NAME, "-n", NAME)
        items = [role | {"rules": RULES}, binding, self.object()]
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        plane.kubectl("create", "-f", "-", input=text)

    def object(self) -> dict[str, Any]:
        metadata = {"name": "object", "namespace": NAME, "labels": {"first": "yes"}}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}

    def run(self, fenced: bool, role_only: bool) -> float:
        """Give the seconds from the start of a process to its first handler."""
        self.started += 1
        pod = self.plane.pod_identity(NAME, NAME, f"{NAME}-{self.started}")
        config = self.plane.kubeconfig_for(pod.token, name=pod.name) if role_only else self.plane.kubeconfig
        where: Sequence[str] = ("-n", NAME) if role_only else ("-A",)
        lease = [f"--lease-name={NAME}-{self.started}", f"--lease-namespace={NAME}"]
        arguments = ["run", *where, *(lease if fenced else ["--standalone"]), str(self.folder / "op.py")]
        program = KOPF_HA if fenced else ("-m", "kopf")
        env = as_pod(pod, NAME)
        one = Replica(pod.name, config, arguments, self.folder / f"{pod.name}.log", program=program, env=env)
        began = time.time()
        one.start()
        try:
            return float(one.see(r"first handler at (\d+\.\d+)").rpartition(" ")[2]) - began
        finally:
            one.kill()
            self.plane.kubectl("replace", "--force", "-f", "-", input=json.dumps(self.object()))


def measure(place: Place, role_only: bool, turns: Iterable[int]) -> Row:
    """Start both in turns."""
    plain, fenced = [], []
    for _ in turns:
        plain.append(place.run(False, role_only))
        fenced.append(place.run(True, role_only))
    what = "a Role only, -n" if role_only else "the whole cluster, -A"
    return Row(f"start to first handler, {what}", "s", fenced, "kopf run", plain)


def run(plane: ControlPlane, folder: Path, seconds: float) -> list[Row]:
    """Give rows; below 90 s without the Role, which plain Kopf takes a minute for."""
    place = Place(plane, folder)
    slow = seconds >= 90
    rows = [measure(place, False, rounds(seconds - 60 * slow, least=2, most=10))]
    return [*rows, measure(place, True, range(1))] if slow else rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    turns = parser.parse_args().rounds
    table = Table("what", "rounds", "kopf run, s", "kopf-ha run, s", "÷ kopf run")
    with ControlPlane() as plane, tempfile.TemporaryDirectory() as folder:
        place = Place(plane, Path(folder))
        for row in (measure(place, False, range(turns)), measure(place, True, range(1))):
            medians = statistics.median(row.peer_values), statistics.median(row.values)
            shown = (f"{x:.2f}" for x in (*medians, medians[1] / medians[0]))
            table.add_row(row.what, str(len(row.values)), *shown)
    Console().print(table)


if __name__ == "__main__":
    main()
