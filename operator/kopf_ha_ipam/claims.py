"""One claim: give it an address, take it back. Every step looks first and repairs, so all may run again.

Giving goes pool, claim, ConfigMap, and then the claim is Ready. Taking back goes ConfigMap, claim, finalizer, and the
pool last, when the claim is gone: under somebody else's finalizer it lives on, and a creation that a paused leader
sends late could still publish for it. Until then its status goes on to name the address. A crash in between leaves an
address that nobody else gets, never one that two have (I5). The writes are explicit, since Kopf's own patch goes out
after the handler; the finalizer is Kopf's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kopf_ha_ipam import children
from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.model import Claim, ClaimRef, PoolSpec, message_of, ready, reason_of, without_condition
from kopf_ha_ipam.planning import Give, Wait
from kopf_ha_ipam.pools import TRIES, timestamp
from kopf_ha_ipam.writes import Conflict, Gone, Unavailable, event

log = logging.getLogger(__name__)


async def settle(memory: Allocator, claim: Claim) -> str | None:
    """Bring a claim to where it should be; give its address when it has one and all else is there, too.

    What it waits for it is told, and the memory has it handled again.
    """
    uid = claim.ref.uid
    async with memory.lock(uid):
        claim = memory.claims.get(uid, claim)
        if claim.terminating:
            # Nothing is allocated for it: its last finalizer goes without compare-and-swap.
            memory.done(uid)
            return None
        keeper = memory.keepers.get(claim.pool_name)
        answer: Give | Wait = memory.no_pool(claim)
        if keeper is not None:
            try:
                answer = await keeper.ask(claim)
            except Gone:
                pass  # the pool went a moment ago; its event will come
        if isinstance(answer, Wait):
            memory.wait(uid, answer.retry_at)
            kept = claim.address and keeper is not None and keeper.set_aside  # nothing is wrong with what it has
            if answer.message and not kept:
                await _tell_wait(memory, claim, answer)
            return None
        return await _bind(memory, claim, answer.address, answer.spec)


async def take_back(memory: Allocator, claim: Claim) -> None:
    """Take from a claim that is being deleted all but its entry in the pool. Then Kopf removes the finalizer."""
    uid = claim.ref.uid
    async with memory.lock(uid):
        memory.done(uid)
        if memory.holder_of(uid) is None and claim.address is None:
            return  # never bound, so there is no ConfigMap
        if not await children.remove(memory.api, claim.ref):
            raise Unavailable(f"ConfigMap {claim.ref.namespace}/{children.child_name(claim.ref)} is not deleted yet")
        # The address stays in the status. It is the claim's for as long as the claim exists, and where the pool is
        # removed by force, nothing else says so. The write stamps the claim, so that no earlier term changes it.
        status = {"conditions": _conditions(claim, False, "Released", "The claim is being deleted.")}
        await _write_status(memory, claim, status, living=False)
        memory.leaves(claim.ref, gone=False)


async def bury(memory: Allocator, ref: ClaimRef) -> bool:
    """Free what a claim had that is gone, and say whether it is; "gone" is what a quorum read says, not a watch (I5).

    Its ConfigMap is deleted, if that is still there. One that is created after this belongs to an owner that does not
    exist, and Kubernetes collects it.
    """
    async with memory.lock(ref.uid):
        try:
            body = await memory.api.claim(ref)
            if body["metadata"]["uid"] == ref.uid:
                memory.claim_seen(body)
                return False
        except Gone:
            pass
        memory.claims.pop(ref.uid, None)
        memory.promised.pop(ref.uid, None)
        keeper = memory.holder_of(ref.uid)
        if keeper is None:
            return True
        address = keeper.holds(ref.uid)
        if not await children.remove(memory.api, ref):
            return False
        try:
            await keeper.free(ref.uid)
        except Gone:
            pass  # with the pool its record is gone, too
        memory.changed()
        log.info("claim %s is gone; %s went back to pool %s", ref.where, address, keeper.pool.name)
        return True


async def verify(memory: Allocator, claim: Claim) -> None:
    """See that the ConfigMap of a claim that was bound by an earlier term is as it should be."""
    keeper = memory.keepers.get(claim.pool_name)
    address = keeper.holds(claim.ref.uid) if keeper is not None and keeper.mine else None
    if keeper is None or address is None or claim.terminating or claim.address != address:
        return
    async with memory.lock(claim.ref.uid):
        await _publish(memory, claim, address, keeper.pool.spec, fresh=False)


async def _bind(memory: Allocator, claim: Claim, address: str, spec: PoolSpec) -> str | None:
    """Write what the pool has recorded into the claim, then into its ConfigMap, then say that it is ready."""
    uid = claim.ref.uid
    details = {"address": address, "prefixLength": spec.prefix_length, "gateway": spec.gateway}
    same = all(claim.status.get(k) == v for k, v in details.items())
    if same and reason_of(claim.status) == "Bound":
        # An earlier term has done all of it. Whether somebody damaged the ConfigMap is looked at when there is time.
        memory.done(uid)
        memory.verify_later(claim)
        return address
    if not same:
        fresh = claim.address is None
        memory.promised[uid] = address
        told = {
            "observedGeneration": claim.generation,
            **details,
            "conditions": _conditions(claim, False, "Publishing", f"The claim has {address}; its ConfigMap follows."),
        }
        try:
            written = await _write_status(memory, claim, told)
        except Unavailable:
            raise  # it may still arrive: the promise stays until a later write of the claim is answered
        except Exception:
            memory.promised.pop(uid, None)
            raise
        memory.promise_kept(uid)
        if not written:
            return None  # it is gone, or being deleted
        claim = memory.claims.get(uid, claim)
    else:
        fresh = False
    return address if await _publish(memory, claim, address, spec, fresh=fresh) else None


async def _publish(memory: Allocator, claim: Claim, address: str, spec: PoolSpec, *, fresh: bool) -> bool:
    """Make the ConfigMap right and say so in the claim; say whether it is."""
    uid = claim.ref.uid
    blocked = await children.publish(memory.api, claim, address, spec, fresh=fresh)
    claim = memory.claims.get(uid, claim)
    before = reason_of(claim.status)
    if blocked is not None:
        memory.block(uid)
        # The server's sentences hold numbers that change: the reason says whether there is something new to tell.
        if before != blocked.reason:
            conditions = _conditions(claim, False, blocked.reason, blocked.message)
            await _write_status(memory, claim, {"conditions": conditions})
            log.warning("claim %s is not ready: %s", claim.ref.where, blocked.message)
            event(claim.body, type="Warning", reason=blocked.reason, message=blocked.message)
        return False
    bound = _conditions(claim, True, "Bound", f"The claim has {address} of pool {claim.pool_name}.")
    status = {"observedGeneration": claim.generation, "conditions": bound}
    written = await _write_status(memory, claim, status)
    memory.done(uid)
    if written and before != "Bound":
        log.info("claim %s has %s of pool %s", claim.ref.where, address, claim.pool_name)
        event(claim.body, type="Normal", reason="Bound", message=f"It has {address}.")
    return written


async def _tell_wait(memory: Allocator, claim: Claim, answer: Wait) -> None:
    """Write the condition, and an event when it is a new one. An address that it has stays in its status."""
    told = reason_of(claim.status)
    # A write of an address whose answer never came must not arrive any more: this one has to change the object.
    unsure = claim.ref.uid in memory.promised
    version = claim.resource_version
    status = {
        "observedGeneration": claim.generation,
        "conditions": _conditions(claim, False, answer.reason, answer.message, anew=unsure),
    }
    if await _write_status(memory, claim, status):
        if unsure and memory.claims.get(claim.ref.uid, claim).resource_version != version:
            memory.promise_kept(claim.ref.uid)
        if told != answer.reason:
            log.info("claim %s waits: %s", claim.ref.where, answer.message)
            event(claim.body, type="Warning", reason=answer.reason, message=answer.message)


def told(claim: Claim, answer: Give | Wait) -> bool:
    """Say whether a claim that waits was told so already, so that there is nothing to do for it."""
    return isinstance(answer, Wait) and (
        not answer.message
        or (
            (reason_of(claim.status), message_of(claim.status)) == (answer.reason, answer.message)
            and claim.status.get("observedGeneration") == claim.generation
        )
    )


def _conditions(claim: Claim, ok: bool, reason: str, message: str, *, anew: bool = False) -> Any:
    status = claim.status
    if anew:  # so that its time changes
        status = {**status, "conditions": without_condition(status, "Ready")}
    return ready(status, ok=ok, reason=reason, message=message, generation=claim.generation, now=timestamp())


async def _write_status(memory: Allocator, claim: Claim, wish: Mapping[str, Any], *, living: bool = True) -> bool:
    """Merge into a claim's status; on a conflict look again whether it still lives, and say whether it does.

    Args:
        memory: of the term.
        claim: as known.
        wish: what the status should say; None removes. Nothing is sent if it says so (I7).
        living: whether it is only for a claim that is not being deleted, judged on the body whose
            resourceVersion is sent; otherwise it is sent in any case.
    """
    for _ in range(TRIES):
        if living and claim.terminating:
            return False
        if living and all(claim.status.get(k) == v for k, v in wish.items()):
            return True
        try:
            body = await memory.api.patch_claim_status(claim.ref, claim.resource_version, wish)
            memory.claim_seen(body)
            return True
        except Gone:
            return False
        except Conflict:
            try:
                body = await memory.api.claim(claim.ref)
            except Gone:
                return False
            if body["metadata"]["uid"] != claim.ref.uid:
                return False
            claim = memory.claim_seen(body)
    raise Unavailable(f"claim {claim.ref.where} changes faster than it can be written")
