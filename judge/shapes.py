"""Reads the fields of objects that the judge uses: those that any user sees with `kubectl get -o yaml`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from judge.history import Key, Object

GROUP = "ipam.kopf-ha.dev"
POOLS, CLAIMS, CHILDREN, LEASES = "addresspools", "addressclaims", "configmaps", "leases"
JUDGED = frozenset({POOLS, CLAIMS, CHILDREN, LEASES})
EXEMPT = frozenset({LEASES, "terms", "events"})  # kinds that carry no stamp
ANNOTATION = "kopf-ha.dev/"
NOTE = ANNOTATION + "stamp-"  # the stamp of one Lease


@dataclass(frozen=True)
class Stamp:
    """The last term that wrote an object, as the object records it."""

    lease: str
    token: int
    holder: str
    pod_uid: str

    def __str__(self) -> str:
        return f"token {self.token} of {self.holder}"


#: A token in an annotation may have at most this many digits; an int64 has 19.
DIGITS = 19


@dataclass(frozen=True)
class LeaseState:
    """A Lease's number (None without one) and holder ('' without one)."""

    number: int | None
    holder: str


def stamp_of(obj: Object | None) -> Stamp | None:
    """Return an object's stamp, from `status.fencing` or from its metadata; None if there is no readable stamp.

    Each Lease may have a stamp in the metadata, and so may an earlier form. Of one Lease the highest token counts, and
    of several Leases the first by name: the operator that is judged shares its objects with nobody.
    """
    fields = section(obj, "status").get("fencing")
    if isinstance(fields, Mapping):
        return _stamp(fields.get("lease"), fields.get("token"), fields.get("holder"), fields.get("podUID"))
    metadata = section(obj, "metadata")
    found = [_noted(text) for name, text in section(metadata, "annotations").items() if name.startswith(NOTE)]
    found += [_labelled(name, text) for name, text in section(metadata, "labels").items() if name.startswith(NOTE)]
    notes = section(metadata, "annotations")
    lease, holder, pod_uid = (notes.get(ANNOTATION + name) for name in ("lease", "holder", "pod-uid"))
    found.append(_stamp(lease, _number(notes.get(f"{ANNOTATION}token")), holder, pod_uid))
    stamps = sorted((stamp for stamp in found if stamp), key=lambda stamp: (stamp.lease, -stamp.token))
    return stamps[0] if stamps else None


def _noted(text: Any) -> Stamp | None:
    """Read an annotation: token, Lease, pod's uid and holder, which may contain spaces."""
    token, lease, pod_uid, holder = (*str(text).split(" ", 3), "", "", "")[:4]
    return _stamp(lease, _number(token), holder, pod_uid)


def _labelled(name: str, text: Any) -> Stamp | None:
    """Read a label, which has no place for the Lease: its name stands for it. The holder is a digest."""
    parts = str(text).split(".")
    return _stamp(name, _number(parts[0]), parts[2], parts[1]) if len(parts) == 3 else None


def _number(token: Any) -> int | None:
    # Anybody may write annotations. Python refuses to parse thousands of digits; leaseTransitions has at most ten.
    readable = isinstance(token, str) and token.isascii() and token.isdecimal() and len(token) <= DIGITS
    return int(token) if readable else None


def _stamp(lease: Any, token: Any, holder: Any, pod_uid: Any) -> Stamp | None:
    if isinstance(token, bool) or not isinstance(token, int) or token < 1 or not holder or not lease:
        return None
    return Stamp(str(lease), token, str(holder), str(pod_uid or ""))


def lease_of(obj: Object | None) -> LeaseState:
    """Return the number and the holder of a Lease."""
    spec = section(obj, "spec")
    number = spec.get("leaseTransitions")
    valid = isinstance(number, int) and not isinstance(number, bool)
    return LeaseState(number if valid else None, spec.get("holderIdentity") or "")


def section(obj: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    """Return a field that is an object, or an empty mapping."""
    value = (obj or {}).get(name)
    return value if isinstance(value, Mapping) else {}


def terminating(obj: Object | None) -> bool:
    """Return whether the object is being deleted."""
    return bool(section(obj, "metadata").get("deletionTimestamp"))


def is_claim(key: Key) -> bool:
    """Return whether the key is that of an AddressClaim."""
    return key.resource == CLAIMS and key.group == GROUP


def is_pool(key: Key) -> bool:
    """Return whether the key is that of an AddressPool."""
    return key.resource == POOLS and key.group == GROUP


def claim_address(claim: Object | None) -> str:
    """Return the address in a claim's status, or ''."""
    return canonical(section(claim, "status").get("address"))


def pool_of(claim: Object | None) -> str:
    """Return the name of a claim's pool."""
    return str(section(claim, "spec").get("poolName", ""))


def wanted(claim: Object | None) -> str:
    """Return the address that a claim asks for, or ''."""
    return canonical(section(claim, "spec").get("address"))


def is_active(pool: Object | None) -> bool:
    """Return whether a pool gives addresses."""
    return section(pool, "status").get("state") == "Active"


def condition(obj: Object | None, kind: str) -> Mapping[str, Any]:
    """Return the condition of this type, or an empty mapping."""
    conditions = section(obj, "status").get("conditions") or ()
    return next((c for c in conditions if c.get("type") == kind), {})


def usable(pool: Object | None) -> Set[str]:
    """Return all addresses that a pool may give by its spec; none if the spec cannot be read."""
    spec = section(pool, "spec")
    try:
        return _usable(str(spec.get("cidr")), str(spec.get("gateway") or ""), tuple(spec.get("excluded") or ()))
    except (ValueError, TypeError):
        return frozenset()


@lru_cache(maxsize=256)
def _usable(cidr: str, gateway: str, excluded: tuple[str, ...]) -> Set[str]:
    net = ipaddress.ip_network(cidr)
    never = [_span(text, net.version) for text in (gateway, *excluded) if text]
    if net.num_addresses > 2:
        never.append((int(net[0]), int(net[0])))  # the network, or IPv6's subnet-router anycast
        if net.version == 4:
            never.append((int(net[-1]), int(net[-1])))
    return frozenset(str(a) for a in net if not any(low <= int(a) <= high for low, high in never))


def ranges_overlap(one: Object | None, other: Object | None) -> bool:
    """Return whether two pools' ranges have an address in common; False if a range cannot be read."""
    try:
        a, b = (ipaddress.ip_network(str(section(pool, "spec").get("cidr"))) for pool in (one, other))
    except ValueError:
        return False
    return a.version == b.version and a.overlaps(b)


def _span(text: str, version: int) -> tuple[int, int]:
    """Return the first and last number of an address, a CIDR or a range. It is empty for the other address family."""
    low, dash, high = text.partition("-")
    if dash:
        first, last = ipaddress.ip_address(low), ipaddress.ip_address(high)
    else:
        net = ipaddress.ip_network(text, strict=False)
        first, last = net[0], net[-1]
    low_end, high_end = sorted((int(first), int(last)))
    return (low_end, high_end) if first.version == version else (1, 0)


def recorded(pool: Object | None) -> Set[tuple[str, Any]]:
    """Return the entries of a pool's record as written: addresses, and `namespace/name/uid` of their claims."""
    return section(section(pool, "status"), "allocations").items()


def allocation(address: str, claim: object) -> tuple[str, str]:
    """Return the address and the claim's uid of one entry of a pool's record."""
    return canonical(address), str(claim).rsplit("/", 1)[-1]


def records(pool: Object | None) -> Iterator[tuple[str, str]]:
    """Return the address and the claim's uid of all entries of a pool's record."""
    return (allocation(*entry) for entry in recorded(pool))


def published(child: Object | None) -> tuple[str, str] | None:
    """Return the address that a claim's ConfigMap publishes, and the claim's uid."""
    address = canonical(section(child, "data").get("ADDRESS"))
    owners = section(child, "metadata").get("ownerReferences") or ()
    owner = next((str(o.get("uid", "")) for o in owners if o.get("kind") == "AddressClaim"), "")
    return (address, owner) if address and owner else None


@lru_cache(maxsize=1 << 16)
def canonical(address: object) -> str:
    """Return an address in canonical form, so that it has only one spelling."""
    text = str(address or "")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text
