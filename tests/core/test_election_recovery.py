"""A term that outlives an outage: what holds its gate, what opens it again, and what ends it for good.

The outage is the test's: no request is answered. The clock is the test's, too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from kopf_ha.core.election import Phase
from kopf_ha.core.election import events as el
from kopf_ha.core.lease import HANDOVER, PAUSED
from tests.election.world import Replica, World

#: Seconds until the gate is held, and until the term is over, from the last renewal on.
HELD, OVER = 10.0, 25.0


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def a(world: World) -> Replica:
    """It has just begun to lead with token 1, and may recover for 15 s."""
    a = world.replica("a", recovery=15)
    a.flow()
    assert a.leads()
    return a


def outage(a: Replica, until: float, *, beats: bool = True) -> None:
    """No request of this replica is answered until so many seconds after its last renewal."""
    world, end = a.world, a.state.renewed + until
    while a.grant is not None and min(a.due, end) < end:
        world.now = max(world.now, a.due)
        if beats:
            a.last_beat = world.now
        a.tick()
        if a.request is not None:
            a.answer(a.refusal("refused", el.NotWritten))
    world.now = max(world.now, end)
    a.last_beat = world.now if beats else a.last_beat


def test_at_the_renew_deadline_the_gate_is_held_and_the_term_goes_on(a: Replica) -> None:
    began = a.world.now
    outage(a, HELD + 0.1)
    assert a.holds == ["not renewed for 10.0 s: refused"]
    assert (a.stopped, a.leads()) == ([], False)
    grant = a.grants[0]
    assert (grant.closed, grant.held, grant.deadline) == ("", a.holds[0], began + 15)


@pytest.mark.parametrize("recovery", [0.5, 1])
def test_a_short_recovery_is_one(world: World, recovery: float) -> None:
    a = world.replica("a", recovery=recovery)
    a.flow()
    outage(a, HELD + 0.1)
    assert (len(a.holds), a.stopped) == (1, [])
    outage(a, HELD + 2)
    assert (a.phase, a.stopped) == (Phase.LOST, [f"not renewed for {HELD + recovery:.1f} s: refused"])


def test_without_recovery_the_term_ends_there(world: World) -> None:
    a = world.replica("a", recovery=0)
    a.flow()
    outage(a, HELD + 0.1)
    assert (a.stopped, a.holds) == (["not renewed for 10.0 s: refused"], [])


def test_the_gate_opens_with_the_same_token_once_the_lease_is_read_and_renewed(world: World, a: Replica) -> None:
    outage(a, 12.0)
    world.now = a.due = world.now + 1
    a.tick()
    assert isinstance(a.request, el.Read), "what the API server says now, and not what was seen before"
    a.answer()
    assert isinstance(a.request, el.Put)
    assert a.request.record.resource_version == str(world.lease.version)
    sent, world.now = world.now, world.now + 3
    assert not a.leads(), "not before the answer"
    a.answer()
    assert (a.leads(), a.phase, len(a.grants), world.tokens) == (True, Phase.LEADING, 1, [1])
    assert a.grants[0].deadline == sent + 15, "it counts from when the renewal was sent"
    world.run(30)
    assert (a.leads(), world.tokens) == (True, [1])


def test_a_renewal_that_was_stored_while_its_answer_was_lost_keeps_the_term(world: World, a: Replica) -> None:
    world.now = a.last_beat = a.due
    a.tick()
    a.serve()
    a.lose_answer()
    a.inbox.clear()
    outage(a, 12.0)
    a.flow()
    assert (a.leads(), world.tokens) == (True, [1])


def test_a_renewal_that_lands_between_the_read_and_the_write_costs_one_more_read(world: World, a: Replica) -> None:
    world.now = a.last_beat = a.due
    a.tick()
    assert isinstance(a.request, el.Put)
    late = a.request.record
    a.lose_answer()
    outage(a, 12.0)
    world.now = a.due = world.now + 1
    a.tick()
    a.answer()
    world.lease.put(late)
    a.answer()
    assert isinstance(a.request, el.Read)
    a.flow()
    assert (a.leads(), world.tokens) == (True, [1])


def test_who_lost_the_lease_meanwhile_writes_nothing_any_more(world: World, a: Replica) -> None:
    b = world.replica("b")
    world.lease.watchers.remove(a.inbox)  # its watch is broken
    outage(a, 12.0)
    b.step(el.HolderGone("a"))
    b.flow()
    assert (world.leaders(), world.tokens) == ([b], [1, 2])
    world.now = a.last_beat = world.now + 1
    before = copy.deepcopy(world.lease.body)
    a.flow()
    assert a.stopped == ["Lease ns/op is held by b (token 2)"]
    assert world.lease.body == before
    assert not a.grants[0].may_reopen(world.now)


def test_who_acquires_between_the_read_and_the_write_wins(world: World, a: Replica) -> None:
    b = world.replica("b")
    outage(a, 12.0)
    world.now = a.due = world.now + 1
    a.tick()
    a.answer()
    assert isinstance(a.request, el.Put)
    b.step(el.HolderGone("a"))
    b.answer()
    a.inbox.clear()
    a.flow()
    assert (world.leaders(), a.stopped) == ([b], ["Lease ns/op is held by b (token 2)"])


def test_a_follower_that_saw_the_lease_expire_is_refused_once_the_old_leader_has_renewed_it(world: World) -> None:
    a, b = world.replica("a", recovery=15), world.replica("b")
    a.flow()
    b.flow()
    outage(a, 16.0)
    b.tick()
    assert isinstance(b.request, el.Put)
    a.flow()
    b.flow()
    assert (world.leaders(), b.phase, world.tokens) == ([a], Phase.FOLLOWING, [1])


CHANGES: dict[str, tuple[Callable[[World], None], str]] = {
    "deleted": (lambda w: w.lease.delete(), "Lease ns/op was deleted"),
    "made again": (lambda w: again(w), "Lease ns/op was deleted"),
    "another holder": (lambda w: w.lease.edit(holderIdentity="x"), "Lease ns/op is held by x (token 1)"),
    "no holder": (lambda w: w.lease.edit(holderIdentity=""), "Lease ns/op is held by nobody (token 1)"),
    "a higher number": (lambda w: w.lease.edit(leaseTransitions=9), "was raised to 9, my token is 1"),
    "a lower number": (lambda w: w.lease.edit(leaseTransitions=0), "was lowered to 0, my token is 1"),
    # Whoever paused it may have been told that nobody leads, since the Lease had expired.
    "a pause": (lambda w: w.lease.annotate(PAUSED, "true"), "the Lease could not be renewed, and is paused by"),
    "no number": (lambda w: w.lease.edit(leaseTransitions=None), "leaseTransitions"),
}


def again(world: World) -> None:
    body = copy.deepcopy(world.lease.body or {})
    world.lease.delete()
    world.lease.create(body)


@pytest.mark.parametrize("how", ["watch", "read"])
@pytest.mark.parametrize("change", CHANGES)
def test_any_other_lease_ends_the_term(world: World, a: Replica, change: str, how: str) -> None:
    outage(a, 12.0)
    happens, cause = CHANGES[change]
    happens(world)
    if how == "watch":
        a.deliver()
        while a.inbox and a.grant is not None:
            a.deliver()
        assert a.request is None, "no request is needed to know it"
    else:
        a.inbox.clear()
        a.flow()
    assert (a.phase, len(a.stopped)) == (Phase.LOST, 1)
    assert cause in a.stopped[0]


def test_a_pause_between_the_read_and_the_write_wins(world: World, a: Replica) -> None:
    outage(a, 12.0)
    a.tick()
    a.answer()
    assert isinstance(a.request, el.Put)
    world.lease.annotate(PAUSED, "true")
    a.inbox.clear()
    a.flow()
    assert (a.phase, len(a.stopped)) == (Phase.LOST, 1)
    assert "is paused by" in a.stopped[0]


def test_a_handover_that_was_ordered_meanwhile_is_obeyed_once_the_gate_is_open(world: World, a: Replica) -> None:
    outage(a, 12.0)
    world.lease.annotate(HANDOVER, "any")
    a.inbox.clear()
    a.flow()
    assert a.leads()
    assert [one.reason for one in a.ordered] == ["handover"]


def test_a_lease_of_an_earlier_revision_ends_the_term(world: World, a: Replica) -> None:
    """I2: etcd was restored; what was acquired since the snapshot is forgotten."""
    before = copy.deepcopy(world.lease.body)
    world.run(5)
    outage(a, 12.0)
    world.lease.body = before
    a.inbox.clear()
    a.flow()
    assert a.stopped == ["Lease ns/op went back to an earlier revision; was etcd restored from a snapshot?"]


def test_the_term_ends_when_the_recovery_time_is_over(world: World, a: Replica) -> None:
    began = world.now
    outage(a, OVER - 0.01)
    assert a.grant is not None
    assert a.due <= began + OVER
    outage(a, OVER + 0.01)
    assert a.stopped == ["not renewed for 25.0 s: refused"]


def test_no_request_outlasts_the_recovery_time(world: World, a: Replica) -> None:
    began = world.now
    outage(a, OVER - 1)
    world.now = a.due = world.now + 0.5
    a.tick()
    assert isinstance(a.request, el.Read)
    assert a.request.until == began + OVER
    a.answer()
    assert isinstance(a.request, el.Put)
    assert a.request.until == began + OVER


@pytest.mark.parametrize("answer", [None, el.ReadFailed("refused")], ids=["read", "refused"])
def test_an_answer_that_comes_when_the_recovery_time_is_over_ends_the_term(
    world: World, a: Replica, answer: el.Event | None
) -> None:
    began = world.now
    outage(a, OVER - 1)
    world.now = a.due = world.now + 0.5
    a.tick()
    world.now = began + OVER
    a.answer(answer)
    assert (a.phase, a.request) == (Phase.LOST, None)
    assert a.stopped == ["not renewed for 25.0 s: refused"]


def test_while_the_gate_is_held_attempts_come_sooner_than_a_followers(world: World, a: Replica) -> None:
    outage(a, 12.0)
    world.now = a.last_beat = a.due
    a.tick()
    a.answer(el.ReadFailed("refused"))
    assert a.due == world.now + 0.5


def test_news_of_the_watch_are_asked_about_at_once(world: World, a: Replica) -> None:
    """The API server answers again, so there is nothing to wait for."""
    outage(a, 12.0)
    world.lease.edit(labels={"n": "1"})
    a.deliver()
    assert isinstance(a.request, el.Read)


@pytest.mark.parametrize("first", ["timer", "news"])
def test_labels_that_are_edited_for_ever_are_not_chased_without_a_pause(world: World, a: Replica, first: str) -> None:
    a.last_beat = world.now = world.now + 12
    a.tick()
    assert a.phase is Phase.RECOVERING
    if first == "timer":
        a.tick()
    else:
        world.lease.edit(labels={"n": "0"})
        a.deliver()
    puts = a.chase()
    assert (puts, a.phase, a.due) == (2, Phase.RECOVERING, world.now + 0.2)


def test_a_process_that_slept_goes_on_if_nobody_acquired_the_lease(world: World, a: Replica) -> None:
    world.now += 20
    a.tick()
    assert a.holds == ["not renewed for 20.0 s, and no attempt failed: the process or the machine was paused"]
    a.tick()
    assert a.request is None, "its event loop has not said yet that it lives"
    a.last_beat = world.now = a.due
    a.flow()
    assert (a.leads(), world.tokens) == (True, [1])


def test_a_sign_of_life_as_old_as_the_renew_deadline_is_enough_to_ask(world: World, a: Replica) -> None:
    world.now += HELD
    a.tick()
    assert a.phase is Phase.RECOVERING
    a.tick()
    assert isinstance(a.request, el.Read)


def test_a_process_that_slept_for_longer_than_that_finds_its_term_over(world: World, a: Replica) -> None:
    world.now += OVER
    a.tick()
    assert (a.holds, len(a.stopped)) == ([], 1)


def test_a_blocked_event_loop_does_not_recover(world: World, a: Replica) -> None:
    a.last_beat = world.now
    outage(a, HELD + 1, beats=False)
    for _ in range(100):
        if a.grant is None:
            break
        world.now = max(world.now, a.due)
        a.flow()  # the API server answers again
    assert (a.phase, world.now) == (Phase.LOST, a.state.renewed + OVER)
    assert world.tokens == [1]


def test_a_loop_that_is_blocked_while_the_lease_is_renewed_ends_the_term_as_before(world: World, a: Replica) -> None:
    world.run(13, beats=False)
    assert (a.holds, a.stopped[0][:18]) == ([], "event loop blocked")


def test_an_answer_that_comes_too_late_to_lead_is_asked_about_again(world: World, a: Replica) -> None:
    outage(a, 12.0)
    world.now = a.due = world.now + 1
    a.tick()
    a.answer()
    a.serve()
    world.now += 11  # it was paused before it got the answer
    a.answer()
    assert (a.leads(), a.phase) == (False, Phase.RECOVERING)
    a.last_beat = world.now
    a.due = world.now
    a.flow()
    assert (a.leads(), world.tokens) == (True, [1])


@pytest.mark.parametrize("event", [el.StepDown("refused"), el.Release(), el.Stop(), el.RaiseFloor(1)])
def test_what_ends_a_term_ends_one_whose_gate_is_held(a: Replica, event: el.Event) -> None:
    outage(a, 12.0)
    a.step(event)
    assert (len(a.stopped), a.grant) == (1, None)
    assert a.grants[0].closed


def test_a_floor_that_was_lost_is_passed_by_the_next_term(world: World, a: Replica) -> None:
    outage(a, 12.0)
    a.step(el.RaiseFloor(7))
    a.step(el.Resume())
    a.flow()
    assert world.tokens == [1, 8]


def test_a_second_outage_is_outlived_like_the_first(world: World, a: Replica) -> None:
    for n in range(1, 4):
        outage(a, 12.0)
        a.flow()
        assert (a.leads(), len(a.holds)) == (True, n)
        world.run(5)
    assert world.tokens == [1]
