"""What was read from the API server, as immutable values.

Addresses are strings in canonical form, as the API server stores them: the CRDs refuse any other, so equal
addresses are equal strings, and a pool's record goes out as it is kept.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GROUP = "ipam.kopf-ha.dev"
VERSION = "v1"
CLAIMING, ACTIVE = "Claiming", "Active"
#: The condition of claims and pools while two claims have one address.
ADDRESS_CONFLICT = "AddressConflict"
#: Kopf removes it from a claim when the operator has taken back what the claim had.
FINALIZER = f"{GROUP}/finalizer"
#: Says on a claim which address it has. Unlike the status it survives a backup, and the claim gets that address again
#: if it is still free. Anybody may write it: it is a wish, as `spec.address` is.
ADDRESS_NOTE = f"{GROUP}/address"

#: The raw JSON object.
Body = Mapping[str, Any]
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, order=True)
class ClaimRef:
    """One claim, for ever: a claim of the same name made later has another uid."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}/{self.uid}"

    @property
    def where(self) -> str:
        """``namespace/name``, for people."""
        return f"{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> ClaimRef:
        """Read what a pool records.

        Raises:
            ValueError: it is no ``namespace/name/uid``. Taking it for nobody's would give the address again.
        """
        parts = text.split("/")
        if len(parts) != 3 or not all(parts):
            raise ValueError(f"{text!r} is no namespace/name/uid")
        return cls(*parts)


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What the administrator asks for."""

    cidr: str
    gateway: str | None = None
    excluded: tuple[str, ...] = ()

    @property
    def prefix_length(self) -> int:
        """The number behind the slash."""
        return int(self.cidr.rpartition("/")[2])

    @property
    def usable(self) -> Mapping[str, None]:
        """All addresses that claims may get, lowest first; a dict for its order and its quick ``in``."""
        return _usable(self)

    def contains(self, address: str) -> bool:
        """Say whether the address is inside of the CIDR, usable or not; False for what is no address."""
        try:
            return ipaddress.ip_address(address) in _network(self.cidr)
        except ValueError:
            return False

    def overlaps(self, other: PoolSpec) -> bool:
        """Say whether the two ranges have an address in common (I5)."""
        mine, theirs = _network(self.cidr), _network(other.cidr)
        return mine.version == theirs.version and mine.overlaps(theirs)


@functools.lru_cache(maxsize=1024)
def _network(cidr: str) -> _Network:
    return ipaddress.ip_network(cidr)


@functools.lru_cache(maxsize=256)
def _usable(spec: PoolSpec) -> Mapping[str, None]:
    net = _network(spec.cidr)
    first, last = int(net.network_address), int(net.broadcast_address)
    never = [(first, first)] if net.num_addresses > 2 else []  # network, or IPv6's subnet-router anycast
    if net.version == 4 and net.num_addresses > 2:
        never.append((last, last))
    if spec.gateway is not None:
        gateway = int(ipaddress.ip_address(spec.gateway))
        never.append((gateway, gateway))
    never += [r for text in spec.excluded for r in _span(text, net.version)]
    make = type(net.network_address)
    taken: set[int] = set()
    for low, high in never:
        taken.update(range(max(low, first), min(high, last) + 1))
    return {str(make(n)): None for n in range(first, last + 1) if n not in taken}


def _span(text: str, version: int) -> Iterator[tuple[int, int]]:
    """Read an entry of `excluded`; one of the other family excludes nothing here."""
    low, dash, high = text.partition("-")
    if dash:
        ends: tuple[_Address, _Address] = (ipaddress.ip_address(low), ipaddress.ip_address(high))
    else:
        net = ipaddress.ip_network(text, strict=False)
        ends = (net.network_address, net.broadcast_address)
    if ends[0].version == version:
        a, b = sorted(map(int, ends))
        yield a, b


@dataclass(frozen=True, slots=True)
class Pool:
    """An AddressPool at one resourceVersion."""

    name: str
    uid: str
    resource_version: str
    generation: int
    terminating: bool
    spec: PoolSpec
    state: str
    recorded: bool  #: whether it ever had a record of allocations, even an empty one
    allocations: Mapping[str, str]
    tombstones: Mapping[str, str]
    status: Body = field(repr=False, compare=False)
    body: Body = field(repr=False, compare=False)

    @classmethod
    def parse(cls, body: Body) -> Pool:
        """Read an object as the API server gave it."""
        meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
        return cls(
            name=meta["name"],
            uid=meta["uid"],
            resource_version=meta["resourceVersion"],
            generation=meta.get("generation", 0),
            terminating=bool(meta.get("deletionTimestamp")),
            spec=PoolSpec(spec["cidr"], spec.get("gateway"), tuple(spec.get("excluded") or ())),
            state=status.get("state") or "",
            recorded=status.get("allocations") is not None,
            allocations=dict(status.get("allocations") or {}),
            tombstones=dict(status.get("tombstones") or {}),
            status=status,
            body=_about(body),
        )


def _about(body: Body) -> Body:
    """Give what an event needs of its object. The rest is not kept: users may put much into annotations."""
    meta = {k: v for k, v in body["metadata"].items() if k in ("name", "namespace", "uid", "resourceVersion")}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": body.get("kind", ""), "metadata": meta}


@dataclass(frozen=True, slots=True)
class Claim:
    """An AddressClaim at one resourceVersion."""

    ref: ClaimRef
    resource_version: str
    generation: int
    created: str
    terminating: bool
    held: bool  #: whether our finalizer is on it
    pool_name: str
    wanted: str | None
    noted: str | None  #: the address that its annotation remembers
    address: str | None  #: from its status
    status: Body = field(repr=False, compare=False)
    body: Body = field(repr=False, compare=False)

    @property
    def order(self) -> tuple[str, ClaimRef]:
        """Who comes first: the older one, then by namespace and name."""
        return (self.created, self.ref)

    @classmethod
    def parse(cls, body: Body) -> Claim:
        """Read an object as the API server gave it."""
        meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
        return cls(
            ref=ClaimRef(meta["namespace"], meta["name"], meta["uid"]),
            resource_version=meta["resourceVersion"],
            generation=meta.get("generation", 0),
            created=meta.get("creationTimestamp") or "",
            terminating=bool(meta.get("deletionTimestamp")),
            held=FINALIZER in (meta.get("finalizers") or ()),
            pool_name=spec["poolName"],
            wanted=spec.get("address"),
            noted=(meta.get("annotations") or {}).get(ADDRESS_NOTE),
            address=status.get("address"),
            status=status,
            body=_about(body),
        )

    def stamped_by(self, stamp: tuple[int, str]) -> bool:
        """Say whether the term of this token and holder wrote it last."""
        return stamped_by(self.status, stamp)


def newer(a: str, b: str) -> bool:
    """Say whether resourceVersion `a` is newer than `b`, where both are numbers; if in doubt, yes.

    Only used to not forget what our own write answered for an older event; a wrong yes costs a conflict.
    """
    return int(a) > int(b) if a.isdigit() and b.isdigit() else True


def stamped_by(status: Body, stamp: tuple[int, str]) -> bool:
    """Say whether a status carries the stamp of the term of this token and holder."""
    fencing = status.get("fencing") or {}
    return (fencing.get("token"), fencing.get("holder")) == stamp


def ready(
    status: Body, *, ok: bool, reason: str, message: str, generation: int, now: str
) -> Sequence[Mapping[str, Any]]:
    """Give the conditions with `Ready` set; the others, and an unchanged transition time, stay."""
    return with_condition(
        status, "Ready", "True" if ok else "False", reason=reason, message=message, generation=generation, now=now
    )


def with_condition(
    status: Body, kind: str, value: str, *, reason: str, message: str, generation: int, now: str
) -> Sequence[Mapping[str, Any]]:
    """Give the conditions with one set; the others, and the transition time of an unchanged value, stay.

    Args:
        status: of the object.
        kind: the condition's type.
        value: ``True`` or ``False``.
        reason: one word.
        message: a sentence.
        generation: of the spec that was judged.
        now: RFC 3339, for people.
    """
    old = condition_of(status, kind)
    condition = {
        "type": kind,
        "status": value,
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if old.get("status") == value else now,
        "reason": reason,
        "message": message,
    }
    return [condition, *without_condition(status, kind)]


def without_condition(status: Body, kind: str) -> Sequence[Mapping[str, Any]]:
    """Give the conditions but for one."""
    return [c for c in status.get("conditions") or () if c.get("type") != kind]


def condition_of(status: Body, kind: str) -> Mapping[str, Any]:
    """Give a condition; an empty one if it is not there."""
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), {})


def reason_of(status: Body) -> str:
    """Give the reason of the `Ready` condition; empty without one."""
    return str(condition_of(status, "Ready").get("reason", ""))


def message_of(status: Body) -> str:
    """Give the message of the `Ready` condition; empty without one."""
    return str(condition_of(status, "Ready").get("message", ""))
