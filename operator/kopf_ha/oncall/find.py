"""Which Leases are kopf-ha's, with their Terms and their replicas."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from kopf_ha.core.hearing import term_path
from kopf_ha.core.lease import ENFORCED, OPERATOR, LeaseRecord, lease_path
from kopf_ha.core.siblings import Pod, pod_of, sibling_labels
from kopf_ha.errors import ConfigurationError
from kopf_ha.oncall.cluster import Answered, Cluster, Unknown
from kopf_ha.settings import workload_of

#: A name of an object of Kubernetes, as far as one can be in a path.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: its Lease, and what belongs to it.

    Args:
        namespace: of the Lease.
        name: of the Lease.
        body: the Lease, as read; None if there is none.
        at: when it was read, by the API server's clock, in whole seconds rounded down; None if that is unknown.
        term: its Term, as read; None if there is none, `Unknown` if it could not be read.
        pods: its replicas' Pods, as read, the oldest first; `Unknown` if they could not be listed.
    """

    namespace: str
    name: str
    body: Mapping[str, Any] | None
    at: datetime.datetime | None
    term: Mapping[str, Any] | Unknown | None
    pods: tuple[Mapping[str, Any], ...] | Unknown

    @property
    def lease(self) -> str:
        """``namespace/name``, as stamps record it."""
        return f"{self.namespace}/{self.name}"

    @property
    def record(self) -> LeaseRecord | None:
        """The Lease; None if there is none.

        Raises:
            MalformedLease: it cannot be used. The message says how to repair it.
        """
        return None if self.body is None else LeaseRecord.parse(self.body)

    @property
    def holder(self) -> str:
        """The holder identity; empty if there is none."""
        found = ((self.body or {}).get("spec") or {}).get("holderIdentity")
        return found if isinstance(found, str) else ""


def split_lease(lease: str, namespace: str) -> tuple[str, str]:
    """Read ``[NAMESPACE/]NAME``.

    Args:
        lease: as given.
        namespace: where it is if it names none.

    Raises:
        ConfigurationError: it is no such text.
    """
    where, slash, name = lease.rpartition("/")
    if not slash:
        where = namespace
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(where):
        raise ConfigurationError(f"{lease!r} is no Lease; write NAME or NAMESPACE/NAME")
    return where, name


def find(cluster: Cluster, lease: str = "", *, everywhere: bool = False) -> list[Operator] | Unknown:
    """Find operators, by namespace and name.

    Args:
        cluster: where to look.
        lease: ``[NAMESPACE/]NAME`` of the only one; empty for all of the cluster's namespace. An operator that is
            named is always found, though it may have neither Lease nor Pods.
        everywhere: look in all namespaces.

    Returns:
        `Unknown` if Leases may not be listed, or the one may not be read.

    Raises:
        ConfigurationError: `lease` is no name.
        ApiError: the API server does not answer.
    """
    if lease:
        namespace, name = split_lease(lease, cluster.namespace)
        found = cluster.read(lease_path(namespace, name))
        if isinstance(found, Unknown):
            return found
        return [_operator(cluster, namespace, name, found)]
    path = "/apis/coordination.k8s.io/v1/leases" if everywhere else lease_path(cluster.namespace)
    leases = cluster.items(path)
    if isinstance(leases, Unknown):
        return leases
    with_term = _with_term(cluster, everywhere)
    names = [_name(one["metadata"]) for one in leases if _is_ours(one, with_term)]
    # A Term without a Lease is an operator whose Lease somebody deleted.
    gone = with_term - {_name(one["metadata"]) for one in leases}
    # Each is read again: an item of a list has no date, and the list may take long.
    read = ((*one, cluster.read(lease_path(*one))) for one in sorted({*names, *gone}))
    return [
        _operator(cluster, namespace, name, body) for namespace, name, body in read if not isinstance(body, Unknown)
    ]


def the_one(cluster: Cluster, lease: str = "") -> Operator:
    """Find the operator that is meant: the named one, or the only one of the namespace.

    Raises:
        ConfigurationError: there is not exactly one, or it may not be read; the message says what to do.
        ApiError: the API server does not answer.
    """
    found = find(cluster, lease)
    if isinstance(found, Unknown):
        raise ConfigurationError(f"{found}; ask for the right to read Leases there, or name one as NAMESPACE/NAME")
    if not found:
        raise ConfigurationError(
            f"namespace {cluster.namespace} has no Lease of kopf-ha; name its namespace with -n, or look at all with"
            " `kopf-ha status -A`"
        )
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise ConfigurationError(f"namespace {cluster.namespace} has the Leases {names}; name the one that you mean")
    return found[0]


def replicas(
    pods: Iterable[Mapping[str, Any]], namespace: str, lease: str, body: Mapping[str, Any] | None
) -> list[Mapping[str, Any]]:
    """Choose the Pods that elect their leader by a Lease: by what it says, and by what they were told.

    Args:
        pods: as read.
        namespace: the Lease's.
        lease: its name.
        body: the Lease, as read; None if there is none.

    Returns:
        The oldest first.
    """
    pods = list(pods)
    notes = ((body or {}).get("metadata") or {}).get("annotations") or {}
    # Without a name a replica takes that of its Deployment.
    operator = str(notes.get(OPERATOR) or "") or lease
    uid = pod_of(str(((body or {}).get("spec") or {}).get("holderIdentity") or ""))[1]
    leader = next((p for p in pods if uid and p["metadata"]["uid"] == uid), None)
    kin = _kin(leader) if leader is not None else None
    found = [
        one
        for one in pods
        if one is leader
        or (told := _told(one)) == (namespace, lease)
        or (not any(told) and _workload(one["metadata"]) == (namespace, operator))
        or (kin is not None and kin[1] and _kin(one) == kin)
    ]
    return sorted(found, key=lambda p: (str(p["metadata"].get("creationTimestamp")), str(p["metadata"]["name"])))


def time_of(text: object) -> datetime.datetime | None:
    """Read RFC 3339, such as a MicroTime; None for anything else."""
    try:
        found = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else None


def _operator(cluster: Cluster, namespace: str, name: str, lease: Answered | None) -> Operator:
    term = cluster.read(term_path(namespace, name))
    body = lease.body if lease else None
    return Operator(
        namespace=namespace,
        name=name,
        body=body,
        at=lease.at if lease else None,
        term=term.body if isinstance(term, Answered) else term,
        pods=_pods(cluster, namespace, name, body),
    )


def _pods(
    cluster: Cluster, namespace: str, name: str, body: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], ...] | Unknown:
    """Return the replicas' Pods. If somebody leads and is none of the Lease's namespace, look in all others."""
    found = cluster.items(f"/api/v1/namespaces/{quote(namespace, safe='')}/pods")
    if isinstance(found, Unknown):
        return found
    here = replicas(found, namespace, name, body)
    if here or not ((body or {}).get("spec") or {}).get("holderIdentity"):
        return tuple(here)
    found = cluster.items("/api/v1/pods")
    return () if isinstance(found, Unknown) else tuple(replicas(found, namespace, name, body))


def _with_term(cluster: Cluster, everywhere: bool) -> set[tuple[str, str]]:
    """Return namespace and name of each Term; none if they cannot be listed."""
    terms = cluster.items("/apis/kopf-ha.dev/v1/terms" if everywhere else term_path(cluster.namespace))
    return set() if isinstance(terms, Unknown) else {_name(one["metadata"]) for one in terms}


def _is_ours(body: Mapping[str, Any], with_term: set[tuple[str, str]]) -> bool:
    notes = body["metadata"].get("annotations") or {}
    if OPERATOR in notes or ENFORCED in notes:
        return True
    return _name(body["metadata"]) in with_term


def _name(meta: Mapping[str, Any]) -> tuple[str, str]:
    return str(meta["namespace"]), str(meta["name"])


def _kin(pod: Mapping[str, Any]) -> tuple[str, str, dict[str, str]]:
    """Return what the Pods of one workload share, whatever their revision."""
    return str(pod["metadata"]["namespace"]), Pod.parse(pod).owner, sibling_labels(pod)


def _workload(meta: Mapping[str, Any]) -> tuple[str, str]:
    return str(meta["namespace"]), workload_of(str(meta["name"]))


def _told(pod: Mapping[str, Any]) -> tuple[str, str]:
    """Return the Lease's namespace and name that a Pod was given; two empty texts for none."""
    # Here, because it takes the readers of manifests along.
    from kopf_ha.manifests.workload import given, given_lease

    for container in pod["spec"].get("containers") or ():
        if name := given_lease(container):
            return given(container, "--lease-namespace") or str(pod["metadata"]["namespace"]), name
    return "", ""
