"""What an elector lets others see: signs of life of its threads, and how long things took."""

from __future__ import annotations

import math
from dataclasses import dataclass


class Observer:
    """Told by the elector what can be measured; here nobody listens.

    Called in the elector's thread: it must not block. What it raises is logged and has no effect.
    """

    def renewed(self, seconds: float) -> None:
        """Note that a renewal was done, this long after its request began."""

    def not_renewed(self) -> None:
        """Note that an attempt to renew failed: refused, or without an answer."""

    def took_over(self, seconds: float) -> None:
        """Note that a term began, this long after its Lease could first be had."""


@dataclass(frozen=True, slots=True)
class Signs:
    """Signs of life at one moment. Times are seconds on the elector's clock, -inf for never.

    Args:
        alive: the elector's thread runs.
        turned: when that thread last began to wait, or a request; -inf before it was started.
        watching: the watch's thread runs.
        watch_turned: when the watch's thread last began something, or got something.
        heard: when the API server last told of the Lease: by a list, an event or a bookmark.
        trouble: what keeps this replica from leading, or from following a leader, now; empty for nothing.
        beat: when the term's event loop last gave a sign of life.
    """

    alive: bool = False
    turned: float = -math.inf
    watching: bool = False
    watch_turned: float = -math.inf
    heard: float = -math.inf
    trouble: str = ""
    beat: float = -math.inf
