"""What one term still has to do: claims and pools to handle again, when something changes or at a time."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

from kopf_ha_ipam.backoff import Backoff
from kopf_ha_ipam.model import Claim, ClaimRef


class Agenda:
    """Objects to handle again. `kopf_ha_ipam.retries` works through it.

    Kopf finds out which object an event belongs to by ContextVars of the handler that ran for the object. So an entry
    keeps the handler's context.

    Args:
        clock: returns monotonic seconds. All times here are on this clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.waiting: dict[str, contextvars.Context] = {}  #: claims to handle again, by uid
        #: claims among these whose answer may have changed, or was not looked at since they began to wait
        self.look: set[str] = set()
        self.inactive: dict[str, contextvars.Context] = {}  #: pools that are not active yet, by uid
        #: claims that are being deleted or are gone, by uid; once they are gone, their addresses are freed
        self.leaving: dict[str, ClaimRef] = {}
        #: claims that an earlier term bound and whose ConfigMaps this term has not read yet, by uid
        self.unverified: dict[str, Claim] = {}
        self.backoff = Backoff()
        self._clock = clock
        self._changed = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        """Wake the retries: something may be possible now that was not possible before."""
        self._changed.set()

    async def until_changed(self) -> None:
        """Wait for the next `changed()`."""
        await self._changed.wait()
        self._changed.clear()

    def wake_at(self, at: float) -> None:
        """Call `changed()` at a time. Of several times the earliest counts."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, at - self._clock())
        if self._alarm is None or when < self._alarm.when():
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.changed()

    def wait(self, uid: str, at: float | None) -> None:
        """Handle a claim again when something changes, or at a time at the latest."""
        self._put(uid)
        self.backoff.forget(uid)
        if at is not None:
            self.wake_at(at)

    def block(self, uid: str) -> None:
        """Handle a claim again after a delay, because something failed for it. The delay grows with each failure."""
        self._put(uid)
        self.wake_at(self.backoff.failed(uid, self._clock()))

    def look_again(self, uid: str) -> None:
        """Handle a claim again at the next change."""
        if uid not in self.waiting:
            self._put(uid)
        self.look.add(uid)

    def done(self, uid: str) -> None:
        """Take a claim off the list: nothing is left to do for it."""
        self.waiting.pop(uid, None)
        self.look.discard(uid)
        self.unverified.pop(uid, None)
        self.backoff.forget(uid)

    def _put(self, uid: str) -> None:
        self.waiting[uid] = contextvars.copy_context()
        self.look.add(uid)

    def verify_later(self, claim: Claim) -> None:
        """Check a bound claim's ConfigMap once nothing more urgent is left."""
        self.unverified[claim.ref.uid] = claim
        self.changed()

    def free_when_gone(self, ref: ClaimRef, *, now: bool) -> None:
        """Check whether a claim is gone, with growing delays, and then free its address.

        Args:
            ref: the claim.
            now: check at once. Otherwise the first check comes after the first delay.
        """
        self.leaving[ref.uid] = ref
        self.backoff.forget((ref.uid, "goes"))
        if now:
            self.changed()
        else:
            self.wake_at(self.backoff.failed((ref.uid, "goes"), self._clock()))
