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
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from kopf_ha_ipam.model import (
    ACTIVE,
    ADDRESS_CONFLICT,
    CLAIMING,
    Claim,
    ClaimRef,
    Pool,
    message_of,
    newer,
    ready,
    reason_of,
    stamped_by,
    with_condition,
    without_condition,
)
from kopf_ha_ipam.planning import Give, Plan, Record, Tombstone, Wait, misplaced, plan
from kopf_ha_ipam.writes import Api, Conflict, Gone, Unavailable

log = logging.getLogger(__name__)
#: How often a write is planned anew when somebody edits the object meanwhile.
TRIES = 10
#: Seconds after which a pool that is set aside is looked at again.
LOOK_AGAIN = 5.0
#: How many addresses a condition names.
NAMED = 5


def timestamp() -> str:
    """Give the time for a condition; for people, nothing is decided from it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Term(Protocol):
    """What a keeper asks of the memory that it belongs to."""

    @property
    def stamp(self) -> tuple[int, str]:
        """Token and holder of the term."""

    @property
    def shown(self) -> Mapping[str, str]:
        """Addresses that claims show and no pool recorded for them, and the claims' uids."""

    @property
    def twice(self) -> Mapping[str, Collection[ClaimRef]]:
        """Addresses that more than one claim has, and the claims."""

    def set_aside(self, uid: str) -> bool:
        """Say whether the pool of this uid is set aside in this term."""

    def queue(self, pool: str) -> Iterable[Claim]:
        """Give the claims of a pool of this name that may wait for an address."""

    def given(self, uids: Collection[str]) -> None:
        """Take note that claims have an address now that did not ask for it just now."""


class PoolKeeper:
    """Keeps one pool's record.

    Args:
        pool: as read.
        api: the requests.
        term: the memory that it belongs to.
        mine: whether this term's stamp is on it. The barrier does that for all pools that it lists; a pool
            made later becomes mine with the first write of it, and nothing is answered from it before:
            an earlier leader could still be writing it.
        clock: this leader's monotonic seconds, for the quarantine.
        quarantine: seconds for which a freed address is not given again.
    """

    def __init__(
        self, pool: Pool, api: Api, term: Term, *, mine: bool, clock: Callable[[], float], quarantine: float
    ) -> None:
        self.pool = pool  #: as last known at the API server
        #: why it is withdrawn; an earlier term may have said so
        self.trouble = message_of(pool.status) if reason_of(pool.status) == "Overlaps" else None
        self.empty = asyncio.Event()
        self._api = api
        self._term = term
        self._left = False
        self._mine = mine and not self.set_aside
        self._clock = clock
        self._quarantine = quarantine
        self._lock = asyncio.Lock()
        self._asking: dict[str, Claim] = {}
        self._freeing: set[str] = set()
        self._answers: dict[str, Give | Wait] = {}
        self._load()

    @property
    def set_aside(self) -> bool:
        """Whether the barrier could not stamp it, or its record cannot be read: decide and write nothing."""
        return self._left or self._term.set_aside(self.pool.uid)

    @property
    def mine(self) -> bool:
        """Whether this term's stamp is on it, so that no earlier term can write it any more (I4)."""
        if self.set_aside:
            return False
        if not self._mine and stamped_by(self.pool.status, self._term.stamp):
            # The barrier stamped it after all, or our own write whose answer was lost. What stands there counts.
            self._load()
            self._mine = True
        return self._mine

    def holds(self, uid: str) -> str | None:
        """Give the address that the claim of this uid has."""
        return self._held.get(uid)

    def leave(self) -> None:
        """Set it aside for the rest of the term."""
        self._left = True

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
        if not self._mine:
            self._load()
        return (old.spec, old.terminating, old.state) != (pool.spec, pool.terminating, pool.state)

    def preview(self, claims: Iterable[Claim]) -> Mapping[str, Give | Wait]:
        """Say what claims would be told now, by uid. Writes nothing."""
        return self._plan({c.ref.uid: c for c in claims}, set()).answers

    async def ask(self, claim: Claim) -> Give | Wait:
        """Give the claim its address, recorded already when this returns.

        All claims that wait go into one write together: whoever gets the lock first writes for everybody, and the
        one that waits longest is served first, whoever asks.
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
        """Turn what the claim of this uid had into a tombstone.

        Only for a claim of which a quorum read said that it is gone (I5): a ConfigMap that was sent for it, however
        late it arrives, then belongs to an owner that does not exist.
        """
        self._freeing.add(uid)
        try:
            async with self._lock:
                if uid in self._freeing:
                    await self._write()
        finally:
            self._freeing.discard(uid)

    async def rest(self) -> None:
        """Wait until the write under way has its answer, and begin no other one."""
        await self._lock.acquire()

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
        """Announce the range: `Claiming`. Until then nobody lists it as an obstacle."""
        async with self._lock:
            if not self.mine or self.pool.state not in (CLAIMING, ACTIVE):
                await self._write(self.pool.state or CLAIMING, touch=True)

    async def activate(self, adopted: Mapping[str, str]) -> None:
        """Start to give addresses. What claims have already is recorded in the same write.

        A pool that is being deleted meanwhile takes nothing on any more; its claims keep what they have.
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
        """Say why nothing new is given; judged on the body whose resourceVersion is sent.

        Removing the last finalizer is not compare-and-swap: what a terminating pool gave could go with it unseen.
        """
        name = self.pool.name
        if self.pool.terminating:
            return Wait("PoolTerminating", f"Pool {name} is being deleted.")
        if self.set_aside:
            text = f"Pool {name} could not be taken over by this leader; see its log."
            return Wait("PoolNotActive", text, self._clock() + LOOK_AGAIN)
        if not self.mine or self.pool.state != ACTIVE:
            return Wait("PoolNotActive", self.trouble or "")  # in a moment it is, or there is a trouble to tell
        return None

    async def _write(self, state: str | None = None, *, touch: bool = False) -> None:
        """Plan, write, remember; plan again when the object changed meanwhile.

        What the fence refuses passes through.
        """
        if self.set_aside:
            raise Unavailable(f"pool {self.pool.name} is set aside in this term")
        await asyncio.sleep(0)  # all that were woken together come along
        for _ in range(TRIES):
            waiting = {c.ref.uid: c for c in self._term.queue(self.pool.name) if c.ref.uid not in self._held}
            asking, freeing = waiting | self._asking, set(self._freeing)
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
                self._mine = True
            self._remember(planned.record)
            asked = self._asking.keys() & asking.keys()
            self._answers.update((uid, planned.answers[uid]) for uid in asked)
            for uid in asked:
                del self._asking[uid]
            self._freeing -= freeing
            self._term.given([u for u in waiting.keys() - asked if isinstance(planned.answers[u], Give)])
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
            shown=self._term.shown,
        )

    async def _reread(self) -> None:
        """After a conflict: the new resourceVersion, spec and deletion; the record stays mine.

        Before this term's first write of the object it is not mine, and what stands there counts.
        """
        pool = Pool.parse(await self._api.pool(self.pool.name))
        if pool.uid != self.pool.uid:
            raise Gone(f"pool {self.pool.name} was deleted and made again")
        self.pool = pool
        if not self._mine:
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
        for kind, told in (("SpecConflict", self._misplaced(record)), (ADDRESS_CONFLICT, self._twice(record))):
            wish["conditions"] = _told(wish, kind, *told, generation=pool.generation)
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

    def _misplaced(self, record: Record) -> tuple[str, str]:
        """Say which addresses are in use that the spec has taken out since; they stay with their claims."""
        found = misplaced(self.pool.spec, record.allocations)
        if not found:
            return "", ""
        gateway = self.pool.spec.gateway
        reason = "GatewayInUse" if gateway in found else "ExcludedInUse"
        what = [f"{a} ({'gateway' if a == gateway else 'excluded'}) by claim {_where(o)}" for a, o in found.items()]
        return reason, f"In use, and kept until the claim is deleted: {_some(what)}."

    def _twice(self, record: Record) -> tuple[str, str]:
        """Say which addresses of the range more than one claim has."""
        found = [
            f"{address} by claims {' and '.join(sorted(ref.where for ref in refs))}"
            for address, refs in self._term.twice.items()
            if address in record.allocations or self.pool.spec.contains(address)
        ]
        return ("GivenTwice", f"Given twice: {_some(found)}. Delete one claim of each.") if found else ("", "")


def _told(status: Mapping[str, Any], kind: str, reason: str, message: str, *, generation: int) -> Sequence[Any]:
    if not reason:
        return without_condition(status, kind)
    return with_condition(status, kind, "True", reason=reason, message=message, generation=generation, now=timestamp())


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more


def _where(owner: str) -> str:
    return owner.rpartition("/")[0]


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    changes: dict[str, str | None] = {a: o for a, o in after.items() if before.get(a) != o}
    changes.update((a, None) for a in before if a not in after)
    return changes
