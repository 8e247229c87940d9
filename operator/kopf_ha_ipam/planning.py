"""The decisions about addresses, pure: no I/O, no clock, no asyncio.

What is in memory and the time go in, what to record comes out. That lets every rule be tried with thousands
of made-up worlds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
) -> Plan:
    """Decide one batch (I5).

    An address is given only if nobody has it, it is usable, and it has no tombstone younger than the
    quarantine. What a claim has already it keeps, whatever became of the pool's spec or of the pool.

    Args:
        spec: of the pool.
        record: as this term knows it.
        claims: those that want an address; served by age, then namespace and name.
        freed: uids of claims whose address comes back; their child is gone and their status cleared.
        name: of the pool.
        closed: why nothing new is given from this pool at all, if so.
        now: seconds, on the leader's monotonic clock.
        quarantine: seconds.
    """
    allocations = dict(record.allocations)
    tombstones = dict(record.tombstones)
    held = {owner.rpartition("/")[2]: address for address, owner in allocations.items()}
    for uid in set(freed) & held.keys():
        del held[uid]
        for address in [a for a, owner in allocations.items() if owner.endswith(f"/{uid}")]:
            tombstones[address] = Tombstone(allocations.pop(address), now)

    resting = {a: t.seen + quarantine for a, t in tombstones.items() if t.seen + quarantine > now}
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
        wait: Wait | None
        if claim.wanted is not None:
            address = claim.wanted
            wait = _refusal(address, spec, allocations, resting, name)
        else:
            address = next((a for a in candidates if a not in allocations and a not in resting), "")
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


def _refusal(
    wanted: str, spec: PoolSpec, taken: Mapping[str, str], resting: Mapping[str, float], name: str
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
    if resting:
        text = f"Pool {name} has no free address but those that were freed and rest a moment."
        return Wait("PoolExhausted", text, min(resting.values()))
    return Wait("PoolExhausted", f"Pool {name} has no free address.")


def obstacle(pool: Pool, others: Iterable[Pool], claims: Iterable[Claim]) -> str | None:
    """Say in a sentence what forbids the pool to become active; None if nothing does (I5, trap 6).

    Besides a pool that overlaps and is on its way or active, that is a claim of another pool (which was
    removed by force) that still has an address in here.
    """
    for other in sorted(others, key=lambda p: p.name):
        if other.uid != pool.uid and other.state in (CLAIMING, ACTIVE) and pool.spec.overlaps(other.spec):
            return f"The range {pool.spec.cidr} overlaps with {other.spec.cidr} of pool {other.name}."
    for claim in sorted(claims, key=lambda c: c.order):
        if claim.address and claim.pool_name != pool.name and pool.spec.contains(claim.address):
            return f"The claim {claim.ref.where} of pool {claim.pool_name} still has {claim.address}."
    return None


def adopt(pool: Pool, claims: Sequence[Claim]) -> dict[str, str]:
    """Give the allocations a pool starts with: what claims of its name have already (I5, trap 6).

    It happens when a pool was removed by force and made again. Of two claims with one address the older one
    keeps it; the other one gets a new one when it is handled.
    """
    found: dict[str, str] = {}
    for claim in sorted(claims, key=lambda c: c.order):
        if claim.pool_name == pool.name and claim.address and pool.spec.contains(claim.address):
            found.setdefault(claim.address, str(claim.ref))
    return found
