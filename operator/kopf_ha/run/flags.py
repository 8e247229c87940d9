"""Flags by which an application and an operator tell each other something, of the types that Kopf takes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from kopf_ha.run.threads import in_thread

Flag: TypeAlias = asyncio.Event | asyncio.Future[Any] | threading.Event | concurrent.futures.Future[Any]

#: Seconds between two looks of a thread that waits for a flag, at whether it still has to.
LOOK = 0.5


def raise_flag(flag: Flag, loop: asyncio.AbstractEventLoop) -> None:
    """Raise a flag from any thread. Nothing happens if that loop is closed.

    Args:
        flag: one that is raised already stays so.
        loop: that of the application, to which asyncio's flags belong.
    """
    if isinstance(flag, threading.Event):
        flag.set()
    elif isinstance(flag, concurrent.futures.Future):
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            flag.set_result(None)
    else:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_raise, flag)


def _raise(flag: asyncio.Event | asyncio.Future[Any]) -> None:
    if isinstance(flag, asyncio.Event):
        flag.set()
    elif not flag.done():
        flag.set_result(None)


@contextlib.contextmanager
def watching(flag: Flag | None, then: Callable[[], None]) -> Iterator[None]:
    """Call a function when a flag is raised while the body runs. It is called in any thread.

    Raises:
        TypeError: it is no flag.
    """
    over = threading.Event()

    def told(*_: object) -> None:
        if not over.is_set():
            then()

    waiting: asyncio.Future[Any] | None = None
    if isinstance(flag, asyncio.Event):
        waiting = asyncio.ensure_future(flag.wait())
        waiting.add_done_callback(lambda done: None if done.cancelled() else told())
    elif isinstance(flag, asyncio.Future | concurrent.futures.Future):
        flag.add_done_callback(told)
    elif isinstance(flag, threading.Event):
        in_thread(lambda: _wait(flag, over, told), "kopf-ha-stop-flag")
    elif flag is not None:
        raise TypeError(f"a flag is an Event or a Future of asyncio, threading or concurrent.futures, not {flag!r}")
    try:
        yield
    finally:
        over.set()
        if waiting is not None:
            waiting.cancel()


def _wait(flag: threading.Event, over: threading.Event, then: Callable[[], None]) -> None:
    while not over.is_set():
        if flag.wait(LOOK):
            then()
            return
