"""Pools and claims as they were read from the API server, as immutable values.

Addresses are strings in canonical form: the CRDs refuse any other form. So equal addresses are equal strings, and a
pool's record is written as it is kept in memory.
"""

from __future__ import annotations

import functools
import ipaddress
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

GROUP = "ipam.kopf-ha.dev"
VERSION = "v1"
CLAIMING, ACTIVE = "Claiming", "Active"
#: Kopf removes it from a claim after the operator's deletion handler has succeeded.
FINALIZER = f"{GROUP}/finalizer"
#: An annotation that names the claim's address. Unlike the status it survives a backup, and a restored claim gets that
#: address again if it is still free. Anybody may write it: like `spec.address` it is only a wish.
ADDRESS_NOTE = f"{GROUP}/address"

#: The raw JSON object.
Body = Mapping[str, Any]
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, order=True)
class ClaimRef:
    """Identifies one claim: a claim of the same name that is created later has another uid."""

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
        """Read the owner of an address as a pool records it.

        Raises:
            ValueError: the text is not ``namespace/name/uid``. Ignoring it would give the address away again.
        """
        parts = text.split("/")
        if len(parts) != 3 or not all(parts):
            raise ValueError(f"{text!r} is not namespace/name/uid")
        return cls(*parts)


def uid_of(owner: str) -> str:
    """Return the claim's uid from an owner as a pool records it, ``namespace/name/uid``."""
    return owner.rpartition("/")[2]


def where_of(owner: str) -> str:
    """Return ``namespace/name`` from an owner as a pool records it, for people."""
    return owner.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool's spec, which the administrator writes."""

    cidr: str
    gateway: str | None = None
    excluded: tuple[str, ...] = ()

    @property
    def prefix_length(self) -> int:
        """The number after the slash of the CIDR."""
        return int(self.cidr.rpartition("/")[2])

    @property
    def usable(self) -> Mapping[str, None]:
        """All addresses that claims may get, lowest first. It is a dict: ordered, and fast for ``in``."""
        return _usable(self)

    def contains(self, address: str) -> bool:
        """Return whether the address is in the CIDR, usable or not. False for text that is not an address."""
        try:
            return ipaddress.ip_address(address) in _network(self.cidr)
        except ValueError:
            return False

    def overlaps(self, other: PoolSpec) -> bool:
        """Return whether the two ranges have an address in common (I5)."""
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
    # Thousands of addresses are written out when a term begins, so it is done at once for those of IPv4.
    as_text = _ipv4 if net.version == 4 else lambda n: str(ipaddress.IPv6Address(n))
    taken: set[int] = set()
    for low, high in never:
        taken.update(range(max(low, first), min(high, last) + 1))
    return {as_text(n): None for n in range(first, last + 1) if n not in taken}


def _ipv4(number: int) -> str:
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _span(text: str, version: int) -> Iterator[tuple[int, int]]:
    """Read an entry of `excluded`. An entry of the other address family excludes nothing."""
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
    recorded: bool  #: whether the status has a record of allocations, even an empty one
    allocations: Mapping[str, str]
    tombstones: Mapping[str, str]
    status: Body = field(repr=False, compare=False)
    body: Body = field(repr=False, compare=False)

    @classmethod
    def parse(cls, body: Body) -> Pool:
        """Parse an object as the API server returned it."""
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
    """Return the parts of the object that an event needs. The rest is dropped: annotations can be long."""
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
    held: bool  #: whether it has our finalizer
    pool_name: str
    wanted: str | None
    noted: str | None  #: the address in its annotation
    address: str | None  #: from its status
    stamp: tuple[Any, Any] = field(repr=False, compare=False)  #: token and holder identity in its stamp
    status: Body = field(repr=False, compare=False)  #: without the stamp

    @property
    def body(self) -> Body:
        """The parts of the object that an event needs."""
        ref = self.ref
        meta = {"namespace": ref.namespace, "name": ref.name, "uid": ref.uid, "resourceVersion": self.resource_version}
        return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "AddressClaim", "metadata": meta}

    @property
    def order(self) -> tuple[str, ClaimRef]:
        """The sort key for serving claims: by age, then by namespace and name."""
        return (self.created, self.ref)

    @classmethod
    def parse(cls, body: Body) -> Claim:
        """Parse an object as the API server returned it. Nothing else of it is kept: a leader knows all claims."""
        meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
        fencing = status.get("fencing") or {}
        return cls(
            ref=ClaimRef(meta["namespace"], meta["name"], meta["uid"]),
            resource_version=meta["resourceVersion"],
            generation=meta.get("generation", 0),
            created=meta.get("creationTimestamp") or "",
            terminating=bool(meta.get("deletionTimestamp")),
            held=FINALIZER in (meta.get("finalizers") or ()),
            pool_name=sys.intern(spec["poolName"]),
            wanted=spec.get("address"),
            noted=(meta.get("annotations") or {}).get(ADDRESS_NOTE),
            address=status.get("address"),
            stamp=_one_stamp(fencing.get("token"), fencing.get("holder")),
            status={k: v for k, v in status.items() if k != "fencing"},
        )

    def stamped_by(self, stamp: tuple[int, str]) -> bool:
        """Return whether the claim has the stamp of the term with this token and holder identity."""
        return self.stamp == stamp


@functools.lru_cache(maxsize=256)
def _one_stamp(token: Any, holder: Any) -> tuple[Any, Any]:
    """Return the same tuple for the same stamp: thousands of claims have it."""
    return token, holder


def newer(a: str, b: str) -> bool:
    """Return whether resourceVersion `a` is newer than `b`; True if they are not both numbers.

    It only keeps an older event from replacing the answer to our own write. A wrong True costs a conflict.
    """
    # Not as numbers: Python makes none of more than 4,300 digits.
    return (len(a), a) > (len(b), b) if a.isdecimal() and b.isdecimal() else True


def stamped_by(status: Body, stamp: tuple[int, str]) -> bool:
    """Return whether a status has the stamp of the term with this token and holder identity."""
    fencing = status.get("fencing") or {}
    return (fencing.get("token"), fencing.get("holder")) == stamp
