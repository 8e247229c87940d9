"""What the operator may do: no more than the fence can fence."""

from __future__ import annotations

from kopf_ha.manifests.cel import Object
from kopf_ha.manifests.description import Description

_API = "rbac.authorization.k8s.io/v1"


def rbac(description: Description) -> list[Object]:
    """Give a ClusterRole for the kinds and a Role for the Lease and the replicas' Pods, bound to the service account.

    Stamped kinds are patched only: they cannot be created with a stamp, and their objects are the users'.
    """
    namespace, _ = description.lease_parts
    election = f"{description.prefix}-election"
    return [
        _role("ClusterRole", description.prefix, "", _rules(description)),
        _binding("ClusterRole", description.prefix, "", description),
        _role("Role", election, namespace, _lease_rules(description)),
        _binding("Role", election, namespace, description),
    ]


def _rules(description: Description) -> list[Object]:
    plurals = [k.plural for k in description.kinds]
    rules = [
        _rule(description.group, plurals, ["get", "list", "watch", "patch"]),
        _rule(description.group, [f"{p}/status" for p in plurals], ["patch"]),
    ]
    # Neither list nor watch: no policy limits what is read, and a list gives all namespaces' objects of the kind.
    # Whoever needs them, or limits children to some namespaces, binds a role of his own beside this one.
    rules += [_rule(c.group, [c.plural], ["get", "create", "patch", "delete"]) for c in description.children]
    # The fence reads from the schema whether a kind carries stamps; Kopf watches for kinds that come later.
    crds = _rule("apiextensions.k8s.io", ["customresourcedefinitions"], ["get", "list", "watch"])
    return [*rules, _rule("", ["events"], ["create"]), crds]


def _lease_rules(description: Description) -> list[Object]:
    pinned = _rule("coordination.k8s.io", ["leases"], ["get", "list", "watch", "update"])
    # A name cannot be demanded of what does not exist yet. There is no `delete`: the Lease counts the terms.
    return [
        pinned | {"resourceNames": [description.lease_parts[1]]},
        _rule("coordination.k8s.io", ["leases"], ["create"]),
        # The holder's Pod is watched, so that a dead leader's Lease need not be waited for.
        _rule("", ["pods"], ["get", "list", "watch"]),
    ]


def _rule(group: str, resources: list[str], verbs: list[str]) -> Object:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _meta(name: str, namespace: str) -> Object:
    return {"name": name, "namespace": namespace} if namespace else {"name": name}


def _role(kind: str, name: str, namespace: str, rules: list[Object]) -> Object:
    return {"apiVersion": _API, "kind": kind, "metadata": _meta(name, namespace), "rules": rules}


def _binding(kind: str, name: str, namespace: str, description: Description) -> Object:
    account_namespace, account = description.account_parts
    return {
        "apiVersion": _API,
        "kind": f"{kind}Binding",
        "metadata": _meta(name, namespace),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "namespace": account_namespace, "name": account}],
    }
