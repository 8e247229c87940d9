"""Runs an operator in terms: a replica follows, leads and follows again in one process.

It joins two parts that know nothing of each other: the election, which creates a grant, and the adapters, which let
writes pass by it. In each term, Kopf runs once, in its own thread and event loop. `build` joins the parts, and `runner`
is where to begin to read.
"""

import inspect
import sys
import types
from typing import Any

from kopf_ha.run.entry import operator, run, run_program, spawn_tasks
from kopf_ha.run.logs import TermFields

__all__ = ["TermFields", "operator", "run", "run_program", "spawn_tasks"]


class _Callable(types.ModuleType):
    """Lets `kopf_ha.run()` be Kopf's `kopf.run()`, although this package has the same name."""

    __signature__ = inspect.signature(run)

    def __call__(self, *args: Any, **given: Any) -> None:
        run(*args, **given)


sys.modules[__name__].__class__ = _Callable
