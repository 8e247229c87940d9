"""I4: what a decision reads was stamped in the same term before."""

from collections.abc import Iterable

from judge.barrier import (
    barrier_comes_first,
    claims_are_stamped_before_activation,
    pools_are_stamped_before_they_decide,
)
from judge.finding import Finding
from judge.leases import Leases
from tests.judge.judge_stories import LEASE, ONE, ZERO, Story


def kinds(findings: Iterable[Finding]) -> list[tuple[str, str, int | None]]:
    return [(f.promise, f.kind, f.revision) for f in findings]


def undecidable(story: Story) -> list[Finding]:
    return list(pools_are_stamped_before_they_decide(story.history, Leases(story.history, [LEASE])))


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


# --- pools, before each decision


def two_pools() -> Story:
    """Two pools of the first term; the second one begins, and stamps but one of them."""
    story = Story()
    story.lease(1, ZERO.holder)
    story.pool({"10.20.0.1": "a"}, (ZERO, 1))
    story.pool({}, (ZERO, 1), name="red", spec=RED)
    story.lease(2, ONE.holder)
    story.pool({"10.20.0.1": "a"}, (ONE, 2))
    return story


RED = {"cidr": "10.30.0.0/24"}
TOO_EARLY = "decided before the stamp"


def test_each_pool_is_stamped_before_it_gives_and_another_one_later() -> None:
    story = two_pools()
    story.pool({"10.20.0.1": "a", "10.20.0.2": "b"}, (ONE, 2))  # red has no stamp yet, and nothing is made from it
    story.pool({}, (ONE, 2), name="red", spec=RED)
    story.pool({"10.30.0.1": "c"}, (ONE, 2), name="red", spec=RED)
    assert undecidable(story) == []


def test_a_pool_that_gives_with_the_write_that_stamps_it() -> None:
    """An earlier leader could have written it since it was read."""
    story = two_pools()
    bad = story.pool({"10.30.0.1": "c"}, (ONE, 2), name="red", spec=RED)
    story.pool({"10.30.0.1": "c", "10.30.0.2": "d"}, (ONE, 2), name="red", spec=RED)
    (found,) = undecidable(story)
    assert kinds([found]) == [("I4", TOO_EARLY, bad)]
    assert found.sentence == (
        f"addresspools red was decided under token 2 of {ONE.holder} from addresspools red, which bore token 1 of"
        f" {ZERO.holder}, at revision {bad}"
    )


def test_a_claim_that_is_given_what_an_earlier_term_recorded() -> None:
    story = Story()
    story.lease(1, ZERO.holder)
    story.pool({"10.20.0.1": "a"}, (ZERO, 1))
    story.lease(2, ONE.holder)
    bad = story.claim("a", "10.20.0.1", (ONE, 2))
    assert kinds(undecidable(story)) == [("I4", TOO_EARLY, bad)]


def test_an_activation_is_decided_from_the_pools_that_overlap() -> None:
    """And from no other: their ranges are immutable."""
    story = two_pools()
    story.pool({}, name="half", state="", spec={"cidr": "10.30.0.0/25"})
    story.pool({}, (ONE, 2), name="half", state="Claiming", spec={"cidr": "10.30.0.0/25"})
    bad = story.pool({}, (ONE, 2), name="half", spec={"cidr": "10.30.0.0/25"})
    (found,) = undecidable(story)
    assert kinds([found]) == [("I4", TOO_EARLY, bad)]
    assert "addresspools half was decided" in found.sentence
    assert "from addresspools red" in found.sentence
    story = two_pools()
    story.pool({}, name="far", state="", spec={"cidr": "10.40.0.0/25"})
    story.pool({}, (ONE, 2), name="far", state="Claiming", spec={"cidr": "10.40.0.0/25"})
    story.pool({}, (ONE, 2), name="far", spec={"cidr": "10.40.0.0/25"})
    assert undecidable(story) == []


def test_a_pool_that_is_made_when_the_term_has_begun_is_stamped_when_it_is_taken_on() -> None:
    story = two_pools()
    story.pool({}, name="green", state="", spec={"cidr": "10.40.0.0/24"})
    story.pool({"10.40.0.1": "c"}, (ONE, 2), name="green", spec={"cidr": "10.40.0.0/24"})
    assert undecidable(story) == []


def test_a_pool_that_a_later_term_stamped_is_not_undecidable_for_the_earlier_one() -> None:
    story = two_pools()
    story.pool({}, (ONE, 2), name="red", spec=RED)
    story.claim("a", "10.20.0.1", (ZERO, 1))  # late, and nobody has stamped the claim
    assert undecidable(story) == []


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
