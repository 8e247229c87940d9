"""The decisions about addresses, pure: no I/O, no clock, no asyncio.

What is in memory and the time go in, what to record comes out. That lets every rule be tried with thousands
of made-up worlds.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kopf_ha_ipam.model import ACTIVE, CLAIMING, Claim, Pool, PoolSpec


@dataclass(frozen=True, slots=True)
class Give:
    """The claim has this address, now or already before."""

    address: str
    spec: PoolSpec  #: of its pool


@dataclass(frozen=True, slots=True)
class Wait:
    """The claim cannot have an address now: one word for programs, a sentence for people."""

    reason: str
    message: str  #: empty while there is nothing worth telling
    retry_at: float | None = None  #: when time alone may change the answer


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A freed address. It may be given again one quarantine after `seen` (trap 5)."""

    owner: str
    seen: float  #: when *this* leader first saw it, on its own monotonic clock


@dataclass(frozen=True, slots=True)
class Record:
    """Who has which address of a pool, as this term knows it."""

    allocations: Mapping[str, str] = field(default_factory=dict)
    tombstones: Mapping[str, Tombstone] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to record, and what each claim is told once that is written."""

    record: Record
    answers: Mapping[str, Give | Wait]  #: by the claim's uid


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
) -> Plan:
    """Decide one batch (I5).

    An address is given only if nobody has it, it is usable, and it has no tombstone younger than the
    quarantine. What a claim has already it keeps, whatever became of the pool's spec or of the pool. A claim that had
    an address once (its status or its annotation says so) gets that one again if it can, else the lowest free one.

    Args:
        spec: of the pool.
        record: as this term knows it.
        claims: those that want an address; served by age, then namespace and name.
        freed: uids of claims whose address comes back; their child is gone and their status cleared.
        name: of the pool.
        closed: why nothing new is given from this pool at all, if so.
        now: seconds, on the leader's monotonic clock.
        quarantine: seconds.
        shown: addresses that a claim's status shows although no pool recorded them for it when the term began, and the
            claim's uid. They are given to nobody else.
    """
    allocations = dict(record.allocations)
    tombstones = dict(record.tombstones)
    held = {owner.rpartition("/")[2]: address for address, owner in allocations.items()}
    for uid in set(freed) & held.keys():
        del held[uid]
        for address in [a for a, owner in allocations.items() if owner.endswith(f"/{uid}")]:
            tombstones[address] = Tombstone(allocations.pop(address), now)

    resting = {a: t.seen + quarantine for a, t in tombstones.items() if t.seen + quarantine > now}
    others = {a: uid for a, uid in (shown or {}).items() if uid not in held}
    answers: dict[str, Give | Wait] = {}
    candidates = iter(spec.usable)
    for claim in sorted(claims, key=lambda c: c.order):
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
        taken = allocations.keys() | {a for a, of in others.items() if of != uid} if others else allocations
        if claim.wanted is not None:
            address = claim.wanted
            wait = _refusal(address, spec, taken, resting, name)
        else:
            had = (claim.address, claim.noted)
            again = (a for a in had if a in spec.usable and a not in taken and a not in resting)
            free = (a for a in candidates if a not in taken and a not in resting)
            address = next(again, None) or next(free, "")
            wait = None if address else _exhausted(resting, name)
        if wait is not None:
            answers[uid] = wait
            continue
        allocations[address] = str(claim.ref)
        held[uid] = address
        answers[uid] = Give(address, spec)

    # Old tombstones go along with a write that happens anyway; none is made for them (I7).
    if allocations != record.allocations:
        tombstones = {a: t for a, t in tombstones.items() if a in resting}
    tombstones = {a: t for a, t in tombstones.items() if a not in allocations}
    return Plan(Record(allocations, tombstones), answers)


def _twice(address: str) -> Wait:
    text = f"The address {address} was given to another claim, too. Delete one of the two claims; the pool names both."
    return Wait("GivenTwice", text)


def _refusal(
    wanted: str, spec: PoolSpec, taken: Container[str], resting: Mapping[str, float], name: str
) -> Wait | None:
    if not spec.contains(wanted):
        return Wait("AddressOutOfPool", f"The address {wanted} is not in {spec.cidr}, the range of pool {name}.")
    if wanted in taken:
        return Wait("AddressTaken", f"The address {wanted} of pool {name} belongs to another claim.")
    if wanted not in spec.usable:
        return Wait("AddressExcluded", f"The address {wanted} of pool {name} is reserved or excluded.")
    if wanted in resting:
        return Wait(
            "AddressTaken", f"The address {wanted} of pool {name} was freed and rests a moment.", resting[wanted]
        )
    return None


def _exhausted(resting: Mapping[str, float], name: str) -> Wait:
    """One sentence, whether addresses rest or not: else each one that is freed would cost all who wait a write."""
    text = f"Pool {name} has no free address. One that is freed rests a while before it is given again."
    return Wait("PoolExhausted", text, min(resting.values(), default=None))


def obstacle(
    pool: Pool, others: Iterable[Pool], claims: Iterable[Claim], promised: Mapping[str, str] | None = None
) -> str | None:
    """Say in a sentence what forbids the pool to become active; None if nothing does (I5).

    Args:
        pool: that wants to become active.
        others: all pools. One that overlaps and is on its way or active forbids it.
        claims: all claims. One of another pool, which was removed by force, that still has an address in here forbids
            it.
        promised: addresses that this term is writing into a claim's status, or tried to and does not know whether it
            did, by the claim's uid. The write may still arrive.
    """
    for other in sorted(others, key=lambda p: p.name):
        if other.uid != pool.uid and other.state in (CLAIMING, ACTIVE) and pool.spec.overlaps(other.spec):
            return f"The range {pool.spec.cidr} overlaps with {other.spec.cidr} of pool {other.name}."
    for claim in sorted(claims, key=lambda c: c.order):
        if claim.address and claim.pool_name != pool.name and pool.spec.contains(claim.address):
            return f"The claim {claim.ref.where} of pool {claim.pool_name} still has {claim.address}."
    if any(pool.spec.contains(address) for address in (promised or {}).values()):
        return "An address of the range is being written to a claim, for a pool that was removed."
    return None


def adopt(pool: Pool, claims: Sequence[Claim]) -> dict[str, str]:
    """Give the allocations that a pool starts with: what claims of its name have already (I5).

    It happens when a pool was removed by force and made again. Of two claims with one address the older one is
    recorded; the other one keeps what it shows, and both are told (`given_twice`).
    """
    found: dict[str, str] = {}
    for claim in sorted(claims, key=lambda c: c.order):
        if claim.pool_name == pool.name and claim.address and pool.spec.contains(claim.address):
            found.setdefault(claim.address, str(claim.ref))
    return found


def unrecorded(claims: Iterable[Claim], held: Mapping[str, str]) -> dict[str, str]:
    """Give the addresses that claims show and no pool records for them, each with the claim's uid.

    Args:
        claims: all claims.
        held: what all pools record: uid to address.
    """
    return {c.address: c.ref.uid for c in claims if c.address and held.get(c.ref.uid) != c.address}


def given_twice(claims: Iterable[Claim], allocations: Iterable[Mapping[str, str]]) -> dict[str, frozenset[str]]:
    """Find the addresses that more than one living claim has, with the claims' uids (I5).

    This operator gives none twice. One of an older version may have, or somebody who edited a status.

    Args:
        claims: all that exist.
        allocations: what each pool records: address to ``namespace/name/uid``.
    """
    having: dict[str, set[str]] = {}
    living = set()
    for claim in claims:
        living.add(claim.ref.uid)
        if claim.address:
            having.setdefault(claim.address, set()).add(claim.ref.uid)
    for record in allocations:
        for address, owner in record.items():
            uid = owner.rpartition("/")[2]
            if uid in living:
                having.setdefault(address, set()).add(uid)
    return {address: frozenset(uids) for address, uids in having.items() if len(uids) > 1}


def misplaced(spec: PoolSpec, allocations: Mapping[str, str]) -> dict[str, str]:
    """Give the allocations that the spec forbids by now: its gateway, and what it excludes."""
    return {a: owner for a, owner in allocations.items() if a not in spec.usable}
