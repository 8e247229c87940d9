"""Changes a client as soon as the operator imports it, so that a client that it does not use is never imported."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType

#: By the name of a module, what to call with it when it is loaded.
_waiting: dict[str, Callable[[ModuleType], None]] = {}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds these modules as usual, and has them changed after they are loaded."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Ask all other finders."""
        then = _waiting.get(name)
        if then is None:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find is not None else None
            if spec is not None:
                return _then(spec, then)
        return None


def _then(spec: ModuleSpec, then: Callable[[ModuleType], None]) -> ModuleSpec:
    if spec.loader is not None:
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            then(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
    return spec


def when_imported(name: str, then: Callable[[ModuleType], None]) -> None:
    """Call `then` with the module: now, if it is loaded already, and whenever it is loaded.

    Args:
        name: of the module.
        then: changes the module. It is called again for a module that it has changed already.
    """
    _waiting[name] = then
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    if name in sys.modules:
        then(sys.modules[name])
