"""What an elector shows of itself, to probes and metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass


class Observer:
    """Is told by the elector how long things took. This one ignores it.

    The methods are called in the elector's thread and must not block. An exception is logged and has no effect.
    """

    def renewed(self, seconds: float) -> None:
        """Note that a renewal was done, so many seconds after its request began."""

    def not_renewed(self) -> None:
        """Note that an attempt to renew failed: refused, or without an answer."""

    def took_over(self, seconds: float) -> None:
        """Note that a term began, so many seconds after its Lease could first be had."""


@dataclass(frozen=True, slots=True)
class Signs:
    """Signs of life at one moment. Times are seconds on the elector's clock, -inf for never.

    Args:
        alive: the elector's thread runs.
        turned: when that thread last began to wait or to send a request; -inf before it was started.
        watching: the watch's thread runs.
        watch_turned: when the watch's thread last began a request, or got an answer or an event.
        heard: when the API server last told of the Lease: by a list, an event or a bookmark.
        trouble: what keeps this replica from leading or from following a leader now; empty for nothing.
        beat: when the term's event loop last gave a sign of life.
    """

    alive: bool = False
    turned: float = -math.inf
    watching: bool = False
    watch_turned: float = -math.inf
    heard: float = -math.inf
    trouble: str = ""
    beat: float = -math.inf
