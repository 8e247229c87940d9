"""The Kopf handlers. They are thin: they report what changed to the term's memory, which decides.

``kopf-ha run -m kopf_ha_ipam.handlers -A --deciding addresspools.ipam.kopf-ha.dev --barrier each``

The environment variable ``KOPF_HA_IPAM_QUARANTINE`` sets the seconds before a freed address may be given again, 60 by
default. It must be longer than a late request can take to arrive.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from typing import Any

import kopf

import kopf_ha
from kopf_ha_ipam import claims, conflicts, retries
from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.backoff import delay
from kopf_ha_ipam.conditions import ready_message, ready_reason
from kopf_ha_ipam.model import ADDRESS_NOTE, FINALIZER, GROUP, VERSION
from kopf_ha_ipam.retries import Retries
from kopf_ha_ipam.writes import ENDED, Api, Rejected, Unavailable, event

log = logging.getLogger(__name__)
POOLS = (GROUP, VERSION, "addresspools")
CLAIMS = (GROUP, VERSION, "addressclaims")
#: The annotation in which Kopf keeps what it has handled.
HANDLED = f"{GROUP}/last-handled-configuration"
#: Seconds between two reads of a pool that is being deleted while it is in use.
LOOK = 5.0


def quarantine() -> float:
    """Read ``KOPF_HA_IPAM_QUARANTINE``."""
    text = os.environ.get("KOPF_HA_IPAM_QUARANTINE", "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise kopf_ha.ConfigurationError(f"KOPF_HA_IPAM_QUARANTINE={text!r} must be a number of seconds, 0 or more")
    return seconds


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """Begin a term: load all objects after the barrier (I4), then start the retries."""
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(
        prefix=GROUP, ignored_fields=[("metadata", "annotations", ADDRESS_NOTE)]
    )
    term = kopf_ha.current_term()
    memory = Allocator(
        Api(),
        quarantine=quarantine(),
        stamp=(term.token, term.holder),
        set_aside=lambda: term.set_aside,
        stamped=term.stamped if term.stamps_behind else None,
    )
    try:
        await memory.load()
    except (Unavailable, Rejected) as error:
        raise kopf.TemporaryError(str(error), delay=2) from error
    memo.memory = memory
    # `stop` cancels the tasks when the term ends.
    memo.retries = asyncio.create_task(Retries(memory).run(), name="ipam-retries")
    memo.rest = asyncio.create_task(memory.load_rest(), name="ipam-rest")
    for task in (memo.retries, memo.rest):
        task.add_done_callback(_ended)
    memory.agenda.changed()


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("%s ended with the term: %s", task.get_name(), error)


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """End a term: wait for writes of pools under way, as Kopf waits for handlers, and start nothing new."""
    conflicts.GIVEN_TWICE.set(0)
    if "rest" in memo:
        memo.rest.cancel()
    if "retries" in memo:
        memory: Allocator = memo.memory
        await asyncio.gather(*(keeper.rest() for keeper in memory.keepers.values()))
        memo.retries.cancel()


@kopf.on.event(*POOLS)
async def pool_event(type: str | None, body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Take every pool into the memory. For each object, Kopf runs event handlers before all others."""
    memory: Allocator = memo.memory
    memory.context = memory.context or contextvars.copy_context()
    if type == "DELETED":
        memory.pool_gone(_raw(body))
    else:
        memory.pool_seen(_raw(body))


@kopf.on.resume(*POOLS)
@kopf.on.create(*POOLS)
@kopf.on.update(*POOLS, field="spec")
async def pool_changed(name: str, memo: kopf.Memo, **_: Any) -> None:
    """Activate a pool, or follow its spec."""
    await retries.settle_pool(memo.memory, name)


@kopf.on.delete(*POOLS)
async def pool_deleted(name: str, uid: str, body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Keep the finalizer as long as claims have addresses of the pool.

    The handler waits and does not fail, because waiting writes nothing (I7). It ends with the term. While it waits,
    Kopf delivers no events of this object, so it reads the pool itself: somebody may have deleted it by force.
    """
    memory: Allocator = memo.memory
    keeper = memory.keepers.get(name)
    if keeper is None or keeper.pool.uid != uid:
        return
    await retries.settle_pool(memory, name)
    if not keeper.empty.is_set():
        event(_raw(body), type="Warning", reason="InUse", message=ready_message(keeper.pool.status))
    while memory.keepers.get(name) is keeper and not await keeper.emptied(LOOK):
        try:
            await memory.look_for_pool(keeper)
        except (Unavailable, Rejected) as error:
            log.warning("pool %s could not be read and is read again later: %s", name, error)


def is_unsettled(body: kopf.Body, memo: kopf.Memo, **_: Any) -> bool:
    """Take a claim into the memory, and return whether handlers have something to do for it.

    As a filter of handlers it spares Kopf the whole cycle for claims that need nothing: of thousands, all that exist
    when a term begins. It depends on the claim and its pool's record alone, and so says the same for all handlers.
    """
    memory: Allocator = memo.memory
    claim = memory.parsed(body)
    if not claims.settled(memory, claim):
        return True
    memory.claim_met(memory.claim_taken(claim))
    return False


def is_news(type: str | None, body: kopf.Body, memo: kopf.Memo, **more: Any) -> bool:
    """Return whether an event needs a handler: the claim does, or it is gone."""
    return type == "DELETED" or is_unsettled(body=body, memo=memo)


@kopf.on.event(*CLAIMS, when=is_news)
async def claim_event(type: str | None, body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Take every claim into the memory."""
    memory: Allocator = memo.memory
    memory.context = memory.context or contextvars.copy_context()
    if type == "DELETED":
        memory.claim_gone(_raw(body))
    else:
        claim = memory.claim_seen(_raw(body))
        if claim.terminating and not claim.held:
            memory.leaves(claim.ref, gone=False)  # somebody else's finalizer keeps it
        # Kopf calls no handler for an object whose annotation says that it was handled. A backup keeps that annotation,
        # but not the status.
        memory.claim_noticed(claim, handled=HANDLED in body.metadata.annotations)


@kopf.on.resume(*CLAIMS, when=is_unsettled)
@kopf.on.create(*CLAIMS)
async def claim_created(body: kopf.Body, patch: kopf.Patch, memo: kopf.Memo, **_: Any) -> None:
    """Give the claim an address, or check that everything it has is right."""
    memory: Allocator = memo.memory
    claim = memory.claim_seen(_raw(body))
    address = await retries.settle(memory, claim)
    if address is not None and claim.noted != address:
        patch.metadata.annotations[ADDRESS_NOTE] = address  # Kopf writes its own annotations in the same request


@kopf.on.delete(*CLAIMS)
async def claim_deleted(body: kopf.Body, patch: kopf.Patch, retry: int, memo: kopf.Memo, **_: Any) -> None:
    """Take the address back. Kopf removes the finalizer after that.

    A status that the handler writes by itself would make Kopf's patch of the finalizer fail. What is in `patch` goes
    before it. Nobody could read it unless another finalizer keeps the claim.
    """
    memory: Allocator = memo.memory
    claim = memory.claim_seen(_raw(body))
    try:
        await claims.take_back(memory, claim)
        if set(body.metadata.get("finalizers") or ()) - {FINALIZER} and ready_reason(claim.status) != "Released":
            patch.status["conditions"] = claims.released(claim)
    except ENDED:
        raise
    except Exception as error:  # any error concerns only this claim (I10)
        raise kopf.TemporaryError(f"{type(error).__name__}: {error}", delay=delay(retry + 1)) from error


def _raw(body: kopf.Body) -> Any:
    """Return the object as a plain dict; its parts are plain already."""
    return dict(body)
