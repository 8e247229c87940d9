"""Kopf's own functions, in a process that has a fenced operator or that `kopf-ha exec` started.

`kopf.run()` and `kopf.operator()` end in `kopf.spawn_tasks()`, so it is enough to replace that one.

- Under `kopf-ha exec` the program's first operator becomes the fenced one.
- An operator that is started while a fenced one runs, by a handler or beside it, writes through the fence: in the term
  of whoever started it, or not at all. If it is for another cluster, it is left alone (`adapters/_clusters.py`).
- All others are Kopf's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any, TypeAlias

from kopf_ha import _kopf, adapters
from kopf_ha.adapters.kopf_client import fenced_vault

logger = logging.getLogger("kopf_ha.run")

Tasks: TypeAlias = Collection[asyncio.Task[Any]]

_first: Callable[..., Awaitable[Tasks]] | None = None  #: starts the fenced operator instead of the program's first
_tasks: Tasks = ()  #: of the operator that it started
_fenced = 0  #: operators of kopf-ha that are built or run
_lock = threading.Lock()


def install(first: Callable[..., Awaitable[Tasks]] | None = None) -> None:
    """Replace Kopf's function. A second call has no effect.

    Args:
        first: is called instead for the first operator, and for the next one after its end; None under `kopf-ha run`
            and in an application that calls kopf-ha itself.
    """
    global _first
    _first = first or _first
    _kopf.replace_spawn_tasks(_spawn_tasks)


@contextlib.contextmanager
def beside_me() -> Iterator[None]:
    """Fence whatever is started in the body beside a fenced operator, from before it is built until its end (I8)."""
    global _fenced
    install()
    with _lock:
        _fenced += 1
    try:
        yield
    finally:
        with _lock:
            _fenced -= 1


@functools.wraps(_kopf.plain_spawn_tasks)
async def _spawn_tasks(**given: Any) -> Tasks:
    global _tasks
    command = given.get("_command")  # `kopf freeze` and its like run no operator
    if _first is not None and command is None and all(task.done() for task in _tasks):
        given.pop("_command", None)
        _tasks = await _first(**given)
        return _tasks
    theirs = given.get("vault")
    is_alone = not (_fenced or adapters.is_wired() or any(not task.done() for task in _tasks))
    if isinstance(theirs, _kopf.PreparedVault) or is_alone:
        return await _kopf.plain_spawn_tasks(**given)
    logger.info(
        "another operator is started in this process: what it writes to this cluster belongs to the term of whoever"
        " started it, and is refused outside of a term"
    )
    vault = fenced_vault(nested=True)
    if theirs is not None:
        await vault.take(theirs)
    return await _kopf.plain_spawn_tasks(**(given | {"vault": vault}))
