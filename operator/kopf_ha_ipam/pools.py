"""One pool in the memory of a term, and the only code that writes a pool's status.

The leader decides from memory and never asks who has what. That is right exactly when nobody else's writes
are accepted in between, which the fence makes so: **I5 holds because of the fence.** With it (`full`), a
leader that was paused is told `StaleLeader` by its first write and this code is not reached again. Without it
(`none`, `rv`), such a leader meets a conflict, reads the object again for its new resourceVersion, keeps its
own memory as the truth, as it must, and gives an address that its successor has given already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import kopf

from kopf_ha_ipam.model import ACTIVE, CLAIMING, Claim, Pool, message_of, newer, ready, reason_of
from kopf_ha_ipam.planning import Give, Plan, Record, Tombstone, Wait, plan
from kopf_ha_ipam.writes import Api, Conflict, Gone, Unavailable

log = logging.getLogger(__name__)
#: How often a write is planned anew when somebody edits the object meanwhile.
TRIES = 10


def timestamp() -> str:
    """Give the time for a condition; for people, nothing is decided from it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class PoolKeeper:
    """Keeps one pool's record.

    Args:
        pool: as read.
        mine: whether this term's stamp is on it. The barrier does that for all pools that it lists; a pool
            made later becomes mine with the first write of it, and nothing is answered from it before
            (an earlier leader could still be writing it: trap 5).
        set_aside: the barrier could not stamp it: decide and write nothing (trap 7).
        clock: this leader's monotonic seconds, for the quarantine.
        quarantine: seconds for which a freed address is not given again.
    """

    def __init__(
        self,
        pool: Pool,
        api: Api,
        *,
        mine: bool,
        set_aside: bool,
        clock: Callable[[], float],
        quarantine: float,
    ) -> None:
        self.pool = pool  #: as last known at the API server
        self.set_aside = set_aside
        self.mine = mine and not set_aside
        #: why it is withdrawn; an earlier term may have said so
        self.trouble = message_of(pool.status) if reason_of(pool.status) == "Overlaps" else None
        self.empty = asyncio.Event()
        self._api = api
        self._clock = clock
        self._quarantine = quarantine
        self._lock = asyncio.Lock()
        self._asking: dict[str, Claim] = {}
        self._freeing: set[str] = set()
        self._answers: dict[str, Give | Wait] = {}
        self._load()

    def holds(self, uid: str) -> str | None:
        """Give the address that the claim of this uid has."""
        return self._held.get(uid)

    def leave(self) -> None:
        """Set it aside for the rest of the term."""
        self.set_aside, self.mine = True, False

    @property
    def owners(self) -> Mapping[str, str]:
        """Who has which address: address to ``namespace/name/uid``."""
        return self._record.allocations

    @property
    def settled(self) -> bool:
        """Whether it is active or going away, so that there is nothing to activate."""
        return self.set_aside or self.pool.terminating or (self.mine and self.pool.state == ACTIVE)

    def seen(self, pool: Pool) -> bool:
        """Take over what a watch delivered, and say whether it changes what claims can get.

        Only what users write counts. The record in memory stays as it is: it is the truth, and the fence
        guarantees that nobody else wrote another one.
        """
        old = self.pool
        if not newer(pool.resource_version, old.resource_version):
            return False
        self.pool = pool
        if not self.mine:
            self._load()
        return (old.spec, old.terminating, old.state) != (pool.spec, pool.terminating, pool.state)

    async def ask(self, claim: Claim) -> Give | Wait:
        """Give the claim its address, recorded already when this returns.

        All claims that wait while a write is under way go into the next one together: whoever gets the
        lock first writes for everybody.
        """
        uid = claim.ref.uid
        closed = self._closed()
        if self.mine and uid in self._held:
            return Give(self._held[uid], self.pool.spec)
        if closed is not None:
            return closed
        self._asking[uid] = claim
        try:
            async with self._lock:
                if uid in self._asking:
                    await self._write()
                return self._answers.pop(uid)
        finally:
            self._asking.pop(uid, None)
            self._answers.pop(uid, None)

    async def free(self, uid: str) -> None:
        """Turn what the claim of this uid had into a tombstone. Its child is gone, its status cleared."""
        self._freeing.add(uid)
        try:
            async with self._lock:
                if uid in self._freeing:
                    await self._write()
        finally:
            self._freeing.discard(uid)

    async def emptied(self, within: float) -> bool:
        """Wait some seconds until nobody has an address of it, and say whether it is so."""
        try:
            await asyncio.wait_for(self.empty.wait(), within)
        except TimeoutError:
            return False
        return True

    async def refresh(self) -> None:
        """Write what follows from the spec and the record, if it differs."""
        if self.set_aside:
            return
        async with self._lock:
            await self._write(touch=not self.mine)

    async def reserve(self) -> None:
        """Announce the range: `Claiming` (trap 6). Until then nobody lists it as an obstacle."""
        async with self._lock:
            if not self.mine or self.pool.state not in (CLAIMING, ACTIVE):
                await self._write(self.pool.state or CLAIMING, touch=True)

    async def activate(self, adopted: Mapping[str, str]) -> None:
        """Start to give addresses. What claims have already is recorded in the same write.

        A pool that is being deleted meanwhile takes nothing on any more (trap 1); its claims keep what they have.
        """
        async with self._lock:
            if self.pool.terminating:
                return
            if not self.pool.recorded:
                self._remember(Record(adopted, self._record.tombstones))
            self.trouble = None
            await self._write(ACTIVE)

    async def withdraw(self, trouble: str) -> None:
        """Step back from the range."""
        async with self._lock:
            self.trouble = trouble
            await self._write("", touch=not self.mine)

    def _closed(self) -> Wait | None:
        """Say why nothing new is given; judged on the body whose resourceVersion is sent (trap 1)."""
        name = self.pool.name
        if self.pool.terminating:
            return Wait("PoolTerminating", f"Pool {name} is being deleted.")
        if self.set_aside:
            return Wait("PoolNotActive", f"Pool {name} could not be taken over by this leader; see its log.")
        if not self.mine or self.pool.state != ACTIVE:
            return Wait("PoolNotActive", self.trouble or "")  # in a moment it is, or there is a trouble to tell
        return None

    async def _write(self, state: str | None = None, *, touch: bool = False) -> None:
        """Plan, write, remember; plan again when the object changed meanwhile (trap 3).

        What the fence refuses passes through: the term is over, and so is this memory.
        """
        if self.set_aside:
            raise kopf.TemporaryError(f"Pool {self.pool.name} is set aside in this term.", delay=60)
        await asyncio.sleep(0)  # all that were woken together come along
        for _ in range(TRIES):
            asking, freeing = dict(self._asking), set(self._freeing)
            planned = self._plan(asking, freeing)
            status = self._status(planned.record, self.pool.state if state is None else state)
            if status or touch:
                try:
                    body = await self._api.patch_pool_status(
                        self.pool.name, self.pool.resource_version, status or {"state": self.pool.state or None}
                    )
                except Conflict as e:
                    log.info("pool %s: %s; reading it again", self.pool.name, e)
                    await self._reread()
                    continue
                self.pool = Pool.parse(body)
                self.mine = True
            self._remember(planned.record)
            self._answers.update(planned.answers)
            for uid in asking:
                self._asking.pop(uid, None)
            self._freeing -= freeing
            return
        raise Unavailable(f"pool {self.pool.name} changes faster than it can be written")

    def _plan(self, asking: Mapping[str, Claim], freeing: set[str]) -> Plan:
        return plan(
            self.pool.spec,
            self._record,
            asking.values(),
            freeing,
            name=self.pool.name,
            closed=self._closed(),
            now=self._clock(),
            quarantine=self._quarantine,
        )

    async def _reread(self) -> None:
        """After a conflict: the new resourceVersion, spec and deletion; the record stays mine.

        Before this term's first write of the object it is not mine, and what stands there counts.
        """
        pool = Pool.parse(await self._api.pool(self.pool.name))
        if pool.uid != self.pool.uid:
            raise Gone(f"pool {self.pool.name} was deleted and made again")
        self.pool = pool
        if not self.mine:
            self._load()

    def _load(self) -> None:
        """Take the record from the object; tombstones are seen now, by this leader's clock."""
        now = self._clock()
        self._remember(Record(self.pool.allocations, {a: Tombstone(o, now) for a, o in self.pool.tombstones.items()}))

    def _remember(self, record: Record) -> None:
        self._record = record
        self._held = {owner.rpartition("/")[2]: address for address, owner in record.allocations.items()}
        if record.allocations:
            self.empty.clear()
        else:
            self.empty.set()

    def _status(self, record: Record, state: str) -> dict[str, Any]:
        """Give what differs between the wished status and the one at the API server (I7).

        A merge patch merges maps, whatever their `x-kubernetes-map-type`: a removed address goes as null.
        """
        pool = self.pool
        usable = pool.spec.usable
        used = sum(1 for a in record.allocations if a in usable)
        ok, reason, message = self._verdict(state, len(record.allocations))
        wish: dict[str, Any] = {
            "observedGeneration": pool.generation,
            "state": state or None,
            "capacity": len(usable),
            "allocated": len(record.allocations),
            "free": len(usable) - used,
            "conditions": ready(
                pool.status, ok=ok, reason=reason, message=message, generation=pool.generation, now=timestamp()
            ),
        }
        patch = {k: v for k, v in wish.items() if pool.status.get(k) != v}
        changes = _changes(pool.allocations, record.allocations)
        if changes or (state == ACTIVE and not pool.recorded):
            patch["allocations"] = changes
        changes = _changes(pool.tombstones, {a: t.owner for a, t in record.tombstones.items()})
        if changes:
            patch["tombstones"] = changes
        return patch

    def _verdict(self, state: str, used: int) -> tuple[bool, str, str]:
        if self.pool.terminating:
            claims = "1 claim" if used == 1 else f"{used} claims"
            return False, "Terminating", f"The pool is in use by {claims}; it goes when they are deleted."
        if state == ACTIVE:
            return True, "Active", "The pool gives addresses."
        if state == CLAIMING:
            return False, "Claiming", "The operator makes sure that no other pool overlaps."
        return False, "Overlaps", self.trouble or "The pool is not active."


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    changes: dict[str, str | None] = {a: o for a, o in after.items() if before.get(a) != o}
    changes.update((a, None) for a in before if a not in after)
    return changes
