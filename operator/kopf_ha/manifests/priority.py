"""The FlowSchema that gives the election's requests priority over those of other service accounts."""

from __future__ import annotations

from kopf_ha.manifests.cel import Object
from kopf_ha.manifests.description import Description


def flow_schema(description: Description) -> list[Object]:
    """Return the FlowSchema. It gives the operator's Lease requests the priority of Kubernetes's own elections.

    Without it, many requests of other service accounts could delay the renewal.
    """
    namespace, name = description.account_parts
    return [
        {
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
            "kind": "FlowSchema",
            "metadata": {"name": f"{description.prefix}-election"},
            "spec": {
                # Before `service-accounts` (9000), after `system-leader-election` (100).
                "matchingPrecedence": 150,
                "priorityLevelConfiguration": {"name": "leader-election"},
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [
                    {
                        "subjects": [
                            {"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}}
                        ],
                        "resourceRules": [
                            {
                                "apiGroups": ["coordination.k8s.io"],
                                "resources": ["leases"],
                                "namespaces": [description.lease_parts[0]],
                                "verbs": ["get", "create", "update"],
                            }
                        ],
                    }
                ],
            },
        }
    ]
