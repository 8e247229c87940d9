"""How old a Lease's last renewal is, and how long it lasts: by one clock, the API server's.

A Lease's own times are of its holder's clock, which may be wrong by minutes. But the API server notes in the Lease's
`managedFields` when it took the last change of `renewTime`, and in the header ``Date`` when it answered. Both are whole
seconds of its own clock, so their difference is right to a second. It also shows how wrong the holder's clock is.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kopf_ha.oncall.find import time_of

#: Seconds by which an age may be wrong: two times are rounded down.
ROUNDED = 1.0
#: Whose clock an age was taken by.
API_SERVER, HOLDER = "api-server", "holder"


@dataclass(frozen=True, slots=True)
class Renewal:
    """The last renewal of a Lease, or its release.

    Args:
        age: seconds since then; None if that is unknown.
        clock: by which it was taken: `API_SERVER`, or `HOLDER` for the difference between the clocks of two machines.
        duration: seconds that the Lease lasts after a renewal; None if it does not say.
        ahead: seconds by which the holder's clock is ahead of the API server's; None if unknown.
        held: seconds since the Lease was acquired, or released; None if unknown.
    """

    age: float | None
    clock: str
    duration: int | None
    ahead: float | None
    held: float | None

    @property
    def left(self) -> float | None:
        """Seconds until the Lease expires, 0 if it did; None if that is unknown."""
        if self.age is None or self.duration is None:
            return None
        return max(0.0, self.duration - self.age)

    @property
    def expired(self) -> bool:
        """Whether it certainly expired: rounding cannot be the reason."""
        return self.age is not None and self.duration is not None and self.age - ROUNDED > self.duration


def renewal_of(body: Mapping[str, Any], at: datetime.datetime | None) -> Renewal:
    """Return how old a Lease's last renewal is.

    Args:
        body: the Lease, as read.
        at: when it was read, by the API server's clock; None if that is unknown.
    """
    spec = body.get("spec") or {}
    written, stored, acquired = time_of(spec.get("renewTime")), _stored(body), time_of(spec.get("acquireTime"))
    duration = spec.get("leaseDurationSeconds")
    ahead = _seconds(stored, written)
    held = _seconds(acquired, at)
    return Renewal(
        age=_at_least_zero(_seconds(stored or written, at)),
        clock=API_SERVER if stored else HOLDER,
        duration=duration if isinstance(duration, int) and not isinstance(duration, bool) and duration > 0 else None,
        ahead=ahead,
        # What the holder's clock is ahead by, it was ahead by then.
        held=_at_least_zero(held + ahead if held is not None and ahead is not None else held),
    )


def _stored(body: Mapping[str, Any]) -> datetime.datetime | None:
    """Return when the API server took the last change of `renewTime`; None if it does not say."""
    fields = (body.get("metadata") or {}).get("managedFields") or ()
    times = [time_of(f.get("time")) for f in fields if "f:renewTime" in ((f.get("fieldsV1") or {}).get("f:spec") or {})]
    return max((t for t in times if t is not None), default=None)


def _seconds(since: datetime.datetime | None, until: datetime.datetime | None) -> float | None:
    return None if since is None or until is None else (until - since).total_seconds()


def _at_least_zero(seconds: float | None) -> float | None:
    return None if seconds is None else max(0.0, seconds)
