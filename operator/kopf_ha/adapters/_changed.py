"""Changes functions of clients and of the standard library, each only once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

#: A mark of the functions that `change` puts in place.
MARK = "kopf_ha"


def change(owner: Any, name: str, changed: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Change a method of a class, or a function of a module. A second call has no effect.

    Args:
        owner: the class or module; objects of the class that exist already get the new method, too.
        name: of the method or function.
        changed: returns what takes the place of the one that it is given.
    """
    given = getattr(owner, name)
    if not is_changed(given):
        new = functools.wraps(given)(changed(given))
        setattr(new, MARK, True)
        setattr(owner, name, new)


def is_changed(function: Any) -> bool:
    """Return whether a function is one that `change` put in place."""
    return bool(getattr(function, MARK, False))
