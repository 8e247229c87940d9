"""Who leads, and when: electors with threads on a real API server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from kubernetes import config
from kubernetes.client import CoordinationV1Api

from devcluster.waiting import until
from testbed.replica import PATIENCE
from tests.election.stage import LONG, Stage


def test_one_of_two_leads_and_both_know_which(stage: Stage) -> None:
    a = stage.replica("a").leads()
    b = stage.replica("b")
    until("b to see a", lambda: b.leaders == [("a", 1)])
    assert (b.elector.state, b.elector.observed_holder, b.elector.observed_token) == ("following", "a", 1)
    assert a.leaders == [("a", 1)]
    assert (stage.spec["holderIdentity"], stage.spec["leaseTransitions"]) == ("a", 1)
    assert a.elector.last_error == b.elector.last_error == ""


def test_a_release_is_seen_by_watch_and_taken_at_once(stage: Stage) -> None:
    a = stage.replica("a", **LONG).leads()
    b = stage.replica("b", **LONG)
    until("b to follow", lambda: b.leaders)
    a.elector.release(10)
    assert a.elector.state == "stopped"
    assert a.stopped == [(1, "released")]
    b.leads()
    assert (a.tokens, b.tokens) == ([1], [2])


def test_a_release_keeps_the_counter(stage: Stage) -> None:
    stage.replica("a").leads().elector.release(10)
    spec = stage.spec
    assert (spec.get("holderIdentity", ""), spec["leaseTransitions"], spec["leaseDurationSeconds"]) == ("", 1, 1)


def test_a_dead_leaders_lease_expires(stage: Stage) -> None:
    a = stage.replica("a").leads()
    b = stage.replica("b")
    until("b to follow", lambda: b.leaders)
    a.end()
    assert stage.spec["holderIdentity"] == "a"
    b.leads()
    assert b.tokens == [2]


def test_a_deleted_lease_ends_the_term_and_the_token_goes_on(stage: Stage) -> None:
    stage.create({"leaseTransitions": 7})
    a = stage.replica("a", **LONG).leads()
    stage.kubectl("delete", "lease", "op")
    a.lost(f"Lease {stage.namespace}/op was deleted")
    assert a.elector.state == "lost"
    a.elector.resume()
    a.leads()
    assert a.tokens == [8, 9]


def test_a_floor_is_passed_by_who_never_saw_the_lease(stage: Stage) -> None:
    a = stage.replica("a", floor=lambda: 41).leads()
    assert a.tokens == [42]


def test_a_lease_edited_to_another_holder_ends_the_term(stage: Stage) -> None:
    a = stage.replica("a", **LONG).leads()
    stage.patch(holderIdentity="x", leaseTransitions=2)
    a.lost("is held by x (token 2)")


def test_a_lowered_counter_ends_the_term(stage: Stage) -> None:
    stage.create({"leaseTransitions": 7})
    a = stage.replica("a", **LONG).leads()
    stage.patch(leaseTransitions=3)
    a.lost("was lowered to 3, my token is 8")
    a.elector.resume()


def test_a_raised_floor_makes_a_new_term_in_the_same_lease(stage: Stage) -> None:
    a = stage.replica("a", **LONG).leads()
    a.elector.raise_floor(30)
    assert a.grants[0].closed
    a.lost("floor: an object records token 30")
    a.elector.resume()
    until("a new term", lambda: len(a.grants) == 2)
    assert a.tokens == [1, 31]
    assert a.grants[0].closed
    assert stage.spec["leaseTransitions"] == 31


def test_stepping_down_hands_over_before_the_drain_ends(stage: Stage) -> None:
    a = stage.replica("a", **LONG).leads()
    b = stage.replica("b", **LONG)
    until("b to follow", lambda: b.leaders)
    a.elector.step_down("the API server refused a write")
    assert a.grants[0].closed == "the API server refused a write"
    b.leads()
    assert a.elector.state == "lost"
    a.elector.resume()
    until("a to follow", lambda: a.elector.state == "following")
    assert b.elector.leading


def test_stepping_down_from_a_term_that_is_over_does_not_touch_the_next(stage: Stage) -> None:
    a = stage.replica("a", **LONG).leads()
    old = a.grants[0]
    a.elector.raise_floor(5)
    a.lost("floor")
    a.elector.resume()
    until("a new term", lambda: len(a.grants) == 2)
    a.elector.step_down("late", grant=old)
    assert a.elector.leading
    assert not a.grants[1].closed


def test_a_blocked_loop_ends_the_term_and_the_lease_goes_to_others(stage: Stage) -> None:
    a = stage.replica("a").leads()
    b = stage.replica("b")
    until("b to follow", lambda: b.leaders)
    a.block()
    a.lost("event loop blocked")
    b.leads()


def test_the_same_name_again_raises_the_token(stage: Stage) -> None:
    a = stage.replica("same").leads()
    a.end()
    b = stage.replica("same").leads()
    assert b.tokens == [2]


@contextmanager
def label_edits(stage: Stage) -> Iterator[Callable[[], int]]:
    """Edit a label of the Lease ten times a second; gives how many there were."""
    leases = CoordinationV1Api(config.new_client_from_config(str(stage.cluster.kubeconfig)))
    end, count = threading.Event(), [0]

    def edit() -> None:
        while not end.wait(0.1):
            body = {"metadata": {"labels": {"n": str(count[0])}}}
            leases.patch_namespaced_lease("op", stage.namespace, body)
            count[0] += 1

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        yield lambda: count[0]
    finally:
        end.set()
        thread.join()


def test_label_edits_unseat_no_living_leader(stage: Stage) -> None:
    a = stage.replica("a").leads()
    with label_edits(stage) as edits:
        until("labels edited for more than two lease durations", lambda: edits() > 70, PATIENCE)
    assert a.elector.leading
    assert a.tokens == [1]


def test_label_edits_keep_no_dead_leader_alive(stage: Stage) -> None:
    a = stage.replica("a").leads()
    b = stage.replica("b")
    until("b to follow", lambda: b.leaders)
    with label_edits(stage):
        a.end()
        b.leads()
    assert b.tokens == [2]


def test_what_others_keep_in_the_lease_survives(stage: Stage) -> None:
    stage.create({"leaseTransitions": 0})
    stage.kubectl("label", "lease", "op", "team=x")
    stage.kubectl("annotate", "lease", "op", "note=y")
    stage.replica("a").leads().elector.release(10)
    meta = json.loads(stage.kubectl("get", "lease", "op", "-o", "json"))["metadata"]
    assert (meta["labels"], meta["annotations"]) == ({"team": "x"}, {"note": "y"})


@pytest.mark.parametrize("end", ["release", "stop"])
def test_no_thread_stays_behind(stage: Stage, end: str) -> None:
    before = {t for t in threading.enumerate() if t.name.startswith("kopf-ha-election")}
    a = stage.replica("a").leads()
    if end == "release":
        a.elector.release(10)
    else:
        a.elector.stop()
    until(
        "the threads to end",
        lambda: not {t for t in threading.enumerate() if t.name.startswith("kopf-ha-election")} - before,
    )


def test_an_elector_that_was_never_started_or_has_ended_can_be_ended(stage: Stage) -> None:
    a = stage.replica("a", start=False)
    a.elector.release(1)
    a.elector.stop()
    b = stage.replica("b").leads()
    b.elector.release(10)
    b.elector.release(1)
    b.elector.stop()
