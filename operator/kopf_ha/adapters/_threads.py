"""Threads and jobs belong to the term of whoever starts them (I8).

A new thread begins with an empty context, so code that a handler starts in a thread would run in no term. What is
carried there is the term, and nothing else of the context:

- A thread (`threading.Thread`, `threading.Timer`) takes it from the caller of `start`, however the class defines `run`.
- A job of a pool (`ThreadPoolExecutor`, which is behind `run_in_executor`; `multiprocessing.pool.ThreadPool`, which is
  behind the `async_req` of the `kubernetes` client) takes it from whoever submits the job, and a callback from whoever
  adds it. The pool's own threads may live longer than a term, so they have none.

What is started in no term stays in none, and its writes are refused. With Python 3.14, threads may inherit the whole
context by themselves, which changes nothing of this.
"""

from __future__ import annotations

import concurrent.futures
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import Pool, ThreadPool
from typing import Any

from kopf_ha._context import carry, current_grant, inherit, only_reads, outside
from kopf_ha.adapters._changed import change

#: The methods of a pool that take a job. `apply` calls the first.
_TAKE_JOBS = ("apply_async", "map", "map_async", "starmap", "starmap_async", "imap", "imap_unordered")


def install() -> None:
    """Let the threads and pools of this process carry terms. A second call has no effect."""
    change(threading.Thread, "start", _starting)
    change(ThreadPoolExecutor, "submit", _submitting)
    change(Future, "add_done_callback", _calling_back)
    change(Pool, "__init__", _making)
    for name in _TAKE_JOBS:
        change(Pool, name, _taking)


def _starting(start: Callable[..., Any]) -> Callable[..., Any]:
    def started(thread: threading.Thread) -> None:
        if current_grant() is None and not only_reads():
            start(thread)  # there is nothing to carry
            return
        # On the object and not in the class: a subclass has its own `run`, and need not call ours.
        own = vars(thread)
        before, run = own.get("run"), thread.run

        def restore() -> None:
            own.pop("run", None)
            if before is not None:
                own["run"] = before

        def first() -> None:
            restore()
            there()

        there = inherit(run)
        own["run"] = first
        try:
            start(thread)
        except BaseException:
            restore()
            raise

    return started


def _submitting(submit: Callable[..., Any]) -> Callable[..., Any]:
    def submitted(pool: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        job = fn if _is_isolated(pool) else carry(fn)
        with outside():  # it may start a thread of the pool
            return submit(pool, job, *args, **kwargs)

    return submitted


def _is_isolated(pool: ThreadPoolExecutor) -> bool:
    """Return whether the jobs run in other interpreters (Python 3.14), where no term can be, and are pickled."""
    isolated = getattr(concurrent.futures, "InterpreterPoolExecutor", None)
    return isolated is not None and isinstance(pool, isolated)


def _calling_back(add: Callable[..., Any]) -> Callable[..., Any]:
    def added(future: Future[Any], fn: Callable[[Future[Any]], Any]) -> None:
        add(future, carry(fn))

    return added


def _making(init: Callable[..., Any]) -> Callable[..., Any]:
    def made(pool: Pool, *args: Any, **kwargs: Any) -> None:
        with outside():
            init(pool, *args, **kwargs)

    return made


def _taking(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    def taken(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        # Jobs for processes are pickled, and could not write there. Their callbacks run in a thread of this process.
        jobs = ("func",) if isinstance(bound.arguments["self"], ThreadPool) else ()
        for name in (*jobs, "callback", "error_callback"):
            if bound.arguments.get(name) is not None:
                bound.arguments[name] = carry(bound.arguments[name])
        return method(*bound.args, **bound.kwargs)

    return taken
