"""I7: waiting claims get free addresses, and in the order of their age."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from judge.finding import Finding
from judge.history import History, Key, Object, uid_of
from judge.shapes import (
    CLAIMS,
    GROUP,
    POOLS,
    allocation,
    claim_address,
    condition,
    is_active,
    is_claim,
    is_pool,
    pool_of,
    recorded,
    records,
    section,
    terminating,
    usable,
    wanted,
)
from judge.writers import Writers


def claims_are_served(history: History) -> Iterator[Finding]:
    """I7: find claims that wait after a quiet run although their pool has a free address.

    After a quiet run, time alone changes nothing any more, so addresses that were freed count as free.
    """
    pools = {key.name: pool for key, pool in history.end.items() if is_pool(key)}
    claims = {key: claim for key, claim in history.end.items() if is_claim(key)}
    taken = {address for pool in pools.values() for address, _ in records(pool)}
    taken |= {claim_address(claim) for claim in claims.values()}
    for key, claim in sorted(claims.items()):
        pool = pools.get(pool_of(claim))
        if claim_address(claim) or terminating(claim) or pool is None or terminating(pool) or not is_active(pool):
            continue
        free = usable(pool) - taken
        if wanted(claim):
            free &= {wanted(claim)}
        if free:
            reason = condition(claim, "Ready").get("reason") or "nothing"
            what = wanted(claim) or f"{len(free)} addresses"
            sentence = f"{key} has no address and says {reason}, while pool {pool_of(claim)} has {what} free"
            yield Finding("I7", "claim not served", history.revision, str(key), (), sentence)


class _Waiter(NamedTuple):
    """A waiting claim. The order is by age, then by namespace and name."""

    created: str
    key: Key
    uid: str

    @classmethod
    def of(cls, key: Key, claim: Object) -> _Waiter:
        return cls(str(section(claim, "metadata").get("creationTimestamp") or ""), key, uid_of(claim))


def served_in_order(history: History, writers: Writers) -> Iterator[Finding]:
    """I7: find claims that got an address while an older claim waited for one of the same pool.

    A claim waits if its condition says so (`PoolExhausted`), it asks for no certain address, it is not being deleted,
    and it has the operator's finalizer. A user who removes the finalizer takes the claim out of the queue. A claim that
    shows the address already only keeps it.
    """
    living: dict[str, tuple[Key, Object]] = {}
    waiting: dict[str, dict[str, _Waiter]] = {}  # by pool, then by uid
    for change in history.of(POOLS, CLAIMS):
        if is_claim(change.key):
            for old in change.uids:
                living.pop(old, None)
                waiting.get(pool_of(change.before), {}).pop(old, None)
            if change.after is not None:
                living[change.uid] = change.key, change.after
                if _waits(change.after):
                    waiting.setdefault(pool_of(change.after), {})[change.uid] = _Waiter.of(change.key, change.after)
        if not is_pool(change.key) or not change.same:
            continue
        gained = {allocation(*entry) for entry in recorded(change.after) - recorded(change.before)}
        served = [living[uid] for address, uid in gained if uid in living and _anew(living[uid][1], address)]
        if not served:
            continue
        has = {uid for _, uid in records(change.after)}
        queue = sorted(w for uid, w in waiting.get(change.key.name, {}).items() if uid not in has)
        youngest = max(_Waiter.of(*one) for one in served)
        if queue and queue[0] < youngest:
            party = writers.party(change)
            sentence = (
                f"{change.key} gave {youngest.key} an address at revision {change.revision} by {party}"
                f" while {queue[0].key} has waited for longer"
            )
            yield Finding("I7", "served out of order", change.revision, str(queue[0].key), (party,), sentence)


def _waits(claim: Object) -> bool:
    ready = condition(claim, "Ready")
    taken_on = f"{GROUP}/finalizer" in (section(claim, "metadata").get("finalizers") or ())
    exhausted = ready.get("status") == "False" and ready.get("reason") == "PoolExhausted"
    return exhausted and taken_on and not wanted(claim) and not terminating(claim)


def _anew(claim: Object, address: str) -> bool:
    return not wanted(claim) and claim_address(claim) != address
