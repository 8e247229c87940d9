"""Reads what the checks need, with the rights of the person who asks. Nothing is changed."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kopf_ha.manifests.documents import Document
from kopf_ha.oncall.checks import facts as f
from kopf_ha.oncall.checks import samples
from kopf_ha.oncall.checks.facts import Facts, Object, Right
from kopf_ha.oncall.cluster import TIMEOUT, Cluster, Unknown

_ADMISSION = "admissionregistration.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"
_RBAC = "rbac.authorization.k8s.io"

#: What is in no namespace: its API group and kind, by plural.
_GLOBAL = {
    f.CRDS: ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    f.POLICIES: (f"{_ADMISSION}/v1", "ValidatingAdmissionPolicy"),
    f.BINDINGS: (f"{_ADMISSION}/v1", "ValidatingAdmissionPolicyBinding"),
    f.VALIDATING: (f"{_ADMISSION}/v1", "ValidatingWebhookConfiguration"),
    f.MUTATING: (f"{_ADMISSION}/v1", "MutatingWebhookConfiguration"),
    f.FLOW_SCHEMAS: (f"{_FLOW}/v1", "FlowSchema"),
    f.PRIORITY_CLASSES: ("scheduling.k8s.io/v1", "PriorityClass"),
    f.NAMESPACES: ("v1", "Namespace"),
    f.CLUSTER_ROLES: (f"{_RBAC}/v1", "ClusterRole"),
    f.CLUSTER_ROLE_BINDINGS: (f"{_RBAC}/v1", "ClusterRoleBinding"),
}
#: What is in a namespace.
_NAMESPACED = {
    f.DEPLOYMENTS: ("apps/v1", "Deployment"),
    f.STATEFUL_SETS: ("apps/v1", "StatefulSet"),
    f.PODS: ("v1", "Pod"),
    f.ACCOUNTS: ("v1", "ServiceAccount"),
    f.BUDGETS: ("policy/v1", "PodDisruptionBudget"),
    f.LEASES: ("coordination.k8s.io/v1", "Lease"),
    f.EVENTS: ("v1", "Event"),
    f.NETWORK_POLICIES: ("networking.k8s.io/v1", "NetworkPolicy"),
    f.ROLES: (f"{_RBAC}/v1", "Role"),
    f.ROLE_BINDINGS: (f"{_RBAC}/v1", "RoleBinding"),
}
#: What is asked for in a collection that may be long.
_SELECTED = {f.EVENTS: {"fieldSelector": "reportingComponent=kopf-ha"}}

#: What the person needs in order to apply what `kopf-ha manifests` writes: verbs, API group, plurals.
_TO_INSTALL = (
    ("apiextensions.k8s.io", (f.CRDS,), False),
    (_ADMISSION, (f.POLICIES, f.BINDINGS), False),
    (_RBAC, (f.CLUSTER_ROLES, f.CLUSTER_ROLE_BINDINGS), False),
    (_FLOW, (f.FLOW_SCHEMAS,), False),
    (_RBAC, (f.ROLES, f.ROLE_BINDINGS), True),
    ("apps", (f.DEPLOYMENTS,), True),
)


def of_files(documents: Sequence[Document], files: str, namespace: str) -> Facts:
    """Return what documents say, as if they were installed.

    Args:
        documents: all of them.
        files: as words of a command.
        namespace: of what names none.
    """
    kinds = {kind: plural for plural, (_, kind) in (_GLOBAL | _NAMESPACED).items()}
    objects: dict[str, list[Object]] = {plural: [] for plural in kinds.values()}
    for document in documents:
        if plural := kinds.get(document.kind):
            if plural in _NAMESPACED and not document.namespace:
                document.data["metadata"]["namespace"] = namespace
            objects[plural].append(document.data)
    return Facts(objects=dict(objects), files=files, from_files=True, looked_at="the files")


def of_cluster(cluster: Cluster, *, everywhere: bool, lease: str = "", files: str = "") -> Facts:
    """Read a cluster.

    Args:
        cluster: and the namespace to look at.
        everywhere: look at all namespaces.
        lease: ``namespace/name`` of the only one that is meant; empty for all.
        files: what was given with ``-f``, as words of a command.

    Raises:
        ApiError: the API server does not answer, or does not know the person.
    """
    where = "" if everywhere else f"/namespaces/{cluster.namespace}"
    objects: dict[str, Sequence[Object] | Unknown] = {}
    for plural, (api, kind) in _GLOBAL.items():
        objects[plural] = _with_kind(cluster.items(f"{_root(api)}/{plural}"), api, kind)
    for plural, (api, kind) in _NAMESPACED.items():
        path = f"{_root(api)}{where}/{plural}"
        objects[plural] = _with_kind(cluster.items(path, _SELECTED.get(plural)), api, kind)
    return Facts(
        objects=objects,
        files=files,
        flags=" ".join(cluster.flags),
        looked_at="all namespaces" if everywhere else f"namespace {cluster.namespace}",
        lease=lease,
        **about_server(cluster),
    )


def before(cluster: Cluster, files: str = "") -> Facts:
    """Read what matters before anything is installed: the API server, and what the person may do.

    Raises:
        ApiError: the API server does not answer, or does not know the person.
    """
    wanted = [
        Right(verb, group, plural, cluster.namespace if inside else "")
        for group, plurals, inside in _TO_INSTALL
        for plural in plurals
        for verb in ("create", "patch")
    ]
    return Facts(
        objects={},
        files=files,
        flags=" ".join(cluster.flags),
        person=_person(cluster, wanted),
        samples=_samples(cluster),
        **about_server(cluster),
    )


def about_server(cluster: Cluster) -> dict[str, Any]:
    """Return version, time and APIs of the API server.

    Raises:
        ApiError: it does not answer, or does not know the person.
    """
    found = cluster.read("/version")
    at = found.at if found is not None and not isinstance(found, Unknown) else None
    # By this machine's clock, if the API server does not say.
    now = (at or datetime.datetime.now(datetime.UTC)).timestamp()
    version: tuple[int, int] | Unknown = Unknown("the API server does not tell its version")
    if isinstance(found, Unknown):
        version = found
    elif found is not None:
        digits = ["".join(c for c in str(found.body.get(k, "")) if c.isdigit()) for k in ("major", "minor")]
        if all(digits):
            version = int(digits[0]), int(digits[1])
    served: set[str] = set()
    for group in (_ADMISSION, "apiextensions.k8s.io", "coordination.k8s.io", _FLOW):
        listed = cluster.read(f"/apis/{group}/v1")
        if isinstance(listed, Unknown):
            return {"version": version, "now": now, "served": listed}
        for one in (listed.body.get("resources") or ()) if listed else ():
            served.add(f"{group}/v1/{one.get('name')}")
    return {"version": version, "now": now, "served": frozenset(served)}


def may(cluster: Cluster, account: str, rights: Iterable[Right]) -> Mapping[Right, bool] | Unknown:
    """Ask what a service account may do, by SubjectAccessReviews.

    Args:
        cluster: where.
        account: ``namespace/name``.
        rights: what to ask about.
    """
    namespace, _, name = account.partition("/")
    who = {
        "user": f"system:serviceaccount:{namespace}:{name}",
        "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
    }
    return _reviews(cluster, "subjectaccessreviews", "SubjectAccessReview", who, rights)


def _person(cluster: Cluster, rights: Iterable[Right]) -> Mapping[Right, bool] | Unknown:
    return _reviews(cluster, "selfsubjectaccessreviews", "SelfSubjectAccessReview", {}, rights)


def _reviews(
    cluster: Cluster, plural: str, kind: str, who: Mapping[str, Any], rights: Iterable[Right]
) -> Mapping[Right, bool] | Unknown:
    path, api = f"/apis/authorization.k8s.io/v1/{plural}", "authorization.k8s.io/v1"
    answers = {}
    for right in dict.fromkeys(rights):
        resource, _, sub = right.resource.partition("/")
        about = {"verb": right.verb, "group": right.group, "resource": resource, "subresource": sub, "version": "*"}
        about |= {"namespace": right.namespace, "name": right.name}
        body = {"apiVersion": api, "kind": kind, "spec": {**who, "resourceAttributes": about}}
        answer = cluster.api.request("POST", path, body, timeout=TIMEOUT)
        if answer.status == 403:
            return Unknown(f"you may not create {plural}, so what the account may do is not known")
        if not answer.ok:
            raise cluster.api.refused(answer, f"POST {path}")
        answers[right] = bool((answer.json.get("status") or {}).get("allowed"))
    return answers


def _samples(cluster: Cluster) -> dict[str, str | Unknown]:
    """Ask by dry runs whether the API server takes objects like those that are written; nothing is created."""
    found: dict[str, str | Unknown] = {}
    for title, path, body in samples.samples():
        answer = cluster.api.request("POST", f"{path}?dryRun=All", body, timeout=TIMEOUT)
        if answer.ok or answer.status == 409:
            found.setdefault(title, "")
        elif answer.status in (403, 404):
            found[title] = Unknown(f"not tried: {answer.message}")
        else:
            found[title] = answer.message
    return found


def _with_kind(found: list[dict[str, Any]] | Unknown, api: str, kind: str) -> Sequence[Object] | Unknown:
    """Return objects of a list, in which they do not say their kind."""
    return found if isinstance(found, Unknown) else [{"apiVersion": api, "kind": kind, **o} for o in found]


def _root(api: str) -> str:
    return "/api/v1" if api == "v1" else f"/apis/{api}"
