"""What the roles of an operator say: which kinds it writes, and which rights the fence lacks there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml.comments import CommentedSeq

from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests.documents import Document, in_one_line

#: A kind as (API group, plural).
KindName = tuple[str, str]

_CHANGES = frozenset({"update", "patch", "delete", "deletecollection"})
_WRITES = _CHANGES | {"create"}
#: What to do if `why_unbound` names another account than was meant.
CORRECT = (
    "If a name is wrong, correct it in the Deployment (namespace, serviceAccountName) or in the binding's subjects"
)
#: The user name of a service account begins with it.
_USER = "system:serviceaccount:"
_ROLES = ("Role", "ClusterRole")
_BINDINGS = ("RoleBinding", "ClusterRoleBinding")
#: They write no object, or only RBAC knows them.
_NO_WRITES = frozenset({"exec", "attach", "portforward", "proxy", "log", "finalizers"})
#: It writes no object either, but policies see it.
_TOKEN = "token"  # noqa: S105
#: No policy is written for these: questions and not objects; and Kopf's peering, which is not used.
_SKIPPED_GROUPS = frozenset({"authentication.k8s.io", "authorization.k8s.io", "kopf.dev", "zalando.org"})
_EVENTS = frozenset({("", "events"), ("events.k8s.io", "events")})
_LEASES = ("coordination.k8s.io", "leases")
_ADDED = "the fence reads and stamps an object before it is changed"
#: Built-in kinds that operators write, each with all API groups that have one of its name.
_BUILT_IN: Mapping[str, frozenset[str]] = {
    plural: frozenset(groups.split(","))
    for groups, plurals in {
        "": "bindings configmaps endpoints limitranges namespaces nodes persistentvolumeclaims persistentvolumes pods"
        " podtemplates replicationcontrollers resourcequotas secrets serviceaccounts services",
        ",events.k8s.io": "events",
        "apps": "controllerrevisions daemonsets deployments replicasets statefulsets",
        "batch": "cronjobs jobs",
        "autoscaling": "horizontalpodautoscalers",
        "policy": "poddisruptionbudgets",
        "networking.k8s.io": "ingresses ingressclasses networkpolicies",
        "rbac.authorization.k8s.io": "clusterrolebindings clusterroles rolebindings roles",
        "storage.k8s.io": "csidrivers storageclasses volumeattachments",
        "discovery.k8s.io": "endpointslices",
        "coordination.k8s.io": "leases",
        "scheduling.k8s.io": "priorityclasses",
    }.items()
    for plural in plurals.split()
}
_BUILT_IN_GROUPS = frozenset().union(*_BUILT_IN.values(), {"extensions"})
_ADMISSION = "admissionregistration.k8s.io"


@dataclass
class Rights:
    """What an operator may do.

    Args:
        seen: kinds that its roles name at all.
        writes: kinds that it may write, each once.
        subresources: of kinds that it may write, without `status`, each with the role.
        unreadable: roles that allow it every kind, or that are not among the documents.
        apart: kinds that it may write and that no policy can protect, each with the reason.
    """

    seen: set[KindName] = field(default_factory=set)
    writes: list[KindName] = field(default_factory=list)
    subresources: dict[tuple[KindName, str], str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    apart: dict[KindName, str] = field(default_factory=dict)


def kind_name(kind: KindName) -> str:
    """Return ``plural.group``, or ``plural`` in the core group."""
    return f"{kind[1]}.{kind[0]}" if kind[0] else kind[1]


def bound_roles(documents: Sequence[Document], namespace: str, account: str) -> tuple[list[Document], list[str]]:
    """Return the roles that are bound to the service account, and the names of those that are not among the documents.

    Raises:
        ConfigurationError: a binding cannot be read.
    """
    found: list[Document] = []
    missing: list[str] = []
    for binding, role in _bound(documents, namespace, account):
        if role is None or role.data.get("aggregationRule"):
            ref = binding.data["roleRef"]
            missing.append(f"{ref['kind']} {ref['name']}")
        elif role not in found:
            found.append(role)
    return found, list(dict.fromkeys(missing))


def why_unbound(documents: Sequence[Document], namespace: str, account: str) -> str:
    """Return the sentence that no role is bound to the service account; empty if one is.

    It names the accounts that roles are bound to, the most alike first: one of the two names may be misspelt.
    """
    if any(_bound(documents, namespace, account)):
        return ""
    said = f"no role in the documents is bound to the operator's service account, {namespace}/{account}"
    others = bound_accounts(documents, namespace)
    if not others:
        return said
    alike = difflib.get_close_matches(f"{namespace}/{account}", others, len(others), 0.0)
    return f"{said}. Roles are bound to {', '.join(alike)}"


def bound_accounts(documents: Sequence[Document], namespace: str) -> list[str]:
    """Return the service accounts that bindings name, as ``namespace/name``, each once."""
    found: dict[str, None] = {}
    for binding in documents:
        for subject in (binding.data.get("subjects") or ()) if binding.kind in _BINDINGS else ():
            kind, name = subject.get("kind"), str(subject.get("name"))
            if kind == "ServiceAccount":
                found[f"{subject.get('namespace', namespace)}/{name}"] = None
            elif kind == "User" and name.startswith(_USER):
                found[name.removeprefix(_USER).replace(":", "/")] = None
    return list(found)


def where_held(documents: Sequence[Document], namespace: str, account: str, own: set[KindName]) -> set[str]:
    """Return the namespaces in which roles allow the service account something with its own kinds.

    An empty text is among them if they do so everywhere, or if that is not known.
    """
    held: set[str] = set()
    for binding, role in _bound(documents, namespace, account):
        where = (binding.namespace or namespace) if binding.kind == "RoleBinding" else ""
        if role is None or role.data.get("aggregationRule"):
            held |= {where} if not where else set()
        elif any(_about(group, resource.partition("/")[0], own) for group, resource, _ in _grants(role)):
            held.add(where)
    return held


def _about(group: str, plural: str, own: set[KindName]) -> bool:
    return any(group in (g, "*") and plural in (p, "*") for g, p in own)


def _bound(documents: Sequence[Document], namespace: str, account: str) -> Iterator[tuple[Document, Document | None]]:
    """Give each binding of the service account, with its role if that is among the documents."""
    for binding in documents:
        if binding.kind not in _BINDINGS or not _binds(binding, namespace, account):
            continue
        ref = binding.data.get("roleRef") or {}
        if ref.get("kind") not in _ROLES or not ref.get("name"):
            raise ConfigurationError(f"{binding.title} in {binding.source} has no roleRef with kind and name")
        where = (binding.namespace or namespace) if ref["kind"] == "Role" else ""
        yield binding, next((d for d in documents if _is_role(d, ref, where, namespace)), None)


def rights_of(roles: Iterable[Document], missing: Iterable[str], own: set[KindName]) -> Rights:
    """Return what these roles allow.

    Args:
        roles: the roles.
        missing: names of roles that are not known.
        own: the kinds of the CRDs among the documents, for rules about all kinds of their group, and for rules about
            several groups.
    """
    rights = Rights(unreadable=list(missing))
    for role in roles:
        for group, resource, verbs in _grants(role, own):
            _note(rights, role.title, group, resource, verbs, own)
    return rights


def complete(role: Any, own: set[KindName]) -> None:
    """Add to a role what the fence needs to write the kinds that the role allows to be changed.

    The fence reads and stamps an object before the operator changes it: get and patch. It deletes the objects of a
    collection one by one. The rules that are there stay as they are.

    Args:
        role: a Role or ClusterRole.
        own: the operator's own kinds, for which there is a role of the fence's.
    """
    rules = role.get("rules") or []
    for rule in list(rules):
        for group, kinds, verbs in _needed(rule):
            names = rule.get("resourceNames")
            lacking = {k: sorted(verbs - _held(rules, group, k, names)) for k in kinds if (group, k) not in own}
            for wanted in {tuple(v): v for v in lacking.values() if v}.values():
                made: dict[str, Any] = {
                    "apiGroups": [group],
                    "resources": [k for k, v in lacking.items() if v == wanted],
                }
                if names:
                    made["resourceNames"] = list(names)
                rules.append(in_one_line(made | {"verbs": wanted}))
                if isinstance(rules, CommentedSeq):
                    rules.yaml_add_eol_comment(_ADDED, len(rules) - 1, column=0)


def _is_role(document: Document, ref: Any, where: str, namespace: str) -> bool:
    if document.kind != ref["kind"] or document.name != ref["name"]:
        return False
    return document.kind == "ClusterRole" or (document.namespace or namespace) == where


def _binds(binding: Document, namespace: str, account: str) -> bool:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    for subject in binding.data.get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name")
        if kind == "ServiceAccount" and name == account and subject.get("namespace", namespace) == namespace:
            return True
        if kind == "User" and name == f"{_USER}{namespace}:{account}":
            return True
        if kind == "Group" and name in groups:
            return True
    return False


def _grants(role: Document, own: Set[KindName] = frozenset()) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Give what a role allows, pair by pair, without kinds that only a rule of several groups makes up."""
    for rule in role.data.get("rules") or ():
        verbs = frozenset(rule.get("verbs") or ())
        groups = [str(g) for g in rule.get("apiGroups") or ()]
        for group in groups:
            for resource in map(str, rule.get("resources") or ()):
                if not _made_up(group, resource.partition("/")[0], groups, own):
                    yield group, resource, _WRITES if "*" in verbs else verbs


def _made_up(group: str, plural: str, groups: list[str], own: Set[KindName]) -> bool:
    """Return whether a rule means the kind of another of its groups, since a CRD is of that one or it is built in.

    Of a group that neither the documents nor this file know, the kind may be anything.
    """
    if (group, plural) in own or group in _BUILT_IN.get(plural, ()):
        return False
    if group not in _BUILT_IN_GROUPS | {g for g, _ in own}:
        return False
    return any((g, plural) in own or g in _BUILT_IN.get(plural, ()) for g in groups)


def _note(rights: Rights, role: str, group: str, resource: str, verbs: frozenset[str], own: set[KindName]) -> None:
    plural, _, sub = resource.partition("/")
    if plural == "*" and any(group == g for g, _ in own):
        rights.seen |= {k for k in own if k[0] == group}
        return
    kind = group, plural
    rights.seen.add(kind)
    if not verbs & _WRITES or group in _SKIPPED_GROUPS or kind in _EVENTS or sub in _NO_WRITES:
        return
    if "*" in (group, plural):
        if role not in rights.unreadable:
            rights.unreadable.append(role)
    elif kind == _LEASES:
        rights.apart[kind] = "the Lease of the election has a policy of its own"
    elif group == _ADMISSION:
        rights.apart[kind] = "the API server asks no policy about its own admission"
    else:
        if sub not in ("", "status", "*"):
            rights.subresources.setdefault((kind, sub), role)
        if sub != _TOKEN and kind not in rights.writes:
            rights.writes.append(kind)


def _needed(rule: Any) -> Iterator[tuple[str, list[str], frozenset[str]]]:
    """Give what the fence needs for the writes that a rule allows: API group, plurals and verbs."""
    verbs = frozenset(rule.get("verbs") or ())
    if not verbs & _CHANGES and not any("/" in r for r in rule.get("resources") or ()):
        return
    for group in rule.get("apiGroups") or ():
        kinds: dict[str, set[str]] = {}
        for resource in rule.get("resources") or ():
            plural, _, sub = resource.partition("/")
            kind = group, plural
            if "*" in (group, plural) or group in _SKIPPED_GROUPS or kind in _EVENTS or sub in (*_NO_WRITES, _TOKEN):
                continue
            if verbs & (_WRITES if sub else _CHANGES) and "*" not in verbs:
                kinds.setdefault(plural, set()).update({"get", "patch"})
                if "deletecollection" in verbs and not sub:
                    kinds[plural] |= {"list", "delete"}
        for wanted in dict.fromkeys(frozenset(v) for v in kinds.values()):
            yield group, [k for k, v in kinds.items() if v == wanted], wanted


def _held(rules: Iterable[Any], group: str, plural: str, names: Any) -> frozenset[str]:
    """Return the verbs that rules allow for a kind, for these names or for all."""
    held: set[str] = set()
    for rule in rules:
        groups, resources = rule.get("apiGroups") or (), rule.get("resources") or ()
        if not {group, "*"} & set(groups) or not {plural, "*"} & set(resources):
            continue
        if rule.get("resourceNames") and not set(names or ()) <= set(rule["resourceNames"]):
            continue
        if rule.get("resourceNames") and not names:
            continue
        verbs = set(rule.get("verbs") or ())
        held |= verbs | (_WRITES | {"get", "list", "watch"} if "*" in verbs else set())
    return frozenset(held)
