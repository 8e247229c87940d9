"""The model notices when a line of defence is switched off; where another line masks it, that one is off, too."""

from __future__ import annotations

from dataclasses import dataclass
from unittest import mock

import pytest

from kopf_ha.core import write
from model import Bounds, Clocks, Cluster, explore, replay, story


@dataclass(frozen=True)
class Case:
    """What is switched off, which promise breaks, and after how many moves at the earliest."""

    off: tuple[str, ...]
    promise: str
    moves: int
    bounds: Bounds
    clocks: bool = False

    def __str__(self) -> str:
        return f"{'+'.join(self.off)}-{self.promise}"

    @property
    def weak(self) -> Bounds:
        return Bounds(**{**vars(self.bounds), "off": frozenset(self.off)})


TWO = Bounds(terms=2)
CASES = [
    # Each of lines 2 and 3 is enough to keep a token from going down: the revision, and the rules in the API server.
    Case(("version", "rules"), "I1", 12, TWO),
    Case(("version", "rules"), "I5", 17, TWO),
    # A token for each object is not enough where one object is decided from another.
    Case(("barrier",), "I4", 4, TWO),
    Case(("barrier",), "I5", 13, TWO),
    Case(("barrier", "stamps", "rules"), "I5", 13, TWO),
    # Line 4 alone would refuse the new leader wherever the API server has not heard of it.
    Case(("one-sided",), "I9", 11, Bounds(terms=2, term=True)),
    # The floor, the holder in the stamp and the policies each find out that two processes have one token.
    Case(("rising", "floor", "owner", "rules"), "I2", 7, TWO),
    # Then the term that finds out asks for a higher token, and does not get it.
    Case(("rising",), "served", 4, TWO),
    Case(("resume",), "served", 2, Bounds(replicas=1, terms=2)),
    # Line 1.
    Case(("drain",), "line 1", 6, TWO, clocks=True),
    Case(("moment",), "line 1", 8, TWO, clocks=True),
    # Orders of people: who acquires looks for a pause, and who is paused gives the Lease back after its handlers ended.
    Case(("heeded",), "pause", 7, Bounds(terms=2, pauses=1), clocks=True),
    Case(("heeded",), "pause", 3, Bounds(terms=2, pauses=1)),
    Case(("drain",), "pause", 5, Bounds(terms=2, pauses=1), clocks=True),
    # A gate that was held opens again, whoever leads by now.
    Case(("asking",), "line 1", 10, Bounds(terms=2, recovers=True), clocks=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_switched_off_is_noticed_by_the_shortest_run(case: Case) -> None:
    only = (case.promise,)
    found = explore(Clocks(case.weak) if case.clocks else Cluster(case.weak), only=only)
    told = story(found, clocks=case.clocks, only=only)
    assert found.broken is not None, told
    assert (found.broken.promise, len(found.trace)) == (case.promise, case.moves), told


#: Found by `python -m model --terms 2 --deletions 1 --off order --only I5`, which takes a minute.
LATE_CREATION = [
    "A's write of the Lease is answered",
    "B's timer fires",
    "B's write of the Lease is answered",
    "A's read of pools is answered",
    "A's stamp of pool1 with token 1 is answered",
    "A's stamp of pool2 with token 1 is answered",
    "A's read of pools is answered",
    "A's read of claims is answered",
    "A decides that claim1 gets the address",
    "A's write of pool1 that gives the address, token 1 is answered",
    "A decides to publish child1",
    "B's read of pools is answered",
    "B's stamp of pool1 with token 2 is answered",
    "B's stamp of pool2 with token 2 is answered",
    "B's read of pools is answered",
    "a user deletes claim1",
    "B's read of claims is answered",
    "B decides to remove child1",
    "B's read of child1 is answered",
    "A's creation of child1 with token 1 is answered",
    "B decides to free the address of claim1",
    "B's write of pool1 that takes the address back, token 2 is answered",
    "B decides that claim2 gets the address",
    "B's write of pool2 that gives the address, token 2 is answered",
    "B decides to publish child2",
    "B's creation of child2 with token 2 is answered",
]


def test_a_late_creation_publishes_what_was_freed_too_early() -> None:
    run = replay(LATE_CREATION, Bounds(terms=2, deletions=1, off=frozenset({"order"})), only=["I5"])
    assert run.broken is not None
    assert run.broken.promise == "I5"


#: Found by `python -m model --terms 2 --faults 1 --clocks --off sending`.
LATE_ANSWER = [
    "A hears of the Lease",
    "A's write of the Lease is stored, and its answer is late",
    "B hears of the Lease",
    "a unit of time passes",
    "A's answer about the Lease comes",
    "a unit of time passes",
    "a unit of time passes",
    "B's timer fires",
    "B's write of the Lease is answered",
]


def test_a_grant_that_counts_from_the_answer_outlives_the_lease() -> None:
    bounds = Bounds(terms=2, faults=1)
    assert replay(LATE_ANSWER, bounds, clocks=True).broken is None
    run = replay(LATE_ANSWER, Bounds(terms=2, faults=1, off=frozenset({"sending"})), clocks=True)
    assert run.broken is not None
    assert run.broken.promise == "line 1"


def test_a_term_whose_gate_was_held_goes_on_or_ends() -> None:
    """Both are among what is explored: nobody acquires the Lease meanwhile, or somebody does."""
    bounds = Bounds(terms=2, recovers=True)
    held = ["A's write of the Lease is answered", "A cannot renew the Lease in time"]
    alone = replay([*held, "A's timer fires", "A's write of the Lease is answered"], bounds)
    assert alone.told[-1] == "A's write of the Lease is answered: term 1 of A goes on."
    other = ["B's timer fires", "B's write of the Lease is answered", "A's timer fires"]
    beside = replay([*held, *other], bounds)
    assert "term 1 of A ends" in beside.told[-1]
    assert alone.broken is None
    assert beside.broken is None


def test_what_the_core_does_is_what_is_explored() -> None:
    bounds = Bounds(replicas=1, terms=1, edits=1, deletions=1)
    assert explore(Cluster(bounds)).broken is None
    with mock.patch.object(write, "may_repeat", return_value=False):
        found = explore(Cluster(bounds))
    assert found.broken is not None
    assert found.broken.why == "the current leader's remove met a conflict that is not its own"
    assert found.trace[-3:] == [
        "a user edits child1",
        "A's deletion of child1 is answered",
        "A's read of child1 is answered",
    ]
