"""What keeps the election from working, for the log and for probes."""

from __future__ import annotations

import logging

log = logging.getLogger("kopf_ha.election")


class Troubles:
    """One sentence for each source of trouble. Written by the threads of the election, read by any.

    Args:
        lease: ``namespace/name`` of the Lease, for the log.
    """

    def __init__(self, lease: str) -> None:
        self._lease = lease
        self._causes: dict[str, str] = {}

    def tell(self, source: str, cause: str) -> None:
        """Keep the cause, "" for none, and log it once until it changes."""
        before = self.of(source)
        others = [c for s, c in list(self._causes.items()) if s != source and c]
        self.keep(source, cause)
        if cause == before or cause in others:
            return
        if cause:
            log.warning("%s", cause)
        elif not others:
            log.info("Lease %s: works again, after: %s", self._lease, before)

    def keep(self, source: str, cause: str) -> None:
        """Keep the cause without a line in the log."""
        self._causes[source] = cause

    def of(self, *sources: str) -> str:
        """Give the first cause of these sources; empty for none."""
        return next((cause for source in sources if (cause := self._causes.get(source, ""))), "")

    @property
    def first(self) -> str:
        """The first cause of any source; empty for none."""
        return self.of(*list(self._causes))
