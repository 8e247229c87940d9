"""The API servers' audit policy: every write by whom, with its body, so that a test can say what was sent.

Reads are one line each, since tests and benchmarks count requests. What the control plane does for itself
stays out, and so do bodies that carry credentials. The last requests of a server that was killed may be
missing: what was written at all is said by etcd's history.
"""

from __future__ import annotations

from typing import Any

_WRITES = ["create", "update", "patch", "delete", "deletecollection"]

POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    # one line for each request, when it is answered
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
        {"level": "Metadata"},
    ],
}
