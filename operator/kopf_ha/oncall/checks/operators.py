"""Which operators there are, and what each one's policies should be written from."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from kopf_ha.core.lease import OPERATOR
from kopf_ha.core.refusal import PREFIX
from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests import programs, workload
from kopf_ha.manifests.bundle import bundle
from kopf_ha.manifests.description import TERM, Description
from kopf_ha.manifests.documents import Document
from kopf_ha.manifests.reader import Said
from kopf_ha.oncall.checks.facts import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CRDS,
    DEPLOYMENTS,
    LEASES,
    POLICIES,
    ROLE_BINDINGS,
    ROLES,
    STATEFUL_SETS,
    Facts,
    NotRead,
    Object,
    Operator,
)
from kopf_ha.oncall.cluster import Unknown
from kopf_ha.oncall.protection import described

#: What the name of the policy of the Lease ends with. It says what all were written from.
_OF_LEASE = "-lease"


def operators(facts: Facts) -> list[Operator]:
    """Return the operators whose workloads were read, by their Leases.

    Args:
        facts: what was read.

    Raises:
        NotRead: workloads could not be read.
    """
    by_lease: dict[str, list[Object]] = {}
    known = _by_annotation(facts)
    workloads = [*facts.of(DEPLOYMENTS), *_or_none(facts, STATEFUL_SETS)]
    alone = facts.from_files and len(workloads) == 1
    for found in workloads:
        own = known.get((str(found["metadata"].get("namespace")), str(found["metadata"]["name"])), "")
        container = container_of(found, plain=facts.from_files, alone=alone or bool(own))
        if container is not None:
            by_lease.setdefault(lease_of(found, container, own), []).append(found)
    taken = {(name, _account(many[0])) for name, many in by_lease.items()}
    return [_operator(facts, name, many, taken) for name, many in sorted(by_lease.items()) if facts.lease in ("", name)]


def container_of(found: Object, *, plain: bool = False, alone: bool = False) -> Any | None:
    """Return the container of a workload that runs kopf-ha; None if none does.

    Args:
        found: a Deployment or a StatefulSet.
        plain: one that runs plain Kopf counts, too.
        alone: the workload is an operator's, so that any container counts.
    """
    containers = found["spec"]["template"]["spec"].get("containers") or ()
    ours = [c for c in containers if programs.is_fenced(c) or is_told(c)]
    if plain or alone:
        ours = ours or [c for c in containers if programs.runs_kopf(c)]
    if alone:
        ours = ours or list(containers)
    return ours[0] if ours else None


def lease_of(found: Object, container: Any, own: str = "") -> str:
    """Return the Lease by which the replicas of a workload elect their leader, as ``namespace/name``.

    Args:
        found: the workload.
        container: the operator's.
        own: the Lease that names the workload; empty for none.
    """
    meta = found["metadata"]
    where = workload.given(container, "--lease-namespace") or meta.get("namespace") or "default"
    return f"{where}/{workload.given_lease(container) or own or meta['name']}"


def is_told(container: Any) -> bool:
    """Return whether a container has variables of kopf-ha."""
    return any(str(e.get("name", "")).startswith("KOPF_HA_") for e in container.get("env") or ())


def _by_annotation(facts: Facts) -> dict[tuple[str, str], str]:
    """Return the Leases by the workloads that they name, as namespace and name."""
    found = {}
    for lease in _or_none(facts, LEASES):
        meta = lease["metadata"]
        if operator := (meta.get("annotations") or {}).get(OPERATOR):
            found[str(meta.get("namespace")), str(operator)] = str(meta["name"])
    return found


def named_for(name: str, description: Description) -> str:
    """Return the prefix that the policies of a description have, by the name of that of the Lease."""
    return name.removesuffix(_OF_LEASE) if name.endswith(_OF_LEASE) else description.prefix


def _account(found: Object) -> str:
    pod = found["spec"]["template"]["spec"]
    name = pod.get("serviceAccountName") or pod.get("serviceAccount") or "default"
    return f"{found['metadata'].get('namespace') or 'default'}/{name}"


def _operator(facts: Facts, lease: str, found: list[Object], taken: Collection[tuple[str, str]]) -> Operator:
    """Return one operator.

    Args:
        facts: what was read.
        lease: ``namespace/name``.
        found: its workloads.
        taken: Lease and account of all operators, whose policies are meant for nobody else.
    """
    first = found[0]
    account = _account(first)
    container: Object = container_of(first, alone=True) or {}  # files may say anything
    known = {d.policy: d.description for d in described(_or_none(facts, POLICIES)) if d.description is not None}
    ours = {name: d for name, d in known.items() if d.lease == lease or d.service_account == account}
    if not ours:
        free = {name: d for name, d in known.items() if (d.lease, d.service_account) not in taken}
        ours = {name: d for name, d in free.items() if _is_near(d, lease, account)}
    return Operator(
        namespace=account.partition("/")[0],
        lease=lease,
        workloads=found,
        container=container,
        account=account,
        descriptions=ours,
        expected=_expected(facts, lease, account, first, container, ours),
    )


def _is_near(description: Description, lease: str, account: str) -> bool:
    """Return whether a namespace or a name was changed after policies were written, as an overlay does."""
    ours, theirs = (
        set(map(_name, names)) for names in ((lease, account), (description.lease, description.service_account))
    )
    return bool(ours & theirs)


def _name(qualified: str) -> str:
    return qualified.partition("/")[2]


def _expected(
    facts: Facts, lease: str, account: str, found: Object, container: Any, ours: Mapping[str, Description]
) -> Description | Unknown:
    exact = [d for d in ours.values() if (d.lease, d.service_account) == (lease, account)]
    # Those of earlier releases have other names.
    exact.sort(key=lambda d: d.prefix != f"{PREFIX}-{'.'.join(d.account_parts)}")
    if exact or ours:
        base = exact[0] if exact else next(iter(ours.values()))
        return _moved(base, lease, account, workload.legacy_lock(container))
    try:
        made = bundle(_documents(facts, found), _said(lease, container))
    except NotRead as reason:
        return Unknown(f"what the policies should be is not known, since {reason}")
    except (ConfigurationError, AttributeError, KeyError, TypeError, ValueError) as reason:
        return Unknown(f"what the policies should be cannot be read from what is there: {reason}")
    return made.description


def _said(lease: str, container: Any) -> Said:
    """Return what the workload itself says that `kopf-ha manifests` cannot read from its documents."""
    level = workload.given(container, "--level")
    exempt = [*programs.option(container, "--exempt"), *workload.variable(container, "KOPF_HA_EXEMPT").split(",")]
    return Said(
        lease=lease,
        container=str(container["name"]),
        level=level or None,
        # A whole kind that is exempt is unknown to policies.
        exempt=tuple(dict.fromkeys(e.strip() for e in exempt if "/" in e)) if level != TERM else (),
    )


def _moved(base: Description, lease: str, account: str, legacy_lock: str) -> Description:
    """Return a description for another Lease or account, with the same kinds."""
    was, now = base.account_parts[0], account.partition("/")[0]
    own = base.prefix == f"{PREFIX}-{'.'.join(base.account_parts)}"
    return replace(
        base,
        lease=lease,
        service_account=account,
        legacy_lock=legacy_lock,
        namespaces=tuple(now if n == was else n for n in base.namespaces),
        prefix="" if own else base.prefix,
    )


def _documents(facts: Facts, found: Object) -> list[Document]:
    """Return what `kopf-ha manifests -f` would be given."""
    namespace = str(found["metadata"].get("namespace") or "default")
    many: list[tuple[str, str, Object]] = [("apps/v1", str(found["kind"]), found)]
    many += [("apiextensions.k8s.io/v1", "CustomResourceDefinition", o) for o in facts.of(CRDS)]
    rbac = "rbac.authorization.k8s.io/v1"
    for plural, kind in ((ROLES, "Role"), (ROLE_BINDINGS, "RoleBinding")):
        many += [(rbac, kind, o) for o in facts.of(plural)]
    for plural, kind in ((CLUSTER_ROLES, "ClusterRole"), (CLUSTER_ROLE_BINDINGS, "ClusterRoleBinding")):
        many += [(rbac, kind, o) for o in facts.of(plural)]
    made = []
    for version, kind, one in many:
        data = copy.deepcopy({**one, "apiVersion": version, "kind": kind})
        if kind == "Deployment":
            data["metadata"]["namespace"] = namespace
        made.append(Document("the cluster", "", data))
    return made


def _or_none(facts: Facts, plural: str) -> list[Object]:
    try:
        return facts.of(plural)
    except NotRead:
        return []
