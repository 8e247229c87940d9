"""Clients for the threads of the election, made as often as it takes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def connect(make: Callable[[], T], stopping: threading.Event, pause: float, trouble: Callable[[str], None]) -> T | None:
    """Make a client. Where that fails it is tried again, since credentials may come late.

    Args:
        make: makes it, or raises.
        stopping: ends the attempts.
        pause: seconds between two attempts.
        trouble: is told why it failed, after each attempt.

    Returns:
        The client; None when told to stop.
    """
    while not stopping.is_set():
        try:
            return make()
        except Exception as error:  # noqa: BLE001  a thread that ended here would be missed by nobody
            trouble(f"no client can be made: {error}")
        stopping.wait(pause)
    return None
