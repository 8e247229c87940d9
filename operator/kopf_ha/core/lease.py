"""The Lease as the election sees it: a record that is read from the API object and written back into it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from kopf_ha.core.token import TOKEN_MAX
from kopf_ha.errors import MalformedLease

#: The annotation of a Lease that names the operator it belongs to.
OPERATOR = "kopf-ha.dev/operator"
#: The annotation by which a leader tells followers that the fence was enforced when it asked last; each time another.
#: No promise rests on it: before an early takeover each policy is asked all the same.
ENFORCED = "kopf-ha.dev/enforced"
#: The annotation by which a leader that gives the Lease back says how its term ended (`core.history`), for people.
ENDED = "kopf-ha.dev/ended"
#: The annotation with which nobody acquires the Lease, whatever its value is; `core.orders` reads the value.
PAUSED = "kopf-ha.dev/paused"
#: The annotation by which people ask the leader to hand over: to a pod, by its name, or to ``any`` other replica.
HANDOVER = "kopf-ha.dev/handover-to"
#: The annotation of a Lease that was handed over: to whom. It ends with the next term.
PREFERRED = "kopf-ha.dev/preferred"


def lease_path(namespace: str, name: str = "") -> str:
    """Return the API path of a Lease; without a name, that of the Leases in the namespace."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace, safe='')}/leases" + (
        f"/{quote(name, safe='')}" if name else ""
    )


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """One revision of a ``coordination.k8s.io/v1`` Lease, or one that is about to be written.

    Args:
        holder: the holder identity; empty when the Lease is released or was never held.
        transitions: `leaseTransitions`, which is the token of the holder's term.
        lease_duration: seconds; None when the Lease has no valid number, then a reader uses its own.
        acquire_time: MicroTime. It is compared only with other times of the holder's node, to reject a presumed death.
        renew_time: MicroTime, for people only. No expiry is derived from another machine's clock.
        resource_version: of this revision; empty for a Lease that does not exist yet.
        uid: of the Lease; empty for one that does not exist yet.
        operator: the operator that it belongs to, by the name of its workload; empty when that is unknown.
        paused: the value of `PAUSED`; None when nobody paused. Replicas never write it.
        handover: the value of `HANDOVER`; empty when nobody asked.
        preferred: the value of `PREFERRED`; empty for nobody.
        raw: the whole object, so that what others keep in it survives a PUT.
    """

    holder: str
    transitions: int
    lease_duration: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    resource_version: str = ""
    uid: str = ""
    operator: str = ""
    paused: str | None = None
    handover: str = ""
    preferred: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> LeaseRecord:
        """Read an API object.

        Raises:
            MalformedLease: `leaseTransitions` is missing or no number from 0 to `TOKEN_MAX`, the holder is no string,
                or what answered is no Lease at all. Then the highest token so far is unknown, and counting from 0 would
                give tokens a second time (I2). The message says how to repair the Lease.
        """
        meta, spec = body.get("metadata") or {}, body.get("spec") or {}
        if not isinstance(meta, Mapping) or not isinstance(spec, Mapping):
            raise MalformedLease(_sentence({}, "its metadata or its spec is no object"))
        notes = meta.get("annotations") or {}
        if not isinstance(notes, Mapping):
            raise MalformedLease(_sentence(meta, "its annotations are no object"))
        transitions = spec.get("leaseTransitions")
        if isinstance(transitions, bool) or not isinstance(transitions, int) or not 0 <= transitions <= TOKEN_MAX:
            raise MalformedLease(_sentence(meta, f"leaseTransitions is {_shown(transitions)}"))
        holder = spec.get("holderIdentity")
        if holder is not None and not isinstance(holder, str):
            raise MalformedLease(_sentence(meta, f"holderIdentity is {holder!r}"))
        duration = spec.get("leaseDurationSeconds")
        if isinstance(duration, bool) or not isinstance(duration, int) or duration < 1:
            duration = None
        return cls(
            holder=holder or "",
            transitions=transitions,
            lease_duration=duration,
            acquire_time=spec.get("acquireTime"),
            renew_time=spec.get("renewTime"),
            resource_version=str(meta.get("resourceVersion") or ""),
            uid=str(meta.get("uid") or ""),
            operator=str(notes.get(OPERATOR) or ""),
            paused=str(notes[PAUSED] or "") if PAUSED in notes else None,
            handover=str(notes.get(HANDOVER) or ""),
            preferred=str(notes.get(PREFERRED) or ""),
            raw=body,
        )

    def as_object(self, namespace: str, name: str) -> dict[str, Any]:
        """Return the object to PUT or POST: our fields are replaced, everything else is as it was read.

        So a pause stays. If somebody paused since the Lease was read, the precondition keeps this write from being
        stored, however late it comes.
        """
        body: dict[str, Any] = copy.deepcopy(dict(self.raw))
        body |= {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        # A null means the same as a field that is missing.
        meta = body["metadata"] = {k: v for k, v in (body.get("metadata") or {}).items() if v is not None}
        meta |= {"namespace": namespace, "name": name}
        if self.resource_version:
            # This precondition makes the PUT a compare-and-swap. The uid keeps it from changing a Lease that was
            # deleted and created again.
            meta |= {"resourceVersion": self.resource_version, "uid": self.uid}
        notes = dict(meta.get("annotations") or {}) | ({OPERATOR: self.operator} if self.operator else {})
        for name, value in ((HANDOVER, self.handover), (PREFERRED, self.preferred)):
            notes.pop(name, None)
            notes |= {name: value} if value else {}
        if notes or "annotations" in meta:
            meta["annotations"] = notes
        body["spec"] = (body.get("spec") or {}) | {
            "holderIdentity": self.holder,
            "leaseTransitions": self.transitions,
            "leaseDurationSeconds": self.lease_duration,
            "acquireTime": self.acquire_time,
            "renewTime": self.renew_time,
        }
        return body

    def same_spec(self, other: LeaseRecord) -> bool:
        """Whether both are revisions of one Lease with the same spec, including the fields of others.

        Labels and annotations do not count, since an edited label must not keep a dead leader alive.
        """
        return self.uid == other.uid and self.fields == other.fields and self._others == other._others

    @property
    def enforced(self) -> str:
        """What the leader noted about enforcement; empty for nothing."""
        noted = ((self.raw.get("metadata") or {}).get("annotations") or {}).get(ENFORCED)
        return noted if isinstance(noted, str) else ""

    @property
    def fields(self) -> tuple[str, int, int | None, str | None, str | None]:
        """Our five fields of the spec. They differ in each acquisition, since `acquire_time` has microseconds."""
        return (self.holder, self.transitions, self.lease_duration, self.acquire_time, self.renew_time)

    @property
    def _others(self) -> dict[str, Any]:
        return {k: v for k, v in (self.raw.get("spec") or {}).items() if k not in _OURS}

    def changed(self, **values: Any) -> LeaseRecord:
        """Return a copy with other values."""
        return replace(self, **values)


_OURS = frozenset({"holderIdentity", "leaseTransitions", "leaseDurationSeconds", "acquireTime", "renewTime"})


def _shown(value: object) -> str:
    return "missing" if value is None else repr(value)


def _sentence(meta: Mapping[str, Any], what: str) -> str:
    name, namespace = meta.get("name", "?"), meta.get("namespace", "?")
    return (
        f"Lease {namespace}/{name} cannot be used: {what}. Its number counts the terms and is never guessed."
        f" Set it to at least the highest token recorded on any object (0 if there is none):"
        f" kubectl -n {namespace} patch lease {name} --type=merge"
        f' -p \'{{"spec":{{"holderIdentity":null,"leaseTransitions":N}}}}\''
    )
