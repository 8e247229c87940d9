"""Handles again what waits or failed, when something changed or its time has come. Otherwise it writes nothing (I7).

Kopf's own retries are not used, because Kopf writes each of them into the object's annotations. Here a failure costs no
write and concerns only its own object (I10). Only the end of the term ends the retries.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from collections.abc import Coroutine, Hashable
from typing import Any, TypeVar

from kopf_ha_ipam import activation, claims, conflicts
from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.model import Claim, ClaimRef
from kopf_ha_ipam.planning import Give, Wait
from kopf_ha_ipam.waiting import waits
from kopf_ha_ipam.writes import ENDED

log = logging.getLogger(__name__)
T = TypeVar("T")

FAILED = object()
#: How many ConfigMaps are checked at the same time.
VERIFIED = 4
#: How many times as long as a check took there is none, so that nobody notices them.
REST = 9
#: Seconds from the beginning of a term until ConfigMaps are checked: whoever waits is served first.
BEFORE = 1.0
#: Seconds between two searches for claims whose deletion the watch missed.
SWEEP = 600.0
#: Seconds until the first search: a claim may have gone after it was loaded and before Kopf's first list.
FIRST_SWEEP = 20.0


async def settle(memory: Allocator, claim: Claim) -> str | None:
    """Settle a claim by `claims.settle`. If that fails, try again later, with growing delays.

    Raises:
        kopf_ha.TermEnded: the term is over.
        kopf_ha.NoTerm: the caller runs in no term.
    """
    try:
        return await claims.settle(memory, claim)
    except ENDED:
        raise
    except Exception as error:  # noqa: BLE001  any error concerns only this claim (I10)
        memory.agenda.block(claim.ref.uid)
        log.warning("claim %s failed and is handled again later: %s: %s", claim.ref.where, type(error).__name__, error)
        return None


async def settle_pool(memory: Allocator, name: str) -> None:
    """Settle a pool by `activation.settle_pool`. If that fails, try again later, with growing delays.

    Raises:
        kopf_ha.TermEnded: the term is over.
        kopf_ha.NoTerm: the caller runs in no term.
    """
    keeper = memory.keepers.get(name)
    try:
        await activation.settle_pool(memory, name)
        if keeper is not None:
            memory.agenda.backoff.forget((keeper.pool.uid, "pool"))
    except ENDED:
        raise
    except Exception as error:  # noqa: BLE001  any error concerns only this pool (I10)
        log.warning("pool %s failed and is handled again later: %s: %s", name, type(error).__name__, error)
        if keeper is not None:
            memory.agenda.inactive.setdefault(keeper.pool.uid, contextvars.copy_context())
            memory.agenda.wake_at(memory.agenda.backoff.failed((keeper.pool.uid, "pool"), memory.clock()))


class Retries:
    """Works through the agenda of one term.

    Args:
        memory: the memory of the term.
    """

    def __init__(self, memory: Allocator) -> None:
        self._memory = memory
        self._agenda = memory.agenda
        self._outlooks: dict[str, Hashable] = {}  #: by name, of the pools that claims wait for
        self._rest = memory.clock() + BEFORE  #: until when no ConfigMaps are checked

    async def run(self) -> None:
        """Run until the term ends.

        Raises:
            kopf_ha.TermEnded: the term ended.
        """
        memory = self._memory
        sweep = memory.clock() + FIRST_SWEEP
        while True:
            self._agenda.wake_at(sweep)
            await self._agenda.until_changed()
            await self.once()
            if memory.clock() >= sweep:
                await self._try("sweep", "the search for lost claims", memory.sweep())
                sweep = memory.clock() + SWEEP

    async def once(self) -> None:
        """Handle everything that can be handled now."""
        await self._bury()
        await self._activate()
        await self._settle()
        await self._show()
        await self._verify()

    async def _bury(self) -> None:
        memory = self._memory

        async def one(uid: str, ref: ClaimRef) -> None:
            gone = await self._try((uid, "goes"), f"claim {ref.where}", claims.bury(memory, ref))
            if gone is True:
                self._agenda.leaving.pop(uid, None)
                self._agenda.backoff.forget((uid, "goes"))
            elif gone is False:
                self._agenda.wake_at(self._agenda.backoff.failed((uid, "goes"), memory.clock()))

        await asyncio.gather(*(one(u, ref) for u, ref in list(self._agenda.leaving.items()) if self._due((u, "goes"))))

    async def _activate(self) -> None:
        memory = self._memory
        for uid, context in list(self._agenda.inactive.items()):
            keeper = next((k for k in memory.keepers.values() if k.pool.uid == uid), None)
            if keeper is None:
                self._agenda.inactive.pop(uid, None)
            elif self._due((uid, "pool")) and not activation.still_blocked(memory, keeper):
                await self._try(
                    (uid, "pool"), f"pool {keeper.pool.name}", settle_pool(memory, keeper.pool.name), context
                )

    async def _settle(self) -> None:
        memory = self._memory

        async def one(claim: Claim, context: contextvars.Context) -> None:
            address = await self._try(claim.ref.uid, f"claim {claim.ref.where}", settle(memory, claim), context)
            if isinstance(address, str) and claim.noted != address:
                noted = memory.api.note_address(claim.ref, address)
                await self._try((claim.ref.uid, "note"), f"the annotation of claim {claim.ref.where}", noted)

        await asyncio.gather(*(one(claim, self._agenda.waiting[claim.ref.uid]) for claim in self.due()))

    def due(self) -> list[Claim]:
        """Return the claims for which something can be done now. This makes no requests.

        One freed address must not cause all waiting claims to be handled, nor even to be looked at. Handled are claims
        that get an address, or whose condition has to change. Looked at are the heads of the queues, and beside them
        only claims whose answer may have changed: because the claim did, or what its pool answers to all who wait.
        """
        memory, agenda = self._memory, self._agenda
        agenda.look |= agenda.waiting.keys() & (memory.claims.changed() | memory.promised.keys())
        if not agenda.waiting:
            return []
        self._notice_pools()
        asking: dict[str, list[Claim]] = {}
        for uid in list(agenda.look):
            claim = memory.claims.get(uid)
            if claim is None or claim.terminating:
                agenda.done(uid)
            elif self._due(uid):
                asking.setdefault(claim.pool_name, []).append(claim)
        due = []
        for name in asking.keys() | memory.claims.queues.keys():
            for claim, answer in self._answers(name, asking.get(name, [])):
                if claim.ref.uid in memory.promised or not claims.told(claim, answer):
                    due.append(claim)
                    continue
                if waits(claim):  # what stands in no queue is looked at until it is served
                    agenda.look.discard(claim.ref.uid)
                if isinstance(answer, Wait) and answer.retry_at is not None:
                    agenda.wake_at(answer.retry_at)
        return due

    def _notice_pools(self) -> None:
        """Look at all claims that wait for a pool that answers them otherwise than before."""
        memory, before = self._memory, self._outlooks
        keepers = {name: memory.keepers.get(name) for name in memory.claims.queues}
        self._outlooks = {name: keeper and keeper.outlook for name, keeper in keepers.items()}
        other = {name for name, outlook in self._outlooks.items() if name in before and before[name] != outlook}
        if other:
            known = ((uid, memory.claims.get(uid)) for uid in self._agenda.waiting)
            self._agenda.look |= {uid for uid, claim in known if claim is not None and claim.pool_name in other}

    def _answers(self, name: str, asking: list[Claim]) -> list[tuple[Claim, Give | Wait]]:
        """Return what a pool answers to these claims, and to others on the agenda that it can serve now."""
        memory = self._memory
        keeper = memory.keepers.get(name)
        if keeper is None:
            return [(claim, memory.no_pool(claim)) for claim in asking]
        chance, now = keeper.chance, memory.clock()
        if chance is not None and chance > now:
            self._agenda.wake_at(chance)
        if not asking and (chance is None or chance > now):
            return []
        asked = {claim.ref.uid for claim in asking}
        return [
            (memory.claims[uid], answer)
            for uid, answer in keeper.preview(asking).items()
            if uid in asked or (uid in self._agenda.waiting and self._due(uid))
        ]

    async def _show(self) -> None:
        memory = self._memory
        if not memory.suspicious or memory.context is None or not self._due("conflicts"):
            return
        if memory.unsure or not memory.complete:
            return  # it is made from all claims and all pools, and waits until all have this term's stamp
        memory.suspicious = False
        shown = await self._try(
            "conflicts", "showing addresses that were given twice", conflicts.show(memory), memory.context
        )
        if shown is FAILED:
            memory.suspicious = True
        else:
            self._agenda.backoff.forget("conflicts")

    async def _verify(self) -> None:
        """Check a few ConfigMaps. The others come in the next round, after everything that is more urgent.

        That is no reason to hurry a pool's stamp: those of its claims come once it has it.
        """
        memory = self._memory
        began = memory.clock()
        if not self._agenda.unverified:
            return
        if began < self._rest:
            self._agenda.wake_at(self._rest)
            return
        unsure = {name for name, keeper in memory.keepers.items() if keeper.unsure}
        ready = ((u, c) for u, c in self._agenda.unverified.items() if c.pool_name not in unsure)
        some = list(itertools.islice(((u, c) for u, c in ready if self._due((u, "verify"))), VERIFIED))

        async def one(uid: str, claim: Claim) -> None:
            verified = claims.verify(memory, memory.claims.get(uid, claim))
            what = f"the ConfigMap of claim {claim.ref.where}"
            if await self._try((uid, "verify"), what, verified) is not FAILED:
                self._agenda.unverified.pop(uid, None)
                self._agenda.backoff.forget((uid, "verify"))

        await asyncio.gather(*(one(uid, claim) for uid, claim in some))
        if some:
            now = memory.clock()
            self._rest = now + REST * (now - began)
            self._agenda.wake_at(self._rest)

    def _due(self, key: Hashable) -> bool:
        """Return whether its time has come. If not, wake up then: an alarm set for an earlier time has rung by now."""
        backoff = self._agenda.backoff
        waits = backoff.waits(key, self._memory.clock())
        if waits:
            self._agenda.wake_at(backoff.until(key))
        return not waits

    async def _try(
        self, key: Hashable, what: str, work: Coroutine[Any, Any, T], context: contextvars.Context | None = None
    ) -> T | object:
        """Run the work and return its result. If it fails, return `FAILED`; the next try comes after a growing delay.

        Raises:
            kopf_ha.TermEnded: the term is over, and with it this memory.
        """
        memory = self._memory
        task = asyncio.create_task(work, context=context or contextvars.copy_context())
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, Exception) and not isinstance(result, ENDED):
            at = self._agenda.backoff.failed(key, memory.clock())
            self._agenda.wake_at(at)
            log.warning(
                "%s failed and is handled again in %.0f s: %s: %s",
                what,
                at - memory.clock(),
                type(result).__name__,
                result,
            )
            return FAILED
        if isinstance(result, BaseException):
            raise result
        return result
