"""One Lease, and replicas of two operators: who is told, and who waits."""

from __future__ import annotations

import pytest

from kopf_ha.core.election import Phase
from kopf_ha.core.election import events as el
from kopf_ha.core.lease import OPERATOR
from tests.election.world import World

SENTENCE = "Lease ns/op belongs to operator shop (kopf-ha.dev/operator), this is bill."


@pytest.fixture
def world() -> World:
    return World()


def mark(world: World) -> str | None:
    assert world.lease.body is not None
    return (world.lease.body["metadata"].get("annotations") or {}).get(OPERATOR)


def test_the_lease_is_marked_and_stays_so(world: World) -> None:
    a, b = world.replica("a", operator="shop"), world.replica("b", operator="shop")
    world.run(30)
    assert world.leaders() == [a]
    assert mark(world) == "shop"
    a.step(el.Release())
    a.answer()
    assert mark(world) == "shop"
    b.flow()  # no time passes
    assert world.leaders() == [b]
    assert a.warnings == b.warnings == []


def test_a_lease_without_a_mark_is_taken_and_marked(world: World) -> None:
    """One that an earlier release made, or a process outside of a pod."""
    old = world.replica("old")
    world.run(5)
    assert mark(world) is None
    new = world.replica("new", operator="shop")
    old.step(el.Release())
    old.answer()
    new.flow()
    assert world.leaders() == [new]
    assert mark(world) == "shop"
    assert new.warnings == []
    # Who does not know its operator leaves the mark as it is.
    late = world.replica("late")
    new.step(el.Release())
    new.answer()
    late.flow()
    assert world.leaders() == [late]
    assert mark(world) == "shop"


def test_another_operator_is_told_and_waits(world: World) -> None:
    shop, bill = world.replica("shop", operator="shop"), world.replica("bill", operator="bill")
    world.run(60)
    assert world.leaders() == [shop]
    assert bill.warnings
    assert all(w.startswith(SENTENCE) and "give this one another --lease-name" in w for w in bill.warnings)
    # The operator restarts: its own replica is first, though it comes much later than the other could have it.
    shop.step(el.Release())
    shop.answer()
    world.run(45, bill)
    assert bill.phase is Phase.FOLLOWING
    again = world.replica("again", operator="shop")
    world.run(5, again, bill)
    assert world.leaders() == [again]
    assert mark(world) == "shop"


def test_an_operator_that_was_renamed_gets_the_lease(world: World) -> None:
    """The old workload is gone, whether it released the Lease or not. The token rises."""
    for released in (True, False):
        world = World()
        shop, bill = world.replica("shop", operator="shop"), world.replica("bill", operator="bill")
        world.run(10)
        if released:
            shop.step(el.Release())
            shop.answer()
        world.run(59, bill)
        assert world.leaders() == []
        world.run(20, bill)
        assert world.leaders() == [bill]
        assert mark(world) == "bill"
        assert world.tokens == [1, 2]


def test_a_leader_puts_its_mark_back(world: World) -> None:
    """Who may edit annotations of the Lease does not keep the operator's replicas from it."""
    a = world.replica("a", operator="shop")
    world.run(5)
    assert world.lease.body is not None
    world.lease.body["metadata"]["annotations"] = {OPERATOR: "bill", "note": "kept"}
    world.lease.edit(labels={"edited": "yes"})
    world.run(5)
    assert world.leaders() == [a]
    assert world.lease.body["metadata"]["annotations"] == {OPERATOR: "shop", "note": "kept"}
