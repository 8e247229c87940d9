"""The locks by which operators elected a leader before kopf-ha: who holds one, and how to take it and give it back.

- The ``endpoints`` and ``configmaps`` of old client-go and of the `kubernetes` package keep a record in an annotation.
- The ``leases`` of client-go keep the same fields in their spec.
- The ``kopfpeerings`` and ``clusterkopfpeerings`` of Kopf have one claim for each process, with a priority. Whoever
  lives and sees no claim of its own priority or a higher one goes on.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from kopf_ha.errors import ConfigurationError

#: The annotation of client-go.
ANNOTATION = "control-plane.alpha.kubernetes.io/leader"
#: Of our claim in a peering: above all that people write, since an equal one pauses both sides.
PRIORITY = 2**31 - 1
#: What Kopf takes for a peer's lifetime where it says none, in seconds.
_LIFETIME = 60

#: resource → API version and kind; only the last one has no namespace.
_KINDS = {
    "endpoints": ("v1", "Endpoints"),
    "configmaps": ("v1", "ConfigMap"),
    "leases": ("coordination.k8s.io/v1", "Lease"),
    "kopfpeerings": ("kopf.dev/v1", "KopfPeering"),
    "clusterkopfpeerings": ("kopf.dev/v1", "ClusterKopfPeering"),
}
_CLUSTER = "clusterkopfpeerings"


@dataclass(frozen=True, slots=True)
class Claim:
    """What one process says of its leadership.

    Args:
        holder: its identity.
        content: all that it wrote. While it lives, this changes.
        duration: for how many seconds the claim holds without a change; None if it does not say.
        priority: in a peering.
    """

    holder: str
    content: str
    duration: float | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class LegacyRecord:
    """One revision of the object that is the lock.

    Args:
        claims: of those who lead, or would in a peering; a lock of another sort has one at most.
        version: its resourceVersion.
        unusable: why nobody can tell who holds it; empty if it can be read.
        raw: the whole object, so that what others keep in it survives a PUT.
    """

    claims: tuple[Claim, ...]
    version: str = ""
    unusable: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def claim_of(self, holder: str) -> Claim | None:
        """Return the claim of this holder."""
        return next((c for c in self.claims if c.holder == holder), None)


@dataclass(frozen=True, slots=True)
class LegacyLock:
    """One lock: what sort it is and where.

    Args:
        resource: plural name of its kind.
        name: of the object.
        namespace: of the object; empty for ``clusterkopfpeerings``.
    """

    resource: str
    name: str
    namespace: str = ""

    @classmethod
    def parse(cls, text: str, namespace: str) -> LegacyLock:
        """Read ``RESOURCE/[NAMESPACE/]NAME``.

        Args:
            text: as somebody wrote it.
            namespace: where the lock is if the text names none.

        Raises:
            ConfigurationError: it is written otherwise.
        """
        resource, *rest = text.split("/")
        given, name = ("", *rest) if len(rest) == 1 else rest if len(rest) == 2 else ("", "")
        if resource not in _KINDS or not name or (len(rest) == 2 and not given):
            raise ConfigurationError(
                f"the legacy lock must be written RESOURCE/NAME or RESOURCE/NAMESPACE/NAME, with one of"
                f" {', '.join(_KINDS)}, not {text!r}"
            )
        if resource == _CLUSTER and given:
            raise ConfigurationError(f"clusterkopfpeerings have no namespace: write {_CLUSTER}/{name}, not {text!r}")
        return cls(resource, name, "" if resource == _CLUSTER else given or namespace)

    def __str__(self) -> str:
        return "/".join(part for part in (self.resource, self.namespace, self.name) if part)

    @property
    def group(self) -> str:
        """Its API group; empty for the core group."""
        return _KINDS[self.resource][0].rpartition("/")[0]

    @property
    def collection(self) -> str:
        """The API path of its collection."""
        version = _KINDS[self.resource][0]
        where = f"/namespaces/{quote(self.namespace, safe='')}" if self.namespace else ""
        return f"/{'apis' if '/' in version else 'api'}/{version}{where}/{self.resource}"

    @property
    def path(self) -> str:
        """Its own API path."""
        return f"{self.collection}/{quote(self.name, safe='')}"

    @property
    def is_peering(self) -> bool:
        """Whether it is one of Kopf's."""
        return self.group == "kopf.dev"

    # --- who holds it

    def read(self, body: Mapping[str, Any]) -> LegacyRecord:
        """Read the object."""
        version = str((body.get("metadata") or {}).get("resourceVersion") or "")
        try:
            return LegacyRecord(self._claims(body), version, raw=body)
        except (ValueError, TypeError, AttributeError) as error:
            return LegacyRecord((), version, f"{self} cannot be read: {error}; repair it, or delete it", body)

    def _claims(self, body: Mapping[str, Any]) -> tuple[Claim, ...]:
        if self.is_peering:
            peers = body.get("status") or {}
            return tuple(_peer(identity, peer) for identity, peer in peers.items() if peer is not None)
        record, content = self._election_record(body)
        holder = record.get("holderIdentity") or ""
        if not isinstance(holder, str):
            raise TypeError(f"its holder is {holder!r}")
        return (Claim(holder, content, _seconds(record.get("leaseDurationSeconds"))),) if holder else ()

    def _election_record(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        if self.resource == "leases":
            spec = body.get("spec") or {}
            return spec, json.dumps(spec, sort_keys=True)
        text = ((body.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION) or "{}"
        return json.loads(text), text

    # --- how it is taken and given back

    def taken(self, record: LegacyRecord | None, holder: str, ours: str, seconds: float, wall: str) -> dict[str, Any]:
        """Return the object to write so that it is held.

        Args:
            record: its last revision, on which the write is conditioned; None if there is no object.
            holder: my identity.
            ours: what the identities of my siblings begin with. In a peering my claim replaces theirs.
            seconds: for how long the claim holds without a change.
            wall: the time as MicroTime.
        """
        body = self._body(record)
        if self.is_peering:
            others = {k: v for k, v in (body.get("status") or {}).items() if not k.startswith(ours)}
            mine = {"priority": PRIORITY, "lifetime": int(seconds), "lastseen": wall}
            return body | {"status": {**others, holder: mine}}
        before = {} if record is None else self._election_record(body)[0]
        same = before.get("holderIdentity") == holder
        transitions = before.get("leaderTransitions" if self.resource != "leases" else "leaseTransitions")
        if isinstance(transitions, bool) or not isinstance(transitions, int):
            transitions = 0
        acquired = before.get("acquireTime") if same else None
        return self._with(body, holder, int(seconds), acquired or wall, wall, transitions + (0 if same else 1))

    def given_back(self, record: LegacyRecord, holder: str, wall: str) -> dict[str, Any]:
        """Return the object to write so that this holder holds it no longer. See `taken`."""
        body = self._body(record)
        if self.is_peering:
            return body | {"status": {k: v for k, v in (body.get("status") or {}).items() if k != holder}}
        before = self._election_record(body)[0]
        transitions = before.get("leaderTransitions" if self.resource != "leases" else "leaseTransitions")
        return self._with(body, "", 1, wall, wall, transitions)  # with the duration of client-go, which is for readers

    def _body(self, record: LegacyRecord | None) -> dict[str, Any]:
        version, kind = _KINDS[self.resource]
        body: dict[str, Any] = copy.deepcopy(dict(record.raw)) if record is not None else {}
        meta = {"name": self.name} | ({"namespace": self.namespace} if self.namespace else {})
        return {**body, "apiVersion": version, "kind": kind, "metadata": (body.get("metadata") or {}) | meta}

    def _with(
        self, body: dict[str, Any], holder: str, seconds: int, acquired: Any, renewed: str, transitions: Any
    ) -> dict[str, Any]:
        record = {
            "holderIdentity": holder,
            "leaseDurationSeconds": seconds,
            "acquireTime": acquired,
            "renewTime": renewed,
        }
        if self.resource == "leases":
            return body | {"spec": (body.get("spec") or {}) | record | {"leaseTransitions": transitions}}
        text = json.dumps(record | {"leaderTransitions": transitions})
        meta = body["metadata"]
        return body | {"metadata": meta | {"annotations": (meta.get("annotations") or {}) | {ANNOTATION: text}}}


def _peer(identity: str, peer: Mapping[str, Any]) -> Claim:
    lifetime = int(peer.get("lifetime", _LIFETIME))
    return Claim(identity, json.dumps(peer, sort_keys=True), float(lifetime), int(peer.get("priority", 0)))


def _seconds(value: object) -> float | None:
    """Read a duration. The `kubernetes` package writes a text."""
    if not isinstance(value, int | str) or not str(value).isdigit():
        return None
    return float(value) or None
