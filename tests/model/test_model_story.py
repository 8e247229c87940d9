"""What breaks a promise is told as a story, and as a test that runs as it is printed."""

from __future__ import annotations

from typing import Any

import pytest

from model import Bounds, Cluster, Impossible, explore, replay, story

WEAK = Bounds(terms=2, off=frozenset({"barrier"}))


def test_a_story_has_a_sentence_for_each_move_and_ends_with_what_broke() -> None:
    found = explore(Cluster(WEAK), only=["I5"])
    told = story(found, only=["I5"])
    assert told.startswith("I5 does not hold: pool1 and pool2 both give the address, each to its claim.")
    assert "  1. A's write of the Lease is answered: term 1 of A begins, the Lease names A, with number 1.\n" in told
    assert f" {len(found.trace)}. B's write of pool2 that gives the address, token 2 is answered: pool2 has" in told


def test_the_printed_test_fails_as_long_as_the_promise_is_broken() -> None:
    printed = story(explore(Cluster(WEAK), only=["I5"]), only=["I5"]).partition("The same as a test:")[2]
    scope: dict[str, Any] = {}
    exec(printed, scope)
    with pytest.raises(AssertionError):
        scope["test_found_by_the_model"]()


def test_the_same_moves_end_otherwise_with_the_defence() -> None:
    moves = ["A's write of the Lease is answered", "B's timer fires", "B's write of the Lease is answered"]
    run = replay(moves, Bounds(terms=2))
    assert run.broken is None
    assert run.told[-1] == "B's write of the Lease is answered: term 2 of B begins, the Lease names B, with number 2."
    with pytest.raises(Impossible, match=r"move 4, 'A decides that claim1 gets the address', cannot happen"):
        replay([*moves, "A decides that claim1 gets the address"], Bounds(terms=2))
