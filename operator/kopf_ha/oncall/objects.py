"""What an operator's objects say about its terms: set aside, refused, ahead of the Lease."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from kopf_ha.core.lease import LeaseRecord, lease_path
from kopf_ha.core.notes import noted, stamp_in
from kopf_ha.core.refusal import REFUSED
from kopf_ha.core.token import MalformedStamp, Stamp, stamp_of
from kopf_ha.errors import ApiRefused, MalformedLease
from kopf_ha.oncall.cluster import TIMEOUT, Answered, Cluster, Unknown
from kopf_ha.oncall.find import time_of

#: How many objects are named.
NAMED = 10
#: Seconds that "lately" means. An API server keeps events for as long by default.
LATELY = 3600.0


@dataclass(frozen=True, slots=True)
class Ahead:
    """An object whose stamp no later write of the present leader can pass."""

    kind: str
    namespace: str
    name: str
    token: int


def ahead_of(bodies: Iterable[Mapping[str, Any]], kind: str, lease: str, token: int, holder: str) -> Iterator[Ahead]:
    """Yield the objects whose stamp is not below the Lease's token, though it is not the holder's own.

    Args:
        bodies: of one kind, as read.
        kind: ``plural.group``.
        lease: ``namespace/name``. Stamps of other Leases do not count.
        token: the Lease's.
        holder: the Lease's; empty if nobody holds it, then an equal token is nothing to wonder about.
    """
    mine = {holder, Stamp(token, holder, lease, "").digest} if holder else set()
    for body in bodies:
        try:
            # A kind with `status.fencing` may have notes of earlier releases, too; the field is what counts.
            stamp = stamp_of(body) or stamp_in(noted(body, kind), lease, kind)
        except MalformedStamp:
            continue
        if stamp is None or stamp.lease != lease:
            continue
        if stamp.token > token or (stamp.token == token and mine and stamp.holder not in mine):
            meta = body.get("metadata") or {}
            yield Ahead(kind, str(meta.get("namespace") or ""), str(meta.get("name")), stamp.token)


def find_ahead(
    cluster: Cluster, kinds: Iterable[str], lease: str, token: int, holder: str
) -> tuple[list[Ahead], list[Unknown]]:
    """List the objects of these kinds, and return those that are ahead of the Lease; and what could not be listed.

    Args:
        cluster: where they are.
        kinds: ``plural.group``.
        lease: ``namespace/name``.
        token: the Lease's, as it was read before.
        holder: the same.

    Raises:
        ApiError: the API server does not answer.
    """
    listed: dict[str, list[dict[str, Any]]] = {}
    unknown: list[Unknown] = []
    for kind in kinds:
        path = _path_of(cluster, kind)
        items = path if isinstance(path, Unknown) else cluster.items(path)
        if isinstance(items, Unknown):
            unknown.append(items)
        else:
            listed[kind] = items
    found = [one for kind, items in listed.items() for one in ahead_of(items, kind, lease, token, holder)]
    if found and (newer := _again(cluster, lease)) is not None:
        # A new leader may have stamped them since the Lease was read.
        found = [o for k, items in listed.items() for o in ahead_of(items, k, lease, newer.transitions, newer.holder)]
    return found, unknown


def _again(cluster: Cluster, lease: str) -> LeaseRecord | None:
    """Read the Lease; None if that cannot be done, or it cannot be used."""
    namespace, _, name = lease.partition("/")
    found = cluster.read(lease_path(namespace, name))
    try:
        return LeaseRecord.parse(found.body) if isinstance(found, Answered) else None
    except MalformedLease:
        return None


def _path_of(cluster: Cluster, kind: str) -> str | Unknown:
    """Return the path of all objects of a kind of a group, in the version that the API server prefers."""
    plural, _, group = kind.partition(".")
    if not group:
        return f"/api/v1/{quote(plural)}"
    try:
        found = cluster.api.call("GET", f"/apis/{quote(group)}", timeout=TIMEOUT)
    except ApiRefused as error:
        if error.status not in (403, 404):
            raise
        return Unknown(f"the API server does not serve {kind}")
    version = (found.get("preferredVersion") or {}).get("groupVersion")
    return f"/apis/{version}/{quote(plural)}"


# --- events


def lately(events: Iterable[Mapping[str, Any]], now: datetime.datetime) -> list[Mapping[str, Any]]:
    """Return the events of the last hour, the oldest first."""
    dated = [(when, one) for one in events if (when := _when(one)) and (now - when).total_seconds() <= LATELY]
    return [one for _, one in sorted(dated, key=lambda pair: pair[0])]


def refused_lately(events: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Count writes that were refused because their term was over, by the line of the fence."""
    found: Counter[str] = Counter()
    for one in events:
        text = str(((one.get("metadata") or {}).get("annotations") or {}).get(REFUSED) or "")
        for part in text.split(","):
            line, equals, count = part.partition("=")
            if equals and count.isdigit():
                found[line] += min(int(count), 1_000_000)
    return found


def since_leading(events: Iterable[Mapping[str, Any]], reason: str) -> Mapping[str, Any] | None:
    """Return the last event of a reason, if it came after the last leader began; None if not."""
    found: Mapping[str, Any] | None = None
    for one in events:
        if one.get("reason") == "Leading":
            found = None
        elif one.get("reason") == reason:
            found = one
    return found


def _when(event: Mapping[str, Any]) -> datetime.datetime | None:
    return time_of(event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp"))
