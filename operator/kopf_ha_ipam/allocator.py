"""The memory of one term: all pools, all claims, who waits for what.

It is made when the term starts, behind the barrier, and dies with the term: the next one reads everything
again. Nothing here survives in a module global.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from kopf_ha_ipam.backoff import Backoff
from kopf_ha_ipam.model import Body, Claim, ClaimRef, Pool, newer
from kopf_ha_ipam.planning import Wait, adopt, given_twice, obstacle, unrecorded
from kopf_ha_ipam.pools import PoolKeeper
from kopf_ha_ipam.writes import Api, Gone, event

log = logging.getLogger(__name__)
#: Claims that are stamped at once before a pool becomes active.
PARALLEL = 8


class Allocator:
    """All that a term knows.

    Args:
        api: the requests.
        quarantine: seconds for which a freed address rests.
        stamp: token and holder of the term.
        set_aside: gives the uids of pools that are not stamped in this term; asked each time, since it can get better.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        api: Api,
        *,
        quarantine: float,
        stamp: tuple[int, str],
        set_aside: Callable[[], Collection[str]] = frozenset,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api = api
        self.stamp = stamp
        self.clock = clock
        self.keepers: dict[str, PoolKeeper] = {}  #: by pool name
        self.claims: dict[str, Claim] = {}  #: by uid
        self.leaving: dict[str, ClaimRef] = {}  #: claims that go, or went; what they have is freed when they are gone
        self.promised: dict[str, str] = {}  #: addresses on their way into a claim's status, by uid
        self.shown: Mapping[str, str] = {}  #: addresses that claims show and no pool recorded, with the claim's uid
        self.twice: dict[str, frozenset[ClaimRef]] = {}  #: addresses that more than one claim has
        self.said_twice: frozenset[str] = frozenset()  #: those of them that the log of this term has told of
        self.suspicious = True  #: whether addresses may be given twice that were not, or not any more
        self.context: contextvars.Context | None = None  #: of any handler, for events about other objects
        self.unverified: dict[str, Claim] = {}  #: bound by an earlier term; their ConfigMaps were not looked at
        # What to do again when the world changes: claims, and pools that are not active, by uid. Kopf finds the
        # way of an event by ContextVars of the object's handler, so that context is kept.
        self.waiting: dict[str, contextvars.Context] = {}
        self.inactive: dict[str, contextvars.Context] = {}
        self.backoff = Backoff()
        self._alarm: asyncio.TimerHandle | None = None
        self._gone: set[str] = set()  #: uids of pools
        self._locks: dict[str, asyncio.Lock] = {}
        self._activation = asyncio.Lock()
        self._changed = asyncio.Event()
        self._quarantine = quarantine
        self._set_aside = set_aside

    async def load(self) -> None:
        """Read the world once. Pools come first, so a recorded claim that the later list lacks is gone."""
        for body in await self.api.pools():
            self._keep(Pool.parse(body), mine=True)
        for body in await self.api.claims():
            claim = Claim.parse(body)
            self.claims[claim.ref.uid] = claim
        for keeper in self.keepers.values():
            try:
                refs = [ClaimRef.parse(owner) for owner in keeper.owners.values()]
            except ValueError as e:
                log.error("pool %s is set aside: %s; repair its status.allocations", keeper.pool.name, e)
                keeper.leave()
                continue
            self.leaving.update((ref.uid, ref) for ref in refs if self._left(ref.uid))
        self.compare()
        log.info("loaded %d pools and %d claims", len(self.keepers), len(self.claims))

    def _left(self, uid: str) -> bool:
        """Whether nothing but a look is left to do for a recorded claim: it is gone, or Kopf has let it go."""
        claim = self.claims.get(uid)
        return claim is None or (claim.terminating and not claim.held)

    def compare(self) -> None:
        """See what does not go together: addresses without a record, and addresses of two claims."""
        held = {o.rpartition("/")[2]: a for k in self.keepers.values() for a, o in k.owners.items()}
        self.shown = unrecorded(self.claims.values(), held)
        found = given_twice(self.claims.values(), [k.owners for k in self.keepers.values()])
        self.twice = {a: frozenset(self.claims[u].ref for u in uids if u in self.claims) for a, uids in found.items()}

    async def sweep(self) -> None:
        """Find claims that are gone and whose end no watch showed: after a gap Kopf lists anew, and tells no ends."""
        recorded = [ClaimRef.parse(o) for k in self.keepers.values() if not k.set_aside for o in k.owners.values()]
        exist = {body["metadata"]["uid"] for body in await self.api.claims()}
        for ref in recorded:
            if ref.uid not in exist:
                self.leaves(ref, gone=True)

    # What handlers tell.

    def pool_seen(self, body: Body) -> None:
        """Take over a pool from a watch, which may be late: what a read did not find does not come back."""
        pool = Pool.parse(body)
        if pool.uid in self._gone:
            return
        keeper = self.keepers.get(pool.name)
        old = keeper.pool.spec if keeper is not None else None
        if keeper is None or keeper.pool.uid != pool.uid:
            self._keep(pool, mine=False)  # what waits for it hears of it when it is active
            self.inactive.setdefault(pool.uid, contextvars.copy_context())
        elif not keeper.seen(pool):
            return
        if keeper is not None and (keeper.pool.uid != pool.uid or old is None or old.gateway != pool.spec.gateway):
            self._look_again(keeper)
        self.changed()

    def pool_gone(self, body: Body) -> None:
        """Forget a pool; its claims wait for another one of the name, and pools that it blocked try again."""
        name, uid = body["metadata"]["name"], body["metadata"]["uid"]
        keeper = self.keepers.get(name)
        self._gone.add(uid)
        self.inactive.pop(uid, None)
        if keeper is not None and keeper.pool.uid == uid:
            del self.keepers[name]
            self._look_again(keeper)
        self.changed()

    def claim_seen(self, body: Body) -> Claim:
        """Take over a claim from a watch or an answer, and give the newest that is known of it."""
        claim = Claim.parse(body)
        known = self.claims.get(claim.ref.uid)
        if known is None or newer(claim.resource_version, known.resource_version):
            self.claims[claim.ref.uid] = known = claim
            if claim.address and not self._recorded(claim):
                self.suspicious = True
        return known

    def _recorded(self, claim: Claim) -> bool:
        keeper = self.keepers.get(claim.pool_name)
        return keeper is not None and keeper.holds(claim.ref.uid) == claim.address

    def claim_noticed(self, claim: Claim, *, handled: bool) -> None:
        """Have a claim handled that no handler will be called for.

        That is one that a backup brought back without its status: by its annotations Kopf has handled it already.

        Args:
            claim: as a watch gave it.
            handled: whether Kopf has.
        """
        if handled and not claim.terminating and not claim.status.get("conditions"):
            self.waiting.setdefault(claim.ref.uid, contextvars.copy_context())
            self.changed()

    def claim_gone(self, body: Body) -> None:
        """Forget a claim. What is recorded for it is freed, once a read says that it is gone."""
        ref = Claim.parse(body).ref
        self.claims.pop(ref.uid, None)
        self.promised.pop(ref.uid, None)
        self.done(ref.uid)
        self._locks.pop(ref.uid, None)
        self.leaves(ref, gone=True)
        self.suspicious = self.suspicious or bool(self.twice)
        if self.inactive or self.twice:
            self.changed()

    def leaves(self, ref: ClaimRef, *, gone: bool) -> None:
        """Look whether a claim is gone, ever more seldom, and free what is recorded for it then.

        Args:
            ref: the claim.
            gone: whether there is a reason to look now; otherwise the first look comes after a while.
        """
        if self.holder_of(ref.uid) is None:
            return
        self.leaving[ref.uid] = ref
        self.backoff.forget((ref.uid, "goes"))
        if gone:
            self.changed()
        else:
            self.wake_at(self.backoff.failed((ref.uid, "goes"), self.clock()))

    # What is to be done again.

    def changed(self) -> None:
        """Say that something may be possible now that was not."""
        self._changed.set()

    async def until_changed(self) -> None:
        """Wait for that."""
        await self._changed.wait()
        self._changed.clear()

    def wait(self, uid: str, at: float | None) -> None:
        """Have a claim handled again when the world changes, or at a time."""
        self.waiting[uid] = contextvars.copy_context()
        self.backoff.forget(uid)
        if at is not None:
            self.wake_at(at)

    def block(self, uid: str) -> None:
        """Have a claim handled again after a while, ever longer, since something is in its own way."""
        self.waiting[uid] = contextvars.copy_context()
        self.wake_at(self.backoff.failed(uid, self.clock()))

    def done(self, uid: str) -> None:
        """Have nothing done again for a claim."""
        self.waiting.pop(uid, None)
        self.unverified.pop(uid, None)
        self.backoff.forget(uid)

    def verify_later(self, claim: Claim) -> None:
        """Have a bound claim's ConfigMap looked at when nothing else is to be done."""
        self.unverified[claim.ref.uid] = claim
        self.changed()

    def promise_kept(self, uid: str) -> None:
        """Note that what becomes of a claim's status is known now."""
        if self.promised.pop(uid, None) is not None and self.inactive:
            self.changed()

    def given(self, uids: Collection[str]) -> None:
        """Take note that claims have an address now that did not ask for it just now."""
        if not self.waiting.keys().isdisjoint(uids):
            self.changed()

    def _look_again(self, keeper: PoolKeeper) -> None:
        """Have all claims of a pool handled again that a handler left as they should be."""
        for owner in keeper.owners.values():
            uid = owner.rpartition("/")[2]
            if uid in self.claims:
                self.waiting.setdefault(uid, contextvars.copy_context())

    def wake_at(self, at: float) -> None:
        """Let time count as a change, at the earliest of all times asked for."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, at - self.clock())
        if self._alarm is None or when < self._alarm.when():
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.changed()

    # What handlers ask.

    def holder_of(self, uid: str) -> PoolKeeper | None:
        """Give the pool that records an address for the claim."""
        return next((k for k in self.keepers.values() if k.holds(uid) is not None), None)

    def lock(self, uid: str) -> asyncio.Lock:
        """Give the claim's lock: its handlers and a retry do not run at once."""
        return self._locks.setdefault(uid, asyncio.Lock())

    def no_pool(self, claim: Claim) -> Wait:
        """Give what a claim is told whose pool is not there."""
        return Wait("PoolNotFound", f"There is no pool named {claim.pool_name}.")

    # What pools ask.

    def set_aside(self, uid: str) -> bool:
        """Say whether the pool of this uid is set aside in this term."""
        return uid in self._set_aside()

    def queue(self, pool: str) -> Iterable[Claim]:
        """Give the claims of a pool of this name that may wait for an address, and that Kopf has taken on."""
        return [c for c in self.claims.values() if c.pool_name == pool and c.held and not c.terminating]

    # Pools that become active.

    async def settle_pool(self, name: str) -> None:
        """Bring a pool to where it should be."""
        keeper = self.keepers.get(name)
        if keeper is None:
            return
        try:
            if keeper.settled:
                self.inactive.pop(keeper.pool.uid, None)
                await keeper.refresh()
            else:
                self.inactive[keeper.pool.uid] = contextvars.copy_context()
                await self._activate(keeper)
        except Gone:
            pass  # the event of its deletion will come

    def still_blocked(self, keeper: PoolKeeper) -> bool:
        """Say whether a pool is kept from being active by what it was kept by before, as far as the memory knows."""
        if keeper.trouble is None:
            return False
        pools = [k.pool for k in self.keepers.values()]
        return obstacle(keeper.pool, pools, self.claims.values(), self.promised) == keeper.trouble

    async def look_for_pool(self, keeper: PoolKeeper) -> None:
        """Forget a pool that is not there any more, for one whose events do not come."""
        try:
            body = await self.api.pool(keeper.pool.name)
        except Gone:
            self.pool_gone(keeper.pool.body)
            return
        if body["metadata"]["uid"] != keeper.pool.uid:
            self.pool_seen(body)

    async def _activate(self, keeper: PoolKeeper) -> None:
        """Claiming → all claims stamped → consistent lists → Active, or withdraw (I4, I5).

        Of two processes that do this for overlapping pools at once, at least one sees the other's Claiming.
        The look before it only spares the writes while the obstacle lasts.
        """
        async with self._activation:
            if keeper.settled:
                self.inactive.pop(keeper.pool.uid, None)
                return
            before = keeper.trouble
            trouble, _ = await self._obstacle(keeper)
            if trouble is None:
                await keeper.reserve()
                await self._stamp_claims()
                trouble, claims = await self._obstacle(keeper)
            if trouble is not None:
                await keeper.withdraw(trouble)
                if trouble != before:
                    log.warning("pool %s is not active: %s", keeper.pool.name, trouble)
                    event(keeper.pool.body, type="Warning", reason="Overlaps", message=trouble)
                    self.changed()
                return
            await keeper.activate(adopt(keeper.pool, claims))
            self.inactive.pop(keeper.pool.uid, None)
        self.compare()
        self.suspicious = True
        log.info("pool %s is active: %s", keeper.pool.name, keeper.pool.spec.cidr)
        event(keeper.pool.body, type="Normal", reason="Active", message="The pool gives addresses.")
        self.changed()

    async def _obstacle(self, keeper: PoolKeeper) -> tuple[str | None, list[Claim]]:
        pools = [Pool.parse(b) for b in await self.api.pools()]
        claims = [Claim.parse(b) for b in await self.api.claims()]
        promised = {u: a for u, a in self.promised.items() if keeper.holds(u) != a}
        return obstacle(keeper.pool, pools, claims, promised), claims

    async def _stamp_claims(self) -> None:
        """Stamp every claim to which an earlier term may still write an address (I4).

        An earlier leader may have recorded an address for a claim, in a pool that was removed by force since, and stand
        still just before it writes the claim's status. When it wakes, that address may be another claim's, by a new
        pool of the same range. The stamp makes its write a stale one. A claim that an active pool of this term records
        needs none: nobody gives it another address.
        """
        todo = []
        for body in await self.api.claims():
            claim = Claim.parse(body)
            keeper = self.keepers.get(claim.pool_name)
            recorded = keeper is not None and keeper.mine and keeper.holds(claim.ref.uid) is not None
            if not recorded and not claim.stamped_by(self.stamp):
                todo.append(claim)
        gate = asyncio.Semaphore(PARALLEL)

        async def stamp(claim: Claim) -> None:
            async with gate:
                try:
                    self.claim_seen(await self.api.stamp_claim(claim.ref))
                except Gone:
                    pass

        await asyncio.gather(*(stamp(claim) for claim in todo))

    def _keep(self, pool: Pool, *, mine: bool) -> None:
        self.keepers[pool.name] = PoolKeeper(
            pool, self.api, self, mine=mine, clock=self.clock, quarantine=self._quarantine
        )
