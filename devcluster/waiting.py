"""Waits for conditions. Other code waits for a condition here, and never sleeps for a guessed time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from devcluster.errors import DevclusterError

T = TypeVar("T")


class Watched(Protocol):
    """Something that a wait depends on: if it ends, the wait fails."""

    def check_running(self) -> None:
        """Raise DevclusterError if it has ended."""


def until(
    what: str,
    check: Callable[[], T | None],
    timeout: float = 60.0,
    every: float = 0.05,
    watched: Iterable[Watched] = (),
) -> T:
    """Call `check` every `every` seconds, and return its first true value.

    `what` names the condition in the error. Raises DevclusterError after `timeout` seconds, or as soon as one of
    `watched` has ended.
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
