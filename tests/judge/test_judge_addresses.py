"""I5: no address is given to two claims, and none comes back before its claim is gone."""

from typing import Any

from judge.addresses import given_by_record, no_address_twice
from judge.finding import Finding
from judge.freeing import pools_keep_what_exists
from judge.writers import Writers
from tests.judge.judge_stories import ONE, USER, ZERO, Story, Term


def twice(story: Story, **expected: Any) -> list[Finding]:
    return list(no_address_twice(story.history, Writers(story.history, story.audit, USER), **expected))


def broken(story: Story, *, fenced: bool = False, early: bool = False) -> list[tuple[str, str, int | None]]:
    writers = Writers(story.history, story.audit, USER)
    found = [
        *given_by_record(story.history, writers, fenced=fenced),
        *pools_keep_what_exists(story.history, writers, fenced=fenced, early=early),
    ]
    return [(f.kind, f.object, f.revision) for f in found]


def bound(story: Story, name: str, address: str, term: Term = None) -> None:
    story.claim(name)
    story.pool({address: name}, term)
    story.claim(name, address, term)
    story.child(name, address, term)


def test_give_and_take_back_in_order_is_fine() -> None:
    story = Story()
    bound(story, "a", "10.20.0.7", (ZERO, 1))
    story.gone(story.child_key("a"))
    story.claim("a", "", (ZERO, 1), deletionTimestamp="2030-01-01T00:00:00Z")
    story.gone(story.claim_key("a"))
    story.pool({}, (ZERO, 1))
    bound(story, "b", "10.20.0.7", (ZERO, 1))
    assert not twice(story)
    assert not broken(story)


def test_an_address_that_comes_back_while_its_claim_exists() -> None:
    story = Story()
    bound(story, "a", "10.20.0.7", (ZERO, 1))
    story.gone(story.child_key("a"))
    story.claim("a", "", (ZERO, 1), deletionTimestamp="2030-01-01T00:00:00Z")
    bad = story.pool({}, (ZERO, 1))
    story.gone(story.claim_key("a"))
    assert broken(story) == [("freed while the claim exists", "10.20.0.7", bad)]
    assert broken(story, early=True) == []  # as an older version does


def test_a_claim_of_that_name_that_was_made_anew_holds_nothing() -> None:
    story = Story()
    bound(story, "a", "10.20.0.7", (ZERO, 1))
    story.gone(story.child_key("a"))
    story.claim("a", uid="another")
    story.pool({}, (ZERO, 1))
    assert broken(story) == []


def test_an_address_that_comes_back_while_it_is_published() -> None:
    story = Story()
    bound(story, "a", "10.20.0.7", (ZERO, 1))
    story.gone(story.claim_key("a"))
    bad = story.pool({}, (ZERO, 1))
    assert broken(story, fenced=True) == [("freed while published", "10.20.0.7", bad)]
    assert broken(story, early=True) == []


def test_a_configmap_that_a_user_keeps_by_a_finalizer_is_the_users() -> None:
    story = Story()
    bound(story, "a", "10.20.0.7", (ZERO, 1))
    story.child("a", "10.20.0.7", (ZERO, 1), deletionTimestamp="2030-01-01T00:00:00Z", finalizers=["example.com/hold"])
    story.gone(story.claim_key("a"))
    story.pool({}, (ZERO, 1))
    assert broken(story, fenced=True) == []


def test_an_administrator_may_edit_a_record() -> None:
    story = Story()
    bound(story, "a", "10.20.0.7", (ZERO, 1))
    story.pool({}, (ZERO, 1))
    story.asked("alice")
    assert broken(story) == []


def test_a_late_creation_for_a_claim_that_is_being_deleted_gives_twice() -> None:
    story = Story()
    bound(story, "a", "10.20.0.7", (ZERO, 1))
    story.gone(story.child_key("a"))
    story.claim("a", "", (ZERO, 1), deletionTimestamp="2030-01-01T00:00:00Z")
    story.pool({}, (ZERO, 1))
    bound(story, "b", "10.20.0.7", (ZERO, 1))
    assert twice(story, fenced=True) == []
    bad = story.child("a", "10.20.0.7", (ZERO, 1))
    assert [f.revision for f in twice(story, fenced=True)] == [bad]


def test_a_creation_that_publishes_over_the_record_of_another() -> None:
    story = Story()
    story.claim("a")
    story.pool({"10.20.0.7": "gone"}, (ZERO, 1))
    bad = story.child("a", "10.20.0.7", (ZERO, 1))
    assert broken(story, fenced=True) == [("published over another's record", "10.20.0.7", bad)]


def test_a_late_creation_for_a_claim_that_is_gone_gives_nothing() -> None:
    story = Story()
    bound(story, "a", "10.20.0.7", (ZERO, 1))
    story.gone(story.child_key("a"))
    story.gone(story.claim_key("a"))
    story.pool({}, (ZERO, 1))
    bound(story, "b", "10.20.0.7", (ZERO, 1))
    story.child("a", "10.20.0.7", (ZERO, 1))
    assert twice(story, fenced=True) == []
    assert broken(story, fenced=True) == []


def test_what_a_user_publishes_is_nobodys_address() -> None:
    story = Story()
    bound(story, "a", "10.20.0.7", (ZERO, 1))
    story.claim("b")
    story.child("b", "10.20.0.7")
    assert twice(story, fenced=True) == []
    assert broken(story, fenced=True) == []


def test_two_claims_with_one_address_are_found_once_and_say_by_whom() -> None:
    story = Story()
    bound(story, "a", "10.20.0.7", (ONE, 3))
    story.claim("b", "10.20.0.7")
    story.asked(ZERO)
    story.claim("b", "10.20.0.7", labels={"x": "y"})
    story.child("b", "10.20.0.7")
    (found,) = twice(story)
    assert found.sentence == (
        "10.20.0.7 was given twice: to default/a (uid a) at revision 3 by pod ipam-1 (token 3) in addresspools blue,"
        " and to default/b (uid b) at revision 6 by pod ipam-0 (no token; from audit log) in addressclaims default/b"
    )
    assert found.revision == 6


def test_two_spellings_are_one_address() -> None:
    story = Story()
    story.claim("a", "fd00::1")
    story.claim("b", "fd00:0:0::0001")
    assert [f.object for f in twice(story)] == ["fd00::1"]


def test_a_pool_entry_that_changes_hands_is_found_while_the_first_claim_has_it() -> None:
    story = Story()
    story.claim("a")
    story.claim("b")
    story.pool({"10.20.0.7": "a"})
    story.claim("a", "10.20.0.7")
    bad = story.pool({"10.20.0.7": "b"})
    assert [f.revision for f in twice(story)] == [bad]
    assert broken(story) == [("freed while held", "10.20.0.7", bad)]


def test_a_pool_entry_may_change_hands_when_the_first_claim_is_gone() -> None:
    story = Story()
    story.claim("a")
    story.claim("b")
    story.pool({"10.20.0.7": "a"})
    story.gone(story.claim_key("a"))
    story.pool({"10.20.0.7": "b"})
    story.claim("c", "10.20.0.8")
    story.gone(story.claim_key("c"))
    story.pool({"10.20.0.7": "b", "10.20.0.8": "d"})
    assert not twice(story)
    assert broken(story)[1:] == []  # the first one is of c, which no pool recorded


def test_a_deleted_claim_that_is_still_there_keeps_its_address() -> None:
    story = Story()
    bound(story, "a", "10.20.0.7")
    story.claim("a", "10.20.0.7", deletionTimestamp="2030-01-01T00:00:00Z")
    story.claim("b", "10.20.0.7")
    assert len(twice(story)) == 1


def test_two_pools_that_overlap() -> None:
    story = Story()
    story.claim("a")
    story.claim("b")
    story.pool({"10.20.0.7": "a"}, name="blue")
    story.pool({"10.20.0.8": "b"}, name="red")
    assert not twice(story)
    bad = story.pool({"10.20.0.7": "b"}, name="red")
    assert [f.revision for f in twice(story)] == [bad]


def test_two_children_of_living_claims() -> None:
    story = Story()
    story.claim("a")
    story.claim("b")
    story.claim("c")
    story.child("a", "10.20.0.7")
    story.child("b", "10.20.0.8")
    assert not twice(story)
    bad = story.child("c", "10.20.0.7")
    assert [f.revision for f in twice(story)] == [bad]


def test_a_child_of_a_dead_claim_gives_nothing() -> None:
    story = Story()
    bound(story, "a", "10.20.0.7")
    story.gone(story.claim_key("a"))
    story.claim("b")
    story.child("b", "10.20.0.7")
    assert not twice(story)


def test_an_entry_for_a_dead_claim_gives_nothing() -> None:
    story = Story()
    story.claim("a", "10.20.0.7")
    story.pool({"10.20.0.7": "dead"})
    assert not twice(story)


def test_the_first_giver_is_named_though_the_claim_was_touched_later() -> None:
    story = Story()
    first = story.claim("a", "10.20.0.7")
    story.claim("a", "10.20.0.7", labels={"x": "y"})
    story.claim("b", "10.20.0.7")
    (found,) = twice(story)
    assert f"(uid a) at revision {first} " in found.sentence


def test_another_spelling_in_the_pool_frees_nothing() -> None:
    story = Story()
    bound(story, "a", "fd00::1")
    story.pool({"fd00:0::1": "a"})
    assert not broken(story)


def test_three_claims_are_two_times_two_given() -> None:
    story = Story()
    for name in "abc":
        story.claim(name, "10.20.0.7")
    assert len(twice(story)) == 3


def test_an_entry_that_disappears_while_the_claim_has_the_address() -> None:
    story = Story()
    bound(story, "a", "10.20.0.7")
    bad = story.pool({})
    assert broken(story) == [("freed while held", "10.20.0.7", bad)]


def test_a_pool_goes_while_a_claim_has_its_address() -> None:
    by_user, by_operator = Story(), Story()
    for story, who in ((by_user, "alice"), (by_operator, ZERO)):
        bound(story, "a", "10.20.0.7")
        story.gone(story.pool_key())
        story.asked(who)
    assert not broken(by_user)
    assert [kind for kind, *_ in broken(by_operator)] == ["freed while held"]


def test_an_address_that_the_pool_does_not_record() -> None:
    story = Story()
    story.pool({"10.20.0.7": "a"})
    story.claim("a", "10.20.0.7")
    bad = story.claim("b", "10.20.0.8")
    story.pool({"10.20.0.7": "a", "10.20.0.8": "b"})
    story.pool({"10.20.0.9": "c"}, name="red")
    worse = story.claim("c", "10.20.0.9", pool="blue")
    assert broken(story) == [
        ("given without record", "10.20.0.8", bad),
        ("given without record", "10.20.0.9", worse),
    ]


def test_an_entry_does_not_go_before_a_claim_that_never_got_the_address() -> None:
    """A leader that stands still may have promised it."""
    story = Story()
    story.claim("a")
    story.pool({"10.20.0.7": "a"})
    bad = story.pool({})
    assert broken(story) == [("freed while the claim exists", "10.20.0.7", bad)]
    assert broken(story, early=True) == []
