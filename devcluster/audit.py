"""The API servers' audit policy: it records who sent which write, with its body.

Each read is one line, since tests and benchmarks count requests. What a GET of a pool or a claim was answered is kept,
too: the judge asks whether it can have been true at that time. The control plane's own reads are left out, and so are
bodies that contain credentials. After a server was killed, its last requests may be missing. etcd's history shows what
was written.
"""

from __future__ import annotations

from typing import Any

_WRITES = ["create", "update", "patch", "delete", "deletecollection"]

POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    # one line for each request, once it is answered
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/openapi*", "/version", "/metrics"]},
        {
            "level": "None",
            "users": ["system:apiserver", "system:kube-controller-manager"],
            "verbs": ["get", "list", "watch"],
        },
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"], "verbs": ["get", "list", "watch"]},
        {
            "level": "Metadata",
            "resources": [
                {"group": "", "resources": ["events", "secrets", "serviceaccounts/token"]},
                {"group": "events.k8s.io", "resources": ["events"]},
                {"group": "authentication.k8s.io"},
            ],
        },
        {
            "level": "Metadata",
            "namespaces": ["kube-system", "kube-node-lease"],
            "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
        },
        {"level": "RequestResponse", "verbs": _WRITES},
        {"level": "RequestResponse", "verbs": ["get"], "resources": [{"group": "ipam.kopf-ha.dev"}]},
        {"level": "Metadata"},
    ],
}
