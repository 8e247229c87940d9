"""The RBAC roles of the operator: they allow only what the fence can judge."""

from __future__ import annotations

from collections.abc import Sequence

from kopf_ha.core.legacy_lock import LegacyLock
from kopf_ha.core.subresource import Part, subresources_of
from kopf_ha.manifests.cel import TERM_API, TERMS, Object
from kopf_ha.manifests.description import TERM, Description, Kind

_CHANGE, _SEND = ["get", "patch", "update"], ["create"]
#: The verbs by which a subresource is written. What opens a connection may be asked for with a GET, too.
_VERBS = {
    Part.WHOLE: _CHANGE,
    Part.SCALE: _CHANGE,
    Part.EVICTION: _SEND,
    Part.BINDING: _SEND,
    Part.PASSES: ["get", "create"],
}
_API = "rbac.authorization.k8s.io/v1"


def rbac(description: Description) -> list[Object]:
    """Return a role for the kinds, and one for the Lease, the Term and the replicas' Pods, with their bindings.

    The former is a ClusterRole, or a Role in each namespace that the operator serves. In namespaces nothing else is
    needed: the API server publishes to everybody what it serves and which fields that has. Only a cluster-scoped kind
    needs a ClusterRole then, which allows nothing but that kind.

    Stamped kinds can only be read and patched: an object cannot be created with a stamp, and users own the objects.
    """
    namespace, _ = description.lease_parts
    prefix, election = description.prefix, f"{description.prefix}-election"
    if description.level == TERM:
        roles = []  # the operator's own roles allow what it writes, and the fence neither reads nor stamps an object
    elif not description.namespaces:
        roles = [("ClusterRole", prefix, "", _rules(description, description.kinds))]
    else:
        inside = [k for k in description.kinds if not k.cluster]
        outside = [k for k in description.kinds if k.cluster]
        roles = [("ClusterRole", prefix, "", _kind_rules(description, outside))] if outside else []
        # Not the prefix alone: another account's could be this one's and `-election`.
        roles += [("Role", f"{prefix}-served", name, _rules(description, inside)) for name in description.namespaces]
    legacy = _legacy(description, description.legacy) if description.legacy else []
    return [
        *(made for kind, name, where, rules in roles for made in _bound(kind, name, where, rules, description)),
        *_bound("Role", election, namespace, _lease_rules(description), description),
        *legacy,
    ]


def _rules(description: Description, kinds: Sequence[Kind]) -> list[Object]:
    # Children get neither list nor watch: no policy limits reads, and a list returns the objects of all namespaces. If
    # you need them, or want to limit children to some namespaces, bind another role beside this one.
    rules = _kind_rules(description, kinds)
    rules += [_rule(c.group, [c.plural], ["get", "create", "patch", "delete"]) for c in description.children]
    for child in description.children:
        parts = subresources_of(child.kind)
        rules += [_rule(child.group, [f"{child.plural}/{name}"], _VERBS[parts[name]]) for name in child.subresources]
    rules += [_rule("", ["events"], ["create"])]
    if not description.namespaces:
        # The fence reads in the schema whether a kind has stamps. Kopf watches for kinds that are added later.
        rules += [_rule("apiextensions.k8s.io", ["customresourcedefinitions"], ["get", "list", "watch"])]
    return rules


def _kind_rules(description: Description, kinds: Sequence[Kind]) -> list[Object]:
    plurals = [k.plural for k in kinds]
    if not plurals:
        return []
    rules = [
        _rule(description.group, plurals, ["get", "list", "watch", "patch"]),
        _rule(description.group, [f"{p}/status" for p in plurals], ["patch"]),
    ]
    if scaled := [f"{k.plural}/scale" for k in kinds if k.scale]:
        rules.append(_rule(description.group, scaled, _CHANGE))
    return rules


def _lease_rules(description: Description) -> list[Object]:
    pinned = _rule("coordination.k8s.io", ["leases"], ["get", "list", "watch", "update"])
    # Events about the Lease and the replicas' Pods, which the other role allows only where it holds.
    narrow = description.namespaces or description.level == TERM
    events = [_rule("", ["events"], ["create"])] if narrow else []
    term = _rule(TERM_API.partition("/")[0], [TERMS], ["get", "patch"])
    # RBAC cannot limit `create` to a name. There is no `delete`, because Lease and Term count the terms.
    return [
        pinned | {"resourceNames": [description.lease_parts[1]]},
        _rule("coordination.k8s.io", ["leases"], ["create"]),
        term | {"resourceNames": [description.lease_parts[1]]},
        _rule(TERM_API.partition("/")[0], [TERMS], ["create"]),
        # The holder's Pod is watched, so that another replica need not wait until a dead leader's Lease expires.
        _rule("", ["pods"], ["get", "list", "watch"]),
        *events,
    ]


def _legacy(description: Description, lock: LegacyLock) -> list[Object]:
    """Return the role for the lock of replicas from before kopf-ha. Whoever makes a peering is not this operator."""
    rules = [_rule(lock.group, [lock.resource], ["get", "list", "watch", "update"]) | {"resourceNames": [lock.name]}]
    if not lock.is_peering:
        rules.append(_rule(lock.group, [lock.resource], ["create"]))
    kind, name = ("Role" if lock.namespace else "ClusterRole"), f"{description.prefix}-legacy-lock"
    return [_role(kind, name, lock.namespace, rules), _binding(kind, name, lock.namespace, description)]


def _rule(group: str, resources: list[str], verbs: list[str]) -> Object:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _meta(name: str, namespace: str) -> Object:
    return {"name": name, "namespace": namespace} if namespace else {"name": name}


def _bound(kind: str, name: str, namespace: str, rules: list[Object], description: Description) -> list[Object]:
    return [_role(kind, name, namespace, rules), _binding(kind, name, namespace, description)]


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
