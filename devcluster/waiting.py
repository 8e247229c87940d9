"""Waits for conditions. Other code waits for a condition here, and never sleeps for a guessed time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from devcluster.errors import DevclusterError

T = TypeVar("T")
#: Seconds between two questions, at first and at last, where nothing else is said.
FIRST, LAST = 0.05, 0.3


class Watched(Protocol):
    """Something that a wait depends on: if it ends, the wait fails."""

    def check_running(self) -> None:
        """Raise DevclusterError if it has ended."""


def until(
    what: str,
    check: Callable[[], T | None],
    timeout: float = 60.0,
    every: float | None = None,
    watched: Iterable[Watched] = (),
) -> T:
    """Call `check` every `every` seconds, and return its first true value.

    Without `every`, the pauses grow with the time that was waited, since each question costs something.
    `what` names the condition in the error. Raises DevclusterError after `timeout` seconds, or as soon as one of
    `watched` has ended.
    """
    began = time.monotonic()
    deadline = began + timeout
    watched = list(watched)
    while True:
        value = check()
        if value:
            return value
        for one in watched:
            one.check_running()
        if time.monotonic() >= deadline:
            raise DevclusterError(f"waited {timeout:g} s in vain for {what}")
        if every is not None:
            time.sleep(every)
        else:
            time.sleep(min(max(FIRST, (time.monotonic() - began) / 20), LAST))
