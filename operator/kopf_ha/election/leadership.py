"""The grant of this process's present term, and who is told when it opens and closes."""

from __future__ import annotations

import logging
from collections.abc import Callable

from kopf_ha.core.grant import Grant
from kopf_ha.core.orders import ByChoice
from kopf_ha.core.token import Stamp
from kopf_ha.settings import Settings

log = logging.getLogger("kopf_ha.election")


class Leadership:
    """Opens, holds, extends and closes the grant, in the elector's thread. `grant` may be read in any thread.

    Args:
        settings: the Lease and the identity, which the stamp names.
        on_started: see `Elector`.
        on_stopped: see `Elector`.
        on_ordered: see `Elector`.
        on_held: see `Elector`.
        on_reopened: see `Elector`.
    """

    def __init__(
        self,
        settings: Settings,
        on_started: Callable[[Grant], None],
        on_stopped: Callable[[Grant, str], None],
        on_ordered: Callable[[Grant, ByChoice], None] = lambda grant, cause: None,
        on_held: Callable[[Grant, str], None] = lambda grant, cause: None,
        on_reopened: Callable[[Grant], None] = lambda grant: None,
    ) -> None:
        self._settings = settings
        self._on_started = on_started
        self._on_stopped = on_stopped
        self._on_ordered = on_ordered
        self._on_held = on_held
        self._on_reopened = on_reopened
        self.grant: Grant | None = None  #: of the present term; None between terms

    def open(self, token: int, deadline: float) -> bool:
        """Open the grant of a new term; False if `on_started` failed, so that the term has to end."""
        s = self._settings
        self.grant = Grant(Stamp(token, s.identity, s.lease, s.pod_uid), deadline, s.timing.recovery)
        log.info("leading: token %d, Lease %s, holder %s", token, s.lease, s.identity)
        return called(self._on_started, self.grant)

    def extend(self, deadline: float) -> None:
        """Extend the grant, if there is one."""
        if self.grant is not None:
            self.grant.extend(deadline)

    def retire(self, cause: ByChoice) -> None:
        """Ask for the end of the term by choice. The grant stays open until the term is drained."""
        if self.grant is not None:
            called(self._on_ordered, self.grant, cause)

    def hold(self, cause: str) -> None:
        """Hold the grant: writes wait until it is known whether another replica acquired the Lease."""
        grant = self.grant
        if grant is not None and not grant.closed:
            grant.hold(cause)
            log.warning("held: token %d, Lease %s: %s", grant.stamp.token, self._settings.lease, cause)
            called(self._on_held, grant, cause)

    def reopen(self, deadline: float) -> None:
        """Open the held grant again, unless somebody has closed it meanwhile."""
        grant = self.grant
        if grant is not None and not grant.closed:
            grant.reopen(deadline)
            log.info("open again: token %d, Lease %s: nobody acquired it", grant.stamp.token, self._settings.lease)
            called(self._on_reopened, grant)

    def close(self, cause: str) -> None:
        """Close the grant, if there is one, before `on_stopped` is called."""
        grant, self.grant = self.grant, None
        if grant is None:
            return
        grant.close(cause)
        if isinstance(cause, ByChoice):
            log.info("gave up: token %d, Lease %s: %s", grant.stamp.token, self._settings.lease, cause)
        elif cause in ("released", "stopped"):
            log.info("%s: token %d, Lease %s", cause, grant.stamp.token, self._settings.lease)
        else:
            log.error("lost: token %d, Lease %s: %s", grant.stamp.token, self._settings.lease, cause)
        called(self._on_stopped, grant, cause)


def called(callback: Callable[..., None], *args: object) -> bool:
    """Call it; say whether it did not raise. A callback that fails must not end the election's thread."""
    try:
        callback(*args)
    except Exception:
        log.exception("a callback of the election failed")
        return False
    return True
