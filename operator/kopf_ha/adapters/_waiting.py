"""Waits in front of a gate that is held, in a thread or in an event loop, until its grant opens or closes.

The wait ends by itself when the grant can open no more. So no write outlasts its term, whatever becomes of the
election's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

from kopf_ha._context import boottime, current_grant
from kopf_ha.core.grant import Grant

#: Seconds after which the grant is looked at again in any case: these waits stop while the machine sleeps.
LOOK = 5.0


def wait(grant: Grant) -> None:
    """Wait until the grant has changed, or can change no more. It blocks the thread."""
    woken = threading.Event()
    wake = woken.set
    grant.on_change(wake)
    try:
        if (seconds := _seconds(grant)) > 0:  # it may have changed before
            woken.wait(seconds)
    finally:
        grant.off_change(wake)


async def wait_in_loop(grant: Grant) -> None:
    """Wait until the grant has changed, or can change no more, while the event loop goes on."""
    loop, woken = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits in it
            loop.call_soon_threadsafe(woken.set)

    grant.on_change(wake)
    try:
        if (seconds := _seconds(grant)) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), seconds)
    finally:
        grant.off_change(wake)


async def while_held() -> None:
    """Wait as long as the grant of the calling task's term is held: until it is open again, or closed for good."""
    grant = current_grant()
    while grant is not None and grant.held and grant.may_reopen(boottime()):
        await wait_in_loop(grant)


async def may_begin() -> None:
    """Wait as `while_held`, for a handler that is about to begin.

    Raises:
        CancelledError: the term is over, or is drained: no handler begins in it any more.
    """
    grant = current_grant()
    if grant is None or not grant.held:
        return
    await while_held()
    if grant.held or grant.closed:
        raise asyncio.CancelledError


def _seconds(grant: Grant) -> float:
    """Return how long to wait at most; 0 if there is nothing to wait for."""
    now = boottime()
    if grant.remaining(now) > 0 or not grant.may_reopen(now):
        return 0.0
    return min(LOOK, grant.deadline + grant.recovers - now)
