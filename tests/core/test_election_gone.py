"""Taking over early: from a holder that is gone, and not before others that are better suited."""

from __future__ import annotations

import pytest

from kopf_ha.core.election import Phase
from kopf_ha.core.election import events as el
from kopf_ha.core.lease import OPERATOR
from tests.election.world import Replica, World


@pytest.fixture
def world() -> World:
    return World()


def two(world: World) -> tuple[Replica, Replica]:
    a, b = world.replica("a"), world.replica("b")
    world.run(5)
    assert world.leaders() == [a]
    return a, b


def lease_of(world: World, holder: str) -> None:
    world.lease.create({"spec": {"leaseTransitions": 4, "holderIdentity": holder, "leaseDurationSeconds": 15}})


def test_a_holder_that_is_gone_is_not_waited_for(world: World) -> None:
    _, b = two(world)
    version = b.state.version
    b.step(el.HolderGone("a"))
    assert isinstance(b.request, el.Put)
    assert (b.request.record.transitions, b.request.record.resource_version) == (2, version), "raised, and as seen"
    b.flow()  # no time passes
    assert b.leads()
    assert world.tokens == [1, 2]


def test_a_process_that_was_only_thought_to_be_gone_learns_who_leads(world: World) -> None:
    """Its grant is open meanwhile: that is given up, and the tokens do not meet (I2)."""
    a, b = two(world)
    b.step(el.HolderGone("a"))
    b.flow()
    assert world.leaders() == [a, b]
    a.flow()
    assert a.stopped == ["Lease ns/op is held by b (token 2)"]
    assert world.leaders() == [b]


def test_a_renewal_in_between_is_a_conflict_and_no_reason_to_wait(world: World) -> None:
    a, b = two(world)
    world.now = a.last_beat = a.due
    a.tick()
    b.step(el.HolderGone("a"))
    a.answer()
    b.flow()
    assert b.leads()
    assert world.tokens == [1, 2]


def test_news_of_the_end_may_come_before_the_news_of_the_lease(world: World) -> None:
    """Its PUT was under way when it died."""
    lease_of(world, "x")
    b = world.replica("b")
    b.step(el.HolderGone("late"))
    assert b.request is None, "somebody else leads"
    world.lease.edit(holderIdentity="late", leaseTransitions=5)
    b.flow()
    assert b.leads()
    assert world.tokens == [6]


@pytest.mark.parametrize("holder", ["", "b", "stranger"])
def test_foreign_news_changes_nothing(world: World, holder: str) -> None:
    _, b = two(world)
    b.step(el.HolderGone(holder))
    world.run(20)
    assert world.tokens == [1]


def test_news_of_ends_say_nothing_about_the_lease_again(world: World) -> None:
    """Pods end all the time, and what keeps this replica from a Lease was said when it saw it."""
    world.lease.create(
        {"metadata": {"annotations": {OPERATOR: "shop"}}, "spec": {"leaseTransitions": 4, "holderIdentity": "x"}}
    )
    b = world.replica("b", operator="bill")
    b.step(el.HolderGone("x"))
    said = list(b.warnings)
    for holder in ("x", "stranger", "another"):
        b.step(el.HolderGone(holder))
    assert said
    assert b.warnings == said


@pytest.mark.parametrize("holder", ["", "a", "b"])
def test_no_such_news_ends_my_term_nor_begins_one(world: World, holder: str) -> None:
    a, _ = two(world)
    before = a.state.phase, a.due, a.request
    a.step(el.HolderGone(holder))
    assert a.leads()
    assert (a.state.phase, a.due, a.request) == before


def test_my_own_name_without_a_term_is_waited_out_whatever_is_told(world: World) -> None:
    two(world)
    new = world.replica("a")
    new.step(el.HolderGone("a"))
    world.run(10, new)
    assert not new.leads()


def test_news_while_a_lost_term_drains_counts_afterwards(world: World) -> None:
    a, b = two(world)
    a.step(el.StepDown("refused"))
    a.flow()
    b.flow()
    a.flow()
    assert (a.phase, world.leaders()) == (Phase.LOST, [b])
    a.step(el.HolderGone("b"))
    assert a.request is None, "not before the old term is drained"
    a.step(el.Resume())
    a.flow()
    assert world.tokens == [1, 2, 3]


@pytest.mark.parametrize("when", ["leading", "lost"])
def test_news_of_a_later_holder_counts_after_the_term(world: World, when: str) -> None:
    """Its Pod may be seen to be gone before its last write to the Lease is."""
    a, _ = two(world)
    if when == "leading":
        a.step(el.HolderGone("x"))
    world.lease.edit(holderIdentity="x", leaseTransitions=5)
    a.flow()
    if when == "lost":
        a.step(el.HolderGone("x"))
    a.step(el.Resume())
    a.flow()
    assert a.leads()
    assert world.tokens == [1, 6]


def test_a_holder_that_is_gone_is_not_tried_in_a_hot_loop(world: World) -> None:
    _, b = two(world)
    b.step(el.HolderGone("a"))
    attempts = 0
    while b.request is not None:
        attempts += isinstance(b.request, el.Put)
        b.answer(el.NotWritten("403") if isinstance(b.request, el.Put) else None)
    assert attempts == 1
    assert b.due >= world.now + 2


# --- a head start


@pytest.mark.parametrize("free", ["released", "expired", "gone", "deleted", "deleted after it was invalid"])
def test_a_head_start_counts_from_when_the_lease_could_be_had(world: World, free: str) -> None:
    lease_of(world, "x")
    old, new = world.replica("old"), world.replica("new")
    old.step(el.HeadStart(2.0))
    if free == "released":
        world.lease.edit(holderIdentity="")
    elif free == "gone":
        old.step(el.HolderGone("x"))
        new.step(el.HolderGone("x"))
    elif free == "expired":
        world.run(15)
    else:
        if "invalid" in free:
            world.lease.edit(leaseTransitions=None)
        world.run(5)
        world.lease.delete()
    old.flow()
    assert old.request is None
    world.run(1.9, old)
    assert not old.leads()
    new.flow()
    old.flow()
    assert world.leaders() == [new]
    assert world.tokens == [5]


def test_nobody_else_takes_it_so_i_do(world: World) -> None:
    lease_of(world, "x")
    old = world.replica("old")
    old.step(el.HeadStart(2.0))
    world.lease.edit(holderIdentity="")
    world.run(1.8)
    assert not old.leads()
    for _ in range(5):
        old.step(el.HeadStart(2.0))  # saying it again begins nothing anew
    world.run(0.4)
    assert old.leads()


def test_news_of_the_same_end_begin_no_head_start_anew(world: World) -> None:
    lease_of(world, "x")
    old = world.replica("old")
    old.step(el.HeadStart(2.0))
    old.step(el.HolderGone("x"))
    world.run(1.8)
    old.step(el.HolderGone("x"))
    world.run(0.4)
    assert old.leads()


@pytest.mark.parametrize("there", [True, False], ids=["released", "deleted"])
def test_no_edit_nor_look_begins_a_head_start_anew(world: World, there: bool) -> None:
    lease_of(world, "x")
    old = world.replica("old")
    old.step(el.HeadStart(2.0))
    if there:
        world.lease.edit(holderIdentity="")
    else:
        world.lease.delete()
    for n in range(22):
        world.run(0.1)
        if there:
            world.lease.edit(labels={"n": str(n)})
        elif not old.leads():
            old.step(world.lease.seen())
    old.flow()
    assert old.leads()


@pytest.mark.parametrize("seconds", [0.0, -3.0])
def test_without_a_head_start_a_lease_is_taken_when_it_is_free_and_not_before(world: World, seconds: float) -> None:
    lease_of(world, "x")
    a = world.replica("a")
    a.step(el.HeadStart(seconds))
    world.run(14.9)
    assert a.phase is Phase.FOLLOWING
    world.lease.edit(holderIdentity="")
    a.flow()  # no time passes
    assert a.leads()


def test_the_end_of_a_head_start_is_acted_on_at_once(world: World) -> None:
    lease_of(world, "x")
    old = world.replica("old")
    old.step(el.HeadStart(60.0))
    world.lease.edit(holderIdentity="")
    world.run(20)
    assert not old.leads()
    old.step(el.HeadStart(0.0))
    old.flow()
    assert old.leads()


def test_a_head_start_ends_no_term(world: World) -> None:
    a, _ = two(world)
    a.step(el.HeadStart(2.0))
    world.run(60)
    assert world.leaders() == [a]
    assert world.tokens == [1]


@pytest.mark.parametrize("when", ["leading", "lost"])
def test_a_head_start_that_is_told_during_a_term_counts_after_it(world: World, when: str) -> None:
    a, b = two(world)
    if when == "leading":
        a.step(el.HeadStart(2.0))
    world.lease.edit(holderIdentity="")
    a.flow()
    if when == "lost":
        a.step(el.HeadStart(2.0))
    a.step(el.Resume())
    a.flow()
    assert a.phase is Phase.FOLLOWING
    b.flow()
    assert world.leaders() == [b]
