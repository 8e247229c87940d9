"""Daemon threads, for calls that may hang: neither their caller nor the end of the process waits for them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

from kopf_ha._context import outside

T = TypeVar("T")


def later(seconds: float, fn: Callable[[], None]) -> None:
    """Call `fn` after so many seconds, in no term."""
    timer = threading.Timer(seconds, fn)
    timer.daemon = True
    with outside():
        timer.start()


def in_thread(fn: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run `fn` in its own thread, with the caller's context; the future gets its result or its error.

    The loop's executor is not used: the end of the process waits for it, and an application may need its threads.
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
            pass  # the loop is closed, so nothing waits for the result

    threading.Thread(target=main, name=name, daemon=True).start()
    return future
