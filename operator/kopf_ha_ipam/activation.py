"""How a pool becomes active: no other active pool may overlap with it, and no claim may have its addresses (I4, I5)."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Sequence

from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.model import Claim, Pool
from kopf_ha_ipam.planning import adopt, obstacle
from kopf_ha_ipam.pools import PoolKeeper
from kopf_ha_ipam.writes import Gone, Unavailable, event

log = logging.getLogger(__name__)
#: How many claims are stamped at the same time.
PARALLEL = 8


async def settle_pool(memory: Allocator, name: str) -> None:
    """Activate a pool, or write its status if it is active already."""
    keeper = memory.keepers.get(name)
    if keeper is None:
        return
    try:
        if keeper.settled:
            memory.agenda.inactive.pop(keeper.pool.uid, None)
            await keeper.refresh()
        else:
            memory.agenda.inactive[keeper.pool.uid] = contextvars.copy_context()
            await _activate(memory, keeper)
    except Gone:
        pass  # its deletion event will come


def still_blocked(memory: Allocator, keeper: PoolKeeper) -> bool:
    """Return whether the obstacle that kept a pool inactive is still there, as far as the memory knows."""
    if keeper.trouble is None:
        return False
    pools = [k.pool for k in memory.keepers.values()]
    return obstacle(keeper.pool, pools, memory.claims.values(), memory.promised) == keeper.trouble


async def _activate(memory: Allocator, keeper: PoolKeeper) -> None:
    """Look for obstacles, announce the range (`Claiming`), look again. Then activate the pool, or withdraw (I4, I5).

    If two processes do this for overlapping pools at the same time, at least one of them sees the other's `Claiming`.
    Only the second look decides. The first one saves the writes while there is an obstacle.
    """
    async with memory.activation:
        if keeper.settled:
            memory.agenda.inactive.pop(keeper.pool.uid, None)
            return
        before = keeper.trouble
        trouble, claims = await _look(memory, keeper, stamp=False)
        if trouble is None:
            await keeper.reserve()
            await _certain(memory, keeper)
            trouble, claims = await _look(memory, keeper, stamp=True)
        if trouble is not None:
            await keeper.withdraw(trouble)
            if trouble != before:
                log.warning("pool %s is not active: %s", keeper.pool.name, trouble)
                event(keeper.pool.body, type="Warning", reason="Overlaps", message=trouble)
                memory.agenda.changed()
            return
        await keeper.activate(adopt(keeper.pool, claims))
        memory.agenda.inactive.pop(keeper.pool.uid, None)
    memory.compare()
    memory.suspicious = True
    log.info("pool %s is active: %s", keeper.pool.name, keeper.pool.spec.cidr)
    event(keeper.pool.body, type="Normal", reason="Active", message="The pool gives addresses.")
    memory.agenda.changed()


async def _certain(memory: Allocator, keeper: PoolKeeper) -> None:
    """Wait for the stamps of the pools that the activation is decided from (I4).

    These are the pools whose range overlaps. A range is immutable, so whatever an earlier leader still writes to
    another pool is no obstacle and hides none. A pool that was created after the term began needs no stamp: whoever
    activates it announces it first (`Claiming`), and so sees this pool or is seen.

    Raises:
        Unavailable: one of them is set aside, so nothing can be decided from it.
    """
    for other in list(memory.keepers.values()):
        if other is keeper or not keeper.pool.spec.overlaps(other.pool.spec):
            continue
        await other.certain()
        if other.set_aside:
            raise Unavailable(f"pool {other.pool.name}, which has an address of {keeper.pool.spec.cidr}, is set aside")


async def _look(memory: Allocator, keeper: PoolKeeper, *, stamp: bool) -> tuple[str | None, Sequence[Claim]]:
    """Return what keeps a pool from becoming active, or None, and the claims that this was judged by.

    With `stamp`, no earlier term can change a claim after it was judged. An earlier leader may have recorded an address
    for a claim in a pool that was then deleted by force, and may have been paused just before it wrote the claim's
    status. When it wakes, a new pool of the same range may have given that address to another claim. The stamp makes
    its write a stale one.

    The order matters. Pools are listed first: an overlapping pool that was deleted before that list recorded only
    claims that the second list shows. Promises are read first and last: a write that ended in between may be missing
    from the list. A pool that the list lacks is forgotten before the claims are listed: its event may be late, and
    until then its record in memory would still give claims their addresses.
    """
    promised, known = dict(memory.promised), list(memory.keepers.values())
    pools = [Pool.parse(body) for body in await memory.api.pools()]
    exist = {pool.uid for pool in pools}
    for other in known:
        if other.pool.uid not in exist:
            memory.pool_gone(other.pool.body)
    claims: Sequence[Claim] = [Claim.parse(body) for body in await memory.api.claims()]
    if stamp:
        claims = await _stamped(memory, claims)
    promised |= memory.promised
    promised = {uid: address for uid, address in promised.items() if keeper.holds(uid) != address}
    return obstacle(keeper.pool, pools, claims, promised), claims


async def _stamped(memory: Allocator, claims: Sequence[Claim]) -> Sequence[Claim]:
    """Stamp every claim that an earlier term could still write, and return all claims as they are after that (I4)."""
    after = {claim.ref.uid: claim for claim in claims}
    gate = asyncio.Semaphore(PARALLEL)

    async def stamp(claim: Claim) -> None:
        async with gate:
            try:
                body = await memory.api.stamp_claim(claim.ref)
            except Gone:
                del after[claim.ref.uid]
                return
        memory.claim_seen(body)
        after[claim.ref.uid] = Claim.parse(body)

    await asyncio.gather(*(stamp(claim) for claim in claims if _earlier_term_could_write(memory, claim)))
    return list(after.values())


def _earlier_term_could_write(memory: Allocator, claim: Claim) -> bool:
    """Return whether a claim needs a stamp of this term.

    A claim that an active pool records needs none: nobody gives it another address. It does not matter whether the pool
    has this term's stamp. Whoever activated it stamped the claims that it did not record, so no leader is left that
    knows of another pool of that name and could still write one of them. And a record ends only with its claim.
    """
    keeper = memory.keepers.get(claim.pool_name)
    active = keeper is not None and (keeper.mine or (keeper.unsure and keeper.settled))
    recorded = keeper is not None and active and keeper.holds(claim.ref.uid) is not None
    return not recorded and not claim.stamped_by(memory.stamp)
