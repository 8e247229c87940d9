"""One claim: how it gets its address, and how the address is freed again.

Each step first looks at what is there, so it can run again at any time.

- To give an address, write the pool, then the claim's status, then the ConfigMap. Then the claim is Ready.
- To free it, delete the ConfigMap and let Kopf remove its finalizer. The pool comes last, once the claim is gone.
  Somebody else's finalizer can keep the claim, and a paused leader could still create its ConfigMap late. Until the
  claim is gone, its status keeps the address.

After a crash in between, no claim gets the address; never do two have it (I5). The handlers write by themselves,
because Kopf sends its own patch only after the handler has returned.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kopf_ha_ipam import children
from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.conditions import ready_message, ready_reason, timestamp, with_ready, without_condition
from kopf_ha_ipam.model import Claim, ClaimRef, PoolSpec
from kopf_ha_ipam.planning import Give, Wait
from kopf_ha_ipam.writes import TRIES, Conflict, Gone, Unavailable, event

log = logging.getLogger(__name__)


async def settle(memory: Allocator, claim: Claim) -> str | None:
    """Give a claim its address, and return the address once everything is in place.

    If the claim has to wait, its condition says why, it is put on the agenda, and the result is None.
    """
    uid = claim.ref.uid
    async with memory.lock(uid):
        claim = memory.claims.get(uid, claim)
        if claim.terminating:
            # It gets no address: removing its last finalizer is not compare-and-swap, so the API server could remove
            # the claim together with an address that was written a moment before.
            memory.agenda.done(uid)
            return None
        keeper = memory.keepers.get(claim.pool_name)
        answer: Give | Wait = memory.no_pool(claim)
        if keeper is not None:
            if keeper.unsure and settled(memory, claim):
                # Nothing is decided, so nothing needs to wait for the pool's stamp.
                memory.agenda.done(uid)
                memory.agenda.verify_later(claim)
                return None
            try:
                await memory.shown.until_ready()
                answer = await keeper.ask(claim)
            except Gone:
                pass  # the pool was deleted a moment ago; its event will come
        if isinstance(answer, Wait):
            memory.agenda.wait(uid, answer.retry_at)
            kept = claim.address and keeper is not None and keeper.set_aside  # its address stays valid
            if answer.message and not kept:
                await _tell_wait(memory, claim, answer)
            return None
        return await _bind(memory, claim, answer.address, answer.spec)


def settled(memory: Allocator, claim: Claim) -> bool:
    """Return whether a claim has all that it should have, so that `settle` would do nothing for it.

    Nothing is decided then, so this need not wait until all claims are known.
    """
    keeper = memory.keepers.get(claim.pool_name)
    if keeper is None or keeper.set_aside or claim.terminating or not claim.held:
        return False
    address = keeper.holds(claim.ref.uid)
    return claim.noted == address and _has_all(claim, address, keeper.pool.spec)


async def take_back(memory: Allocator, claim: Claim) -> None:
    """Undo everything but the pool's entry for a claim that is being deleted. Then Kopf removes the finalizer."""
    uid = claim.ref.uid
    async with memory.lock(uid):
        memory.agenda.done(uid)
        if (keeper := memory.keepers.get(claim.pool_name)) is not None:
            await keeper.certain()
        if memory.holder_of(uid) is None and claim.address is None:
            return  # it never had an address, so there is no ConfigMap
        if not await children.remove(memory.api, claim.ref):
            raise Unavailable(f"ConfigMap {claim.ref.namespace}/{children.child_name(claim.ref)} is not deleted yet")
        # The address stays in the status. It belongs to the claim as long as the claim exists, and if the pool is
        # deleted by force, no other record says so.
        memory.leaves(claim.ref, gone=False)


def released(claim: Claim) -> Any:
    """Return the conditions of a claim that was taken back, and that somebody else's finalizer keeps."""
    return _conditions(claim, False, "Released", "The claim is being deleted.")


async def bury(memory: Allocator, ref: ClaimRef) -> bool:
    """Free the address of a claim that is gone, and return whether it is gone.

    Only a quorum read proves that, never a watch (I5). The claim's ConfigMap is deleted if it still exists. One that is
    created later has an owner that does not exist, so Kubernetes collects it.
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
            pass  # the pool is gone, and its record with it
        memory.agenda.changed()
        log.info("claim %s is gone; its address %s of pool %s is freed", ref.where, address, keeper.pool.name)
        return True


async def verify(memory: Allocator, claim: Claim) -> None:
    """Check, and if needed repair, the ConfigMap of a claim that an earlier term bound."""
    keeper = memory.keepers.get(claim.pool_name)
    address = keeper.holds(claim.ref.uid) if keeper is not None and keeper.mine else None
    if keeper is None or address is None or claim.terminating or claim.address != address:
        return
    async with memory.lock(claim.ref.uid):
        await _publish(memory, claim, address, keeper.pool.spec, fresh=False)


async def _bind(memory: Allocator, claim: Claim, address: str, spec: PoolSpec) -> str | None:
    """Write the address that the pool records into the claim, then into its ConfigMap. Then set the claim Ready."""
    uid = claim.ref.uid
    details = _details(address, spec)
    same = all(claim.status.get(k) == v for k, v in details.items())
    if _has_all(claim, address, spec):
        # An earlier term has done all of this. Whether somebody damaged the ConfigMap is checked when there is time.
        memory.agenda.done(uid)
        memory.agenda.verify_later(claim)
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
            raise  # the write may still arrive: the promise stays until a later write of the claim is answered
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


def _details(address: str | None, spec: PoolSpec) -> dict[str, Any]:
    return {"address": address, "prefixLength": spec.prefix_length, "gateway": spec.gateway}


def _has_all(claim: Claim, address: str | None, spec: PoolSpec) -> bool:
    """Return whether an earlier term has given the claim this address and finished that."""
    same = all(claim.status.get(k) == v for k, v in _details(address, spec).items())
    return same and address is not None and ready_reason(claim.status) == "Bound"


async def _publish(memory: Allocator, claim: Claim, address: str, spec: PoolSpec, *, fresh: bool) -> bool:
    """Create or repair the ConfigMap, and set the claim Ready or say why it is not. Return whether it is."""
    uid = claim.ref.uid
    blocked = await children.publish(memory.api, claim, address, spec, fresh=fresh)
    claim = memory.claims.get(uid, claim)
    before = ready_reason(claim.status)
    if blocked is not None:
        memory.agenda.block(uid)
        # Messages of the API server contain numbers that change. So only a new reason is written.
        if before != blocked.reason:
            conditions = _conditions(claim, False, blocked.reason, blocked.message)
            await _write_status(memory, claim, {"conditions": conditions})
            log.warning("claim %s is not ready: %s", claim.ref.where, blocked.message)
            event(claim.body, type="Warning", reason=blocked.reason, message=blocked.message)
        return False
    bound = _conditions(claim, True, "Bound", f"The claim has {address} of pool {claim.pool_name}.")
    status = {"observedGeneration": claim.generation, "conditions": bound}
    written = await _write_status(memory, claim, status)
    memory.agenda.done(uid)
    if written and before != "Bound":
        log.info("claim %s has address %s of pool %s", claim.ref.where, address, claim.pool_name)
        event(claim.body, type="Normal", reason="Bound", message=f"The claim has {address}.")
    return written


async def _tell_wait(memory: Allocator, claim: Claim, answer: Wait) -> None:
    """Write why the claim waits, and send an event if the reason is new. An address in its status stays there."""
    told = ready_reason(claim.status)
    # An earlier write of an address may have had no answer. This write has to change the object, so that the
    # earlier one meets a conflict if it arrives late.
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
    """Return whether a claim has to wait and its condition says so already: then there is nothing to do for it."""
    return isinstance(answer, Wait) and (
        not answer.message
        or (
            (ready_reason(claim.status), ready_message(claim.status)) == (answer.reason, answer.message)
            and claim.status.get("observedGeneration") == claim.generation
        )
    )


def _conditions(claim: Claim, ok: bool, reason: str, message: str, *, anew: bool = False) -> Any:
    status = claim.status
    if anew:  # so that its transition time changes
        status = {**status, "conditions": without_condition(status, "Ready")}
    return with_ready(status, ok=ok, reason=reason, message=message, generation=claim.generation, now=timestamp())


async def _write_status(memory: Allocator, claim: Claim, wish: Mapping[str, Any]) -> bool:
    """Merge into a claim's status, and return whether the claim has it now. After a conflict, read it and try again.

    Args:
        memory: of the term.
        claim: the claim as it is known.
        wish: what the status should say; None removes a field. Nothing is sent if the status says so already (I7), or
            if the claim is being deleted. This is judged on the body whose resourceVersion is sent.
    """
    for _ in range(TRIES):
        if claim.terminating:
            return False
        if all(claim.status.get(k) == v for k, v in wish.items()):
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
