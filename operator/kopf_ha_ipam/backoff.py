"""When something that failed is tried again: soon at first, then more and more seldom (I7)."""

from __future__ import annotations

from collections.abc import Hashable

#: Seconds after the first failure, and the most seconds between two tries.
FIRST, LONGEST = 2.0, 300.0


def delay(failures: int) -> float:
    """Give the seconds to wait after so many failures in a row, from 1 on."""
    return float(min(FIRST * 2 ** min(failures - 1, 30), LONGEST))


class Backoff:
    """Who has to wait until when. Times are seconds on the clock that the caller uses."""

    def __init__(self) -> None:
        self._failures: dict[Hashable, int] = {}
        self._until: dict[Hashable, float] = {}

    def failed(self, key: Hashable, now: float) -> float:
        """Note a failure, and give the time of the next try."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        until = self._until[key] = now + delay(count)
        return until

    def waits(self, key: Hashable, now: float) -> bool:
        """Say whether its time has not come yet."""
        return self._until.get(key, now) > now

    def forget(self, key: Hashable) -> None:
        """Note that it went well, or is no matter any more."""
        self._failures.pop(key, None)
        self._until.pop(key, None)
