"""Makes child processes refuse to write (I8).

A term belongs to one process, which renews and closes its grant. A forked child has a copy of the grant that nobody
renews or closes. A child of `spawn` or `forkserver` is a new interpreter with clients that are not fenced. So every
child has to refuse:

- A forked child is told by the interpreter's fork hook, in `_wiring`.
- The others are told by the data that `multiprocessing` sends them before the job: it is the first thing they unpickle.

Processes that are started without `multiprocessing` (`subprocess`, `kubectl`) cannot be reached.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from multiprocessing import spawn
from pathlib import Path
from typing import Any

from kopf_ha.adapters._changed import change

#: A path, since a new interpreter may not find the package yet.
_FIRST = Path(__file__).with_name("_in_child.py")


class _First:
    """Runs `_in_child.py` where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return runpy.run_path, (str(_FIRST),)


def install(installed: Callable[[], bool]) -> None:
    """Make children of `multiprocessing` refuse to write. A second call has no effect.

    Args:
        installed: returns whether this process's clients are fenced.
    """

    def preparing(given: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
        return lambda name: given(name) | ({"kopf_ha": _First()} if installed() else {})

    change(spawn, "get_preparation_data", preparing)
