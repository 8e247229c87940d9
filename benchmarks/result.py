"""What a benchmark gives: rows of measured values, beside those of a peer from the same run.

A benchmark that `python -m benchmarks.collect` can run has a function `run(plane, folder, seconds)` that gives rows, or
mappings with the fields of a `Row`.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_COMPARED: Mapping[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}
_STATISTICS = ("median", "least", "most", "p99", "ratio")


class NotHereError(Exception):
    """This machine cannot run a benchmark; the message says what it lacks. That is no failure."""


class Goal(NamedTuple):
    """What a statistic of a row should be at most (`<=`) or at least (`>=`)."""

    statistic: str
    comparison: str
    bound: float

    @classmethod
    def of(cls, text: str) -> Goal:
        """Read one, for example `median <= 1`. Raises ValueError if it is none."""
        found = re.fullmatch(rf"({'|'.join(_STATISTICS)}) (<=|>=) ([0-9.]+)", text)
        if found is None:
            raise ValueError(f"{text!r} is no goal: it has to be like 'median <= 1', of {', '.join(_STATISTICS)}")
        return cls(found[1], found[2], float(found[3]))


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing that was measured several times, in rounds that alternate with the peer's.

    Args:
        what: in a few words; rows of one benchmark with the same `what` differ in the peer, and have the same values.
        unit: of all values, for example `s`.
        values: of this project, one for each round.
        peer: what it is compared with; empty if there is nothing.
        peer_values: of the peer, one for each of its rounds.
        goals: for example `median <= 1`; the ratio is the median divided by the peer's.
        note: what the reader has to know, in one sentence.
        subject: whose values they are, if not simply the project's.
    """

    what: str
    unit: str
    values: Sequence[float]
    peer: str = ""
    peer_values: Sequence[float] = ()
    goals: Sequence[str] = ()
    note: str = ""
    subject: str = "kopf-ha"

    def __post_init__(self) -> None:
        if not self.values or not all(map(math.isfinite, [*self.values, *self.peer_values])):
            raise ValueError(f"{self.what}: values have to be numbers, and there has to be one")
        if bool(self.peer) != bool(self.peer_values):
            raise ValueError(f"{self.what}: a peer has a name and values")
        for goal in map(Goal.of, self.goals):
            if goal.statistic == "ratio" and not self.peer:
                raise ValueError(f"{self.what}: there is no ratio without a peer")

    @property
    def ratio(self) -> float | None:
        """The median divided by the peer's; None without a peer, or if the peer's is 0."""
        below = statistics.median(self.peer_values) if self.peer_values else 0
        return statistics.median(self.values) / below if below else None

    def statistic(self, name: str) -> float:
        """Give the median, the least, the most, the p99 or the ratio. Raises ValueError if there is no ratio."""
        if name == "ratio":
            if self.ratio is None:
                raise ValueError(f"{self.what}: no ratio")
            return self.ratio
        known: Mapping[str, Callable[[Sequence[float]], float]]
        known = {"median": statistics.median, "least": min, "most": max, "p99": p99}
        return known[name](self.values)

    def missed(self) -> list[str]:
        """Give the goals that were not reached."""
        return [text for text in self.goals if not self._reached(Goal.of(text))]

    def _reached(self, goal: Goal) -> bool:
        return _COMPARED[goal.comparison](self.statistic(goal.statistic), goal.bound)


def p99(values: Sequence[float]) -> float:
    """Give the value that 99 of 100 do not exceed: the most of fewer than 100."""
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


def rows_of(given: Iterable[Row | Mapping[str, Any]]) -> list[Row]:
    """Give rows, whether a benchmark gave rows or mappings with the same names.

    Raises:
        TypeError: a mapping has other names.
        ValueError: values or goals are wrong.
    """
    return [one if isinstance(one, Row) else Row(**one) for one in given]


def rounds(
    seconds: float, least: int = 3, most: int = 20, clock: Callable[[], float] = time.monotonic
) -> Iterator[int]:
    """Count rounds while there is time for one more that takes as long as the longest so far.

    Args:
        seconds: that all rounds may take.
        least: so many there are in any case.
        most: and no more than so many.
        clock: in seconds.
    """
    began = last = clock()
    longest = 0.0
    for number in range(most):
        if number >= least and last - began + longest > seconds:
            return
        yield number
        now = clock()
        longest, last = max(longest, now - last), now
