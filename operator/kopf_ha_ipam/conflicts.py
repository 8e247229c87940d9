"""Shows addresses that two claims have: by a condition on both claims and on the pool, an event and a metric.

This operator gives no address twice (I5). An older version may have done so, or somebody who edited a status by hand.
Both claims keep the address: people have to decide which of the two to delete.
"""

from __future__ import annotations

import logging

from prometheus_client import Gauge

from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.conditions import ADDRESS_CONFLICT, condition_of, timestamp, with_condition, without_condition
from kopf_ha_ipam.model import Claim
from kopf_ha_ipam.writes import Conflict, Gone, event

log = logging.getLogger(__name__)

GIVEN_TWICE = Gauge(
    "kopf_ha_ipam_addresses_given_twice",
    "Addresses that more than one claim has, as the leader knows; 0 on other replicas.",
)


async def show(memory: Allocator) -> None:
    """Set the condition on claims and pools, and remove it where it is no longer true."""
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
        message = (
            f"Another claim also has the address {address}. Delete one of the two; the pool's condition names both."
        )
        if address is not None:
            conditions = with_condition(
                claim.status, ADDRESS_CONFLICT, "True",
                reason="GivenTwice", message=message, generation=claim.generation, now=timestamp(),
            )  # fmt: skip
        try:
            body = await memory.api.patch_claim_status(claim.ref, claim.resource_version, {"conditions": conditions})
        except (Gone, Conflict):
            memory.suspicious = True  # its event will come, and then the next look
            return
        memory.claim_seen(body)
    if address is not None:
        event(claim.body, type="Warning", reason="GivenTwice", message=message)
