"""I4: what a decision reads was stamped in the same term before."""

from collections.abc import Iterable

from judge.barrier import (
    barrier_comes_first,
    claims_are_stamped_before_activation,
    no_pool_is_skipped,
)
from judge.finding import Finding
from judge.leases import Leases
from tests.judge.judge_stories import LEASE, ONE, ZERO, Story


def kinds(findings: Iterable[Finding]) -> list[tuple[str, str, int | None]]:
    return [(f.promise, f.kind, f.revision) for f in findings]


def skipped(story: Story) -> list[Finding]:
    return list(no_pool_is_skipped(story.history, Leases(story.history, [LEASE])))


def inactive(story: Story) -> list[Finding]:
    return list(claims_are_stamped_before_activation(story.history))


def test_an_address_from_a_pool_that_the_term_has_not_stamped_breaks_i4() -> None:
    story = Story()
    story.pool({"10.20.0.1": "a"}, (ZERO, 1))
    story.claim("a", "10.20.0.1", (ZERO, 1))
    story.claim("a", "10.20.0.1", (ONE, 2))  # stamping a bound claim decides nothing
    story.claim("b", "", (ONE, 2))
    assert not kinds(barrier_comes_first(story.history))
    bad = story.claim("b", "10.20.0.2", (ONE, 2))
    assert kinds(barrier_comes_first(story.history)) == [("I4", "before the barrier", bad)]


# --- a barrier that skips an object


def two_pools() -> Story:
    """Two pools of the first term; the second one begins, and stamps but one of them."""
    story = Story()
    story.lease(1, ZERO.holder)
    story.pool({"10.20.0.1": "a"}, (ZERO, 1))
    story.pool({}, (ZERO, 1), name="red")
    story.lease(2, ONE.holder)
    story.pool({"10.20.0.1": "a"}, (ONE, 2))
    return story


def test_a_barrier_that_stamps_all_before_it_decides() -> None:
    story = two_pools()
    story.pool({}, (ONE, 2), name="red")
    story.pool({"10.20.0.1": "a", "10.20.0.2": "b"}, (ONE, 2))
    story.pool({"10.30.0.1": "c"}, (ONE, 2), name="red")
    assert skipped(story) == []


def test_a_pool_that_was_skipped_and_gave_with_the_stamp() -> None:
    story = two_pools()
    first = story.pool({"10.20.0.1": "a", "10.20.0.2": "b"}, (ONE, 2))
    bad = story.pool({"10.30.0.1": "c"}, (ONE, 2), name="red")
    (found,) = skipped(story)
    assert kinds([found]) == [("I4", "skipped by the barrier", bad)]
    assert found.sentence.startswith(
        f"addresspools red was not stamped under token 2 of {ONE.holder} when that term decided first,"
        f" at revision {first} on addresspools blue, and addresspools red was decided from it"
    )


def test_a_pool_that_was_skipped_and_stamped_after_the_first_decision() -> None:
    story = two_pools()
    story.claim("a", "10.20.0.1", (ONE, 2))  # recorded before, told now: a decision, too
    story.pool({}, (ONE, 2), name="red")
    bad = story.pool({"10.30.0.1": "c"}, (ONE, 2), name="red")
    story.pool({"10.30.0.1": "c", "10.30.0.2": "d"}, (ONE, 2), name="red")  # reported once
    assert kinds(skipped(story)) == [("I4", "skipped by the barrier", bad)]


def test_the_first_decision_itself_on_a_pool_that_was_skipped() -> None:
    story = two_pools()
    bad = story.pool({"10.30.0.1": "c"}, (ONE, 2), name="red")
    assert kinds(skipped(story)) == [("I4", "skipped by the barrier", bad)]


def test_a_claim_that_is_given_what_a_skipped_pool_records() -> None:
    story = Story()
    story.lease(1, ZERO.holder)
    story.pool({"10.20.0.1": "a"}, (ZERO, 1))
    story.lease(2, ONE.holder)
    bad = story.claim("a", "10.20.0.1", (ONE, 2))
    assert kinds(skipped(story)) == [("I4", "skipped by the barrier", bad)]


def test_a_pool_that_is_set_aside_gives_nothing_until_it_is_stamped() -> None:
    story = two_pools()
    story.set_aside("1 deciding objects are set aside: addresspools.ipam.kopf-ha.dev red (409 changed)")
    story.pool({"10.20.0.1": "a", "10.20.0.2": "b"}, (ONE, 2))
    assert skipped(story) == []
    story.pool({}, (ONE, 2), name="red")  # a later try
    story.pool({"10.30.0.1": "c"}, (ONE, 2), name="red")
    assert skipped(story) == []


def test_a_pool_that_is_set_aside_and_gives_all_the_same() -> None:
    story = two_pools()
    story.set_aside("1 deciding objects are set aside: addresspools.ipam.kopf-ha.dev red (409 changed)")
    story.pool({"10.20.0.1": "a", "10.20.0.2": "b"}, (ONE, 2))
    bad = story.pool({"10.30.0.1": "c"}, (ONE, 2), name="red")
    assert kinds(skipped(story)) == [("I4", "skipped by the barrier", bad)]


def test_another_pool_that_is_set_aside_excuses_nothing() -> None:
    story = two_pools()
    story.set_aside("1 deciding objects are set aside: addresspools.ipam.kopf-ha.dev green (409 changed)")
    story.pool({"10.20.0.1": "a", "10.20.0.2": "b"}, (ONE, 2))
    story.pool({}, (ONE, 2), name="red")
    story.pool({"10.30.0.1": "c"}, (ONE, 2), name="red")
    assert len(skipped(story)) == 1


def test_a_pool_that_gives_nothing_may_be_skipped() -> None:
    story = two_pools()
    story.pool({"10.20.0.1": "a", "10.20.0.2": "b"}, (ONE, 2))
    assert skipped(story) == []


def test_a_pool_that_is_made_when_the_term_has_begun_is_stamped_when_it_is_taken_on() -> None:
    story = two_pools()
    story.pool({}, (ONE, 2), name="red")
    story.pool({}, name="green", state="")
    story.pool({"10.20.0.1": "a", "10.20.0.2": "b"}, (ONE, 2))
    story.pool({}, (ONE, 2), name="green")
    story.pool({"10.40.0.1": "c"}, (ONE, 2), name="green")
    assert skipped(story) == []


def test_a_pool_that_a_later_term_stamped_is_not_skipped_by_the_earlier_one() -> None:
    story = two_pools()
    story.pool({}, (ONE, 2), name="red")
    story.claim("a", "10.20.0.1", (ZERO, 1))  # late, and nobody has stamped the claim
    assert skipped(story) == []


# --- claims, before a pool becomes active


def remade() -> Story:
    """A pool that is made again in the second term, where a claim waits that the first one stamped."""
    story = Story()
    story.lease(1, ZERO.holder)
    story.claim("a", "", (ZERO, 1))
    story.lease(2, ONE.holder)
    story.pool({}, name="red", state="")
    story.pool({}, (ONE, 2), name="red", state="Claiming")
    return story


def test_a_claim_that_was_not_stamped_before_a_pool_became_active() -> None:
    story = remade()
    story.claim("late")  # the term has written already: nobody promised it anything
    bad = story.pool({}, (ONE, 2), name="red")
    (found,) = inactive(story)
    assert kinds([found]) == [("I4", "claim not stamped before the activation", bad)]
    assert found.sentence == (
        f"addresspools red became active under token 2 of {ONE.holder} while addressclaims default/a (uid a) bore"
        f" token 1 of {ZERO.holder}, at revision {bad}"
    )


def test_a_claim_without_any_stamp_counts_too() -> None:
    story = Story()
    story.claim("a")
    story.pool({}, (ONE, 2), name="red", state="Claiming")
    story.pool({}, (ONE, 2), name="red")
    assert len(inactive(story)) == 1


def test_claims_that_are_stamped_gone_or_recorded_by_an_active_pool() -> None:
    story = remade()
    story.pool({"10.20.0.1": "b"}, (ONE, 2))
    story.claim("a", "", (ONE, 2))
    story.pool({}, (ONE, 2), name="red")
    story.pool({"10.20.0.1": "b"}, (ONE, 2))  # it was active before
    assert inactive(story) == []


def test_a_record_of_a_pool_that_is_gone_or_not_active_makes_nothing_safe() -> None:
    gone, withdrawn = Story(), Story()
    for story in (gone, withdrawn):
        story.claim("b")
        story.pool({"10.20.0.1": "b"}, (ZERO, 1))
    gone.gone(gone.pool_key())
    withdrawn.pool({"10.20.0.1": "b"}, (ZERO, 1), state="")
    for story in (gone, withdrawn):
        story.pool({}, (ONE, 2), name="red", state="Claiming")
        story.pool({}, (ONE, 2), name="red")
        assert len(inactive(story)) == 1
