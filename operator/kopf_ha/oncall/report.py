"""What is known about one operator, collected from the cluster."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.siblings import pod_of
from kopf_ha.errors import MalformedLease
from kopf_ha.manifests.description import Description
from kopf_ha.manifests.workload import given_deciding
from kopf_ha.oncall.cluster import Cluster, Unknown
from kopf_ha.oncall.find import Operator
from kopf_ha.oncall.objects import Ahead, find_ahead, lately, refused_lately, since_leading
from kopf_ha.oncall.protection import Policies, Protection, protection_of
from kopf_ha.oncall.renewal import Renewal, renewal_of
from kopf_ha.oncall.replica import Replica, look_at, operator_container

#: Replicas that are asked at once.
AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One operator.

    Args:
        operator: what was found of it.
        record: its Lease; None if there is none, or none that can be used.
        malformed: why its Lease cannot be used; empty if it can.
        renewal: of the Lease; None if there is none.
        replicas: the oldest first; `Unknown` if Pods may not be listed.
        protection: whether the fence is enforced.
        events: of the last hour about the Lease, the oldest first; `Unknown` if Events may not be listed.
        ahead: objects whose stamp is ahead of the Lease; None if it was not asked for.
        not_listed: why kinds of objects could not be listed.
    """

    operator: Operator
    record: LeaseRecord | None
    malformed: str
    renewal: Renewal | None
    replicas: tuple[Replica, ...] | Unknown
    protection: Protection
    events: list[Mapping[str, Any]] | Unknown
    ahead: list[Ahead] | None = None
    not_listed: tuple[Unknown, ...] = field(default=())

    @property
    def leads(self) -> bool:
        """Whether a holder renews the Lease, as far as one can see."""
        return bool(self.record and self.record.holder and self.renewal and not self.renewal.expired)

    @property
    def leader(self) -> Replica | None:
        """The replica that the Lease names; None if there is none, or if its Pod is not shown."""
        uid = pod_of(self.operator.holder)[1]
        if isinstance(self.replicas, Unknown) or not uid:
            return None
        return next((one for one in self.replicas if one.uid == uid), None)

    def why_not(self, one: Replica) -> str:
        """Return why a replica cannot lead; empty if it can. Who renews the Lease leads, whatever its Pod shows."""
        return "" if self.leads and one is self.leader else one.trouble

    @property
    def level(self) -> str | None:
        """The level at which the leader found the fence enforced; None if that is unknown."""
        told = self.leader.metric("kopf_ha_enforced_level") if self.leader else Unknown("nobody leads")
        if not isinstance(told, Unknown):
            return next((name for name, value in told.items() if value), None)
        return self.protection.level

    @property
    def set_aside(self) -> int | Unknown:
        """How many deciding objects are set aside; by the leader's metrics, otherwise by events."""
        told = self.leader.metric("kopf_ha_set_aside") if self.leader else Unknown("nobody leads")
        if not isinstance(told, Unknown) and "" in told:
            return int(told[""])
        if isinstance(self.events, Unknown):
            return self.events
        found = since_leading(self.events, "SetAside")
        if found is None:
            return 0 if not isinstance(told, Unknown) or self.leads else Unknown("nobody leads")
        count = str(found.get("message") or "").partition(" ")[0]
        return int(count) if count.isdigit() else Unknown("its event has no number")

    @property
    def refused(self) -> dict[str, int] | Unknown:
        """Writes that were refused in the last hour because their term was over, by the line of the fence."""
        return self.events if isinstance(self.events, Unknown) else dict(refused_lately(self.events))

    @property
    def not_enforced(self) -> str:
        """What the present leader reported as not enforced; empty if it did not, or noted since that nothing is."""
        if isinstance(self.events, Unknown) or self.protection.noted:
            return ""
        found = since_leading(self.events, "NotEnforced")
        return str(found.get("message") or "") if found else ""


def report_on(cluster: Cluster, operator: Operator, policies: Policies, *, objects: bool = True) -> Report:
    """Collect what is known about one operator. What the person may not read is `Unknown`.

    Args:
        cluster: where it is.
        operator: what was found.
        policies: of the cluster.
        objects: list the operator's objects, too, which may be thousands.

    Raises:
        ApiError: the API server does not answer.
    """
    malformed, record = "", None
    try:
        record = operator.record
    except MalformedLease as error:
        malformed = str(error)
    protection = protection_of(record, operator.lease, policies)
    ahead: list[Ahead] | None = None
    not_listed: list[Unknown] = []
    if objects and record is not None:
        kinds = kinds_of(operator, protection)
        if isinstance(kinds, Unknown):
            not_listed = [kinds]
        else:
            ahead, not_listed = find_ahead(cluster, kinds, operator.lease, record.transitions, record.holder)
            ahead = None if not_listed and not ahead else ahead
    return Report(
        operator=operator,
        record=record,
        malformed=malformed,
        renewal=renewal_of(operator.body, operator.at) if operator.body is not None else None,
        replicas=_replicas(cluster, operator),
        protection=protection,
        events=_events(cluster, operator),
        ahead=ahead,
        not_listed=tuple(not_listed),
    )


def kinds_of(operator: Operator, protection: Protection) -> list[str] | Unknown:
    """Return the operator's own kinds, ``plural.group``, as its policies and its replicas name them."""
    found: set[str] = set()
    if isinstance(protection.described, Description):
        found |= {f"{kind.plural}.{protection.described.group}" for kind in protection.described.kinds}
    for pod in () if isinstance(operator.pods, Unknown) else operator.pods:
        found |= set(given_deciding(operator_container(pod)))
    if not found and isinstance(protection.described, Unknown):
        return Unknown(f"its kinds stand in its policies: {protection.described}")
    return sorted(found)


def _replicas(cluster: Cluster, operator: Operator) -> tuple[Replica, ...] | Unknown:
    if isinstance(operator.pods, Unknown):
        return operator.pods
    uid = pod_of(operator.holder)[1]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(pool.map(lambda pod: look_at(cluster, pod, uid), operator.pods))


def _events(cluster: Cluster, operator: Operator) -> list[Mapping[str, Any]] | Unknown:
    """List the Lease's events of the last hour. Those of a Lease that was deleted have another uid."""
    query = {"fieldSelector": f"involvedObject.kind=Lease,involvedObject.name={operator.name}"}
    found = cluster.items(f"/api/v1/namespaces/{quote(operator.namespace, safe='')}/events", query)
    if isinstance(found, Unknown):
        return found
    # Without the API server's time nothing can be judged; then this machine's has to do.
    return lately(found, operator.at or datetime.datetime.now(datetime.UTC))
