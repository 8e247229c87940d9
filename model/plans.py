"""What is explored: by every run of the tests, and by `make model`.

The faults, edits and so on of one exploration may come at any moment, in any order. Each exploration has few of them,
since each multiplies the states by about five.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.bounds import Bounds


@dataclass(frozen=True)
class Plan:
    """One exploration.

    Args:
        bounds: its bounds.
        clocks: whether it is the election alone, with clocks at one rate.
        limit: the most states; if it is reached, the exploration is not whole, and says so.
        only: the promises that are asked about; empty for all.
    """

    bounds: Bounds
    clocks: bool = False
    limit: int = 5_000_000
    only: tuple[str, ...] = ()


QUICK = (
    Plan(Bounds(terms=2)),
    Plan(Bounds(terms=2, off=frozenset({"rules"}))),
    Plan(Bounds(replicas=1, terms=2, faults=1, edits=1)),
    Plan(Bounds(terms=1, term=True, deletions=1, edits=1)),
    Plan(Bounds(terms=1), clocks=True),
    Plan(Bounds(replicas=1, terms=1, recovers=True)),
    Plan(Bounds(terms=1, recovers=True), clocks=True),
)
FULL = (
    Plan(Bounds(terms=2, deletions=1)),  # the longest come first, so that two processes end at about the same time
    Plan(Bounds(terms=3)),
    Plan(Bounds(terms=3, off=frozenset({"rules"}))),
    Plan(Bounds(terms=2, losses=1)),
    Plan(Bounds(terms=2), clocks=True, limit=100_000),
    Plan(Bounds(terms=2, recovers=True), limit=200_000),
    Plan(Bounds(terms=2, recovers=True), clocks=True, limit=50_000),
    Plan(Bounds(replicas=3, terms=3), limit=200_000),
    Plan(Bounds(terms=2, edits=1)),
    Plan(Bounds(terms=2, faults=1)),
    Plan(Bounds(replicas=3, terms=2)),
    Plan(Bounds(terms=2, term=True)),
    Plan(Bounds(terms=1, faults=1), clocks=True),
    Plan(Bounds(terms=1, handovers=1), clocks=True),
)
