"""Addresses that two claims have, shown to people: a condition on both claims and the pool, an event, a metric.

This operator gives no address twice (I5). One of an older version may have, or somebody who edited a status by hand.
Nothing is taken from either claim: which of the two to delete is for people to decide.
"""

from __future__ import annotations

import logging

from prometheus_client import Gauge

from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.model import ADDRESS_CONFLICT, Claim, condition_of, with_condition, without_condition
from kopf_ha_ipam.pools import timestamp
from kopf_ha_ipam.writes import Conflict, Gone, event

log = logging.getLogger(__name__)

GIVEN_TWICE = Gauge(
    "kopf_ha_ipam_addresses_given_twice", "Addresses that more than one claim has, as the leader knows; 0 elsewhere."
)


async def show(memory: Allocator) -> None:
    """Tell claims and pools of it, and take back what was told and is not so any more."""
    memory.compare()
    GIVEN_TWICE.set(len(memory.twice))
    having = {ref.uid: address for address, refs in memory.twice.items() for ref in refs}
    for claim in list(memory.claims.values()):
        address = having.get(claim.ref.uid)
        if bool(condition_of(claim.status, ADDRESS_CONFLICT)) != (address is not None):
            await _tell(memory, claim, address)
    said, memory.said_twice = memory.said_twice, frozenset(memory.twice)
    for address in sorted(memory.said_twice - said):
        log.error(
            "address %s is given twice: to claims %s",
            address, " and ".join(sorted(ref.where for ref in memory.twice[address])),
        )  # fmt: skip
    for keeper in list(memory.keepers.values()):
        if keeper.set_aside or not keeper.mine:
            continue
        told = condition_of(keeper.pool.status, ADDRESS_CONFLICT)
        await keeper.refresh()
        now = condition_of(keeper.pool.status, ADDRESS_CONFLICT)
        if now and now.get("message") != told.get("message"):
            event(keeper.pool.body, type="Warning", reason="GivenTwice", message=str(now["message"]))


async def _tell(memory: Allocator, claim: Claim, address: str | None) -> None:
    async with memory.lock(claim.ref.uid):
        claim = memory.claims.get(claim.ref.uid, claim)
        conditions = without_condition(claim.status, ADDRESS_CONFLICT)
        message = f"Another claim has the address {address}, too. Delete one of the two; the pool names both."
        if address is not None:
            conditions = with_condition(
                claim.status, ADDRESS_CONFLICT, "True",
                reason="GivenTwice", message=message, generation=claim.generation, now=timestamp(),
            )  # fmt: skip
        try:
            body = await memory.api.patch_claim_status(claim.ref, claim.resource_version, {"conditions": conditions})
        except (Gone, Conflict):
            memory.suspicious = True  # its event comes, and with it the next look
            return
        memory.claim_seen(body)
    if address is not None:
        event(claim.body, type="Warning", reason="GivenTwice", message=message)
