"""I6: what users wrote stays theirs; I7: writes stop."""

import pytest

from judge.shapes import stamp_of
from judge.users import only_users_change_specs, unknown_editors, writes_stop
from judge.writers import Writers
from tests.judge.judge_stories import NOTE, ONE, USER, ZERO, Story


def found(story: Story) -> list[str]:
    return [f.sentence for f in only_users_change_specs(story.history, Writers(story.history, story.audit, USER))]


def test_users_change_specs_and_the_operator_its_own() -> None:
    story = Story()
    story.claim("a", spec={"poolName": "blue"})
    story.asked("alice")
    story.claim("a", spec={"poolName": "red"}, labels={"x": "y"})
    story.asked("alice")
    mine = {"kopf.zalando.org/last-handled-configuration": "{}"}
    story.claim("a", spec={"poolName": "red"}, labels={"x": "y"}, annotations=mine)
    story.asked(ZERO)
    assert found(story) == []


def test_the_operator_changes_a_spec_a_label_or_an_annotation() -> None:
    story = Story()
    story.claim("a", spec={"poolName": "blue"})
    story.asked("alice")
    story.claim("a", spec={"poolName": "red"})
    story.asked(ZERO)
    story.claim("a", spec={"poolName": "red"}, labels={"x": "y"})
    story.asked(ONE)
    story.claim("a", spec={"poolName": "red"}, labels={"x": "y"}, annotations={"note": "z"})
    story.asked(ONE)
    assert [text.split(" of ")[0].split("changed ")[1] for text in found(story)] == [
        "the spec",
        "labels",
        "annotations",
    ]


def test_an_edit_that_the_audit_log_does_not_show_is_counted() -> None:
    story = Story()
    story.claim("a", spec={"poolName": "blue"})
    story.claim("a", "10.20.0.1", spec={"poolName": "blue"})
    assert unknown_editors(story.history, Writers(story.history, [])) == 0
    story.claim("a", "10.20.0.1", spec={"poolName": "red"})
    assert unknown_editors(story.history, Writers(story.history, [])) == 1


def test_writes_stop() -> None:
    story = Story()
    last = story.claim("a", "10.20.0.1", (ZERO, 1))
    story.lease(1, ZERO.holder)
    assert not list(writes_stop(story.history, last))
    assert not list(writes_stop(story.history, None))
    bad = story.child("a", "10.20.0.1", (ZERO, 1))
    assert [f.revision for f in writes_stop(story.history, last)] == [bad]


@pytest.mark.parametrize("token", ["9" * 5000, "0" * 5000 + "7", "9" * 20, "-1", "1.5", "\u0661", ""])
def test_an_annotation_that_no_number_can_be_read_from_is_no_stamp(token: str) -> None:
    """Anybody may write one, so it must not keep the judge from reading the rest (I10)."""
    notes = {"kopf-ha.dev/lease": "ns/op", "kopf-ha.dev/token": token, "kopf-ha.dev/holder": "me"}
    assert stamp_of({"metadata": {"annotations": notes}}) is None
    assert (
        stamp_of({"metadata": {"annotations": {NOTE: f"{token} ns/op u me"}, "labels": {NOTE: f"{token}.u.me"}}})
        is None
    )
    stamp = stamp_of({"metadata": {"annotations": {**notes, "kopf-ha.dev/token": "7"}}})
    assert stamp is not None
    assert stamp.token == 7
