"""Delays between retries: short at first, then longer and longer (I7)."""

from __future__ import annotations

from collections.abc import Hashable

#: Seconds after the first failure, and the longest delay in seconds.
FIRST, LONGEST = 2.0, 300.0


def delay(failures: int) -> float:
    """Return the seconds to wait after this many failures in a row (at least 1)."""
    return float(min(FIRST * 2 ** min(failures - 1, 30), LONGEST))


class Backoff:
    """Keeps, by key, the time of the next try. Times are seconds on the caller's clock."""

    def __init__(self) -> None:
        self._failures: dict[Hashable, int] = {}
        self._until: dict[Hashable, float] = {}

    def failed(self, key: Hashable, now: float) -> float:
        """Note a failure, and return the time of the next try."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        until = self._until[key] = now + delay(count)
        return until

    def waits(self, key: Hashable, now: float) -> bool:
        """Return whether the time of the next try has not come yet."""
        return self._until.get(key, now) > now

    def until(self, key: Hashable) -> float:
        """Return the time of the next try. Raises KeyError if nothing failed."""
        return self._until[key]

    def forget(self, key: Hashable) -> None:
        """Forget the failures: the last try succeeded, or none is needed any more."""
        self._failures.pop(key, None)
        self._until.pop(key, None)
