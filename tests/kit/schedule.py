"""Which tests a worker of pytest-xdist runs: whole modules, or whole folders that share something expensive.

A control plane that a folder has for itself, or policies in force, would otherwise be made by each worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

import pytest
from xdist.scheduler import LoadScopeScheduling

#: Folders whose tests run one after the other, by one worker.
WHOLE = ("tests/fourth_line", "tests/image", "tests/manifests", "tests/policies", "tests/survival")
#: What takes long begins early, so that the workers end together. All else comes after that, in pytest's order.
FIRST = (
    "tests/survival",
    "tests/policies",
    "tests/image",
    "tests/manifests",
    "tests/fourth_line",
    "tests/adoption/test_mixed_versions.py",
    "tests/adoption/test_from_locks.py",
    "tests/adoption",
    "tests/ipam/test_ipam_crashes.py",
    "tests/ipam",
)


def unit(nodeid: str) -> str:
    """Give what has to run in one piece with this test."""
    path = PurePosixPath(nodeid.partition("::")[0])
    return next((str(parent) for parent in path.parents if str(parent) in WHOLE), str(path))


def in_order(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Sort tests by when their units should begin."""

    def place(item: pytest.Item) -> int:
        return next((n for n, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST))

    return sorted(items, key=place)


class ByUnit(LoadScopeScheduling):
    """Hands one unit after the other to whoever has next to nothing left to do."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)
