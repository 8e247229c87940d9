"""What people order by annotations of the Lease: a pause, and a handover."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from kopf_ha.core.election import Phase, State
from kopf_ha.core.election import events as el
from kopf_ha.core.lease import HANDOVER, PAUSED, PREFERRED
from kopf_ha.core.orders import ANY, SHOWN, ByChoice, Pause, reason_of, shown
from tests.election.world import Replica, World

WHY = Pause("ann", "etcd is mended", "2026-11-30T01:02:03Z").as_annotation()
SAID = "paused by ann since 2026-11-30T01:02:03Z: etcd is mended"


@pytest.fixture
def world() -> World:
    return World()


def many(world: World, *names: str) -> list[Replica]:
    replicas = [world.replica(name) for name in names]
    world.run(5)
    assert world.leaders() == [replicas[0]]
    return replicas


def drained(replica: Replica) -> None:
    """The run layer has drained the term that was to end, and follows again."""
    replica.step(el.StepDown(replica.ordered[-1]))
    replica.answer()
    replica.step(el.Resume())


def paused(world: World, *names: str) -> list[Replica]:
    replicas = many(world, *names)
    world.lease.annotate(PAUSED, WHY)
    replicas[0].flow()
    drained(replicas[0])
    for replica in replicas:
        replica.flow()
    assert world.lease.spec["holderIdentity"] == ""
    return replicas


# --- a pause


def test_a_leader_that_is_paused_goes_on_until_it_is_drained_and_gives_the_lease_back(world: World) -> None:
    a, b = many(world, "a", "b")
    world.lease.annotate(PAUSED, WHY)
    world.run(30)  # a handler takes that long
    assert world.leaders() == [a], "the Lease is renewed, and the grant is open"
    assert [(str(cause), cause.reason) for cause in a.ordered] == [(SAID, "paused")], "it was asked once"
    drained(a)
    assert a.stopped == [SAID]
    assert (world.lease.spec["holderIdentity"], world.lease.annotations[PAUSED]) == ("", WHY)
    world.run(3600)
    assert (world.leaders(), world.tokens, a.phase, b.phase) == ([], [1], Phase.FOLLOWING, Phase.FOLLOWING)
    assert (a.due, b.due) == (math.inf, math.inf), "they wait for news, and for no time"


def test_each_replica_says_once_who_paused_and_why_and_when_it_is_over(world: World) -> None:
    replicas = paused(world, "a", "b")
    world.run(60)
    world.lease.edit(labels={"a": "b"})
    world.run(60)
    assert [r.tells for r in replicas] == [[f"Lease ns/op is {SAID}"]] * 2
    world.lease.annotate(PAUSED, None)
    world.run(1)
    assert [r.tells[1:] for r in replicas] == [["Lease ns/op is no longer paused"]] * 2


def test_the_next_leader_comes_at_once_when_a_pause_ends(world: World) -> None:
    _, b = paused(world, "a", "b")
    world.run(3600)
    world.lease.annotate(PAUSED, None)
    b.flow()  # no time passes
    assert b.leads()
    assert world.tokens == [1, 2]


def test_a_process_that_starts_during_a_pause_follows(world: World) -> None:
    a, _ = paused(world, "a", "b")
    a.step(el.Stop())
    c = world.replica("c")
    world.run(60)
    assert (world.leaders(), c.phase) == ([], Phase.FOLLOWING)
    world.lease.annotate(PAUSED, None)
    c.flow()
    assert c.leads()


def test_a_pause_on_a_lease_that_nobody_holds_is_kept_by_the_first_replica(world: World) -> None:
    world.lease.create({"metadata": {"annotations": {PAUSED: "true"}}, "spec": {"leaseTransitions": 7}})
    a = world.replica("a")
    world.run(60)
    assert (a.phase, a.request) == (Phase.FOLLOWING, None)
    assert len(a.tells) == 1


@pytest.mark.parametrize(
    "value", ["", "true", "false", "[]", '{"by": 5}', '{"reason": 5}', '{"since": []}', "{", "etcd", "null", "[" * 5000]
)
def test_any_value_pauses(world: World, value: str) -> None:
    a, b = many(world, "a", "b")
    world.lease.annotate(PAUSED, value)
    a.flow()
    drained(a)
    world.run(60)
    assert world.leaders() == []
    assert f"{PAUSED}={value[:50]}" in b.tells[0]
    assert "any value pauses" in b.tells[0]


@pytest.mark.parametrize("value", ["{}", '{"by": "", "reason": "", "since": ""}'])
def test_a_pause_without_words_is_one(value: str) -> None:
    assert str(Pause.parse(value)) == "paused by somebody: no reason was given"


def test_what_others_wrote_is_one_short_line() -> None:
    said = str(Pause.parse(Pause("a\n\x1bb", "x" * 5000 + "\x1b[31m", "now").as_annotation()))
    assert said.startswith("paused by a b since now: xxx")
    assert said.isprintable()
    assert len(said) < 300


@pytest.mark.parametrize(("length", "end"), [(SHOWN, "x"), (SHOWN + 1, "…")])
def test_what_others_wrote_is_cut_where_it_is_too_long(length: int, end: str) -> None:
    text = shown("x" * length)
    assert (len(text), text[-1]) == (SHOWN, end)


@pytest.mark.parametrize("pause", [Pause("ann", "Größe", "now"), Pause()])
def test_a_pause_is_read_as_it_was_written(pause: Pause) -> None:
    assert Pause.parse(pause.as_annotation()) == pause
    assert pause.reason in pause.as_annotation(), "people read it there, too"
    assert set(json.loads(pause.as_annotation())) == {"by", "reason", "since"}


def test_why_a_term_ended_in_one_word() -> None:
    assert reason_of(ByChoice("handed over to pod b", "handover"), "lost") == "handover"
    assert reason_of("not renewed for 10.0 s", "lost") == "lost"


def test_a_dead_leaders_lease_is_not_taken_during_a_pause(world: World) -> None:
    a, b = many(world, "a", "b")
    world.lease.annotate(PAUSED, WHY)
    world.run(60, b)
    assert (world.lease.spec["holderIdentity"], b.phase) == ("a", Phase.FOLLOWING)
    world.lease.annotate(PAUSED, None)
    b.flow()
    assert b.leads(), "it expired long ago"
    assert not a.leads()


def test_an_early_takeover_does_not_go_around_a_pause(world: World) -> None:
    _, b = many(world, "a", "b")
    world.lease.annotate(PAUSED, WHY)
    b.flow()
    b.step(el.HolderGone("a"))
    assert (b.phase, b.request) == (Phase.FOLLOWING, None)
    world.lease.annotate(PAUSED, None)
    b.flow()
    assert b.leads()


def test_an_acquisition_that_is_under_way_when_somebody_pauses_is_a_conflict(world: World) -> None:
    a, b = many(world, "a", "b")
    a.step(el.Release())
    a.answer()
    b.deliver()
    while b.inbox:
        b.deliver()
    assert isinstance(b.request, el.Put)
    world.lease.annotate(PAUSED, WHY)
    b.flow()
    assert (b.phase, world.tokens) == (Phase.FOLLOWING, [1])


def acquired_unheard_before_a_pause(world: World) -> Replica:
    """It acquired what another one gave back, and got no answer; then the Lease was paused."""
    a, b = many(world, "a", "b")
    a.step(el.Release())
    a.answer()
    while b.request is None:
        b.deliver()
    b.serve()
    b.lose_answer()
    world.lease.annotate(PAUSED, WHY)
    return b


def test_an_acquisition_whose_answer_was_lost_ends_by_choice(world: World) -> None:
    """It was stored before the pause, so its term may begin; and it ends as any other."""
    b = acquired_unheard_before_a_pause(world)
    b.flow()
    assert b.leads()
    assert b.ordered == [SAID]
    drained(b)
    world.run(60)
    assert world.leaders() == []


def test_an_acquisition_that_is_found_too_late_is_not_repeated_during_a_pause(world: World) -> None:
    b = acquired_unheard_before_a_pause(world)
    world.now += 11  # past the renew deadline
    b.flow()
    assert (b.phase, world.tokens) == (Phase.FOLLOWING, [1])


def test_a_lost_floor_does_not_go_around_a_pause(world: World) -> None:
    (a,) = many(world, "a")
    a.step(el.RaiseFloor(9))
    world.lease.annotate(PAUSED, WHY)
    a.flow()
    a.step(el.Resume())
    a.flow()
    world.run(60)
    assert (world.leaders(), world.lease.spec["holderIdentity"]) == ([], "")
    world.lease.annotate(PAUSED, None)
    world.run(3)
    assert world.tokens == [1, 10]


def test_an_order_that_was_noted_in_passing_is_obeyed_with_the_next_renewal(world: World) -> None:
    (a,) = many(world, "a")
    world.lease.annotate(PAUSED, WHY)
    news = a.inbox.popleft()
    assert isinstance(news, el.LeaseSeen)
    a.state = replace(a.state, seen=news.record, version=news.version)
    world.run(3)
    assert a.ordered == [SAID]


def test_a_late_release_leaves_the_pause_alone(world: World) -> None:
    """Its PUT names the revision before the pause, so it is a conflict. The next one has the pause."""
    a, b = many(world, "a", "b")
    a.step(el.Release())
    world.lease.annotate(PAUSED, WHY)
    a.answer()
    assert isinstance(a.request, el.Read)
    while a.request is not None:
        a.answer()
    assert (world.lease.spec["holderIdentity"], world.lease.annotations[PAUSED]) == ("", WHY)
    world.run(60)
    assert b.phase is Phase.FOLLOWING


def test_a_stale_leaders_writes_leave_the_pause_alone(world: World) -> None:
    a, b = many(world, "a", "b")
    world.now = a.last_beat = a.due
    a.tick()
    assert isinstance(a.request, el.Put), "its renewal is under way, and it is paused"
    b.step(el.HolderGone("a"))
    b.flow()
    world.lease.annotate(PAUSED, WHY)
    b.flow()
    drained(b)
    a.flow()
    assert (a.leads(), a.stopped) == (False, ["Lease ns/op is held by nobody (token 2)"])
    assert world.lease.annotations[PAUSED] == WHY


def test_a_pause_that_ends_before_the_term_does_ends_the_term_all_the_same(world: World) -> None:
    """The run layer stops handlers by then."""
    a, b = many(world, "a", "b")
    world.lease.annotate(PAUSED, WHY)
    a.flow()
    world.lease.annotate(PAUSED, None)
    world.run(5)
    assert world.leaders() == [a]
    drained(a)
    world.run(1)
    assert len(world.leaders()) == 1
    assert b.phase in (Phase.FOLLOWING, Phase.LEADING, Phase.RENEWING)


def test_the_old_lock_is_given_back_for_a_pause(world: World) -> None:
    a = world.replica("a", legacy=True)
    world.run(5)
    assert a.leads()
    world.lease.annotate(PAUSED, WHY)
    a.flow()
    a.step(el.StepDown(a.ordered[-1]))
    a.flow()
    a.step(el.Resume())
    world.run(60)
    (claim,) = world.legacy.lock.read(world.legacy.body or {}).claims or (None,)
    assert claim is None or claim.holder == ""
    assert (world.leaders(), a.phase) == ([], Phase.FOLLOWING)


def test_a_paused_lease_is_not_vacant(world: World) -> None:
    """The metric of takeovers counts from the end of the pause."""
    _, b = paused(world, "a", "b")
    world.run(600)
    assert b.rules.vacant_since(b.state, world.now) is None
    world.lease.annotate(PAUSED, None)
    b.deliver()
    assert b.rules.vacant_since(b.state, world.now) == world.now


def test_a_lease_that_was_not_seen_or_is_invalid_is_not_vacant(world: World) -> None:
    world.lease.create({"spec": {"holderIdentity": ""}})
    a = world.replica("a")
    for state in (a.state, State()):
        assert a.rules.vacant_since(state, world.now) is None


def test_a_replica_of_an_older_revision_leaves_the_lease_to_others_after_a_pause_too(world: World) -> None:
    a, b, c = many(world, "a", "b", "c")
    for outdated in (a, b):
        outdated.step(el.HeadStart(2.0))
    world.lease.annotate(PAUSED, WHY)
    a.flow()
    drained(a)
    world.run(600)
    world.lease.annotate(PAUSED, None)
    for each in (a, b, c):
        each.flow()
    assert world.leaders() == [c]


# --- a handover


def test_the_named_replica_leads_next_and_at_once(world: World) -> None:
    a, b, c = many(world, "a_u_r", "b_u_r", "c_u_r")
    c.step(el.HeadStart(2.0))  # of an older revision, and it was named all the same
    world.lease.annotate(HANDOVER, "c")
    a.flow()
    assert [(str(x), x.reason) for x in a.ordered] == [("handed over to pod c", "handover")]
    assert a.leads()
    drained(a)
    assert world.lease.annotations == {PREFERRED: "c"}, "the request is done with the release"
    b.flow()
    a.flow()
    assert world.leaders() == [], "the others were first, and wait"
    c.flow()
    assert world.leaders() == [c]
    assert world.lease.annotations == {}
    world.run(60)
    assert world.tokens == [1, 2]


@pytest.mark.parametrize(("to", "wait", "longest"), [("gone", 2.0, 6.0), (ANY, 0.0, 4.0)])
def test_all_others_wait_for_a_bounded_time_and_who_handed_over_longest(
    world: World, to: str, wait: float, longest: float
) -> None:
    a, b = many(world, "a_u_r", "b_u_r")
    world.lease.annotate(HANDOVER, to)
    a.flow()
    drained(a)
    free = a.state.changed
    b.flow()
    a.flow()
    assert (b.due, a.due) == (free + wait, free + longest) if wait else b.leads()
    world.run(wait + 0.2, b)
    assert world.leaders() == [b]


def test_alone_it_leads_again_after_the_bound(world: World) -> None:
    (a,) = many(world, "a_u_r")
    world.lease.annotate(HANDOVER, "gone")
    a.flow()
    drained(a)
    world.run(6.2)
    assert world.leaders() == [a]
    assert world.tokens == [1, 2]


def test_the_newest_revision_goes_first_if_any_may_lead(world: World) -> None:
    a, b, c = many(world, "a_u_r", "b_u_r", "c_u_r")
    for outdated in (a, b):
        outdated.step(el.HeadStart(2.0))
    world.lease.annotate(HANDOVER, "any")
    a.flow()
    drained(a)
    b.flow()
    a.flow()
    c.flow()
    assert world.leaders() == [c]


def test_a_handover_to_the_leader_itself_is_done(world: World) -> None:
    a, _ = many(world, "a_u_r", "b_u_r")
    world.lease.annotate(HANDOVER, "a")
    world.run(5)
    assert (world.leaders(), a.ordered, world.lease.annotations, world.tokens) == ([a], [], {}, [1])


def test_a_handover_is_told_once_and_its_withdrawal_is_not(world: World) -> None:
    world.lease.create({"spec": {"leaseTransitions": 7, "holderIdentity": "x"}})
    a = world.replica("a_u_r")
    world.lease.annotate(HANDOVER, "b")
    a.flow()
    assert a.tells == ["Lease ns/op is to be handed over to pod b"]
    world.lease.edit(labels={"a": "b"})
    world.lease.annotate(HANDOVER, None)
    a.flow()
    assert len(a.tells) == 1


def test_a_request_that_was_not_meant_for_this_leader_ends_with_its_acquisition(world: World) -> None:
    world.lease.create({"metadata": {"annotations": {HANDOVER: "b"}}, "spec": {"leaseTransitions": 7}})
    a = world.replica("a_u_r")
    world.run(5)
    assert (world.leaders(), a.ordered, world.lease.annotations) == ([a], [], {})


def test_a_release_for_another_reason_hands_over_too(world: World) -> None:
    """The process was asked to stop while it drained."""
    a, b, c = many(world, "a_u_r", "b_u_r", "c_u_r")
    world.lease.annotate(HANDOVER, "c")
    a.flow()
    a.step(el.Release())
    a.answer()
    b.flow()
    c.flow()
    assert world.leaders() == [c]


def test_a_pause_goes_before_a_handover_which_comes_when_it_ends(world: World) -> None:
    a, b, c = many(world, "a_u_r", "b_u_r", "c_u_r")
    world.lease.annotate(HANDOVER, "c")
    world.lease.annotate(PAUSED, WHY)
    a.flow()
    assert a.ordered == ["handed over to pod c"], "which came first"
    drained(a)
    world.run(600)
    assert world.leaders() == []
    world.lease.annotate(PAUSED, None)
    b.flow()
    c.flow()
    assert world.leaders() == [c], "its head start counts from when the pause ended"


def test_a_new_term_can_be_ended_by_a_new_order(world: World) -> None:
    a, b = many(world, "a_u_r", "b_u_r")
    for to, old, new in (("b", a, b), ("a", b, a), ("b", a, b)):
        world.lease.annotate(HANDOVER, to)
        old.flow()
        drained(old)
        world.run(1)
        assert world.leaders() == [new]
    assert world.tokens == [1, 2, 3, 4]


def test_a_cause_by_choice_is_a_sentence_with_a_reason() -> None:
    cause = ByChoice("handed over to pod b", "handover")
    assert f"{cause}" == "handed over to pod b"
    assert cause.reason == "handover"
