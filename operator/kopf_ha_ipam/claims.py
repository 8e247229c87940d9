"""One claim: give it an address, take it back. Every step looks first and repairs, so all may run again.

Giving goes pool, claim, child; taking back goes child, claim, pool, finalizer (trap 2). A crash in between
leaves an address that nobody else gets, never one that two have (I5). The writes are explicit, since Kopf's
own patch goes out after the handler; the finalizer, which comes last, is Kopf's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import kopf

from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.model import Body, Claim, ClaimRef, PoolSpec, ready, reason_of
from kopf_ha_ipam.planning import Give, Wait
from kopf_ha_ipam.pools import TRIES, timestamp
from kopf_ha_ipam.writes import API_VERSION, LABELS, Conflict, Gone, NamespaceTerminating, Unavailable, event

log = logging.getLogger(__name__)


def child_name(ref: ClaimRef) -> str:
    """Name the claim's ConfigMap: by the uid too, so that a late creation for another claim hits nothing."""
    return f"{ref.name}-{ref.uid[:8]}"


async def settle(memory: Allocator, claim: Claim) -> None:
    """Bring a claim to where it should be: bound with its ConfigMap, or told what it waits for."""
    uid = claim.ref.uid
    async with memory.lock(uid):
        claim = memory.claims.get(uid, claim)
        if claim.terminating:
            return  # nothing is allocated for it; its deletion has a handler of its own (trap 1)
        keeper = memory.keepers.get(claim.pool_name)
        answer: Give | Wait = Wait("PoolNotFound", f"There is no pool named {claim.pool_name}.")
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
            return
        if await _tell_address(memory, claim, answer.address, answer.spec):
            await _ensure_child(memory, claim, answer.address, answer.spec)
        memory.waiting.pop(uid, None)


async def take_back(memory: Allocator, claim: Claim) -> None:
    """Free what a claim has that is being deleted. When this returns, Kopf removes the finalizer."""
    uid = claim.ref.uid
    async with memory.lock(uid):
        memory.waiting.pop(uid, None)
        keeper = memory.holder_of(uid)
        if keeper is None and claim.address is None:
            return  # never bound, so there is no child
        if keeper is not None and keeper.set_aside:
            raise kopf.TemporaryError(f"Pool {keeper.pool.name} is set aside in this term.", delay=60)
        await _remove_child(memory, claim.ref)
        # Also if no address shows: the write stamps the claim, so that no earlier term can still put one there.
        status = {
            "address": None,
            "prefixLength": None,
            "gateway": None,
            "conditions": ready(
                claim.status,
                ok=False,
                reason="Released",
                message="The claim is being deleted.",
                generation=claim.generation,
                now=timestamp(),
            ),
        }
        await _write_status(memory, claim, status, living=False)
        if keeper is not None:
            address = keeper.holds(uid)
            try:
                await keeper.free(uid)
            except Gone:
                pass  # with the pool its record is gone, too
            memory.changed()
            log.info("claim %s gave %s back to pool %s", claim.ref.where, address, keeper.pool.name)


async def bury(memory: Allocator, ref: ClaimRef) -> None:
    """Free what a claim had that is gone; "gone" is what a quorum read says, not a watch (trap 2)."""
    async with memory.lock(ref.uid):
        try:
            body = await memory.api.claim(ref)
            if body["metadata"]["uid"] == ref.uid:
                memory.claim_seen(body)
                return
        except Gone:
            pass
        keeper = memory.holder_of(ref.uid)
        if keeper is None:
            return
        address = keeper.holds(ref.uid)
        await _remove_child(memory, ref)
        try:
            await keeper.free(ref.uid)
        except Gone:
            pass
        memory.changed()
        log.info("claim %s is gone; %s went back to pool %s", ref.where, address, keeper.pool.name)


async def _tell_wait(memory: Allocator, claim: Claim, answer: Wait) -> None:
    """Write the condition, and an event when it is a new one. An address that it has stays in its status."""
    told = reason_of(claim.status)
    status = {
        "observedGeneration": claim.generation,
        "conditions": ready(
            claim.status,
            ok=False,
            reason=answer.reason,
            message=answer.message,
            generation=claim.generation,
            now=timestamp(),
        ),
    }
    if await _write_status(memory, claim, status) and told != answer.reason:
        log.info("claim %s waits: %s", claim.ref.where, answer.message)
        event(claim.body, type="Warning", reason=answer.reason, message=answer.message)


async def _tell_address(memory: Allocator, claim: Claim, address: str, spec: PoolSpec) -> bool:
    told = reason_of(claim.status)
    status = {
        "observedGeneration": claim.generation,
        "address": address,
        "prefixLength": spec.prefix_length,
        "gateway": spec.gateway,
        "conditions": ready(
            claim.status,
            ok=True,
            reason="Bound",
            message=f"The claim has {address} of pool {claim.pool_name}.",
            generation=claim.generation,
            now=timestamp(),
        ),
    }
    written = await _write_status(memory, claim, status)
    if written and (told != "Bound" or claim.address != address):
        log.info("claim %s has %s of pool %s", claim.ref.where, address, claim.pool_name)
        event(claim.body, type="Normal", reason="Bound", message=f"It has {address}.")
    return written


async def _write_status(memory: Allocator, claim: Claim, wish: Mapping[str, Any], *, living: bool = True) -> bool:
    """Merge into a claim's status; on a conflict look again whether it still lives, and say whether it does.

    Args:
        memory: of the term.
        claim: as known.
        wish: what the status should say; None removes. Nothing is sent if it says so (I7).
        living: whether it is only for a claim that is not being deleted, judged on the body whose
            resourceVersion is sent (trap 1); otherwise it is sent in any case.
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


def _child(claim: Claim, address: str, spec: PoolSpec) -> dict[str, Any]:
    ref = claim.ref
    data = {
        "ADDRESS": address,
        "PREFIX_LENGTH": str(spec.prefix_length),
        "CIDR": spec.cidr,
        "POOL": claim.pool_name,
    }
    owner = {
        "apiVersion": API_VERSION,
        "kind": "AddressClaim",
        "name": ref.name,
        "uid": ref.uid,
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": child_name(ref),
            "namespace": ref.namespace,
            "labels": dict(LABELS),
            "ownerReferences": [owner],
        },
        "data": data | ({"GATEWAY": spec.gateway} if spec.gateway else {}),
    }


async def _ensure_child(memory: Allocator, claim: Claim, address: str, spec: PoolSpec) -> None:
    """Make the ConfigMap, or correct it."""
    wish = _child(claim, address, spec)
    where = (claim.ref.namespace, wish["metadata"]["name"])
    found = memory.children.pop(where, None)
    for _ in range(TRIES):
        try:
            if found is None:
                await memory.api.create_child(wish)
                return
            patch = _correction(found, wish)
            if patch:
                log.warning("ConfigMap %s/%s is corrected", *where)
                await memory.api.patch_child(*where, found["metadata"]["resourceVersion"], patch)
            return
        except NamespaceTerminating as e:
            log.info("claim %s: %s", claim.ref.where, e)
            return
        except Gone:
            found = None
        except Conflict:
            try:
                found = await memory.api.child(*where)
            except Gone:
                found = None
    raise Unavailable(f"ConfigMap {where} changes faster than it can be written")


def _correction(found: Body, wish: Body) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    data = found.get("data") or {}
    if data != wish["data"]:
        patch["data"] = wish["data"] | {k: None for k in data if k not in wish["data"]}
    meta = found["metadata"]
    owners = [o.get("uid") for o in meta.get("ownerReferences") or ()]
    if wish["metadata"]["ownerReferences"][0]["uid"] not in owners:
        patch["metadata"] = {"ownerReferences": wish["metadata"]["ownerReferences"]}
    if LABELS.items() - (meta.get("labels") or {}).items():
        patch.setdefault("metadata", {})["labels"] = dict(LABELS)
    return patch


async def _remove_child(memory: Allocator, ref: ClaimRef) -> None:
    """Delete the ConfigMap, and return only when a read says that it is gone."""
    memory.children.pop((ref.namespace, child_name(ref)), None)
    uid: str | None = None
    for _ in range(TRIES):
        try:
            found = await memory.api.child(ref.namespace, child_name(ref))
            if uid is not None and found["metadata"]["uid"] != uid:
                return  # deleted, and made anew by somebody else
            uid = str(found["metadata"]["uid"])
            if found["metadata"].get("deletionTimestamp"):
                break
            await memory.api.delete_child(ref.namespace, child_name(ref), uid)
        except Gone:
            return
        except Conflict:
            uid = None  # it changed between the read and the deletion
    raise kopf.TemporaryError(f"ConfigMap {ref.namespace}/{child_name(ref)} is not gone yet", delay=2)
