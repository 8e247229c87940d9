"""Runs first in a child process that `multiprocessing` started anew; see `_children`. Not to be imported.

A job that only computes needs no client, and importing them all takes longer than many a job. So they are fenced when
they are imported.
"""

import importlib.abc
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

#: Of each client the module that the fence changes.
CLIENTS = ("kubernetes.client.rest", "pykube.http")


def refuse() -> None:
    """Fence the clients, without a term."""
    from kopf_ha import adapters
    from kopf_ha.adapters import _wiring

    adapters.install()
    _wiring.enter_child()


class WhenImported(importlib.abc.MetaPathFinder):
    """Has a client refuse as soon as it is loaded."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a client as others do, and add to how it is loaded."""
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
    # A server of `forkserver` had loaded one. What the child's path shall be multiprocessing says next.
    sys.path.append(str(Path(__file__).parents[2]))
    refuse()
