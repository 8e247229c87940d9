"""What waits in front of the gate, for how long, and what it does when the gate opens again (I3, I6, I8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from kopf_ha.core.grant import Grant
from kopf_ha.core.hearing import LAG
from kopf_ha.core.wire import Request
from kopf_ha.errors import Denied, GateClosed, StaleLeader
from tests.core.fake_api import CHILD, EDIT, MINE, WIDGET, FakeApi, Process, patch, stamp, write
from tests.core.test_fence_hearing import Deaf

#: Seconds of the lease that are left, and for which it may recover after that.
LEFT, RECOVERS = 10.0, 15.0
MANY, NEW = CHILD.removesuffix("/x"), {"metadata": {"name": "y"}}


@pytest.fixture
def me(me: Process) -> Process:
    me.grant = Grant(MINE, me.clock + LEFT, RECOVERS)
    return me


@pytest.mark.parametrize("asked", [patch(WIDGET, EDIT), write("POST", MANY, NEW), write("DELETE", CHILD)], ids=str)
def test_a_write_waits_while_the_gate_is_held(api: FakeApi, me: Process, asked: Request) -> None:
    me.grant.hold("not renewed")
    late = me.attempt(asked)
    for _ in range(3):
        assert late.waits
        late.step()
    assert api.sent() == []
    me.clock += 5
    me.grant.reopen(me.clock + LEFT)
    assert late.finish().ok


def test_a_write_that_waits_fails_when_the_term_ends(api: FakeApi, me: Process) -> None:
    me.grant.hold("not renewed")
    late = me.attempt(patch(WIDGET, EDIT))
    me.grant.close("held by b")
    with pytest.raises(GateClosed, match=r"term 7 is over \(held by b\)"):
        late.finish()
    assert api.sent() == []


def test_a_term_that_is_drained_lets_nothing_wait(api: FakeApi, me: Process) -> None:
    me.grant.hold("not renewed for 10 s")
    late = me.attempt(patch(WIDGET, EDIT))
    me.grant.wait_no_more()
    with pytest.raises(GateClosed, match="not renewed for 10 s"):
        late.finish()
    assert api.sent() == []


def test_nothing_waits_for_longer_than_a_term_can_recover(api: FakeApi, me: Process) -> None:
    """Whatever becomes of the election's thread."""
    me.grant.hold("not renewed")
    late = me.attempt(patch(WIDGET, EDIT))
    me.clock += LEFT + RECOVERS - 0.1
    late.step()
    assert late.waits
    me.clock += 0.1
    with pytest.raises(GateClosed):
        late.finish()
    assert api.sent() == []


def test_a_grant_that_has_run_out_is_waited_for_until_the_election_says_what_it_is(api: FakeApi, me: Process) -> None:
    """The process slept, and this thread is the first one to wake up."""
    me.clock += LEFT
    late = me.attempt(patch(WIDGET, EDIT))
    assert late.waits
    assert api.sent() == []
    me.grant.hold("was paused")
    late.step()
    assert late.waits
    me.grant.reopen(me.clock + LEFT)
    assert late.finish().ok


def test_without_recovery_nothing_waits(api: FakeApi, me: Process) -> None:
    me.grant = Grant(MINE, me.clock)
    with pytest.raises(GateClosed, match="its lease ran out on this machine"):
        me.patch(WIDGET, EDIT)


def test_a_write_leaves_until_the_last_moment(api: FakeApi, me: Process) -> None:
    me.clock += LEFT - 0.01
    assert me.patch(WIDGET, EDIT).ok


def test_a_new_grant_belongs_to_a_term_whose_barrier_left_nothing_behind() -> None:
    grant = Grant(MINE, 10.0)
    assert not grant.behind
    assert (grant.set_aside, grant.swept, grant.unread, grant.stamper) == (frozenset(), None, set(), None)


def test_a_grant_is_held_or_closed_without_a_cause_too(me: Process) -> None:
    me.grant.hold("")
    assert me.grant.remaining(me.clock) == 0.0
    assert me.grant.may_reopen(me.clock)
    me.grant.reopen(me.clock)
    assert me.grant.remaining(me.clock) == LEFT
    me.grant.close("")
    assert me.grant.remaining(me.clock) == 0.0
    assert not me.grant.may_reopen(me.clock)


@pytest.mark.parametrize(
    ("uid", "namespace", "swept", "aside"),
    [
        ("u1", "a", None, False),
        ("u1", "", None, False),
        ("u1", "a", {"a"}, False),
        ("u1", "b", {"a"}, True),
        ("u1", "", {"a"}, False),
        ("u2", "a", None, True),
        ("u2", "a", {"a"}, True),
        ("u2", "", {"a"}, True),
    ],
)
def test_what_could_not_be_stamped_or_looked_at_is_set_aside(
    me: Process, uid: str, namespace: str, swept: set[str] | None, aside: bool
) -> None:
    """I4: an object in a namespace that nobody looked at; one of the cluster is in none."""
    me.grant.set_aside = frozenset({"u2"})
    me.grant.swept = None if swept is None else frozenset(swept)
    assert me.grant.sets_aside(uid, namespace) is aside


def test_a_closed_grant_is_not_opened_again(api: FakeApi, me: Process) -> None:
    me.grant.hold("not renewed")
    me.grant.close("stopped")
    me.grant.reopen(me.clock + LEFT)
    with pytest.raises(GateClosed):
        me.patch(WIDGET, EDIT)
    assert api.sent() == []


@pytest.mark.parametrize("sent", range(1, 4))
def test_the_gate_is_held_between_any_two_requests_of_a_write(api: FakeApi, me: Process, sent: int) -> None:
    """The schema, the object, its stamp, the change: none of them leaves, and none is lost."""
    late = me.attempt(patch(WIDGET, EDIT))
    for _ in range(sent - 1):
        late.step()
    me.grant.hold("not renewed")
    late.step()  # the answer to what was under way
    assert late.waits
    before = len(api.sent())
    late.step()
    assert len(api.sent()) == before
    me.grant.reopen(me.clock + LEFT)
    assert late.finish().ok
    assert api.get(WIDGET)["spec"]["mine"] == 1


def test_what_a_user_changed_meanwhile_survives(api: FakeApi, me: Process) -> None:
    me.watch(WIDGET)
    me.grant.hold("not renewed")
    late = me.attempt(patch(WIDGET, EDIT))
    api.put(WIDGET, {**api.get(WIDGET), "spec": {"users": 1}})
    me.grant.reopen(me.clock + LEFT)
    assert late.finish().ok
    assert api.get(WIDGET)["spec"] == {"users": 1, "mine": 1}


def test_a_decision_from_before_is_planned_again_if_its_object_changed(api: FakeApi) -> None:
    """A write of ours may have landed meanwhile whose answer was lost."""
    me = Process(api, MINE, deciding=["widgets.t.dev"])
    me.grant = Grant(MINE, me.clock + LEFT, RECOVERS)
    seen = api.get(WIDGET)["metadata"]["resourceVersion"]
    me.grant.hold("not renewed")
    body = {"metadata": {"resourceVersion": seen}, "status": {"given": "to me"}}
    late = me.attempt(patch(WIDGET + "/status", body))
    api.put(WIDGET, {**api.get(WIDGET), "status": {"given": "to another"}}, MINE)
    me.grant.reopen(me.clock + LEFT)
    assert late.finish().status == 409
    assert api.get(WIDGET)["status"]["given"] == "to another"


def test_a_gate_that_was_opened_wrongly_lets_nothing_past_the_next_leaders_stamp(api: FakeApi, me: Process) -> None:
    """Line 2 does not rest on line 1: another replica led meanwhile."""
    me.watch(WIDGET)
    me.grant.hold("not renewed")
    late = me.attempt(patch(WIDGET, EDIT))
    api.elect(stamp(8))
    api.put(WIDGET, {**api.get(WIDGET), "spec": {"theirs": 1}}, stamp(8))
    me.grant.reopen(me.clock + LEFT)
    with pytest.raises(StaleLeader):
        late.finish()
    assert api.get(WIDGET)["spec"] == {"theirs": 1}


def test_the_clients_timeout_does_not_count_in_front_of_the_gate(api: FakeApi, me: Process) -> None:
    me.grant.hold("not renewed")
    late = me.attempt(dataclasses.replace(patch(WIDGET, EDIT), timeout=3.0))
    me.clock += 9
    me.grant.reopen(me.clock + LEFT)
    late.step()
    assert late.pending is not None
    assert late.pending.timeout == 3.0


@pytest.mark.parametrize("timeout", [None, 3.0])
def test_the_time_that_an_api_server_has_to_hear_of_the_term_does_not_count_there(
    api: FakeApi, me: Process, timeout: float | None
) -> None:
    """Line 4: its informer had no chance to hear either."""
    api.intercept = Deaf(me, 2)
    late = me.attempt(dataclasses.replace(write("POST", MANY, NEW), timeout=timeout))
    while not (late.pending and late.pending.method == "GET"):
        late.step()
    me.grant.hold("not renewed")
    late.step()
    assert late.waits
    me.clock += 9
    me.grant.reopen(me.clock + LEFT)
    assert late.finish().ok


@pytest.mark.parametrize("timeout", [None, 2.0])
def test_the_time_that_it_had_before_counts(api: FakeApi, me: Process, timeout: float | None) -> None:
    """However often the gate is held, an API server that never hears is named in the end."""
    me.grant.extend(me.clock + 1000)
    deaf = Deaf(me, 10_000)
    api.intercept = deaf
    late = me.attempt(dataclasses.replace(write("POST", MANY, NEW), timeout=timeout))
    while late.pending is not None:
        if late.pending.method == "POST":
            me.grant.hold("not renewed")
            late.step()
            assert late.waits
            me.clock += 9
            me.grant.reopen(me.clock)
        late.step()
    with pytest.raises(Denied, match="has not heard of it"):
        late.finish()
    assert deaf.waited <= (timeout or LAG)


def test_whoever_waits_is_woken_by_each_change_that_may_let_it_go_on() -> None:
    grant, woken = Grant(MINE, 10.0, RECOVERS), list[str]()

    def wake() -> None:
        woken.append("")

    grant.on_change(wake)
    changes: tuple[Callable[[], None], ...] = (
        lambda: grant.extend(11.0), lambda: grant.reopen(12.0), grant.wait_no_more, lambda: grant.close("x"),
    )  # fmt: skip
    for change in changes:
        before = len(woken)
        change()
        assert len(woken) == before + 1
    grant.off_change(wake)
    grant.close("again")
    assert len(woken) == 4
