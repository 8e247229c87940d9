"""I8 by the audit log: no write without an entry, none without a pod."""

import pytest

from judge import Expectations, judge
from judge.audited import all_is_audited, unaudited, writes_have_a_pod
from judge.writers import Writers
from tests.judge.judge_stories import ONE, USER, ZERO, Story


def writers(story: Story) -> Writers:
    return Writers(story.history, story.audit, USER)


def podless(story: Story) -> list[tuple[str, str, str, int | None]]:
    found = writes_have_a_pod(story.history, story.audit, writers(story))
    return [(f.promise, f.kind, f.object, f.revision) for f in found]


def missing(story: Story) -> list[tuple[str, str, int | None]]:
    return [(f.promise, f.kind, f.revision) for f in all_is_audited(story.history, writers(story))]


def test_writes_from_pods() -> None:
    story = Story()
    story.lease(1, ZERO.holder)
    story.asked(USER)  # the Lease and Events are exempt
    story.asked(USER, resource="events")
    story.claim("a", term=(ZERO, 1))
    story.asked(ZERO)
    story.asked(USER, code=403)
    story.asked(USER, dry_run=True)
    story.asked(USER, verb="get")
    story.claim("a", term=(ZERO, 1), labels={"x": "y"})
    story.asked("alice")
    assert podless(story) == []


def test_a_write_without_a_pod() -> None:
    story = Story()
    bad = story.claim("a", term=(ZERO, 1))
    story.asked(USER)
    assert podless(story) == [
        ("I8", "write without a pod", "addressclaims default/a", bad),
    ]


@pytest.mark.parametrize("resource", ["secrets", "deployments"])
def test_a_write_without_a_pod_of_what_the_history_does_not_show(resource: str) -> None:
    story = Story()
    story.asked(USER, key=story.claim_key("a"), resource=resource, revision=None)
    assert [kind for _, kind, *_ in podless(story)] == ["write without a pod"]


def test_somebody_else_stamps() -> None:
    story = Story()
    bad = story.claim("a", term=(ZERO, 1))
    story.asked("alice")
    story.claim("a", term=(ZERO, 1), labels={"x": "y"})
    story.asked("alice")
    assert podless(story) == [("I8", "stamped by another account", "addressclaims default/a", bad)]


def test_without_pods_and_without_a_name_nothing_is_said() -> None:
    story = Story()
    story.lease(1, ZERO.holder)
    story.claim("a", "10.20.0.1", (ZERO, 1))
    story.asked(USER)
    assert not list(writes_have_a_pod(story.history, story.audit, Writers(story.history, story.audit)))
    found = {f.kind for f in judge(story.history, story.audit, Expectations(USER)).findings}
    assert "write without a pod" in found
    expected = Expectations(USER, pods_expected=False)
    assert found - {f.kind for f in judge(story.history, story.audit, expected).findings} == {"write without a pod"}


def test_a_write_that_the_log_does_not_show() -> None:
    story = Story()
    story.pool({}, (ZERO, 1))
    story.asked(ZERO)
    story.claim("a")
    story.asked("alice")
    pool = story.pool({"10.20.0.1": "a"}, (ZERO, 1))
    claim = story.claim("a", finalizers=["x"])
    child = story.child("a", "10.20.0.1", (ZERO, 1))
    story.child("b", "10.20.0.1")  # a user's, of which the log may say nothing
    story.gone(story.child_key("a"))
    assert missing(story) == [("I8", "write without audit entry", at) for at in (pool, claim, child)]
    assert [c.revision for c in unaudited(story.history, writers(story))] == [pool, claim, child]


def test_a_log_that_was_cut_off_is_a_note_unless_it_is_whole() -> None:
    story = Story()
    story.lease(1, ZERO.holder)
    story.claim("a")
    story.asked("alice")
    story.pool({"10.20.0.1": "a"}, (ONE, 1))
    bad = story.claim("a", "10.20.0.1", (ONE, 1))
    cut = judge(story.history, story.audit, Expectations(USER, lease_tampered=True, pods_expected=True))
    assert cut.ok, str(cut)
    assert f"2 writes have no audit entry; the first is of addresspools blue at {bad - 1}" in cut.notes
    whole = Expectations(USER, lease_tampered=True, audit_whole=True)
    assert [f.kind for f in judge(story.history, story.audit, whole).findings] == ["write without audit entry"] * 2
    assert not any("audit entry" in note for note in judge(story.history).notes)  # no log at all
