"""Wait for a condition: the only place that sleeps, so that nothing else guesses at times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from devcluster.errors import DevclusterError

T = TypeVar("T")


class Watched(Protocol):
    """What a wait depends on: its end ends the wait."""

    def check_running(self) -> None:
        """Raise DevclusterError if it ended."""


def until(
    what: str,
    check: Callable[[], T | None],
    timeout: float = 60.0,
    every: float = 0.05,
    watched: Iterable[Watched] = (),
) -> T:
    """Return the first true value of `check`, asked every `every` seconds.

    `what` names the condition in the error. Raises DevclusterError after `timeout` seconds, or at once
    when one of `watched` ended.
    """
    deadline = time.monotonic() + timeout
    watched = list(watched)
    while True:
        value = check()
        if value:
            return value
        for one in watched:
            one.check_running()
        if time.monotonic() >= deadline:
            raise DevclusterError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(every)
