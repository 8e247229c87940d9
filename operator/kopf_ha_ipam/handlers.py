"""The handlers, thin: they tell the term's memory what the world says, and let it decide.

``kopf-ha run -m kopf_ha_ipam.handlers -A --deciding addresspools.ipam.kopf-ha.dev``

`KOPF_HA_IPAM_QUARANTINE` is the number of seconds for which a freed address rests, 60 by default. It must be
longer than any late request lives.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from typing import Any

import kopf

import kopf_ha
from kopf_ha_ipam import claims
from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.model import GROUP, VERSION, message_of
from kopf_ha_ipam.writes import Api, event

log = logging.getLogger(__name__)
POOLS = (GROUP, VERSION, "addresspools")
CLAIMS = (GROUP, VERSION, "addressclaims")
#: Seconds between two looks at a pool that is being deleted and in use.
LOOK = 5.0


def quarantine() -> float:
    """Read ``KOPF_HA_IPAM_QUARANTINE``."""
    text = os.environ.get("KOPF_HA_IPAM_QUARANTINE", "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise kopf_ha.ConfigurationError(f"KOPF_HA_IPAM_QUARANTINE={text!r} is no number of seconds from 0 on")
    return seconds


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """Begin a term: read the world behind the barrier (I4), then retry what waits until the term ends."""
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    term = kopf_ha.current_term()
    memory = Allocator(Api(), quarantine=quarantine(), set_aside=term.set_aside)
    await memory.load()
    memo.memory = memory
    # Kopf cancels it when the term ends.
    task = asyncio.create_task(
        memory.retry_forever(functools.partial(claims.settle, memory), functools.partial(claims.bury, memory)),
        name="ipam-retries",
    )
    task.add_done_callback(_ended)
    memo.retries = task
    memory.changed()


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        log.warning("retries ended with the term: %s", task.exception())


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """End a term."""
    if "retries" in memo:
        memo.retries.cancel()


@kopf.on.event(*POOLS)
async def pool_event(type: str | None, body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Know every pool. Event handlers run before the others of the same object."""
    if type == "DELETED":
        memo.memory.pool_gone(_raw(body))
    else:
        memo.memory.pool_seen(_raw(body))


@kopf.on.resume(*POOLS)
@kopf.on.create(*POOLS, backoff=2)
@kopf.on.update(*POOLS, field="spec", backoff=2)
async def pool_changed(name: str, memo: kopf.Memo, **_: Any) -> None:
    """Activate a pool, or follow its spec."""
    await memo.memory.settle_pool(name)


@kopf.on.delete(*POOLS, backoff=2)
async def pool_deleted(name: str, uid: str, body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Hold the finalizer as long as claims have addresses of the pool (trap 1).

    The handler waits rather than fails: waiting writes nothing (I7). It ends with the term. While it waits,
    Kopf delivers no events of this object, so it looks itself whether somebody removed the pool by force.
    """
    memory: Allocator = memo.memory
    keeper = memory.keepers.get(name)
    if keeper is None or keeper.pool.uid != uid:
        return
    await memory.settle_pool(name)
    if not keeper.empty.is_set():
        event(_raw(body), type="Warning", reason="InUse", message=message_of(keeper.pool.status))
    while memory.keepers.get(name) is keeper and not await keeper.emptied(LOOK):
        await memory.look_for_pool(keeper)


@kopf.on.event(*CLAIMS)
async def claim_event(type: str | None, body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Know every claim."""
    if type == "DELETED":
        memo.memory.claim_gone(_raw(body))
    else:
        memo.memory.claim_seen(_raw(body))


@kopf.on.resume(*CLAIMS)
@kopf.on.create(*CLAIMS, backoff=2)
async def claim_created(body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Give the claim an address, or see that all of what it has is right."""
    memory: Allocator = memo.memory
    await claims.settle(memory, memory.claim_seen(_raw(body)))


@kopf.on.delete(*CLAIMS, backoff=2)
async def claim_deleted(body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Take the address back; the finalizer goes after that."""
    memory: Allocator = memo.memory
    await claims.take_back(memory, memory.claim_seen(_raw(body)))


def _raw(body: kopf.Body) -> Any:
    """Give the object as plain data; its parts are plain already."""
    return dict(body)
