"""Notices that the API server does not know the credentials of a term's writers (401).

The election has a client of its own. So the Lease may be renewed and the probes be healthy, while no write of the
operator gets through: another replica, or this one after a restart, could do better.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from kopf_ha.adapters import Outcome
from kopf_ha.core.grant import Grant

logger = logging.getLogger("kopf_ha.run")

#: Seconds for which every write may get 401 before the term ends: a 401 may be passing.
PATIENCE = 60.0


class Unknown:
    """Remembers which clients got only 401 since when, in the term that writes.

    Args:
        clock: the machine's boot-time clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._grant: Grant | None = None
        self._since: dict[str, float] = {}  #: by client: when the first 401 came of those without another answer since
        self._known: float | None = None  #: when the last other answer came, whichever client got it
        self._named: set[str] = set()

    def wrote(self, outcome: Outcome) -> str:
        """Note how one attempt to write ended.

        Returns:
            Why the term has to end, in a sentence; empty as long as any client's writes are answered.
        """
        status = outcome.status or (outcome.refused.answer.status if outcome.refused and outcome.refused.answer else 0)
        if outcome.grant is None or not status:
            return ""  # nothing was answered
        with self._lock:
            if outcome.grant is not self._grant:
                self._grant, self._known = outcome.grant, None
                self._since.clear()
                self._named.clear()
            now, client = self._clock(), outcome.client
            if status != 401:
                self._known = now
                self._since.pop(client, None)
                return ""
            since = self._since.setdefault(client, now)
            if now - since <= PATIENCE:
                return ""
            cause = (
                f"the API server answered 401 to every write by {client} for {now - since:.0f} s: it does not know the"
                " credentials (an expired token that was read once, or a deleted account)"
            )
            if self._known is None or self._known < since:
                return cause
            if client not in self._named:
                self._named.add(client)
                logger.error("%s; other clients can write, so the term goes on", cause)
            return ""
