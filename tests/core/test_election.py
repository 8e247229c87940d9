"""The election by example: two cores on one Lease, and a clock that the test turns."""

from __future__ import annotations

import copy
import math
from itertools import product
from typing import get_args

import pytest

from kopf_ha.core.election import IllegalMove, Phase
from kopf_ha.core.election import events as el
from kopf_ha.core.election.legacy import Legacy, LegacyView
from kopf_ha.core.election.machine import RULES
from kopf_ha.core.election.timing import Timing
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.legacy_lock import LegacyLock, LegacyRecord
from kopf_ha.core.token import TOKEN_MAX
from tests.election.phases import NEXT
from tests.election.world import Replica, World


@pytest.fixture
def world() -> World:
    return World()


def test_the_first_one_creates_the_lease_and_leads(world: World) -> None:
    a = world.replica("a")
    a.flow()
    assert a.leads()
    assert a.leaders == [("a", 1)]
    assert (world.lease.spec["holderIdentity"], world.lease.spec["leaseTransitions"]) == ("a", 1)
    assert world.lease.spec["leaseDurationSeconds"] == 15


def test_a_request_is_given_up_early_enough_for_a_second_one(world: World) -> None:
    """I9: it may take half of the renew deadline."""
    a = world.replica("a")
    for _ in range(2):
        assert isinstance(a.request, el.Put | el.Read)
        assert a.request.until == world.now + 5
        a.lose_answer()


def test_only_one_of_two_leads_while_both_live(world: World) -> None:
    a, b = world.replica("a"), world.replica("b")
    world.run(120)
    assert world.leaders() == [a]
    assert (b.phase, world.tokens) == (Phase.FOLLOWING, [1])


def test_the_expiry_of_a_lease_that_somebody_made_counts_from_when_it_was_seen(world: World) -> None:
    """There was none for long, and this replica left it to others."""
    a = world.replica("a")
    a.answer(el.NotWritten("403"))
    a.step(el.HeadStart(100.0))
    world.run(60)
    world.lease.create({"spec": {"leaseTransitions": 4, "holderIdentity": "x"}})
    world.run(1)
    a.step(el.HeadStart(0.0))
    world.run(13.8)
    assert a.phase is Phase.FOLLOWING
    world.run(0.4)
    assert world.tokens == [5]


def test_a_released_lease_is_taken_at_once_with_the_next_token(world: World) -> None:
    a, b = world.replica("a"), world.replica("b")
    world.run(5)
    a.step(el.Release())
    a.answer()
    assert (a.phase, a.stopped) == (Phase.STOPPED, ["released"])
    assert (world.lease.spec["holderIdentity"], world.lease.spec["leaseTransitions"]) == ("", 1)
    assert world.lease.spec["leaseDurationSeconds"] == 1, "for clients that wait even if there is no holder"
    b.flow()  # no time passes
    assert world.leaders() == [b]
    assert world.tokens == [1, 2]


def test_a_dead_leaders_lease_is_taken_when_it_expires_and_not_before(world: World) -> None:
    a, b = world.replica("a"), world.replica("b")
    world.run(5)
    seen = b.state.changed
    world.run(seen + 14.9 - world.now, b)
    assert b.phase is Phase.FOLLOWING
    world.run(0.2, b)
    assert world.leaders() == [b]
    assert not a.leads(), "its grant ended with its clock, though it never woke up"


def test_a_paused_leader_learns_on_waking_who_leads(world: World) -> None:
    a, b = world.replica("a"), world.replica("b")
    world.run(5)
    world.run(20, b)
    a.deliver()
    while a.inbox:
        a.deliver()
    assert a.stopped == ["Lease ns/op is held by b (token 2)"]


def test_a_paused_leader_whose_timer_comes_first_gives_up_and_says_so(world: World) -> None:
    a = world.replica("a")
    world.run(5)
    world.now += 12
    a.tick()
    assert "was paused" in a.stopped[0]


def test_a_paused_leader_gives_up_even_if_news_that_change_nothing_come_first(world: World) -> None:
    a = world.replica("a")
    a.flow()
    world.lease.edit(labels={"n": "1"})
    world.now += 12
    while a.inbox:
        a.deliver()
    assert (a.phase, a.request) == (Phase.LOST, None)
    assert "was paused" in a.stopped[0]


@pytest.mark.parametrize(
    ("event", "cause"), [(el.Release(), "released"), (el.Stop(), "stopped"), (el.StepDown("refused"), "refused")]
)
def test_a_term_that_ends_on_request_says_why(world: World, event: el.Event, cause: str) -> None:
    a = world.replica("a")
    a.flow()
    a.step(event)
    assert a.stopped == [cause]


def test_label_edits_keep_no_dead_leader_alive(world: World) -> None:
    """Only a change of the Lease's spec restarts the expiry."""
    a, b = world.replica("a"), world.replica("b")
    world.run(5)
    for n in range(160):
        world.lease.edit(labels={"n": str(n)})
        world.run(0.1, b)
    assert world.leaders() == [b]
    assert a.grant is not None


def test_label_edits_unseat_no_living_leader(world: World) -> None:
    a = world.replica("a")
    world.run(1)
    for n in range(600):
        world.lease.edit(labels={"n": str(n)})
        world.run(0.05, step=0.05)
    assert a.leads()
    assert world.tokens == [1]


def test_an_edit_between_read_and_renewal_costs_a_conflict_and_no_term(world: World) -> None:
    a = world.replica("a")
    world.run(1)
    world.now = a.due
    a.last_beat = world.now
    a.tick()
    world.lease.edit(labels={"n": "1"})
    a.answer()
    assert isinstance(a.request, el.Read)
    a.answer()
    assert isinstance(a.request, el.Put)
    a.answer()
    assert a.leads()
    assert world.tokens == [1]
    assert world.lease.body is not None
    assert world.lease.body["metadata"]["labels"] == {"n": "1"}


def test_a_lease_of_an_earlier_revision_ends_the_term(world: World) -> None:
    """I2: etcd was restored from a snapshot in which I led already; tokens may have been given since."""
    a = world.replica("a")
    world.run(1)
    before = copy.deepcopy(world.lease.body)
    world.run(10)
    assert a.leads()
    world.now = a.due
    a.last_beat = world.now
    a.tick()
    world.lease.body = before
    a.answer()
    assert isinstance(a.request, el.Read)
    a.answer()
    assert a.stopped == ["Lease ns/op went back to an earlier revision; was etcd restored from a snapshot?"]


@pytest.mark.parametrize(("since", "due"), [(3.0, 3.2), (9.9, 10.0)])
def test_labels_that_are_edited_for_ever_are_not_chased_without_a_pause(world: World, since: float, due: float) -> None:
    """The next attempt comes soon, and at the renew deadline at the latest; seconds since the last renewal."""
    a = world.replica("a")
    a.flow()
    begin = world.now
    world.now = a.last_beat = begin + since
    a.tick()
    puts = a.chase()
    assert puts == 2
    assert (a.phase, a.due) == (Phase.LEADING, pytest.approx(begin + due))


@pytest.mark.parametrize("free", ["released", "gone", "mine"])
def test_a_free_lease_that_is_edited_for_ever_is_not_chased_without_a_pause(world: World, free: str) -> None:
    """I7: it has no holder, one that is gone, or this process, whose term ended because of a floor."""
    world.lease.create({"spec": {"leaseTransitions": 4, "holderIdentity": "" if free == "released" else "x"}})
    a = world.replica("a")
    if free != "released":
        a.step(el.HolderGone("x"))
    if free == "mine":
        a.flow()
        a.step(el.RaiseFloor(9))
        a.step(el.Resume())
    puts = a.chase()
    assert (puts, a.phase, a.due) == (2, Phase.FOLLOWING, world.now + 0.2)


@pytest.mark.parametrize(
    ("edit", "cause"),
    [
        (lambda w: w.lease.delete(), "Lease ns/op was deleted"),
        (lambda w: w.lease.edit(holderIdentity="x"), "Lease ns/op is held by x (token 5)"),
        (lambda w: w.lease.edit(holderIdentity=""), "Lease ns/op is held by nobody (token 5)"),
        (lambda w: w.lease.edit(leaseTransitions=3), "leaseTransitions of Lease ns/op was lowered to 3, my token is 5"),
        (lambda w: w.lease.edit(leaseTransitions=9), "leaseTransitions of Lease ns/op was raised to 9, my token is 5"),
    ],
)
@pytest.mark.parametrize("how", ["watch", "conflict"])
def test_a_leader_whose_lease_changes_hands_is_lost_at_once(world: World, edit, cause, how) -> None:  # type: ignore[no-untyped-def]
    world.lease.create({"spec": {"leaseTransitions": 4}})
    a = world.replica("a")
    a.flow()
    edit(world)
    if how == "watch":
        world.now += 0.01
        a.flow()
    else:
        a.inbox.clear()
        world.now = a.last_beat = a.due
        a.flow()
    assert (a.phase, a.stopped) == (Phase.LOST, [cause])


def test_a_lease_made_again_with_my_name_and_token_is_not_mine(world: World) -> None:
    a = world.replica("a")
    a.flow()
    body = copy.deepcopy(world.lease.body or {})
    world.lease.delete()
    world.lease.create(body)
    a.inbox.popleft()  # the deletion, which a watch that was broken never tells
    a.flow()
    assert a.stopped == ["Lease ns/op was deleted and made again"]


def test_the_token_survives_the_lease(world: World) -> None:
    """I2: whoever saw token 8 in the Lease that is gone goes on from 9."""
    world.lease.create({"spec": {"leaseTransitions": 7}})
    a = world.replica("a")
    a.flow()
    world.lease.delete()
    a.flow()
    a.step(el.Resume())
    a.flow()
    assert world.tokens == [8, 9]


def test_a_floor_that_was_told_is_passed_even_without_a_lease(world: World) -> None:
    b = world.replica("b")
    b.answer(el.NotWritten("503"))
    b.step(el.RaiseFloor(41))
    world.run(3)
    assert world.tokens == [42]


def test_a_floor_above_the_present_term_makes_a_new_one_in_the_same_lease(world: World) -> None:
    a, b = world.replica("a"), world.replica("b")
    world.run(3)
    a.step(el.RaiseFloor(7))
    assert a.stopped == ["floor: an object records token 7, which is not below mine (1)"]
    assert a.grants[0].closed
    world.run(1)
    assert (a.phase, b.phase) == (Phase.LOST, Phase.FOLLOWING)
    a.step(el.Resume())
    a.flow()
    assert world.leaders() == [a]
    assert world.tokens == [1, 8]


def test_a_floor_below_the_present_term_changes_nothing(world: World) -> None:
    world.lease.create({"spec": {"leaseTransitions": 4}})
    a = world.replica("a")
    a.flow()
    a.step(el.RaiseFloor(4))
    assert a.leads()


def test_my_name_without_a_term_is_waited_out_and_taken_with_a_higher_token(world: World) -> None:
    """A process that is restarted under the same name has no part in the old one's term."""
    old = world.replica("a")
    world.run(5)
    new = world.replica("a")
    world.run(14, new)
    assert not new.leads(), "the old process may still live"
    world.run(2, new)
    assert new.leads()
    assert world.tokens == [1, 2]
    assert not old.leads()


def test_an_acquisition_without_an_answer_that_was_done_counts_from_its_start(world: World) -> None:
    a = world.replica("a")
    start = world.now
    a.serve()
    world.now += 3
    a.lose_answer()
    assert isinstance(a.request, el.Read)
    a.answer()
    assert a.leads()
    assert a.grants[0].deadline == start + 15


def test_an_acquisition_without_an_answer_that_was_not_done_is_tried_again(world: World) -> None:
    a = world.replica("a")
    a.lose_answer()
    a.answer()
    assert not a.leads()
    world.run(3)
    assert a.leads()
    assert world.tokens == [1]


def test_a_read_that_failed_is_repeated_after_a_retry_period(world: World) -> None:
    """Without a watch that works, nothing else would tell whether the acquisition was done."""
    a = world.replica("a")
    a.serve()
    a.lose_answer()
    a.answer(el.ReadFailed("503"))
    a.inbox.clear()
    assert (a.request, a.due) == (None, pytest.approx(world.now + 2, abs=0.4))
    world.now = a.due
    a.tick()
    assert isinstance(a.request, el.Read)
    a.answer()
    assert a.leads()


def test_no_news_shorten_the_wait_after_a_read_that_failed(world: World) -> None:
    """I7: whatever the run layer says meanwhile, an API server in trouble is asked again a retry period later."""
    a = world.replica("a")
    a.lose_answer()
    a.answer(el.ReadFailed("503"))
    failed = world.now
    world.now += 1
    a.step(el.HeadStart(0.0))
    assert (a.request, a.due) == (None, failed + 2)
    world.now = a.due
    a.tick()
    assert isinstance(a.request, el.Read)


def test_an_open_acquisition_is_not_taken_for_done_when_another_process_of_my_name_acquired(world: World) -> None:
    a = world.replica("a")
    a.lose_answer()  # not done
    other = world.replica("a")
    world.now += 0.5
    other.flow()
    a.answer()
    assert world.leaders() == [other]
    assert a.phase is Phase.FOLLOWING


def test_an_open_acquisition_is_not_taken_for_done_in_a_lease_made_again(world: World) -> None:
    """I2: somebody restored a deleted Lease from a copy, and nobody knows what was acquired in between."""
    world.lease.create({"spec": {"leaseTransitions": 4}})
    a = world.replica("a")
    a.serve()
    a.lose_answer()
    body = copy.deepcopy(world.lease.body or {})
    world.lease.delete()
    world.lease.create(body)
    a.answer()
    assert (a.leads(), a.phase) == (False, Phase.FOLLOWING)


def test_an_open_acquisition_is_not_taken_for_done_in_a_lease_that_was_edited_backwards(world: World) -> None:
    """I2: another replica was seen to lead with the next token, and then the Lease shows mine again."""
    world.lease.create({"spec": {"leaseTransitions": 4}})
    a = world.replica("a")
    a.serve()
    mine = world.lease.spec
    a.lose_answer()
    world.lease.edit(holderIdentity="x", leaseTransitions=6)
    a.answer()
    world.lease.edit(**mine)
    a.flow()
    assert (a.leads(), a.phase) == (False, Phase.FOLLOWING)


def test_a_lease_that_is_deleted_while_an_acquisition_is_open_is_made_again(world: World) -> None:
    world.lease.create({"spec": {"leaseTransitions": 4}})
    a = world.replica("a")
    a.lose_answer()
    world.lease.delete()
    a.answer()
    world.run(3)
    assert a.leads()
    assert world.tokens == [5]


def test_an_acquisition_that_is_done_late_is_recognised_when_the_second_one_conflicts(world: World) -> None:
    world.lease.create({"spec": {"leaseTransitions": 4}})
    a = world.replica("a")
    assert isinstance(a.request, el.Put)
    first = a.request.record
    a.lose_answer()
    a.answer()
    world.now = a.due
    a.tick()
    world.lease.put(first)  # now the first one arrives
    a.answer()
    a.answer()
    assert a.leads()
    assert (world.tokens, a.grants[0].deadline) == ([5], 1015.0)


def test_an_acquisition_that_is_done_late_is_recognised_after_its_second_sending_was_denied(world: World) -> None:
    world.lease.create({"spec": {"leaseTransitions": 4}})
    a = world.replica("a")
    assert isinstance(a.request, el.Put)
    first = a.request.record
    a.lose_answer()
    a.answer()
    world.now = a.due
    a.tick()
    a.answer(el.NotWritten("503"))
    world.lease.put(first)  # now the first one arrives
    a.flow()
    assert a.leads()
    assert (world.tokens, a.grants[0].deadline) == ([5], 1015.0)


@pytest.mark.parametrize("floor", [1, 3])
def test_a_floor_told_while_the_outcome_is_open_is_passed_all_the_same(world: World, floor: int) -> None:
    """Found by hypothesis: token 1 was written, then 3 was found on an object, then 1 was seen to be mine."""
    a = world.replica("a")
    a.serve()
    a.lose_answer()
    a.answer(el.ReadFailed("timeout"))
    a.told_floor = floor
    a.step(el.RaiseFloor(floor))
    a.flow()
    assert a.leads()
    assert world.tokens == [floor + 1]


def test_an_open_acquisition_is_not_repeated_below_a_floor_told_since(world: World) -> None:
    """I2: not even the Lease gets a token that is too low."""
    a = world.replica("a")
    a.lose_answer()  # not done
    a.answer()
    a.step(el.RaiseFloor(41))
    world.now = a.due
    a.tick()
    assert isinstance(a.request, el.Put)
    assert a.request.record.transitions == 42


def test_a_floor_below_what_was_asked_for_costs_no_token(world: World) -> None:
    """I9: an acquisition without an answer was done after all, and its term begins."""
    world.lease.create({"spec": {"leaseTransitions": 5}})
    a = world.replica("a")
    a.flow()
    a.step(el.StepDown("x"))
    a.answer()
    a.step(el.Resume())
    assert isinstance(a.request, el.Put)
    assert a.request.record.transitions == 7
    a.serve()
    a.lose_answer()
    a.answer(el.ReadFailed("timeout"))
    a.step(el.RaiseFloor(6))
    a.flow()
    assert a.leads()
    assert world.tokens == [6, 7]


def test_an_answer_that_comes_after_the_renew_deadline_begins_no_term(world: World) -> None:
    a = world.replica("a")
    a.serve()
    world.now += 10
    a.answer()
    assert a.phase is Phase.ACQUIRING
    a.answer()
    assert world.tokens == [2], "token 1 was acquired too long ago, so nobody leads by it"


def test_the_grant_counts_from_the_start_of_the_renewal(world: World) -> None:
    a = world.replica("a")
    a.flow()
    world.now = start = a.due
    a.last_beat = start
    a.tick()
    world.now += 4
    a.answer()
    assert a.grant is not None
    assert a.grant.deadline == start + 15


def test_a_leader_without_answers_gives_up_before_its_lease_ends(world: World) -> None:
    a = world.replica("a")
    a.flow()
    begin = world.now
    while not a.stopped:
        assert a.leads(), "the grant outlives the attempts"
        world.now = max(world.now, min(a.due, begin + 15))
        a.last_beat = world.now
        a.tick()
        if a.request is not None:
            a.lose_answer()
    assert world.now == begin + 10
    assert a.stopped == ["not renewed for 10.0 s: timeout"]
    assert a.warnings == ["timeout"] * len(a.warnings)


def test_no_attempt_to_renew_outlasts_the_renew_deadline(world: World) -> None:
    a = world.replica("a")
    a.flow()
    deadline = world.now + 10
    world.now = a.last_beat = deadline - 1
    a.tick()
    assert isinstance(a.request, el.Put)
    assert a.request.until == deadline
    a.answer(el.Conflict())
    assert isinstance(a.request, el.Read)
    assert a.request.until == deadline


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (el.Failed("timeout"), "timeout"),
        (el.NotWritten("503"), "503"),
        (el.Conflict(), "and no attempt failed: the process or the machine was paused"),
    ],
)
def test_an_answer_that_comes_at_the_renew_deadline_without_a_renewal_ends_the_term(
    world: World, answer: el.Event, cause: str
) -> None:
    a = world.replica("a")
    a.flow()
    world.now = a.last_beat = world.now + 9
    a.tick()
    world.now += 1
    a.answer(answer)
    assert (a.phase, len(a.stopped)) == (Phase.LOST, 1)
    assert a.stopped[0].startswith("not renewed for 10.0 s")
    assert a.stopped[0].endswith(cause)
    assert a.warnings == ([] if isinstance(answer, el.Conflict) else [cause]), "what went wrong is said"


def test_a_renewal_that_failed_is_tried_again_a_retry_period_later_and_at_the_deadline_at_the_latest(
    world: World,
) -> None:
    """I9: one lost answer costs no term, and a term that cannot be renewed ends in time."""
    a = world.replica("a")
    a.flow()
    begin = world.now
    world.now = a.last_beat = begin + 3
    a.tick()
    a.lose_answer()
    assert a.due == world.now + 2
    world.now = a.last_beat = begin + 9
    a.tick()
    a.lose_answer()
    assert a.due == begin + 10


def test_no_news_of_the_lease_end_the_wait_after_a_failure(world: World) -> None:
    """I7: somebody edits the Lease all the time, and each edit would be answered by another attempt at once."""
    a = world.replica("a")
    world.lease.create({"spec": {"leaseTransitions": 3}})
    a.deliver()
    assert isinstance(a.request, el.Put)
    a.answer(el.NotWritten("busy"))
    assert a.phase is Phase.FOLLOWING
    failed = world.now
    for n in range(5):
        world.now = failed + n / 4
        world.lease.edit(labels={"n": str(n)})
        while a.inbox:
            a.deliver()
        assert a.request is None, "another attempt before the retry period was over"
    world.now = a.due
    assert failed + 2 <= a.due <= failed + 2.4
    a.tick()
    assert isinstance(a.request, el.Put)


def test_a_legacy_lock_that_is_edited_for_ever_is_not_chased_without_a_pause(world: World) -> None:
    """The first conflict is answered at once: an edited label is enough for it. Then slower than a busy editor."""
    a = world.replica("a", legacy=True)
    while a.request is None:
        a.deliver()
    for _ in range(2):
        assert isinstance(a.request, el.PutLegacy)
        a.answer(world.legacy.seen())
    assert a.request is None
    assert a.due == pytest.approx(world.now + 0.2)


def test_in_a_peering_a_term_begins_once_old_peers_had_their_time_and_not_later(world: World) -> None:
    timing = Timing(15.0, 10.0, 2.0)
    legacy = Legacy(LegacyLock.parse("kopfpeerings/default", "ns"), "ns/op", "me", timing)
    view = LegacyView(ours=100.0)
    assert [legacy.is_settled(view, now) for now in (100.0, 101.9, 102.0)] == [False, False, True]


def test_a_leader_is_announced_once(world: World) -> None:
    """And nobody is, while the Lease has no holder."""
    a, b = world.replica("a"), world.replica("b")
    world.run(30)
    b.step(el.HeadStart(60.0))
    a.step(el.Release())
    world.run(30)
    assert a.leaders == b.leaders == [("a", 1)]


def test_a_leader_whose_loop_gives_no_sign_of_life_does_not_renew(world: World) -> None:
    a, b = world.replica("a"), world.replica("b")
    a.flow()
    world.run(13, beats=False)
    assert a.stopped[0].startswith("event loop blocked")
    world.run(15, b)
    assert world.leaders() == [b]


def test_a_sign_of_life_counts_for_as_long_as_the_renew_deadline(world: World) -> None:
    a = world.replica("a")
    a.flow()
    for seconds in (8, 2):
        world.now = a.due = world.now + seconds
        a.flow()
        assert a.leads()


def test_stepping_down_closes_first_then_gives_back_and_waits_for_the_drain(world: World) -> None:
    a, b = world.replica("a"), world.replica("b")
    a.flow()
    a.step(el.StepDown("refused by the server"))
    assert a.grants[0].closed == "refused by the server"
    a.flow()
    assert a.phase is Phase.LOST
    b.flow()
    assert world.leaders() == [b]
    world.run(60)
    assert a.phase is Phase.LOST
    a.step(el.Resume())
    world.run(60)
    assert world.leaders() == [b]


def test_after_a_loss_the_others_get_their_chance_first(world: World) -> None:
    a, b = world.replica("a"), world.replica("b")
    a.flow()
    world.run(12.5, beats=False)
    assert a.phase is Phase.LOST
    a.step(el.Resume())
    world.run(1)
    assert world.leaders() == [b]
    assert a.phase is Phase.FOLLOWING
    b.step(el.Release())
    world.run(3)
    assert world.leaders() == [a]


def test_who_could_not_give_the_lease_back_need_not_wait_for_its_expiry(world: World) -> None:
    """Nobody but this process leads with the token that the Lease shows, and its term is over."""
    a = world.replica("a")
    a.flow()
    a.step(el.StepDown("x"))
    a.answer(el.NotWritten("503"))
    a.step(el.Resume())
    a.answer(el.NotWritten("503"))
    assert a.phase is Phase.FOLLOWING
    a.inbox.clear()  # there are no news to wake it up
    world.run(3)
    assert a.leads()
    assert world.tokens == [1, 2]


def test_a_release_does_not_touch_a_lease_that_is_no_longer_mine(world: World) -> None:
    a = world.replica("a")
    a.flow()
    a.step(el.Release())
    world.lease.edit(holderIdentity="x", leaseTransitions=2)
    a.flow()
    assert a.phase is Phase.STOPPED
    assert world.lease.spec["holderIdentity"] == "x"


def test_a_release_outlasts_a_label_edit(world: World) -> None:
    a = world.replica("a")
    a.flow()
    a.step(el.Release())
    world.lease.edit(labels={"n": "1"})
    a.flow()
    assert a.phase is Phase.STOPPED
    assert world.lease.spec["holderIdentity"] == ""


@pytest.mark.parametrize("phase", [Phase.LEADING, Phase.RENEWING, Phase.REGAINING], ids=lambda phase: phase.value)
def test_a_release_gives_up_when_the_lease_is_edited_for_ever(world: World, phase: Phase) -> None:
    """It is tried four times, whether the Lease was acquired, renewed or regained last."""
    a = at(world, phase)
    a.flow()
    a.step(el.Release())
    puts = 0
    for n in range(20):
        world.lease.edit(labels={"n": str(n)})
        if a.request is not None:
            puts += isinstance(a.request, el.Put)
            a.answer()
    assert (a.phase, a.request, puts) == (Phase.STOPPED, None, 4)


@pytest.mark.parametrize("transitions", [None, -1, True, "7", TOKEN_MAX + 1])
def test_a_malformed_counter_ends_the_term_and_nobody_guesses(world: World, transitions: object) -> None:
    a, b = world.replica("a"), world.replica("b")
    world.run(3)
    world.lease.edit(leaseTransitions=transitions)
    world.run(3)
    assert a.phase is Phase.LOST
    a.step(el.Resume())
    world.run(60)
    assert world.leaders() == []
    assert "leaseTransitions" in b.warnings[-1]
    world.lease.edit(leaseTransitions=30)
    world.run(17)
    assert len(world.leaders()) == 1
    assert world.tokens == [1, 31]


def test_a_lease_made_by_hand_without_a_counter_is_not_taken(world: World) -> None:
    world.lease.create({"spec": {}})
    a = world.replica("a")
    world.run(60)
    assert not a.leads()
    assert "kubectl -n ns patch lease op" in a.warnings[0]


@pytest.mark.parametrize("event", [el.Tick(), el.HeadStart(0.0), el.HolderGone("x"), el.RaiseFloor(3)], ids=repr)
def test_nothing_but_its_repair_lets_an_invalid_lease_be_taken(world: World, event: el.Event) -> None:
    """I2: nobody knows which tokens were given. What was told counts once the Lease is repaired."""
    world.lease.create({"spec": {"holderIdentity": "x"}})
    a = world.replica("a")
    a.step(event)
    assert (a.phase, a.request, a.due) == (Phase.FOLLOWING, None, math.inf)
    world.lease.edit(leaseTransitions=7)
    a.deliver()
    assert (a.request is not None) == isinstance(event, el.HolderGone)


def test_the_last_token_is_used_and_not_passed(world: World) -> None:
    world.lease.create({"spec": {"leaseTransitions": TOKEN_MAX - 1}})
    a = world.replica("a")
    a.flow()
    assert world.tokens == [TOKEN_MAX]
    a.step(el.RaiseFloor(TOKEN_MAX))
    a.step(el.Resume())
    for n in range(100):
        world.lease.edit(labels={"n": str(n)})
        world.run(0.1)
    assert not a.leads()
    assert "no token is left" in a.warnings[0]
    assert len(a.warnings) <= 6, "not in a hot loop"


def test_the_recorded_duration_counts_and_ones_own_when_there_is_none(world: World) -> None:
    world.lease.create({"spec": {"leaseTransitions": 1, "holderIdentity": "x", "leaseDurationSeconds": 30}})
    a = world.replica("a")
    world.run(29)
    assert not a.leads()
    world.run(2)
    assert a.leads()
    world.lease.edit(holderIdentity="x", leaseTransitions=9, leaseDurationSeconds=None)
    a.flow()
    a.step(el.Resume())
    world.run(14)
    assert not a.leads()
    world.run(2)
    assert a.leads()


def test_old_news_of_the_watch_does_not_end_a_new_term(world: World) -> None:
    world.lease.create({"spec": {"leaseTransitions": 1, "holderIdentity": "x", "leaseDurationSeconds": 1}})
    a = world.replica("a")
    world.now += 1
    a.tick()
    world.lease.edit(labels={"n": "1"})  # news of x's Lease, not delivered yet
    a.answer()
    a.answer()
    a.answer()
    assert a.leads()
    assert len(a.inbox) == 2
    a.flow()
    assert a.leads()


def test_news_of_the_watch_from_before_a_read_that_found_no_lease_are_late(world: World) -> None:
    world.lease.create({"spec": {"leaseTransitions": 1, "holderIdentity": "x"}})
    a = world.replica("a")
    late = world.lease.seen(read=False)
    world.lease.edit(labels={"n": "1"})
    a.flow()
    a.step(el.HeadStart(60.0))
    a.step(el.LeaseSeen(None, read=True))
    a.step(late)
    a.step(el.HeadStart(0.0))
    assert isinstance(a.request, el.Put)
    assert (a.request.record.resource_version, a.request.record.transitions) == ("", 2)


@pytest.mark.parametrize("known", [True, False], ids=["with its revision", "without"])
def test_news_of_the_watch_from_before_an_invalid_lease_was_seen_are_late(world: World, known: bool) -> None:
    """I2: the Lease was free before, and nobody knows which tokens were given since."""
    world.lease.create({"spec": {"leaseTransitions": 1, "holderIdentity": "x"}})
    a = world.replica("a")
    if known:
        world.lease.edit(holderIdentity="")
    version = str(world.lease.version)
    late = el.LeaseSeen(LeaseRecord("", 1, resource_version=version, uid="u1"), version)
    a.step(el.LeaseUnusable("invalid", "103" if known else "", read=True))
    a.step(late)
    assert (a.phase, a.request) == (Phase.FOLLOWING, None)


def test_a_lease_that_is_stored_otherwise_than_written_begins_no_term(world: World) -> None:
    a = world.replica("a")
    assert isinstance(a.request, el.Put)
    a.answer(el.Written(a.request.record.changed(transitions=9, uid="u", resource_version="5")))
    assert not a.leads()
    assert "mutating webhook" in a.warnings[0]


@pytest.mark.parametrize("phase", [Phase.RENEWING, Phase.REGAINING], ids=lambda phase: phase.value)
def test_a_renewal_that_is_stored_under_another_name_ends_the_term(world: World, phase: Phase) -> None:
    """A webhook changed the Lease. The term must be what the Lease says."""
    a = at(world, phase)
    assert isinstance(a.request, el.Put)
    a.answer(el.Written(a.request.record.changed(holder="x", resource_version="600")))
    assert (a.phase, a.stopped) == (Phase.LOST, ["Lease ns/op is held by x (token 1)"])


@pytest.mark.parametrize(
    "answer", [el.NotWritten("403"), el.LegacyFailed("403"), None], ids=["refused", "legacy refused", "legacy conflict"]
)
def test_a_grant_does_not_count_from_a_write_that_was_never_sent(world: World, answer: el.Event | None) -> None:
    """I9: the Lease, or the legacy lock before it, refused the first attempt. The grant is as long as any."""
    a = world.replica("a", legacy=not isinstance(answer, el.NotWritten))
    while a.request is None:
        a.deliver()
    world.now += 1
    a.answer(answer or world.legacy.seen())
    while a.request is None:
        world.now = a.due
        a.tick()
    sent = world.now
    if isinstance(a.request, el.PutLegacy):
        a.answer()
    a.serve()
    world.now += 1
    a.lose_answer()
    a.answer()
    assert a.leads()
    assert a.grants[0].deadline == sent + 15


# --- the table, cell by cell


def at(world: World, phase: Phase, *, legacy: bool = False) -> Replica:
    """A replica in this phase; the Lease is held by another one while it follows, and by itself in all others.

    With `legacy` it keeps the legacy lock, too, and a request that is under way is one to that.
    """
    if phase is Phase.FOLLOWING:
        world.replica("other").flow()
    held = (Phase.RECOVERING, Phase.REGAINING)
    replica = world.replica("a", legacy=legacy, recovery=15 if phase in held else 0)
    if phase is Phase.ACQUIRING:
        replica.deliver()
    if phase not in (Phase.FOLLOWING, Phase.ACQUIRING):
        replica.flow()
    if phase is Phase.RENEWING:
        world.now = replica.due
        replica.tick()
    if phase in held:
        replica.last_beat = world.now = world.now + 12
        replica.tick()
    if phase is Phase.REGAINING:
        replica.tick()
        replica.answer()
    if phase is Phase.RELEASING:
        replica.step(el.Release())
        if legacy:
            replica.answer()
    if phase is Phase.LOST:
        replica.step(el.RaiseFloor(replica.state.token))
    if phase is Phase.STOPPED:
        replica.step(el.Stop())
    assert replica.phase is phase
    return replica


DELETED = el.LeaseSeen(None, read=True)
DONE = el.Written(LeaseRecord("", 0))  #: stands for the server's own answer
LEGACY_DELETED = el.LegacySeen(None, read=True)
LEGACY_DONE = el.LegacyWritten(LegacyRecord(()))
LEGACY = (el.LegacySeen, el.LegacyWritten, el.LegacyFailed)

CELLS = [
    (Phase.FOLLOWING, DELETED, Phase.ACQUIRING),
    (Phase.FOLLOWING, el.LeaseUnusable("x", read=True), Phase.FOLLOWING),
    (Phase.FOLLOWING, el.ReadFailed("x"), Phase.FOLLOWING),
    (Phase.FOLLOWING, el.Tick(), Phase.FOLLOWING),
    (Phase.FOLLOWING, el.RaiseFloor(1), Phase.FOLLOWING),
    (Phase.FOLLOWING, el.HolderGone("other"), Phase.ACQUIRING),
    (Phase.FOLLOWING, el.HeadStart(1.0), Phase.FOLLOWING),
    (Phase.FOLLOWING, el.StepDown("x"), Phase.FOLLOWING),
    (Phase.FOLLOWING, el.Release(), Phase.STOPPED),
    (Phase.FOLLOWING, el.Stop(), Phase.STOPPED),
    (Phase.ACQUIRING, DONE, Phase.LEADING),
    (Phase.ACQUIRING, el.Conflict(), Phase.FOLLOWING),
    (Phase.ACQUIRING, el.Failed("x"), Phase.FOLLOWING),
    (Phase.ACQUIRING, el.NotWritten("x"), Phase.FOLLOWING),
    (Phase.LEADING, DELETED, Phase.LOST),
    (Phase.LEADING, el.LeaseUnusable("x", read=True), Phase.LOST),
    (Phase.LEADING, el.Tick(), Phase.RENEWING),
    (Phase.LEADING, el.RaiseFloor(1), Phase.LOST),
    (Phase.LEADING, el.HolderGone("x"), Phase.LEADING),
    (Phase.LEADING, el.HeadStart(1.0), Phase.LEADING),
    (Phase.LEADING, el.StepDown("x"), Phase.RELEASING),
    (Phase.LEADING, el.Release(), Phase.RELEASING),
    (Phase.LEADING, el.Stop(), Phase.STOPPED),
    (Phase.RENEWING, DONE, Phase.LEADING),
    (Phase.RENEWING, el.Conflict(), Phase.RENEWING),
    (Phase.RENEWING, el.Failed("x"), Phase.LEADING),
    (Phase.RENEWING, el.NotWritten("x"), Phase.LEADING),
    (Phase.RENEWING, DELETED, Phase.LOST),
    (Phase.RENEWING, el.LeaseUnusable("x", read=True), Phase.LOST),
    (Phase.RENEWING, el.ReadFailed("x"), Phase.LEADING),
    (Phase.RECOVERING, DELETED, Phase.LOST),
    (Phase.RECOVERING, el.LeaseUnusable("x", read=True), Phase.LOST),
    (Phase.RECOVERING, el.Tick(), Phase.REGAINING),
    (Phase.RECOVERING, el.RaiseFloor(1), Phase.LOST),
    (Phase.RECOVERING, el.HolderGone("x"), Phase.RECOVERING),
    (Phase.RECOVERING, el.HeadStart(1.0), Phase.RECOVERING),
    (Phase.RECOVERING, el.StepDown("x"), Phase.RELEASING),
    (Phase.RECOVERING, el.Release(), Phase.RELEASING),
    (Phase.RECOVERING, el.Stop(), Phase.STOPPED),
    (Phase.REGAINING, DONE, Phase.LEADING),
    (Phase.REGAINING, el.Conflict(), Phase.REGAINING),
    (Phase.REGAINING, el.Failed("x"), Phase.RECOVERING),
    (Phase.REGAINING, el.NotWritten("x"), Phase.RECOVERING),
    (Phase.REGAINING, DELETED, Phase.LOST),
    (Phase.REGAINING, el.LeaseUnusable("x", read=True), Phase.LOST),
    (Phase.REGAINING, el.ReadFailed("x"), Phase.RECOVERING),
    (Phase.RELEASING, DONE, Phase.STOPPED),
    (Phase.RELEASING, el.Conflict(), Phase.RELEASING),
    (Phase.RELEASING, el.Failed("x"), Phase.STOPPED),
    (Phase.RELEASING, el.NotWritten("x"), Phase.STOPPED),
    (Phase.RELEASING, DELETED, Phase.STOPPED),
    (Phase.RELEASING, el.LeaseUnusable("x", read=True), Phase.STOPPED),
    (Phase.RELEASING, el.ReadFailed("x"), Phase.STOPPED),
    (Phase.LOST, DELETED, Phase.LOST),
    (Phase.LOST, el.LeaseUnusable("x", read=True), Phase.LOST),
    (Phase.LOST, el.Tick(), Phase.LOST),
    (Phase.LOST, el.RaiseFloor(1), Phase.LOST),
    (Phase.LOST, el.HolderGone("x"), Phase.LOST),
    (Phase.LOST, el.HeadStart(1.0), Phase.LOST),
    (Phase.LOST, el.StepDown("x"), Phase.LOST),
    (Phase.LOST, el.Resume(), Phase.ACQUIRING),
    (Phase.LOST, el.Release(), Phase.RELEASING),
    (Phase.LOST, el.Stop(), Phase.STOPPED),
    (Phase.FOLLOWING, LEGACY_DELETED, Phase.FOLLOWING),
    (Phase.ACQUIRING, LEGACY_DONE, Phase.ACQUIRING),
    (Phase.ACQUIRING, LEGACY_DELETED, Phase.ACQUIRING),
    (Phase.ACQUIRING, el.LegacyFailed("x"), Phase.FOLLOWING),
    (Phase.LEADING, LEGACY_DELETED, Phase.LOST),
    (Phase.RENEWING, LEGACY_DONE, Phase.RENEWING),
    (Phase.RENEWING, LEGACY_DELETED, Phase.LOST),
    (Phase.RENEWING, el.LegacyFailed("x"), Phase.LEADING),
    (Phase.RELEASING, LEGACY_DONE, Phase.STOPPED),
    (Phase.RELEASING, LEGACY_DELETED, Phase.STOPPED),
    (Phase.RELEASING, el.LegacyFailed("x"), Phase.STOPPED),
    (Phase.LOST, LEGACY_DELETED, Phase.LOST),
]
EVENTS = {type(event): event for _, event, _ in CELLS}
LEGAL = {(phase, type(event)) for phase, event, _ in CELLS}


def name(value: object) -> str:
    return value.value if isinstance(value, Phase) else type(value).__name__


@pytest.mark.parametrize(("phase", "event", "then"), CELLS, ids=name)
def test_what_can_come_in_a_phase_leads_on(world: World, phase: Phase, event: el.Event, then: Phase) -> None:
    replica = at(world, phase, legacy=isinstance(event, LEGACY))
    if replica.request is None:
        replica.step(event)
    else:
        replica.answer(None if event in (DONE, LEGACY_DONE) else event)
    assert replica.phase is then


ILLEGAL = [(p, e) for p, e in product(Phase, EVENTS.values()) if (p, type(e)) not in LEGAL]


@pytest.mark.parametrize(("phase", "event"), ILLEGAL, ids=name)
def test_what_cannot_come_in_a_phase_raises(world: World, phase: Phase, event: el.Event) -> None:
    replica = at(world, phase)
    with pytest.raises(IllegalMove, match=f"^{name(event)} cannot come while {phase.value}$"):
        replica.rules.step(replica.state, event, world.now)


def test_every_event_and_every_cell_was_tried() -> None:
    assert set(EVENTS) == set(get_args(el.Event))
    assert {(p, e) for p, cells in RULES.items() for e in cells} == LEGAL
    assert {(p, e) for p, cells in NEXT.items() for e in cells} == LEGAL


def test_the_phases_have_the_names_by_which_health_and_callers_of_the_elector_know_them() -> None:
    names = "following acquiring leading renewing recovering regaining releasing lost stopped"
    assert " ".join(phase.value for phase in Phase) == names


@pytest.mark.parametrize("phase", [p for p in Phase if p is not Phase.STOPPED], ids=name)
def test_a_release_ends_every_phase(world: World, phase: Phase) -> None:
    replica = at(world, phase)
    replica.flow()  # the answer to its request comes first
    if replica.phase is not Phase.STOPPED:
        replica.step(el.Release())
        replica.flow()
    assert (replica.phase, replica.grant, replica.request) == (Phase.STOPPED, None, None)
    assert (world.lease.spec["holderIdentity"] == "other") == (phase is Phase.FOLLOWING), "mine is given back"
