"""The memory of one term: all pools, all claims, who waits for what.

It is made when the term starts, behind the barrier, and dies with the term: the next one reads everything
again. Nothing here survives in a module global.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import kopf_ha
from kopf_ha_ipam.model import Body, Claim, ClaimRef, Pool, newer
from kopf_ha_ipam.planning import adopt, obstacle
from kopf_ha_ipam.pools import PoolKeeper
from kopf_ha_ipam.writes import Api, Gone, event

log = logging.getLogger(__name__)
#: Seconds until something that failed by network trouble is tried again.
BACKOFF = 2.0


class Allocator:
    """All that a term knows.

    Args:
        api: the requests.
        quarantine: seconds for which a freed address rests.
        set_aside: uids of pools that the barrier could not stamp.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        api: Api,
        *,
        quarantine: float,
        set_aside: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api = api
        self.keepers: dict[str, PoolKeeper] = {}  #: by pool name
        self.claims: dict[str, Claim] = {}  #: by uid
        self.children: dict[tuple[str, str], Body] = {}  #: ConfigMaps as found at the start, for one look each
        self.orphans: dict[str, ClaimRef] = {}  #: recorded claims that seem to be gone, by uid
        # What to do again when the world changes: claims, and pools that are not active, by uid. Kopf finds the
        # way of an event by ContextVars of the object's handler, so that context is kept.
        self.waiting: dict[str, contextvars.Context] = {}
        self._blocked: dict[str, contextvars.Context] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._locks: dict[str, asyncio.Lock] = {}
        self._activation = asyncio.Lock()
        self._changed = asyncio.Event()
        self._quarantine = quarantine
        self._set_aside = set_aside
        self.clock = clock

    async def load(self) -> None:
        """Read the world once. Pools come first, so a recorded claim that the later list lacks is gone."""
        for body in await self.api.pools():
            self._keep(Pool.parse(body), mine=True)
        for body in await self.api.claims():
            claim = Claim.parse(body)
            self.claims[claim.ref.uid] = claim
        for body in await self.api.children():
            self.children[body["metadata"]["namespace"], body["metadata"]["name"]] = body
        for keeper in self.keepers.values():
            try:
                refs = [ClaimRef.parse(owner) for owner in keeper.owners.values()]
            except ValueError as e:
                log.error("pool %s is set aside: %s; repair its status.allocations", keeper.pool.name, e)
                keeper.leave()
                continue
            self.orphans.update((ref.uid, ref) for ref in refs if ref.uid not in self.claims)
        log.info("loaded %d pools and %d claims", len(self.keepers), len(self.claims))

    # What handlers tell.

    def pool_seen(self, body: Body) -> None:
        """Take over a pool from a watch."""
        pool = Pool.parse(body)
        keeper = self.keepers.get(pool.name)
        if keeper is None or keeper.pool.uid != pool.uid:
            self._keep(pool, mine=False)  # what waits for it hears of it when it is active
        elif not keeper.seen(pool):
            return
        if keeper is not None:  # it was made anew, or its gateway may be another one
            self._look_again(keeper)
            self.changed()

    def pool_gone(self, body: Body) -> None:
        """Forget a pool; its claims wait for another one of the name, and pools that it blocked try again."""
        name, uid = body["metadata"]["name"], body["metadata"]["uid"]
        keeper = self.keepers.get(name)
        self._blocked.pop(uid, None)
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
        return known

    def claim_gone(self, body: Body) -> None:
        """Forget a claim. If its address is still recorded, somebody removed the finalizer by force."""
        ref = Claim.parse(body).ref
        self.claims.pop(ref.uid, None)
        self.waiting.pop(ref.uid, None)
        self._locks.pop(ref.uid, None)
        if self.holder_of(ref.uid) is not None:
            self.orphans[ref.uid] = ref
        if self.orphans or self._blocked:
            self.changed()

    def changed(self) -> None:
        """Say that something may be possible now that was not."""
        self._changed.set()

    def wait(self, uid: str, at: float | None) -> None:
        """Have a claim handled again when the world changes, or at a time."""
        self.waiting[uid] = contextvars.copy_context()
        if at is not None:
            self._wake_at(at)

    def _look_again(self, keeper: PoolKeeper) -> None:
        """Have all claims of a pool handled again that a handler left as they should be."""
        for owner in keeper.owners.values():
            uid = owner.rpartition("/")[2]
            if uid in self.claims:
                self.waiting.setdefault(uid, contextvars.copy_context())

    def _wake_at(self, at: float) -> None:
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

    async def settle_pool(self, name: str) -> None:
        """Bring a pool to where it should be."""
        keeper = self.keepers.get(name)
        if keeper is None:
            return
        try:
            if keeper.settled:
                await keeper.refresh()
            else:
                self._blocked[keeper.pool.uid] = contextvars.copy_context()
                await self._activate(keeper)
        except Gone:
            pass  # the event of its deletion will come

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
        """Claiming → consistent lists → Active, or withdraw (I5, trap 6).

        Of two processes that do this for overlapping pools at once, at least one sees the other's Claiming.
        The look before it only spares the writes while the obstacle lasts.
        """
        async with self._activation:
            if keeper.settled:
                self._blocked.pop(keeper.pool.uid, None)
                return
            before = keeper.trouble
            trouble, _ = await self._obstacle(keeper)
            if trouble is None:
                await keeper.reserve()
                trouble, claims = await self._obstacle(keeper)
            if trouble is not None:
                await keeper.withdraw(trouble)
                if trouble != before:
                    log.warning("pool %s is not active: %s", keeper.pool.name, trouble)
                    event(keeper.pool.body, type="Warning", reason="Overlaps", message=trouble)
                    self.changed()
                return
            await keeper.activate(adopt(keeper.pool, claims))
            self._blocked.pop(keeper.pool.uid, None)
        log.info("pool %s is active: %s", keeper.pool.name, keeper.pool.spec.cidr)
        event(keeper.pool.body, type="Normal", reason="Active", message="The pool gives addresses.")
        self.changed()

    async def _obstacle(self, keeper: PoolKeeper) -> tuple[str | None, list[Claim]]:
        pools = [Pool.parse(b) for b in await self.api.pools()]
        claims = [Claim.parse(b) for b in await self.api.claims()]
        return obstacle(keeper.pool, pools, claims), claims

    def _keep(self, pool: Pool, *, mine: bool) -> None:
        self.keepers[pool.name] = PoolKeeper(
            pool,
            self.api,
            mine=mine,
            set_aside=pool.uid in self._set_aside,
            clock=self.clock,
            quarantine=self._quarantine,
        )

    # Trying again.

    async def retry_forever(
        self,
        settle: Callable[[Claim], Coroutine[Any, Any, None]],
        bury: Callable[[ClaimRef], Coroutine[Any, Any, None]],
    ) -> None:
        """Handle again what waits, whenever the world changed; as long as nothing does, do nothing (I7).

        Args:
            settle: handles a claim.
            bury: frees what a claim that is gone had.
        """
        while True:
            await self._changed.wait()
            self._changed.clear()
            for uid, ref in list(self.orphans.items()):
                if await self._try(f"claim {ref.where}", bury(ref), contextvars.copy_context()):
                    self.orphans.pop(uid, None)
            for keeper in list(self.keepers.values()):
                context = self._blocked.get(keeper.pool.uid)
                if context is not None:
                    await self._try(f"pool {keeper.pool.name}", self._activate(keeper), context)
            again = []
            for uid, context in list(self.waiting.items()):
                claim = self.claims.get(uid)
                if claim is None or claim.terminating:
                    self.waiting.pop(uid, None)
                else:
                    again.append(self._try(f"claim {claim.ref.where}", settle(claim), context))
            await asyncio.gather(*again)

    async def _try(self, what: str, work: Coroutine[Any, Any, None], context: contextvars.Context) -> bool:
        """Do it, and say whether it went well; else have it tried again soon."""
        task = asyncio.create_task(work, context=context)
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, kopf_ha.Refused):
            raise result  # the term is over, and with it this memory
        if isinstance(result, Exception):
            log.warning("%s is tried again in %g s: %s: %s", what, BACKOFF, type(result).__name__, result)
            self._wake_at(self.clock() + BACKOFF)
        return result is None
