"""The memory of one term: all pools, all claims, and what is known about them.

It is created when the term starts, after the barrier, and ends with the term: the next term reads everything again.
Nothing is kept in a module global.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence

from kopf_ha_ipam.agenda import Agenda
from kopf_ha_ipam.model import Body, Claim, ClaimRef, Pool, newer, uid_of
from kopf_ha_ipam.planning import Wait, given_twice, unrecorded
from kopf_ha_ipam.pools import PoolKeeper
from kopf_ha_ipam.shown import Shown
from kopf_ha_ipam.waiting import Claims, Queue
from kopf_ha_ipam.writes import ENDED, FIRST, Api, Gone, Rejected

log = logging.getLogger(__name__)
#: Seconds before a list that failed is begun anew, at least.
PAUSE = 0.5
#: Seconds without a new claim after which Kopf's own list seems to be over, and how often that is waited for.
LULL, LOOKS = 1.0, 30


class Allocator:
    """Everything that a term knows.

    Args:
        api: makes the requests.
        quarantine: seconds before a freed address may be given again.
        stamp: token and holder identity of the term.
        set_aside: returns the uids of the pools that are not stamped in this term. It is called each time, since a
            pool can be stamped later.
        stamped: stamps a pool, and returns it as it is then; None if it is gone. Without it, all pools that were there
            when the term began are stamped already.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        api: Api,
        *,
        quarantine: float,
        stamp: tuple[int, str],
        set_aside: Callable[[], Collection[str]] = frozenset,
        stamped: Callable[[Body], Awaitable[Body | None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api = api
        self.stamp = stamp
        self.clock = clock
        self.agenda = Agenda(clock)
        self.keepers: dict[str, PoolKeeper] = {}  #: by pool name
        self.claims = Claims()  #: by uid
        self.promised: dict[
            str, str
        ] = {}  #: addresses that are being written into claims' statuses, by the claim's uid
        self.shown = Shown(api, self._held)  #: addresses that claims show and no pool records
        self.twice: dict[str, frozenset[ClaimRef]] = {}  #: addresses that more than one claim has
        self.said_twice: frozenset[str] = frozenset()  #: those of them that this term has logged already
        self.suspicious = True  #: whether `twice` may have changed since the last look
        self.context: contextvars.Context | None = None  #: any handler's, for events about other objects
        self.activation = asyncio.Lock()  #: one pool becomes active at a time
        self.complete = True  #: whether all claims are known that existed when the term began
        self._gone: set[str] = set()  #: uids of deleted pools, and of claims that went before all were known
        self._met: set[str] = set()  #: uids of claims that need nothing, once a handler's filter has found that
        self._parsed: tuple[Body, Claim] | None = None  #: metadata of the body that was parsed last, and what it says
        self._rest: AsyncIterator[Sequence[Body]] | None = None  #: the claims that are still to be listed
        self._locks: dict[str, asyncio.Lock] = {}
        self._quarantine = quarantine
        self._set_aside = set_aside
        self._stamped = stamped

    async def load(self) -> None:
        """List all pools and claims. Pools come first: so a recorded claim that the later list lacks is gone.

        With `--barrier each` the pools have no stamps yet, so an earlier leader may still write them after this list.
        Nothing is decided from them before `PoolKeeper.certain` or a watch has shown them with this term's stamp. What
        needs nothing by this list is looked at again if it was another record (`revised`).
        """
        for body in await self.api.pools():
            self._keep(Pool.parse(body), first=True)
        self._rest = self.api.claim_pages()
        if not await self._take_page():
            self.complete = False
            self.shown.begin()
            log.info("loaded %d pools; there are more claims than a page has, so the others follow", len(self.keepers))
            return
        self._loaded()

    async def load_rest(self) -> None:
        """List the claims that `load` left out, without hurry: nobody waits for those that are right.

        A decision about an address needs to know only whether a claim shows that address (`Shown`).
        """
        if self.complete:
            return
        try:
            await self.shown.prepare()
            self.agenda.changed()
        except ENDED:
            raise
        except Exception as error:  # noqa: BLE001  then the whole list says it
            log.warning("no claim gets an address before all claims are listed: %s: %s", type(error).__name__, error)
        if not (self.shown.ready and await self._are_all_met()):
            await self._list_rest()
        self._loaded()
        self.suspicious = True
        self.agenda.changed()

    async def _are_all_met(self) -> bool:
        """Wait until Kopf's own list is over, and return whether it has shown all claims.

        It shows each claim to a handler or to a filter, so a list of this memory's own would parse everything twice.
        """
        known = -1
        for _ in range(LOOKS):
            await asyncio.sleep(LULL)
            if len(self.claims) != known:
                known = len(self.claims)
                continue
            try:
                if await self._are_as_known():
                    return True
            except ENDED:
                raise
            except Exception as error:  # noqa: BLE001  the list says it, too
                log.info("the claims are listed, since no table of them can be read: %s", error)
                return False
        return False

    async def _are_as_known(self) -> bool:
        """Return whether a consistent read finds no claim, and no address of one, that is unknown."""
        known, gone = dict(self.claims), set(self._gone)
        for address, uid in await self.api.addresses():
            claim = known.get(uid)
            if uid not in gone and (claim is None or (claim.address or "") != address):
                return False
        return True

    async def _list_rest(self) -> None:
        """List the claims, page by page."""
        while True:
            began = self.clock()
            try:
                if await self._take_page():
                    return
            except ENDED:
                raise
            except Exception as error:  # noqa: BLE001  without the list nothing would ever be complete (I7)
                log.warning("the list of claims failed and begins anew: %s: %s", type(error).__name__, error)
                self._rest = self.api.claim_pages()
                await asyncio.sleep(PAUSE)
            if self.shown.ready:
                await asyncio.sleep(2 * (self.clock() - began))

    async def _take_page(self) -> bool:
        """Take in a page of claims, and return whether it was the last one."""
        assert self._rest is not None  # noqa: S101  `load` has begun
        full = False
        async for page in self._rest:
            for body in page:
                if body["metadata"]["uid"] not in self._gone:
                    self.claim_seen(body)
            full = len(page) >= FIRST  # after the last page comes none, if that was as long
            break
        return not full

    def _loaded(self) -> None:
        """Find what can only be found when all claims are known."""
        self.complete = True
        self._rest = None
        for keeper in self.keepers.values():
            self._find_left(keeper)
        self.compare()
        log.info("loaded %d pools and %d claims", len(self.keepers), len(self.claims))

    def _find_left(self, keeper: PoolKeeper) -> None:
        """Put the recorded claims that are gone on the agenda."""
        try:
            refs = [ClaimRef.parse(owner) for owner in keeper.owners.values()]
        except ValueError as e:
            log.error("pool %s is set aside: %s; repair its status.allocations", keeper.pool.name, e)
            keeper.leave()
            return
        self.agenda.leaving.update((ref.uid, ref) for ref in refs if self._left(ref.uid))

    def _left(self, uid: str) -> bool:
        """Return whether a recorded claim is gone, or is being deleted and Kopf has removed its finalizer already."""
        claim = self.claims.get(uid)
        return claim is None or (claim.terminating and not claim.held)

    def compare(self) -> None:
        """Find what contradicts: addresses that no pool records, and addresses that two claims have.

        This is made from all claims. Until these are known, it changes nothing.
        """
        if not self.complete:
            return
        self.shown.know(unrecorded(self.claims.values(), self._held()))
        found = given_twice(self.claims.values(), [k.owners for k in self.keepers.values()])
        self.twice = {a: frozenset(self.claims[u].ref for u in uids if u in self.claims) for a, uids in found.items()}

    def _held(self) -> Mapping[str, str]:
        """Return the address that a pool records for each claim, by the claim's uid."""
        return {uid_of(o): a for k in self.keepers.values() for a, o in k.owners.items()}

    async def sweep(self) -> None:
        """Find claims whose deletion no watch showed: they went before Kopf's first list, or in a gap of its watch."""
        recorded = [ClaimRef.parse(o) for k in self.keepers.values() if not k.set_aside for o in k.owners.values()]
        try:
            exist = {uid for _, uid in await self.api.addresses()}
        except Rejected:
            exist = {body["metadata"]["uid"] for body in await self.api.claims()}
        for ref in recorded:
            if ref.uid not in exist:
                self.leaves(ref, gone=True)

    # What handlers report.

    def pool_seen(self, body: Body) -> None:
        """Take in a pool from a watch. A watch may be late: a pool that a read did not find does not come back."""
        pool = Pool.parse(body)
        if pool.uid in self._gone:
            return
        keeper = self.keepers.get(pool.name)
        old = keeper.pool.spec if keeper is not None else None
        if keeper is None or keeper.pool.uid != pool.uid:
            self._keep(pool)  # the claims that wait for it are handled once it is active
            self.agenda.inactive.setdefault(pool.uid, contextvars.copy_context())
        elif not keeper.seen(pool):
            if self.suspicious and not self.unsure:
                self.agenda.changed()  # it was the last one
            return
        if keeper is not None and (keeper.pool.uid != pool.uid or old is None or old.gateway != pool.spec.gateway):
            self._look_again(keeper)
        self.agenda.changed()

    def pool_gone(self, body: Body) -> None:
        """Forget a pool. Its claims wait for another pool of that name, and pools that it blocked try again."""
        name, uid = body["metadata"]["name"], body["metadata"]["uid"]
        keeper = self.keepers.get(name)
        self._gone.add(uid)
        self.agenda.inactive.pop(uid, None)
        if keeper is not None and keeper.pool.uid == uid:
            del self.keepers[name]
            self._look_again(keeper)
        self.agenda.changed()

    async def look_for_pool(self, keeper: PoolKeeper) -> None:
        """Read a pool, and forget it if it is gone; for a pool whose events are not delivered."""
        try:
            body = await self.api.pool(keeper.pool.name)
        except Gone:
            self.pool_gone(keeper.pool.body)
            return
        if body["metadata"]["uid"] != keeper.pool.uid:
            self.pool_seen(body)

    def claim_seen(self, body: Body) -> Claim:
        """Take in a claim from a watch or an answer, and return the newest version that is known."""
        return self.claim_taken(Claim.parse(body))

    def parsed(self, body: Body) -> Claim:
        """Parse a claim, but the same revision only once: several filters are asked about it, one after the other."""
        metadata = body["metadata"]
        if self._parsed is None or self._parsed[0] is not metadata:
            self._parsed = metadata, Claim.parse(body)
        return self._parsed[1]

    def claim_taken(self, claim: Claim) -> Claim:
        """Take in a claim, and return the newest version that is known."""
        known = self.claims.get(claim.ref.uid)
        if known is None or newer(claim.resource_version, known.resource_version):
            self.claims[claim.ref.uid] = known = claim
            if claim.address and not self._recorded(claim):
                self.suspicious = True
        return known

    def _recorded(self, claim: Claim) -> bool:
        keeper = self.keepers.get(claim.pool_name)
        return keeper is not None and keeper.holds(claim.ref.uid) == claim.address

    def claim_met(self, claim: Claim) -> None:
        """Note a claim that has all that it should have. Its ConfigMap is checked once, if an earlier term made it."""
        if claim.ref.uid not in self._met:
            self._met.add(claim.ref.uid)
            if not claim.stamped_by(self.stamp):
                self.agenda.verify_later(claim)

    def claim_noticed(self, claim: Claim, *, handled: bool) -> None:
        """Handle a claim that Kopf calls no handler for.

        That is a claim that was restored from a backup without its status: its annotations tell Kopf that it was
        handled.

        Args:
            claim: as a watch delivered it.
            handled: whether its annotations say so.
        """
        if handled and not claim.terminating and not claim.status.get("conditions"):
            self.agenda.look_again(claim.ref.uid)
            self.agenda.changed()

    def claim_gone(self, body: Body) -> None:
        """Forget a claim. Its address is freed once a read confirms that the claim is gone."""
        ref = Claim.parse(body).ref
        self.claims.pop(ref.uid, None)
        self._met.discard(ref.uid)
        if not self.complete:
            self._gone.add(ref.uid)
        self.promised.pop(ref.uid, None)
        self.agenda.done(ref.uid)
        self._locks.pop(ref.uid, None)
        self.leaves(ref, gone=True)
        self.suspicious = self.suspicious or bool(self.twice)
        if self.agenda.inactive or self.twice:
            self.agenda.changed()

    def leaves(self, ref: ClaimRef, *, gone: bool) -> None:
        """Free a claim's address once the claim is gone.

        Args:
            ref: the claim.
            gone: whether there is a reason to check now. Otherwise the first check comes after a delay.
        """
        if self.holder_of(ref.uid) is not None:
            self.agenda.free_when_gone(ref, now=gone)

    def promise_kept(self, uid: str) -> None:
        """Note that the write of an address into a claim's status was answered."""
        if self.promised.pop(uid, None) is not None and self.agenda.inactive:
            self.agenda.changed()

    def given(self, uids: Collection[str]) -> None:
        """Note that claims got an address by a write that was made for other claims.

        After a takeover, Kopf may not have come to some of them. They are not kept waiting for that.
        """
        for uid in uids:
            (self.context or contextvars.copy_context()).copy().run(self.agenda.look_again, uid)
        if uids:
            self.agenda.changed()

    def _look_again(self, keeper: PoolKeeper) -> None:
        """Handle all claims of a pool again: what their statuses say may be out of date."""
        for uid in map(uid_of, keeper.owners.values()):
            if uid in self.claims:
                self.agenda.look_again(uid)

    # What handlers ask.

    def holder_of(self, uid: str) -> PoolKeeper | None:
        """Return the pool that records an address for the claim."""
        return next((k for k in self.keepers.values() if k.holds(uid) is not None), None)

    def lock(self, uid: str) -> asyncio.Lock:
        """Return the claim's lock, so that a handler and a retry do not run at the same time."""
        return self._locks.setdefault(uid, asyncio.Lock())

    def no_pool(self, claim: Claim) -> Wait:
        """Return the answer to a claim whose pool does not exist."""
        return Wait("PoolNotFound", f"There is no pool named {claim.pool_name}.")

    # What pools ask.

    def set_aside(self, uid: str) -> bool:
        """Return whether the pool of this uid is set aside in this term."""
        return uid in self._set_aside()

    def queue(self, pool: str) -> Queue | None:
        """Return the claims of a pool that may wait for an address; None if there are none, or not all are known."""
        return self.claims.queues.get(pool) if self.shown.whole else None

    async def stamped(self, body: Body) -> Body | None:
        """Return a pool as it is once this term has stamped it; None if it is gone.

        Raises:
            kopf_ha.SetAside: it cannot be stamped now.
        """
        return body if self._stamped is None else await self._stamped(body)

    def revised(self, keeper: PoolKeeper, uids: Collection[str]) -> None:
        """Look again at what was concluded from a pool's record that was not the last one."""
        log.info("pool %s records other addresses than it did; its claims are looked at again", keeper.pool.name)
        for uid in uids & self.claims.keys():
            self.agenda.look_again(uid)
        if self.complete:
            self._find_left(keeper)
        self.suspicious = True
        self.agenda.changed()

    @property
    def unsure(self) -> bool:
        """Whether an earlier term can still change a pool that was there when this term began."""
        return any(keeper.unsure for keeper in reversed(self.keepers.values()))

    def _keep(self, pool: Pool, *, first: bool = False) -> None:
        """Keep a pool. `first` means that it was there when the term began."""
        self.keepers[pool.name] = PoolKeeper(
            pool,
            self.api,
            self,
            mine=first and self._stamped is None,
            waits=first and self._stamped is not None,
            clock=self.clock,
            quarantine=self._quarantine,
        )
