"""I7, and I5's aftermath: what is left, who waits and what is not shown when a run has become quiet."""

from typing import Any

import pytest

from judge import Expectations, judge
from judge.conflicts import conflicts_are_shown
from judge.leaks import nothing_is_left
from judge.service import claims_are_served, served_in_order
from judge.shapes import usable
from judge.writers import Writers
from tests.judge.judge_stories import LEASE, ONE, ZERO, Story


def left(story: Story, *, fenced: bool = True) -> list[tuple[str, str, str]]:
    return [(f.promise, f.kind, f.object) for f in nothing_is_left(story.history, fenced=fenced)]


def unserved(story: Story) -> list[tuple[str, str, str]]:
    return [(f.promise, f.kind, f.object) for f in claims_are_served(story.history)]


def out_of_order(story: Story) -> list[tuple[str, str, str, int | None]]:
    found = served_in_order(story.history, Writers(story.history, []))
    return [(f.promise, f.kind, f.object, f.revision) for f in found]


def hidden(story: Story) -> list[tuple[str, str, str]]:
    return [(f.promise, f.kind, f.object) for f in conflicts_are_shown(story.history, fenced=True)]


# --- what is left behind


def test_an_address_of_a_claim_that_is_gone() -> None:
    story = Story()
    story.claim("a")
    story.claim("b")
    story.pool({"10.20.0.1": "a", "10.20.0.2": "b", "10.20.0.3": "never"}, (ZERO, 1))
    story.gone(story.claim_key("a"))
    (first, second) = nothing_is_left(story.history)
    assert (first.promise, first.kind, first.object) == ("I7", "address left behind", "addresspools blue")
    assert first.sentence == "addresspools blue still records 10.20.0.1 for default/a/a, which does not exist"
    assert "10.20.0.3" in second.sentence
    story.pool({"10.20.0.2": "b"}, (ZERO, 1))
    assert left(story) == []


def test_a_claim_of_the_same_name_is_another_claim() -> None:
    story = Story()
    story.pool({"10.20.0.1": "a"}, (ZERO, 1))
    story.claim("a", uid="another")
    assert left(story) == [("I7", "address left behind", "addresspools blue")]


def test_a_config_map_of_a_claim_that_is_gone() -> None:
    story = Story()
    story.claim("a")
    story.child("a", "10.20.0.1", (ZERO, 1))
    story.claim("b")
    story.child("b", "10.20.0.2")
    assert left(story) == []
    story.gone(story.claim_key("a"))
    story.gone(story.claim_key("b"))
    assert left(story) == [("I7", "ConfigMap left behind", "configmaps default/claim-a")]  # b's is a user's
    assert len(left(story, fenced=False)) == 2
    story.gone(story.child_key("a"))
    assert left(story) == []


def test_what_is_left_counts_only_when_the_run_became_quiet() -> None:
    story = Story()
    story.lease(1, ZERO.holder)
    story.claim("a")
    story.pool({"10.20.0.1": "a"}, (ZERO, 1))
    story.claim("a", "10.20.0.1", (ZERO, 1))
    story.gone(story.claim_key("a"))
    verdict = judge(story.history)
    assert verdict.ok, str(verdict)
    assert verdict.notes == (
        "the run ended while addresspools blue still records 10.20.0.1 for default/a/a, which does not exist",
    )
    verdict = judge(story.history, (), Expectations(quiet_after=story.revision))
    assert [f.kind for f in verdict.findings] == ["address left behind"]
    assert verdict.notes == ()


# --- who is not served


def test_a_claim_that_waits_while_an_address_is_free() -> None:
    story = Story()
    story.pool({"10.20.0.1": "b"}, (ZERO, 1))
    story.waits("a", "1")
    (found,) = claims_are_served(story.history)
    assert (found.promise, found.kind) == ("I7", "claim not served")
    assert found.sentence == (
        "addressclaims default/a has no address and says PoolExhausted, while pool blue has 253 addresses free"
    )


@pytest.mark.parametrize("pool", [{"state": ""}, {"state": "Claiming"}, {"deletionTimestamp": "2030"}, {"name": "red"}])
def test_a_pool_that_gives_nothing(pool: dict[str, Any]) -> None:
    story = Story()
    story.pool({}, (ZERO, 1), **pool)
    story.claim("a")
    assert unserved(story) == []


def test_claims_that_need_nothing() -> None:
    story = Story()
    story.pool({"10.20.0.1": "a"}, (ZERO, 1))
    story.claim("a", "10.20.0.1")
    story.claim("b", deletionTimestamp="2030")
    story.claim("c")
    story.gone(story.claim_key("c"))
    assert unserved(story) == []


def test_a_pool_whose_addresses_are_all_taken_or_shown() -> None:
    story = Story()
    spec = {"cidr": "10.20.0.0/29", "gateway": "10.20.0.1", "excluded": ["10.20.0.2-10.20.0.3", "10.20.0.4/32"]}
    story.pool({"10.20.0.5": "b"}, (ZERO, 1), spec=spec)
    story.claim("shown", "10.20.0.6")  # no pool records it, and it is given to nobody else
    story.claim("a")
    assert unserved(story) == []
    story.claim("shown", "")
    assert len(unserved(story)) == 2


@pytest.mark.parametrize(
    ("address", "served"),
    [("10.20.0.1", True), ("10.20.0.2", False), ("10.20.0.255", True), ("10.30.0.1", True), ("fd00::1", True)],
)
def test_a_claim_that_wants_a_certain_address(address: str, served: bool) -> None:
    story = Story()
    story.pool({"10.20.0.1": "b"}, (ZERO, 1))
    story.claim("a", spec={"poolName": "blue", "address": address})
    assert (unserved(story) == []) == served


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"cidr": "10.0.0.0/30"}, {"10.0.0.1", "10.0.0.2"}),
        ({"cidr": "10.0.0.0/30", "gateway": "10.0.0.1"}, {"10.0.0.2"}),
        ({"cidr": "10.0.0.0/31"}, {"10.0.0.0", "10.0.0.1"}),
        ({"cidr": "10.0.0.8/32"}, {"10.0.0.8"}),
        ({"cidr": "fd00::/126"}, {"fd00::1", "fd00::2", "fd00::3"}),
        ({"cidr": "10.0.0.0/29", "excluded": ["10.0.0.0/30", "10.0.0.6-10.0.0.5", "fd00::/64"]}, {"10.0.0.4"}),
        ({"cidr": "10.0.0.0/29", "excluded": ["10.0.0.0/8"]}, set()),
        ({"cidr": "no range"}, set()),
        ({}, set()),
    ],
)
def test_usable_addresses(spec: dict[str, Any], expected: set[str]) -> None:
    assert usable({"spec": spec}) == expected


# --- the order of waiting


def test_the_younger_one_is_served_first() -> None:
    story = Story()
    story.pool({"10.20.0.1": "x"}, (ZERO, 1))
    story.waits("old", "2030-01-01T00:00:01Z")
    story.waits("young", "2030-01-01T00:00:02Z")
    bad = story.pool({"10.20.0.1": "young"}, (ZERO, 1))
    assert out_of_order(story) == [("I7", "served out of order", "addressclaims default/old", bad)]


def test_the_older_one_is_served_first_and_both_at_once_are_fine() -> None:
    story = Story()
    story.pool({}, (ZERO, 1))
    story.waits("old", "1")
    story.waits("young", "2")
    story.waits("last", "3")
    story.pool({"10.20.0.1": "old"}, (ZERO, 1))
    story.claim("old", "10.20.0.1", (ZERO, 1))
    story.pool({"10.20.0.1": "old", "10.20.0.2": "young", "10.20.0.3": "last"}, (ZERO, 1))
    assert out_of_order(story) == []


def test_of_one_age_the_name_decides() -> None:
    story = Story()
    story.pool({}, (ZERO, 1))
    story.waits("a", "1")
    story.waits("b", "1")
    bad = story.pool({"10.20.0.1": "b"}, (ZERO, 1))
    assert [f[3] for f in out_of_order(story)] == [bad]


@pytest.mark.parametrize(
    "older",
    [
        {"reason": "PoolNotFound"},
        {"spec": {"poolName": "blue", "address": "10.20.0.9"}},
        {"pool": "red"},
        {"deletionTimestamp": "2030"},
        {"finalizers": []},
    ],
)
def test_who_does_not_wait_in_the_queue(older: dict[str, Any]) -> None:
    story = Story()
    story.pool({}, (ZERO, 1))
    story.waits("old", "1", **older)
    story.waits("young", "2")
    story.pool({"10.20.0.1": "young"}, (ZERO, 1))
    assert out_of_order(story) == []


def test_a_claim_that_wants_a_certain_address_and_one_that_keeps_its_own_overtake_nobody() -> None:
    story = Story()
    story.pool({}, (ZERO, 1))
    story.waits("old", "1")
    story.claim("certain", spec={"poolName": "blue", "address": "10.20.0.9"}, creationTimestamp="2")
    story.claim("keeps", "10.20.0.8", creationTimestamp="3")
    story.pool({"10.20.0.8": "keeps", "10.20.0.9": "certain"}, (ZERO, 1))
    assert out_of_order(story) == []


def test_who_is_gone_or_served_waits_no_more() -> None:
    story = Story()
    story.pool({}, (ZERO, 1))
    for name in ("gone", "served"):
        story.waits(name, "1")
    story.gone(story.claim_key("gone"))
    story.pool({"10.20.0.1": "served"}, (ZERO, 1))
    story.waits("young", "2")
    story.pool({"10.20.0.1": "served", "10.20.0.2": "young"}, (ZERO, 1))
    assert out_of_order(story) == []


# --- conflicts


def conflict(status: str = "True") -> list[dict[str, str]]:
    return [{"type": "AddressConflict", "status": status, "reason": "GivenTwice"}]


def test_an_address_that_was_given_twice_and_is_not_shown() -> None:
    story = Story()
    story.claim("a", "10.20.0.1", (ZERO, 1), conditions=conflict())
    story.claim("b", "10.20.0.1", (ZERO, 1), conditions=conflict("False"))
    (found,) = conflicts_are_shown(story.history)
    assert (found.promise, found.kind, found.object) == ("I5", "conflict not shown", "10.20.0.1")
    assert found.sentence == (
        "default/a (uid a) and default/b (uid b) have 10.20.0.1, and no condition AddressConflict says so on"
        " default/b (uid b)"
    )
    story.claim("b", "10.20.0.1", (ZERO, 1), conditions=conflict())
    assert hidden(story) == []


def test_a_conflict_that_is_over_need_not_be_shown() -> None:
    story = Story()
    story.claim("a", "10.20.0.1")
    story.claim("b", "10.20.0.1")
    story.gone(story.claim_key("a"))
    assert hidden(story) == []


def test_a_quiet_run_is_asked_for_all_of_it() -> None:
    story = Story()
    story.lease(1, ZERO.holder)
    story.claim("a", "10.20.0.1", (ZERO, 1))
    story.claim("b", "10.20.0.1", (ZERO, 1))
    story.waits("c", "1", (ZERO, 1))
    story.pool({"10.20.0.1": "a", "10.20.0.2": "gone"}, (ZERO, 1))
    story.waits("d", "2", (ZERO, 1))
    story.pool({"10.20.0.1": "a", "10.20.0.2": "gone", "10.20.0.3": "d"}, (ZERO, 1))
    quiet = Expectations(lease_names=(LEASE,), quiet_after=story.revision, min_bound_claims=0)
    kinds = {(f.promise, f.kind) for f in judge(story.history, (), quiet).findings}
    assert kinds >= {
        ("I5", "conflict not shown"),
        ("I7", "address left behind"),
        ("I7", "claim not served"),
        ("I7", "served out of order"),
    }
    story.claim("e", term=(ONE, 2))
    assert "writes go on" in {f.kind for f in judge(story.history, (), quiet).findings}
