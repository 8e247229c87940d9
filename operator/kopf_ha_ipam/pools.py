"""One pool in the memory of a term: who has which address. Only this code writes a pool's status.

The leader decides from memory and never asks the API server who has what. That is right only if nobody else's writes
are accepted in between, and the fence guarantees it: **I5 holds because of the fence.** With the fence (`full`), the
first write of a leader that was paused raises `StaleLeader`, and this code is not reached again. Without it (`none`,
`rv`), such a leader meets a conflict, reads the object again for its new resourceVersion, still trusts its own memory,
and gives away an address that its successor has given already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Protocol

from kopf_ha_ipam.conditions import ready_message, ready_reason, timestamp
from kopf_ha_ipam.model import ACTIVE, CLAIMING, Body, Claim, ClaimRef, Pool, newer, stamped_by, uid_of
from kopf_ha_ipam.planning import Give, Plan, Record, Tombstone, Wait, plan
from kopf_ha_ipam.pool_status import status_patch
from kopf_ha_ipam.shown import Shown
from kopf_ha_ipam.waiting import Queue
from kopf_ha_ipam.writes import TRIES, Api, Conflict, Gone, Rejected, Unavailable

log = logging.getLogger(__name__)
#: Seconds after which claims ask again for a pool that is set aside.
LOOK_AGAIN = 5.0


class Memory(Protocol):
    """What a keeper asks the memory that it belongs to (`allocator.Allocator`)."""

    @property
    def stamp(self) -> tuple[int, str]:
        """Token and holder identity of the term."""

    @property
    def shown(self) -> Shown:
        """Addresses that claims show and no pool records for them."""

    @property
    def twice(self) -> Mapping[str, Collection[ClaimRef]]:
        """Addresses that more than one claim has, with the claims."""

    def set_aside(self, uid: str) -> bool:
        """Return whether the pool of this uid is set aside in this term."""

    def queue(self, pool: str) -> Queue | None:
        """Return the claims of a pool of this name that may wait for an address, or None if there are none."""

    def given(self, uids: Collection[str]) -> None:
        """Note that claims got an address by a write that was made for other claims."""

    async def stamped(self, body: Body) -> Body | None:
        """Return a pool as it is once this term has stamped it; None if it is gone."""

    def revised(self, keeper: PoolKeeper, uids: Collection[str]) -> None:
        """Note that a pool's record was another one than it seemed, and whose claims that concerns."""


class PoolKeeper:
    """Keeps one pool's record.

    Args:
        pool: as read.
        api: makes the requests.
        memory: the memory that the keeper belongs to.
        mine: whether the pool has this term's stamp. A barrier that stamps all pools has stamped each one that was
            there when the term began. A pool that is created later gets the stamp with this term's first write. Until
            then nothing is given from it, since an earlier leader could still be writing it.
        waits: whether the pool was there when the term began, and has no stamp yet (`--barrier each`). What its record
            says is enough to do nothing. Before anything is decided from it, `certain` waits for the stamp.
        clock: returns this leader's monotonic seconds, for the quarantine.
        quarantine: seconds before a freed address may be given again.
    """

    def __init__(
        self,
        pool: Pool,
        api: Api,
        memory: Memory,
        *,
        mine: bool,
        waits: bool = False,
        clock: Callable[[], float],
        quarantine: float,
    ) -> None:
        self.pool = pool  #: as last known at the API server
        #: why it is not active; this may come from an earlier term
        self.trouble = ready_message(pool.status) if ready_reason(pool.status) == "Overlaps" else None
        self.empty = asyncio.Event()
        self._api = api
        self._memory = memory
        self._left = False
        self._mine = mine and not self.set_aside
        self._waits = waits
        self._unclear = (
            False  # whether the outcome of this term's last write is unknown, and no later revision was seen
        )
        self._taken = not waits  # whether it was read after its stamp, which the fence asks for before a write
        self._clock = clock
        self._quarantine = quarantine
        self._lock = asyncio.Lock()
        self._asking: dict[str, Claim] = {}
        self._freeing: set[str] = set()
        self._answers: dict[str, Give | Wait] = {}
        self._remember(self._recorded())

    @property
    def set_aside(self) -> bool:
        """Whether the barrier could not stamp the pool, or its record cannot be read: decide and write nothing."""
        return self._left or self._memory.set_aside(self.pool.uid)

    @property
    def mine(self) -> bool:
        """Whether the pool has this term's stamp, so that no earlier term can write it any more (I4)."""
        if self.set_aside:
            return False
        if not self._mine and stamped_by(self.pool.status, self._memory.stamp):
            # It was stamped behind, or the answer to our own write was lost. The object's record counts.
            self._load()
            self._mine = True
        return self._mine

    def holds(self, uid: str) -> str | None:
        """Return the address that the pool records for the claim of this uid, or None."""
        return self._record.held.get(uid)

    def leave(self) -> None:
        """Set the pool aside for the rest of the term."""
        self._left = True

    @property
    def owners(self) -> Mapping[str, str]:
        """Who has which address: a mapping from addresses to ``namespace/name/uid``."""
        return self._record.allocations

    @property
    def settled(self) -> bool:
        """Whether the pool is active, is being deleted or is set aside: then there is nothing to activate."""
        return self.set_aside or self.pool.terminating or ((self.mine or self._waits) and self.pool.state == ACTIVE)

    @property
    def unsure(self) -> bool:
        """Whether an earlier term can still change the record of a pool that was there when this term began."""
        return self._waits and not self.mine and not self.set_aside

    def seen(self, pool: Pool) -> bool:
        """Take in what a watch delivered, and return whether it changes what claims can get.

        Only the users' fields are taken over. The record in memory stays: the fence guarantees that nobody else wrote
        another one. Only after a write of our own without an answer the object's record counts (I5).
        """
        old, was_mine = self.pool, self._mine
        if not newer(pool.resource_version, old.resource_version):
            return False
        self.pool = pool
        if not was_mine or self._unclear:
            self._load()
        is_new = self.mine and not was_mine  # those who wait can be served from now on
        return is_new or (old.spec, old.terminating, old.state) != (pool.spec, pool.terminating, pool.state)

    @property
    def outlook(self) -> Hashable:
        """All that the answers to claims that get nothing depend on: as long as it is the same, they are the same."""
        closed = self._closed()
        return (self.pool.uid, self.pool.spec, (closed.reason, closed.message) if closed is not None else None)

    @property
    def chance(self) -> float | None:
        """From when on a claim that waits may get an address, on the leader's clock; None if time alone gives none."""
        closed = self._closed()
        if closed is not None:
            return closed.retry_at
        unused, resting = self._record.unused(self.pool.spec), self._record.tombstones
        if len(unused) > len(resting):
            return self._clock()
        seen = (resting[a].seen + self._quarantine if a in resting else self._clock() for a in unused)
        return min(seen, default=None)

    def preview(self, claims: Iterable[Claim]) -> Mapping[str, Give | Wait]:
        """Return what these claims would be answered now, and the claims that wait and would be served; by uid.

        Writes nothing.
        """
        return self._plan(claims, ()).answers

    async def ask(self, claim: Claim) -> Give | Wait:
        """Give the claim an address. It is recorded at the API server when this returns.

        One write serves all claims that wait: whoever gets the lock first writes for all of them. The oldest claim is
        served first, whoever asks.
        """
        uid = claim.ref.uid
        if self.pool.state == ACTIVE and not self.pool.terminating:
            await self.certain()
        closed = self._closed()
        if self.mine and (address := self.holds(uid)) is not None:
            return Give(address, self.pool.spec)
        if closed is not None:
            return closed
        if not self._lock.locked():
            answers = self.preview([claim])
            if all(isinstance(answer, Wait) for answer in answers.values()):
                return answers[uid]  # nobody gets anything, so there is nothing to write
        self._asking[uid] = claim
        try:
            async with self._lock:
                if uid in self._asking:
                    await self._write()
                return self._answers.pop(uid)
        finally:
            self._asking.pop(uid, None)
            self._answers.pop(uid, None)

    async def certain(self) -> None:
        """Have the record as it is once no earlier term can change it any more (I4), or know that the pool is gone.

        Raises:
            kopf_ha.SetAside: the pool cannot be stamped now.
        """
        if self.unsure:
            try:
                await self._take_on()
            except Gone:
                pass  # its event will come

    async def free(self, uid: str) -> None:
        """Turn the address of the claim of this uid into a tombstone.

        Call it only after a quorum read confirmed that the claim is gone (I5). A ConfigMap that arrives for it after
        that has an owner that does not exist.
        """
        self._freeing.add(uid)
        try:
            async with self._lock:
                if uid in self._freeing:
                    await self._write()
        finally:
            self._freeing.discard(uid)

    async def rest(self) -> None:
        """Wait for the answer to the write under way, and start no other write."""
        await self._lock.acquire()

    async def emptied(self, within: float) -> bool:
        """Wait up to `within` seconds until no claim has an address of the pool, and return whether that is so."""
        try:
            await asyncio.wait_for(self.empty.wait(), within)
        except TimeoutError:
            return False
        return True

    async def refresh(self) -> None:
        """Write the status that follows from spec and record, if it differs."""
        if self.set_aside:
            return
        if self.unsure and not self.pool.terminating and not self._status(self._record, self.pool.state):
            return  # `revised` is called if the stamp shows another record
        async with self._lock:
            await self._write(touch=not self.mine)

    async def reserve(self) -> None:
        """Announce the range by state `Claiming`. Only from then on other pools see it as an obstacle."""
        async with self._lock:
            if not self.mine or self.pool.state not in (CLAIMING, ACTIVE):
                await self._write(self.pool.state or CLAIMING, touch=True)

    async def activate(self, adopted: Mapping[str, str]) -> None:
        """Set state `Active`. The same write records the addresses that claims have already.

        A pool that is being deleted records nothing new; its claims keep their addresses.
        """
        async with self._lock:
            if self.pool.terminating:
                return
            if not self.pool.recorded:
                self._remember(Record(adopted, self._record.tombstones))
            self.trouble = None
            await self._write(ACTIVE)

    async def withdraw(self, trouble: str) -> None:
        """Give up the range, and say why."""
        async with self._lock:
            self.trouble = trouble
            await self._write("", touch=not self.mine)

    def _closed(self) -> Wait | None:
        """Return why the pool gives no new addresses, or None. It is judged on the body whose resourceVersion is sent.

        A terminating pool gives none, because removing the last finalizer is not compare-and-swap: the API server
        could remove the pool together with an address that was recorded a moment before.
        """
        name = self.pool.name
        if self.pool.terminating:
            return Wait("PoolTerminating", f"Pool {name} is being deleted.")
        if self.set_aside:
            text = f"This leader has set pool {name} aside; see the operator's log."
            return Wait("PoolNotActive", text, self._clock() + LOOK_AGAIN)
        if not self.mine or self.pool.state != ACTIVE:
            return Wait("PoolNotActive", self.trouble or "")  # without trouble it is active in a moment
        return None

    async def _write(self, state: str | None = None, *, touch: bool = False) -> None:
        """Plan, write, remember. If the object changed in between, plan again.

        Refusals by the fence pass through to the caller.
        """
        if self.set_aside:
            raise Unavailable(f"pool {self.pool.name} is set aside in this term")
        if not self._taken:
            await self._take_on()
            touch = False  # it has the stamp now
        await asyncio.sleep(0)  # lets all claims that were woken together join this write
        for _ in range(TRIES):
            asking, freeing = dict(self._asking), set(self._freeing)
            planned = self._plan(asking.values(), freeing)
            while await self._memory.shown.look(planned.record.allocations.keys() - self._record.allocations.keys()):
                # The pool may have changed. The last plan is judged on the body whose resourceVersion is sent.
                planned = self._plan(asking.values(), freeing)
            status = self._status(planned.record, self.pool.state if state is None else state)
            if status or touch:
                version = self.pool.resource_version
                try:
                    body = await self._api.patch_pool_status(
                        self.pool.name, version, status or {"state": self.pool.state or None}
                    )
                except Conflict as e:
                    log.info("pool %s changed in between and is read again: %s", self.pool.name, e)
                    await self._reread()
                    continue
                except (Gone, Rejected):
                    raise  # it was not done
                except BaseException:  # also if the handler is cancelled, since the request goes on
                    self._not_answered(version)
                    raise
                self.pool = Pool.parse(body)
                self._mine = True
            self._remember(planned.record)
            asked = self._asking.keys() & asking.keys()
            self._answers.update((uid, planned.answers[uid]) for uid in asked)
            for uid in asked:
                del self._asking[uid]
            self._freeing -= freeing
            others = planned.answers.keys() - asked
            self._memory.given([uid for uid in others if isinstance(planned.answers[uid], Give)])
            return
        raise Unavailable(f"pool {self.pool.name} changes faster than it can be written")

    def _plan(self, asking: Iterable[Claim], freeing: Collection[str]) -> Plan:
        return plan(
            self.pool.spec,
            self._record,
            asking,
            freeing,
            name=self.pool.name,
            closed=self._closed(),
            now=self._clock(),
            quarantine=self._quarantine,
            shown=self._memory.shown.found,
            queue=self._memory.queue(self.pool.name),
        )

    async def _reread(self) -> None:
        """After a conflict, read resourceVersion, spec and deletion again; the record in memory stays.

        Before this term's first write the pool is not `mine`: then the object's record counts.
        """
        pool = Pool.parse(await self._api.pool(self.pool.name))
        if pool.uid != self.pool.uid:
            raise Gone(f"pool {self.pool.name} was deleted and made again")
        self.pool = pool
        if not self._mine or self._unclear:
            self._load()

    def _not_answered(self, version: str) -> None:
        """Go on after a write on this revision whose outcome is unknown (I5).

        It was done, or never will be, once a later revision is seen; that may have been while the answer was waited
        for. From then on the object's record counts. Otherwise the next plan would not know of an address that is
        recorded for a claim, and would take it away.
        """
        self._unclear = True
        if newer(self.pool.resource_version, version):
            self._load()

    async def _take_on(self) -> None:
        """Stamp the pool, and take in what the answer shows (I4).

        An earlier leader may have written the pool after it was listed, so the record in memory may be too old. From
        the stamp on, nobody else's write of the status is accepted. So the record in the stamp's answer is the last one
        that is not this term's. A second caller may get an older answer than this term's first write. It is not taken
        in then, since it is not newer.
        """
        body = await self._memory.stamped(self.pool.body)
        if body is None:
            raise Gone(f"pool {self.pool.name} is gone")
        self.seen(Pool.parse(body))
        if not self.mine:
            raise Unavailable(f"pool {self.pool.name} has no stamp of this term in the answer to it")
        self._taken = True

    def _load(self) -> None:
        """Take the record from the object, and say so if it is another one than was known."""
        before = self._record.allocations
        self._unclear = False
        self._remember(self._recorded())
        if (after := self._record.allocations) != before:
            self._memory.revised(self, {uid_of(owner) for owner in (*before.values(), *after.values())})

    def _recorded(self) -> Record:
        """Return the object's record. Its tombstones count as seen now, by this leader's clock."""
        now = self._clock()
        return Record(self.pool.allocations, {a: Tombstone(o, now) for a, o in self.pool.tombstones.items()})

    def _remember(self, record: Record) -> None:
        self._record = record
        if record.allocations:
            self.empty.clear()
        else:
            self.empty.set()

    def _status(self, record: Record, state: str) -> Mapping[str, object]:
        """Return what has to change in the status at the API server."""
        return status_patch(self.pool, record, state, trouble=self.trouble, twice=self._memory.twice, now=timestamp())
