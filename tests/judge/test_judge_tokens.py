"""I1, I2, I3, I4, I8: each check fails on a minimal bad history and passes on the good neighbour."""

from collections.abc import Iterable

from judge import tokens
from judge.finding import Finding
from judge.leases import Leases
from judge.writers import Writers
from tests.judge.judge_stories import LEASE, NOTE, ONE, USER, ZERO, Replica, Story


def kinds(findings: Iterable[Finding]) -> list[tuple[str, str, int | None]]:
    return [(f.promise, f.kind, f.revision) for f in findings]


def writers(story: Story) -> Writers:
    return Writers(story.history, story.audit, USER)


def test_a_token_that_rises_or_stays_is_fine() -> None:
    story = Story()
    story.pool({}, (ZERO, 1))
    story.pool({"10.20.0.1": "a"}, (ZERO, 1))
    story.pool({}, (ONE, 2))
    story.child("a", "10.20.0.1", (ZERO, 1))
    story.child("a", "10.20.0.1", (ONE, 10))  # as text, "10" is below "9"
    assert not kinds(tokens.tokens_only_rise(story.history, writers(story)))
    assert not kinds(tokens.no_late_write(story.history))


def test_a_token_that_goes_down_breaks_i1_and_i3() -> None:
    story = Story()
    story.pool({}, (ONE, 2))
    bad = story.pool({}, (ZERO, 1))
    assert kinds(tokens.tokens_only_rise(story.history, writers(story))) == [("I1", "token went down", bad)]
    (late,) = tokens.no_late_write(story.history)
    assert (late.promise, late.revision) == ("I3", bad)
    assert "token 1 of ipam-0" in late.sentence
    assert "token 2 of ipam-1" in late.sentence


def test_a_child_counts_too() -> None:
    story = Story()
    story.child("a", "10.20.0.1", (ONE, 10))
    bad = story.child("a", "10.20.0.1", (ZERO, 9))
    assert kinds(tokens.tokens_only_rise(story.history, writers(story))) == [("I1", "token went down", bad)]
    assert kinds(tokens.no_late_write(story.history)) == [("I3", "late write", bad)]


def test_a_new_object_of_the_same_name_begins_anew() -> None:
    story = Story()
    story.claim("a", term=(ONE, 2), uid="first")
    story.gone(story.claim_key("a"))
    story.claim("a", term=(ZERO, 1), uid="second")
    assert not kinds(tokens.tokens_only_rise(story.history, writers(story)))
    assert not kinds(tokens.no_late_write(story.history))


def test_a_stamp_that_is_removed_breaks_i1_and_hides_nothing_from_i3() -> None:
    story = Story()
    story.pool({}, (ONE, 2))
    removed = story.pool({})
    late = story.pool({}, (ZERO, 1))
    assert kinds(tokens.tokens_only_rise(story.history, writers(story))) == [("I1", "stamp removed", removed)]
    assert kinds(tokens.no_late_write(story.history)) == [("I3", "late write", late)]


def test_an_unreadable_stamp_is_no_stamp() -> None:
    story = Story()
    story.child("a", "10.20.0.1", (ONE, 2))
    story.child("a", "10.20.0.1", (ONE, 2))
    story.last["metadata"]["annotations"][NOTE] = "two"
    assert [f.kind for f in tokens.tokens_only_rise(story.history, writers(story))] == ["stamp removed"]


def test_of_two_forms_of_a_stamp_the_higher_token_counts() -> None:
    """An earlier release writes another form, and may take over again after a downgrade."""
    story = Story()
    story.child("a", "10.20.0.1", (ONE, 2))
    story.last["metadata"]["annotations"] |= ONE.earlier(3)
    down = story.child("a", "10.20.0.1", (ONE, 2))
    story.child("a", "10.20.0.1")
    story.last["metadata"]["annotations"] = ONE.earlier(4)
    found = [(f.kind, f.revision) for f in tokens.tokens_only_rise(story.history, writers(story))]
    assert found == [("token went down", down)]


def test_a_label_is_read() -> None:
    story = Story()
    for token in (2, 1):
        bad = story.child("a", "10.20.0.1")
        story.last["metadata"]["labels"] = {NOTE: f"{token}.uid-of-ipam-1.0123456789ab"}
    assert kinds(tokens.tokens_only_rise(story.history, writers(story))) == [("I1", "token went down", bad)]


def test_another_lease_breaks_i1() -> None:
    story = Story()
    story.pool({}, (ONE, 2))
    story.pool({}, (ONE, 3))
    story.last["status"]["fencing"]["lease"] = "other/lease"
    assert [f.kind for f in tokens.tokens_only_rise(story.history, writers(story))] == ["another Lease"]


def test_one_token_of_two_holders_breaks_i2() -> None:
    story = Story()
    story.pool({}, (ZERO, 1))
    bad = story.pool({}, (ONE, 1))
    story.pool({}, (ONE, 1))  # reported once
    assert kinds(tokens.tokens_have_one_holder(story.history)) == [("I2", "token shared", bad)]


def test_two_processes_of_one_pod_are_two_holders() -> None:
    story = Story()
    story.pool({}, (ZERO, 1))
    story.pool({}, (Replica("ipam-0", "b"), 1))
    assert [f.promise for f in tokens.tokens_have_one_holder(story.history)] == ["I2"]


def test_one_token_on_two_objects_is_no_concern_of_i2() -> None:
    story = Story()
    story.pool({}, (ZERO, 1), name="blue")
    story.pool({}, (ONE, 1), name="red")
    story.pool({}, (ONE, 2), name="blue")
    assert not kinds(tokens.tokens_have_one_holder(story.history))


def test_a_write_under_another_pods_stamp_breaks_i3() -> None:
    story = Story()
    story.claim("a", term=(ZERO, 1))
    story.asked(ZERO)
    story.claim("a", term=(ONE, 2))
    story.asked(ONE)
    story.claim("a", term=(ONE, 2), labels={"user": "x"})
    story.asked("alice")
    assert not kinds(tokens.writers_match_stamps(story.history, writers(story)))
    bad = story.claim("a", term=(ONE, 2), finalizers=["x"])
    story.asked(ZERO)
    found = list(tokens.writers_match_stamps(story.history, writers(story)))
    assert kinds(found) == [("I3", "write under another's stamp", bad)]
    assert [str(p) for p in found[0].parties] == ["pod ipam-1 (token 2)", "pod ipam-0 (no token; from audit log)"]


def test_a_deletion_under_another_pods_stamp_is_late_unless_the_object_was_terminating() -> None:
    story = Story()
    story.child("a", "10.20.0.1", (ONE, 2))
    bad = story.gone(story.child_key("a"))
    story.asked(ZERO, verb="delete")
    story.claim("a", term=(ONE, 2), deletionTimestamp="2030-01-01T00:00:00Z")
    story.gone(story.claim_key("a"))
    story.asked(ZERO)
    found = kinds(tokens.writers_match_stamps(story.history, writers(story)))
    assert found == [("I3", "write under another's stamp", bad)]


def test_a_replicas_write_without_a_stamp_breaks_i8() -> None:
    story = Story()
    story.claim("a")
    story.asked("alice")
    story.lease(1, ZERO.holder)
    story.asked(ZERO)
    assert not kinds(tokens.writers_match_stamps(story.history, writers(story)))
    bad = story.claim("a", finalizers=["x"])
    story.asked(ZERO)
    found = kinds(tokens.writers_match_stamps(story.history, writers(story)))
    assert found == [("I8", "write without stamp", bad)]


def test_late_writes_on_objects_that_nobody_stamped_later_are_counted() -> None:
    story = Story()
    story.lease(1, ZERO.holder)
    story.claim("a", "", (ZERO, 1))
    story.lease(2, ONE.holder)
    story.claim("a", "", (ZERO, 1), labels={"user": "x"})  # a user's edit is not late
    late = story.claim("a", "10.20.0.1", (ZERO, 1))
    story.claim("a", "10.20.0.1", (ONE, 2))
    found = tokens.late_but_harmless(story.history, Leases(story.history), writers(story))
    assert [change.revision for change in found] == [late]
    assert Leases(story.history).number_at(LEASE, late) == 2
