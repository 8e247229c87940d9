"""Whether operations that overlapped in time can have happened one after the other, each while it was under way.

That is linearizability (Herlihy and Wing). The search is the one of Wing and Gong: an operation may come next if none
that is still missing ended before it began. What was tried once (which operations are done, and what they led to) is
not tried again (Lowe). A history is linearizable if that of each object is, so each is searched alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

CallT = TypeVar("CallT")
StateT = TypeVar("StateT", bound=Hashable)

#: So many steps are tried for one object. A history in which one order is as good as any other needs few more than it
#: has operations.
STEPS = 200_000


@dataclass(frozen=True, slots=True)
class Operation(Generic[CallT]):
    """What somebody did with one object.

    Args:
        begin: seconds, when the request was received.
        end: seconds, when it was answered; `math.inf` without an answer. Such an operation took effect at any time
            since it began, or never.
        call: what was asked and answered, for the model of the object.
    """

    begin: float
    end: float
    call: CallT


@dataclass(frozen=True, slots=True)
class Outcome(Generic[CallT]):
    """What a search found.

    Args:
        stuck: operations that can come next in no order, after as many as possible were put in order; empty if all
            have a place.
        decided: False if the search was given up, so that nothing is known.
    """

    stuck: tuple[Operation[CallT], ...] = ()
    decided: bool = True

    @property
    def ok(self) -> bool:
        """Whether an order was found."""
        return self.decided and not self.stuck


def search(
    operations: Iterable[Operation[CallT]],
    start: StateT,
    step: Callable[[StateT, CallT], Iterable[StateT]],
    *,
    steps: int = STEPS,
) -> Outcome[CallT]:
    """Look for an order of the operations of one object.

    Args:
        operations: in any order.
        start: the object before all of them.
        step: the model: what the object may be after a call; nothing if the call is not answered like that then.
        steps: how many are tried.
    """
    known = sorted(operations, key=lambda o: (o.begin, o.end))
    answered = [o for o in known if o.end < math.inf]
    lost = [o for o in known if o.end == math.inf]
    # All answered operations before `low` are done, and those in `done`; of the lost ones, those in `took`.
    first: tuple[int, frozenset[int], frozenset[int], StateT] = (0, frozenset(), frozenset(), start)
    todo, seen = [first], {first}
    furthest, stuck = -1, tuple(answered[:1])
    while todo:
        low, done, took, state = todo.pop()
        if low == len(answered):
            return Outcome()
        if (steps := steps - 1) < 0:
            return Outcome(decided=False)
        may, horizon = _next(answered, low, done)
        if low + len(done) > furthest:
            furthest, stuck = low + len(done), tuple(answered[i] for i in may)
        found = []
        for i in may:
            then = _closed(low, done | {i})
            found += [(*then, took, after) for after in step(state, answered[i].call)]
        for i, one in enumerate(lost):
            if one.begin > horizon:
                break
            if i not in took:
                found += [(low, done, took | {i}, after) for after in step(state, one.call)]
        for configuration in reversed(found):  # the first one is tried first
            if configuration not in seen:
                seen.add(configuration)
                todo.append(configuration)
    return Outcome(stuck)


def _next(answered: Sequence[Operation[CallT]], low: int, done: frozenset[int]) -> tuple[list[int], float]:
    """Return which answered operations may come next, and by when one of them has to."""
    horizon, may = math.inf, []
    for i in range(low, len(answered)):
        if answered[i].begin > horizon:
            break
        if i not in done:
            may.append(i)
            horizon = min(horizon, answered[i].end)
    return [i for i in may if answered[i].begin <= horizon], horizon


def _closed(low: int, done: frozenset[int]) -> tuple[int, frozenset[int]]:
    while low in done:
        low, done = low + 1, done - {low}
    return low, done
