"""Daemon threads: what hangs in one keeps neither its caller nor the end of the process waiting."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def later(seconds: float, fn: Callable[[], None]) -> None:
    """Call `fn` after so many seconds."""
    timer = threading.Timer(seconds, fn)
    timer.daemon = True
    timer.start()


def in_thread(fn: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run `fn` in its own thread, with the caller's context; the future gets its result, or its error.

    An executor would be waited for when the process ends, and may be the application's.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return  # the caller was cancelled
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def main() -> None:
        result, error = None, None
        try:
            result = context.run(fn)
        except BaseException as e:  # noqa: BLE001  the caller gets it
            error = e
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    threading.Thread(target=main, name=name, daemon=True).start()
    return future
