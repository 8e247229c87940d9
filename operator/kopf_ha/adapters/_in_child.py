"""Runs first in a new interpreter that `multiprocessing` started; see `_children`. Do not import it.

A job that only computes needs no client, and importing the clients often takes longer than the job. So each client is
fenced when it is imported.
"""

import importlib.abc
import importlib.util
import sys
import threading
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

#: The module that the fence changes, one for each client. The adapters import some of them, and come last.
CLIENTS = (
    "kopf_ha.adapters",
    "kubernetes.client.rest",
    "kubernetes.aio.client.rest",
    "kubernetes_asyncio.client.rest",
    "pykube.http",
    "requests",
    "httpx",
    "httpx2",
)


#: The threads that are in `refuse`. The adapters import clients themselves, which get here again.
_refusing: set[int] = set()


def refuse() -> None:
    """Fence the clients in this process, which has no term."""
    me = threading.get_ident()
    if me in _refusing:
        return
    _refusing.add(me)
    try:
        from kopf_ha import adapters
        from kopf_ha.adapters import _wiring

        if hasattr(adapters, "install"):  # otherwise the child is importing it just now
            adapters.install()
            _wiring.enter_child()
    finally:
        _refusing.discard(me)


class WhenImported(importlib.abc.MetaPathFinder):
    """Fences a client as soon as it is loaded."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a client as usual, and fence it after it is loaded."""
        if name not in CLIENTS:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                refuse()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if sys.modules.keys().isdisjoint(CLIENTS):
    sys.meta_path.insert(0, WhenImported())
else:
    # The server of `forkserver` has loaded a client already. multiprocessing sets the child's path only after this.
    sys.path.append(str(Path(__file__).parents[2]))
    refuse()
