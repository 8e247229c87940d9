"""The decisions about addresses. Pure functions: no I/O, no clock, no asyncio.

They take the memory and the time, and return what to record. So every rule can be tested with thousands of made-up
worlds.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kopf_ha_ipam.model import ACTIVE, CLAIMING, Claim, Pool, PoolSpec, uid_of
from kopf_ha_ipam.waiting import Queue


@dataclass(frozen=True, slots=True)
class Give:
    """The claim has this address; it may have had it before."""

    address: str
    spec: PoolSpec  #: of its pool


@dataclass(frozen=True, slots=True)
class Wait:
    """The claim cannot have an address now. Its condition gets this reason and message."""

    reason: str
    message: str  #: empty if nothing needs to be told to users
    retry_at: float | None = None  #: when time alone may change the answer


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A freed address. It may be given again one quarantine after `seen`.

    A stale leader whose pod was deleted by force can go on creating objects for some seconds, and so could publish the
    address for its former claim. The quarantine is longer than any late request lives.
    """

    owner: str
    seen: float  #: when *this* leader first saw it, on its own monotonic clock


@dataclass(frozen=True)
class Record:
    """Who has which address of a pool, as this term knows it. It never changes, so what follows is computed once."""

    allocations: Mapping[str, str] = field(default_factory=dict)
    tombstones: Mapping[str, Tombstone] = field(default_factory=dict)
    _unused: dict[PoolSpec, Sequence[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @functools.cached_property
    def held(self) -> Mapping[str, str]:
        """The address of each claim that has one, by the claim's uid."""
        return {uid_of(owner): address for address, owner in self.allocations.items()}

    def unused(self, spec: PoolSpec) -> Sequence[str]:
        """Return the usable addresses that no claim has, lowest first. Some of them may rest."""
        if spec not in self._unused:
            self._unused[spec] = [a for a in spec.usable if a not in self.allocations]
        return self._unused[spec]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to record, and what each claim is answered once that is written."""

    record: Record
    answers: Mapping[str, Give | Wait]  #: by the claim's uid; of all that asked, and of others that are served


def plan(
    spec: PoolSpec,
    record: Record,
    claims: Iterable[Claim],
    freed: Iterable[str] = (),
    *,
    name: str,
    closed: Wait | None,
    now: float,
    quarantine: float,
    shown: Mapping[str, str] | None = None,
    queue: Queue | None = None,
) -> Plan:
    """Decide one batch (I5).

    An address is given only if no claim has it, it is usable, and it has no tombstone younger than the quarantine. A
    claim keeps the address that it has, even if the pool's spec changes or the pool is being deleted. A claim that had
    an address before (its status or its annotation names it) gets that one again if possible, else the lowest free one.

    Args:
        spec: the pool's spec.
        record: who has which address, as this term knows it.
        claims: the claims that ask for an address. They are served by age, then by namespace and name.
        freed: uids of claims whose addresses are freed. The claims and their ConfigMaps are gone.
        name: the pool's name.
        closed: why the pool gives no new addresses at all, or None.
        now: seconds on the leader's monotonic clock.
        quarantine: seconds before a freed address may be given again.
        shown: addresses that claims' statuses show although no pool recorded them when the term began, with the claims'
            uids. No other claim gets them.
        queue: further claims that wait. They are served as if all of them asked, and whoever of them gets nothing costs
            nothing.
    """
    allocations = dict(record.allocations)
    tombstones = dict(record.tombstones)
    held = dict(record.held)
    unused = record.unused(spec)
    if gone := set(freed) & held.keys():
        for address, owner in record.allocations.items():
            if uid_of(owner) in gone:
                tombstones[address] = Tombstone(allocations.pop(address), now)
        held = {uid: address for uid, address in held.items() if uid not in gone}
        unused = Record(allocations).unused(spec)

    resting = {a: t.seen + quarantine for a, t in tombstones.items() if t.seen + quarantine > now}
    others = {a: uid for a, uid in (shown or {}).items() if uid not in held}
    free = [a for a in unused if a not in resting]
    asking = {claim.ref.uid: claim for claim in claims}
    if queue is not None and closed is None:
        asking |= {claim.ref.uid: claim for claim in queue.heads(free, held) if claim.ref.uid not in asking}
    answers: dict[str, Give | Wait] = {}
    candidates = iter(free)
    for claim in sorted(asking.values(), key=lambda c: c.order):
        uid = claim.ref.uid
        if uid in held:
            answers[uid] = Give(held[uid], spec)
            continue
        if claim.terminating:
            answers[uid] = Wait("Terminating", "The claim is being deleted.")
            continue
        if closed is not None:
            answers[uid] = closed
            continue
        if claim.address in allocations and allocations[claim.address] != str(claim.ref):
            answers[uid] = _twice(claim.address)
            continue
        wait: Wait | None
        if claim.wanted is not None:
            address = claim.wanted
            taken = address in allocations or others.get(address, uid) != uid
            wait = _refusal(address, spec, resting, name, taken=taken)
        else:
            had = (a for a in (claim.address, claim.noted) if a is not None and a in spec.usable and a not in resting)
            again = (a for a in had if a not in allocations and others.get(a, uid) == uid)
            lowest = (a for a in candidates if a not in allocations and others.get(a, uid) == uid)
            address = next(again, None) or next(lowest, "")
            wait = None if address else _exhausted(resting, name)
        if wait is not None:
            answers[uid] = wait
            continue
        allocations[address] = str(claim.ref)
        held[uid] = address
        answers[uid] = Give(address, spec)

    # Old tombstones are removed by a write that happens anyway. They alone cause no write (I7).
    if allocations != record.allocations:
        tombstones = {a: t for a, t in tombstones.items() if a in resting}
    tombstones = {a: t for a, t in tombstones.items() if a not in allocations}
    return Plan(Record(allocations, tombstones), answers)


def _twice(address: str) -> Wait:
    what = f"The address {address} was also given to another claim."
    return Wait("GivenTwice", f"{what} Delete one of the two; the pool's condition names both.")


def _refusal(wanted: str, spec: PoolSpec, resting: Mapping[str, float], name: str, *, taken: bool) -> Wait | None:
    """Say why a given address cannot be had now.

    Whether it belongs to a claim or rests is one message: otherwise each time that it is freed or given would change
    the condition of every claim that wants it.
    """
    if not spec.contains(wanted):
        return Wait("AddressOutOfPool", f"The address {wanted} is not in {spec.cidr}, the range of pool {name}.")
    if wanted not in spec.usable:
        return Wait("AddressExcluded", f"The address {wanted} of pool {name} is reserved or excluded.")
    if taken or wanted in resting:
        what = f"The address {wanted} of pool {name} belongs to another claim, or was freed a moment ago."
        return Wait("AddressTaken", what, None if taken else resting[wanted])
    return None


def _exhausted(resting: Mapping[str, float], name: str) -> Wait:
    """The message is the same whether addresses rest or not. Otherwise each freed address would change the condition of
    every claim that waits, at the cost of one write each.
    """
    text = f"Pool {name} has no free address. An address that is freed is given again only after a while."
    return Wait("PoolExhausted", text, min(resting.values(), default=None))


def obstacle(
    pool: Pool, others: Iterable[Pool], claims: Iterable[Claim], promised: Mapping[str, str] | None = None
) -> str | None:
    """Return a sentence that says why the pool cannot become active, or None if it can (I5).

    Args:
        pool: the pool that is to become active.
        others: all pools. An overlapping pool that is active or `Claiming` is an obstacle.
        claims: all claims. A claim of another pool (one that was deleted by force) is an obstacle if it still has an
            address of this range.
        promised: addresses that this term is writing into claims' statuses, by the claim's uid. Writes without an
            answer are included, since they may still arrive.
    """
    for other in sorted(others, key=lambda p: p.name):
        if other.uid != pool.uid and other.state in (CLAIMING, ACTIVE) and pool.spec.overlaps(other.spec):
            return f"The range {pool.spec.cidr} overlaps with {other.spec.cidr} of pool {other.name}."
    having = (c for c in claims if c.address and c.pool_name != pool.name and pool.spec.contains(c.address))
    if oldest := min(having, key=lambda c: c.order, default=None):
        return f"The claim {oldest.ref.where} of pool {oldest.pool_name} still has {oldest.address}."
    if any(pool.spec.contains(address) for address in (promised or {}).values()):
        return "An address of the range is being written to a claim, for a pool that was removed."
    return None


def adopt(pool: Pool, claims: Sequence[Claim]) -> dict[str, str]:
    """Return the allocations that a pool starts with: the addresses that its claims have already (I5).

    There are some if a pool was deleted by force and created again. If two claims have one address, the older claim is
    recorded. The other one keeps the address in its status, and both get a condition (`given_twice`).
    """
    found: dict[str, str] = {}
    for claim in sorted(claims, key=lambda c: c.order):
        if claim.pool_name == pool.name and claim.address and pool.spec.contains(claim.address):
            found.setdefault(claim.address, str(claim.ref))
    return found


def unrecorded(claims: Iterable[Claim], held: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses that claims show and no pool records for them, each with the claim's uid.

    Args:
        claims: all claims.
        held: what all pools record, as a mapping from uids to addresses.
    """
    return {c.address: c.ref.uid for c in claims if c.address and held.get(c.ref.uid) != c.address}


def given_twice(claims: Iterable[Claim], allocations: Iterable[Mapping[str, str]]) -> dict[str, frozenset[str]]:
    """Return the addresses that more than one existing claim has, with the claims' uids (I5).

    This operator gives no address twice. An older version may have done so, or somebody who edited a status.

    Args:
        claims: all claims that exist.
        allocations: what each pool records, as mappings from addresses to ``namespace/name/uid``.
    """
    having: dict[str, set[str]] = {}
    living = set()
    for claim in claims:
        living.add(claim.ref.uid)
        if claim.address:
            having.setdefault(claim.address, set()).add(claim.ref.uid)
    for record in allocations:
        for address, owner in record.items():
            uid = uid_of(owner)
            if uid in living:
                having.setdefault(address, set()).add(uid)
    return {address: frozenset(uids) for address, uids in having.items() if len(uids) > 1}


def misplaced(spec: PoolSpec, allocations: Mapping[str, str]) -> dict[str, str]:
    """Return the allocations that the spec does not allow any more: the gateway, and excluded addresses."""
    usable = spec.usable
    return {a: owner for a, owner in allocations.items() if a not in usable}
