"""A cluster whose answers are made up, and the objects of an operator in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from kopf_ha.api import TIMEOUT, Api
from kopf_ha.core.wire import Response
from kopf_ha.oncall.cluster import Cluster

LEASE = "/apis/coordination.k8s.io/v1/namespaces/n/leases"
PODS = "/api/v1/namespaces/n/pods"
TERM = "/apis/kopf-ha.dev/v1/namespaces/n/terms"
EVENTS = "/api/v1/namespaces/n/events"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
POLICIES, BINDINGS = f"{ADMISSION}/validatingadmissionpolicies", f"{ADMISSION}/validatingadmissionpolicybindings"

#: The API server's time, and how the same is written in a Lease.
NOW, TODAY = "Mon, 30 Nov 2026 10:10:01 GMT", "2026-11-30T10:10:01Z"
HOLDER = "web-5d4-aaaaa_u1_1f"

#: What the API server says when a right is missing.
FORBIDDEN = object()


class Made(Api):
    """Answers by path, without the query: an object, a list of objects, text, or a status."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        super().__init__(SimpleNamespace(configuration=SimpleNamespace(host="https://made-up")))
        self.answers = dict(answers)
        self.asked: list[str] = []

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "", timeout: float = TIMEOUT
    ) -> Response:
        self.asked.append(path)
        found = self.answers.get(path, self.answers.get(path.partition("?")[0]))
        raw = SimpleNamespace(headers={"Date": NOW})
        if found is None:
            return Response(404, b'{"kind": "Status", "message": "not found"}', raw)
        if found is FORBIDDEN:
            plural = path.partition("?")[0].rpartition("/")[2]
            said = f'x is forbidden: User "you" cannot list resource "{plural}" in API group "g"'
            return Response(403, json.dumps({"kind": "Status", "message": said}).encode(), raw)
        if isinstance(found, tuple):
            return Response(found[0], found[1].encode(), raw)
        if isinstance(found, list):
            found = {"items": found}
        return Response(200, json.dumps(found).encode(), raw)


def cluster(**answers: Any) -> Cluster:
    """Give a cluster; the names of the arguments do not matter, each is a dict of answers by path."""
    return Cluster(Made({path: found for one in answers.values() for path, found in one.items()}), "n")


def lease(holder: str = HOLDER, token: int = 7, **more: Any) -> dict[str, Any]:
    """Give a Lease that was renewed a second ago, by the API server's clock."""
    stored = more.get("stored", "2026-11-30T10:10:00Z")
    fields: dict[str, Any] = {"f:spec": {"f:renewTime": {}}}
    notes = {"kopf-ha.dev/operator": "web"} | ({"kopf-ha.dev/enforced": f"{token}-1"} if more.get("noted", 1) else {})
    return {
        "metadata": {
            "name": "web", "namespace": "n", "uid": "l", "annotations": notes,
            "managedFields": [{"manager": "kopf-ha-election", "time": stored, "fieldsV1": fields}] if stored else [],
        },
        "spec": {
            "holderIdentity": holder, "leaseTransitions": token, "leaseDurationSeconds": 15,
            "acquireTime": more.get("acquired", "2026-11-30T10:00:00.000000Z"),
            "renewTime": more.get("renewed", "2026-11-30T10:10:00.500000Z"),
        },
    }  # fmt: skip


def pod(name: str = "web-5d4-aaaaa", uid: str = "u1", **more: Any) -> dict[str, Any]:
    """Give a Pod of the operator that runs and is ready."""
    ready = more.get("ready", True)
    command = [
        "kopf-ha",
        "run",
        "--health-port=8081",
        "--metrics-port=9090",
        "--deciding",
        "pools.example.dev",
        "op.py",
    ]
    state = more.get("state", {"running": {"startedAt": TODAY}})
    return {
        "metadata": {
            "name": name, "namespace": "n", "uid": uid, "creationTimestamp": more.get("made", "2026-11-30T09:10:01Z"),
            "labels": {"app": "web", "pod-template-hash": more.get("revision", "5d4")},
        } | ({"deletionTimestamp": TODAY} if more.get("deleting") else {}),
        "spec": {"nodeName": "node-1", "containers": [{"name": "op", "command": command, "env": more.get("env", [])}]},
        "status": {
            "phase": more.get("phase", "Running"),
            "conditions": more.get("conditions", [{"type": "Ready", "status": "True" if ready else "False"}]),
            "containerStatuses": [{
                "name": "op", "restartCount": more.get("restarts", 0), "state": state,
                "lastState": more.get("last", {}),
            }] if state else [],
        },
    }  # fmt: skip


def port(name: str, number: int, path: str, answer: Any) -> dict[str, Any]:
    """Give what a Pod's port answers through the API server."""
    return {f"{PODS}/{name}:{number}/proxy/{path}": answer}


def event(reason: str, when: str = "2026-11-30T10:05:00Z", message: str = "", **notes: str) -> dict[str, Any]:
    """Give an event about the Lease."""
    return {"reason": reason, "lastTimestamp": when, "message": message, "metadata": {"annotations": notes}}
