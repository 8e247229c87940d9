"""Child processes write nothing, however they are started (I8).

A term is one process's: its grant is renewed, closed and drained there. A child of `fork` has a copy of the grant
that nobody renews or closes; one of `spawn` or `forkserver` is a fresh interpreter, whose clients nobody has fenced.
So each is told to refuse: a forked one by the interpreter's hook, in `_wiring`; the others by what `multiprocessing`
sends them ahead of the job, as the first thing that they unpickle. What is started without `multiprocessing`
(`subprocess`, `kubectl`) is out of reach.
"""

from __future__ import annotations

import functools
import runpy
from collections.abc import Callable
from multiprocessing import spawn
from pathlib import Path
from typing import Any

#: By its path, since a fresh interpreter may not find the package yet.
_FIRST = Path(__file__).with_name("_in_child.py")


class _First:
    """Where it is unpickled, `_in_child.py` runs."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return runpy.run_path, (str(_FIRST),)


def install(installed: Callable[[], bool]) -> None:
    """Have children of `multiprocessing` refuse to write; without effect the second time.

    Args:
        installed: says whether this process's clients are fenced.
    """
    given = spawn.get_preparation_data
    if getattr(given, "kopf_ha", False):
        return

    @functools.wraps(given)
    def prepared(name: str) -> dict[str, Any]:
        return given(name) | ({"kopf_ha": _First()} if installed() else {})

    prepared.kopf_ha = True  # type: ignore[attr-defined]
    spawn.get_preparation_data = prepared
