"""The Lease's numbers, and terms."""

import pytest

from judge.leases import Leases, numbers_are_unique, rebirths, tokens_are_granted
from judge.writers import Writers
from tests.judge.judge_stories import LEASE, ONE, ZERO, Story


def kinds(story: Story) -> list[str]:
    seen = Leases(story.history, [LEASE])
    return [f.kind for f in numbers_are_unique(seen, Writers(story.history, story.audit))]


def test_terms_in_order() -> None:
    story = Story()
    start = story.lease(1, ZERO.holder)
    story.lease(1, ZERO.holder)  # renewed
    released = story.lease(1, "")
    taken = story.lease(2, ONE.holder)
    raised = story.lease(7, ONE.holder)
    assert kinds(story) == []
    terms = Leases(story.history, [LEASE]).terms
    assert [(t.token, t.holder, t.since, t.until) for t in terms] == [
        (1, ZERO.holder, start, released),
        (2, ONE.holder, taken, raised),
        (7, ONE.holder, raised, None),
    ]


def test_a_lease_that_nobody_names_is_not_judged() -> None:
    story = Story()
    story.lease(2, ZERO.holder)
    story.lease(1, ONE.holder)
    assert not Leases(story.history).terms
    assert Leases(story.history, [LEASE]).terms


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([(1, "a"), (2, "b")], []),
        ([(2, "a"), (1, "a")], ["number went down"]),
        ([(1, "a"), (1, "b")], ["not raised", "number shared"]),
        ([(1, "a"), (1, ""), (1, "a")], ["not raised"]),
        ([(1, "a"), (1, ""), (2, "a")], []),
        ([(1, "a"), (2, "b"), (1, ""), (1, "b")], ["number went down", "not raised", "number shared"]),
        ([(1, "a"), (None, "a")], ["number missing"]),
        ([(None, "")], []),
    ],
)
def test_numbers(numbers: list[tuple[int | None, str]], expected: list[str]) -> None:
    story = Story()
    for number, holder in numbers:
        story.lease(number, holder)
    assert kinds(story) == expected


def test_a_lease_that_was_deleted_begins_anew_and_is_noted() -> None:
    story = Story()
    story.lease(7, "a")
    story.gone(story.writes[-1][1])
    story.lease(1, "b", uid="lease-2")
    story.lease(7, "b", uid="lease-2")
    assert kinds(story) == []
    (note,) = rebirths(Leases(story.history, [LEASE]))
    assert note == f"Lease {LEASE} was deleted at revision 3, at number 7"


def test_an_invented_token_is_found() -> None:
    story = Story()
    story.lease(1, ZERO.holder)
    story.claim("a", term=(ZERO, 1))
    story.claim("a", term=(ZERO, 2))
    story.claim("b", term=(ONE, 1))
    story.lease(2, ZERO.holder)  # too late
    found = tokens_are_granted(story.history, Leases(story.history), Writers(story.history, []))
    assert [(f.kind, f.revision) for f in found] == [("token not given", 4), ("token not given", 5)]
