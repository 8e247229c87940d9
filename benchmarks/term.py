"""What the Term costs at a takeover: `python -m benchmarks.term [seconds]`.

Two pods of one account lead in turns, with the policies of level ``term`` in force. Ours is the time until the Term is
written and the API server has heard of it, before any handler runs. The peer is one patch of a ConfigMap by the same
client, as an operator sends many. At the end of each round both leaders create something without a stamp: the new one's
has to be accepted at once, and the old one's refused.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import kubernetes

from devcluster import ControlPlane, PodIdentity
from devcluster.waiting import until
from kopf_ha.api import Api, single_attempts
from kopf_ha.core.grant import Grant
from kopf_ha.core.hearing import term_path
from kopf_ha.core.history import KEPT, Past
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import MERGE_PATCH
from kopf_ha.manifests import Description, policies, render
from kopf_ha.manifests.description import TERM
from kopf_ha.manifests.term_crd import definition
from kopf_ha.run.termobject import TermObject
from kopf_ha.settings import Settings

SPACE = "bench"
MAPS = f"/api/v1/namespaces/{SPACE}/configmaps"
GOAL_MS = 20
#: As long as a history gets.
HISTORY = [
    Past(
        token, f"kopf-ha-ipam-7d9f8c5b4-x2x4k_{token:036}_0123abcd", "2026-11-30T10:00:00.123456Z", 0.123,
        "2026-11-30T10:10:00.123456Z", "stopped", "SIGTERM " * 5, 0.123,
    ).as_text()
    for token in range(1, KEPT + 1)
]  # fmt: skip


class Pod:
    """A replica's client, and its Term."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self.made: PodIdentity = plane.pod_identity(SPACE, "operator", name)
        configuration = kubernetes.client.Configuration()
        config = str(plane.kubeconfig_for(self.made.token, name=name))
        kubernetes.config.load_kube_config(config, client_configuration=configuration)
        configuration.retries = False
        self.api = Api(single_attempts(kubernetes.client.ApiClient(configuration)))
        self.holder = f"{name}_{self.made.uid}_1"
        settings = Settings(lease_name="op", lease_namespace=SPACE, identity=self.holder, pod_uid=self.made.uid)
        self.term = TermObject(self.api, settings, lambda: self.api)

    def lead(self, token: int) -> float:
        """Give the milliseconds until the API server has heard of a new term."""
        grant = Grant(Stamp(token, self.holder, f"{SPACE}/op", self.made.uid), 1e9)
        began = time.perf_counter()
        self.term.write(grant)
        self.term.hear(grant)
        took = time.perf_counter() - began
        if missing := self.term.missing():
            raise RuntimeError(missing[0])
        return took * 1000

    def patch(self, number: int) -> float:
        """Give the milliseconds of one patch."""
        began = time.perf_counter()
        self.api.request("PATCH", f"{MAPS}/peer", {"data": {"n": str(number)}}, MERGE_PATCH)
        return (time.perf_counter() - began) * 1000

    def keep(self, history: list[str] | None) -> None:
        """Give the Term a history, or none."""
        answer = self.api.request("PATCH", term_path(SPACE, "op"), {"history": history}, MERGE_PATCH)
        if not answer.ok or ("history" in answer.json) is not bool(history):
            raise RuntimeError(f"the history was not kept: {answer.status} {answer.message}")

    def create(self, name: str, query: str = "") -> int:
        return self.api.request("POST", MAPS + query, {"metadata": {"name": name}}).status


def run(plane: ControlPlane, folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Measure for so many seconds; give a row for the table of all benchmarks."""
    until_when = time.monotonic() + seconds
    plane.kubectl("create", "namespace", SPACE)
    plane.kubectl("create", "serviceaccount", "operator", "-n", SPACE)
    who = f"--serviceaccount={SPACE}:operator"
    plane.kubectl("create", "clusterrolebinding", "bench", "--clusterrole=cluster-admin", who)
    plane.kubectl("apply", "-f", "-", input=render([definition()]))
    plane.wait_established()
    described = Description(group="", kinds=(), level=TERM, lease=f"{SPACE}/op", service_account=f"{SPACE}/operator")
    plane.kubectl("apply", "-f", "-", input=render(policies(described)))
    plane.kubectl("create", "configmap", "peer", "-n", SPACE)
    pods = [Pod(plane, name) for name in ("one", "two")]
    pods[0].lead(1)
    until("line 4 to be in force", lambda: pods[1].create("x", "?dryRun=All") == 403, 60)
    pods[0].patch(0)
    ours: list[float] = []
    bare: list[float] = []
    peer: list[float] = []
    number = 1
    while len(bare) < 10 or (time.monotonic() < until_when and len(ours) < 500):
        number += 1
        new, old = pods[number % 2], pods[(number + 1) % 2]
        # As in an operator's twenty-first term, and in turns as in its first.
        full = number % 4 < 2
        old.keep(HISTORY if full else None)
        peer.append(new.patch(number))
        (ours if full else bare).append(new.lead(number))
        if (answers := (new.create(f"of-{number}"), old.create(f"late-{number}"))) != (201, 403):
            raise RuntimeError(f"the new leader's write got {answers[0]}, the old one's {answers[1]}")
    return [
        {
            "what": "Term written and heard of, at a takeover",
            "unit": "ms",
            "values": ours,
            "peer": "one patch of a ConfigMap",
            "peer_values": peer,
            "goals": [f"median <= {GOAL_MS}"],
            "note": "One API server; two requests at the least. The second one is sent beside the barrier. The Term has"
            f" a full history; without one: {statistics.median(bare):.1f} ms in the median.",
        }
    ]


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if sys.argv[1:] else 30.0
    with tempfile.TemporaryDirectory() as folder, ControlPlane(Path(folder) / "state") as plane:
        (row,) = run(plane, Path(folder), seconds)
    print(row["note"])
    for name, values in ((row["what"], row["values"]), (row["peer"], row["peer_values"])):
        low, high = min(values), max(values)
        print(f"{name}: {statistics.median(values):.1f} ms ({low:.1f} to {high:.1f}, {len(values)} rounds)")


if __name__ == "__main__":
    main()
