"""The breadth-first search: every state within the bounds, once, and the shortest way to what breaks a promise."""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from model.bounds import Bounds
from model.promises import Broken


class Move(NamedTuple):
    """One move: what happens, what comes of it, what it broke, and whether a claim is served by it."""

    label: str
    state: Any
    broken: Broken | None = None
    served: bool = False


class Explorable(Protocol):
    """What can be explored. A state is a tuple of parts, many of which are the same in many states."""

    bounds: Bounds

    def begin(self) -> Any:
        """Return the first state."""

    def moves(self, state: Any) -> Iterator[Move]:
        """Yield all moves from a state."""

    def judge(self, state: Any) -> Broken | None:
        """Return what is broken in a state."""

    def has_a_term_left(self, state: Any) -> bool:
        """Return whether the bound still allows a new term: then some run has to lead to a served claim."""

    def parts(self, state: Any) -> tuple[Any, ...]:
        """Return a state as parts."""

    def whole(self, parts: Sequence[Any]) -> Any:
        """Return a state from its parts."""


@dataclass
class Explored:
    """What an exploration found.

    Args:
        bounds: what was explored.
        states: how many there are.
        moves: how many there are between them.
        seconds: of CPU time.
        depth: how many moves the farthest state is away.
        broken: what was broken first; None if everything holds.
        trace: the moves to it.
        whole: whether everything within the bounds was explored.
    """

    bounds: Bounds
    states: int = 0
    moves: int = 0
    seconds: float = 0.0
    depth: int = 0
    broken: Broken | None = None
    trace: list[str] = field(default_factory=list)
    whole: bool = True

    def __str__(self) -> str:
        how = "all" if self.whole and self.broken is None else "the first"
        return f"{self.bounds}: {how} {self.states:,} states, {self.moves:,} moves, {self.seconds:.0f} s of CPU time"


def explore(
    model: Explorable,
    *,
    only: Collection[str] = (),
    limit: int = 20_000_000,
    say: Callable[[str], None] = lambda text: None,
) -> Explored:
    """Explore everything within the bounds, or until a promise is broken.

    Args:
        model: what is explored.
        only: names of promises; all others are not asked about. Empty for all.
        limit: the most states.
        say: is told how far it is.
    """
    search = _Search(model, only)
    began = time.process_time()
    # Millions of tuples without a cycle: looking for cycles among them would take most of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        found = _run(search, limit, say, began)
    finally:
        if collects:
            gc.enable()
    if found.broken is None and found.whole and (not only or "served" in only):
        search.find_stuck()
    found.states, found.moves = len(search.order), len(search.edges)
    found.seconds = time.process_time() - began
    return found


def _run(search: _Search, limit: int, say: Callable[[str], None], began: float) -> Explored:
    while search.at < len(search.order) <= limit and search.found.broken is None:
        search.go_on()
        if search.at % 100_000 == 0:
            took = time.process_time() - began
            say(f"{search.at:,} of {len(search.order):,} states, {search.found.depth} moves away, {took:.0f} s")
    search.found.whole = search.at == len(search.order)
    return search.found


class _Search:
    def __init__(self, model: Explorable, only: Collection[str]) -> None:
        self.model, self.only = model, only
        self.found = Explored(model.bounds)
        self._numbers: dict[Any, int] = {}
        self._parts: list[Any] = []
        first = self._packed(model.begin())
        self.order = [first]
        self._seen = {first: 0}
        self._names: dict[str, int] = {}
        self._parents, self._labels = array("i", [-1]), array("i", [-1])
        self.edges, self._ends, self._serves = array("i"), array("q"), bytearray()
        self.at, self._level = 0, 1

    def _packed(self, state: Any) -> tuple[int, ...]:
        numbers, made = self._numbers, []
        for part in self.model.parts(state):
            number = numbers.get(part)
            if number is None:
                number = numbers[part] = len(self._parts)
                self._parts.append(part)
            made.append(number)
        return tuple(made)

    def _unpacked(self, i: int) -> Any:
        return self.model.whole([self._parts[number] for number in self.order[i]])

    def go_on(self) -> None:
        """Take the next state."""
        if self.at == self._level:
            self.found.depth += 1
            self._level = len(self.order)
        serves = 0
        for move in self.model.moves(self._unpacked(self.at)):
            key = self._packed(move.state)
            index = self._seen.get(key)
            broken = move.broken or (self.model.judge(move.state) if index is None else None)
            if broken is not None and (not self.only or broken.promise in self.only):
                self.found.broken, self.found.trace = broken, [*self._trace(self.at), move.label]
                return
            if index is None:
                index = self._seen[key] = len(self.order)
                self.order.append(key)
                self._parents.append(self.at)
                self._labels.append(self._names.setdefault(move.label, len(self._names)))
            self.edges.append(index)
            serves |= move.served
        self._ends.append(len(self.edges))
        self._serves.append(serves)
        self.at += 1

    def _trace(self, i: int) -> list[str]:
        names, way = list(self._names), []
        while i > 0:
            way.append(names[self._labels[i]])
            i = self._parents[i]
        return way[::-1]

    def find_stuck(self) -> None:
        """Find a state from which no run serves a claim, although the bound leaves a term for it (I7).

        Most moves lead to states with higher numbers, so going from the last to the first a few times is enough.
        """
        leads, edges, ends = bytearray(self._serves), self.edges, self._ends
        changed = True
        while changed:
            changed = False
            for i in range(len(leads) - 1, -1, -1):
                if not leads[i]:
                    begin = ends[i - 1] if i else 0
                    if any(leads[j] for j in edges[begin : ends[i]]):
                        leads[i] = 1
                        changed = True
        for i, good in enumerate(leads):
            if not good and self.model.has_a_term_left(self._unpacked(i)):
                self.found.broken = Broken("served", "no run from here serves a claim, although a term is left")
                self.found.trace = self._trace(i)
                return
