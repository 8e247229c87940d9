"""What Kopf waits for before it calls a handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from kopf._core.actions import execution
from kopf._core.intents import handlers

from kopf_ha._kopf.registries import added_first

_invoke = execution.invoke_handler
#: Waits until handlers may begin, in the term of the calling task.
_may_begin: Callable[[], Awaitable[None]] | None = None


def hold_handlers(may_begin: Callable[[], Awaitable[None]]) -> None:
    """Have Kopf wait for `may_begin` before each call of a handler for events or changes, of a timer or of a daemon.

    What runs already goes on, such as a daemon. Indices are filled at once, and so are activities called, such as
    probes and cleanup, and what `watch_first` added.
    """
    global _may_begin
    _may_begin = may_begin


_HELD = handlers.WatchingHandler | handlers.ChangingHandler | handlers.SpawningHandler


async def _invoke_when_allowed(*, handler: Any, **given: Any) -> Any:
    if _may_begin is not None and isinstance(handler, _HELD) and handler.id not in added_first:
        await _may_begin()
    return await _invoke(handler=handler, **given)


# Kopf has no place for it. It is looked up in its module at each call.
execution.invoke_handler = _invoke_when_allowed
