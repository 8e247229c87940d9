"""The audit log, and who made a change."""

import json
from pathlib import Path
from typing import Any

import pytest

from judge import read_audit
from judge.writers import Writers
from tests.judge.judge_stories import ONE, USER, ZERO, Story


def event(**changes: Any) -> dict[str, Any]:
    return {
        "stage": "ResponseComplete",
        "requestURI": "/apis/ipam.kopf-ha.dev/v1/namespaces/default/addressclaims/a/status",
        "verb": "patch",
        "user": {
            "username": USER,
            "extra": {
                "authentication.kubernetes.io/pod-name": ["ipam-0"],
                "authentication.kubernetes.io/pod-uid": ["u-0"],
            },
        },
        "userAgent": "kopf/1.45",
        "objectRef": {"resource": "addressclaims", "namespace": "default", "name": "a", "subresource": "status"},
        "responseStatus": {"code": 200},
        "responseObject": {"kind": "AddressClaim", "metadata": {"resourceVersion": "312"}},
        "stageTimestamp": "2030-01-01T00:00:01.5Z",
        **changes,
    }


def log(path: Path, *events: Any) -> Path:
    path.write_text("".join(json.dumps(e) + "\n" for e in events))
    return path


def test_logs_are_read_in_the_order_of_answers(tmp_path: Path) -> None:
    early = event(stageTimestamp="2030-01-01T00:00:01Z", verb="create")
    begun = event(stage="RequestReceived")
    first = log(tmp_path / "1.log", event(), begun)
    second = log(tmp_path / "2.log", early)
    second.write_text(second.read_text() + '{"stage": "ResponseCom')
    entries = read_audit([first, second])
    assert [e.verb for e in entries] == ["create", "patch"]
    entry = entries[1]
    assert (entry.user, entry.pod, entry.pod_uid, entry.revision, entry.code) == (USER, "ipam-0", "u-0", 312, 200)
    assert (entry.resource, entry.subresource, entry.namespace, entry.name) == (
        "addressclaims",
        "status",
        "default",
        "a",
    )


def test_dry_runs_refusals_and_impersonation(tmp_path: Path) -> None:
    dry = event(requestURI="/api/v1/x?dryRun=All")
    refused = event(
        responseStatus={"code": 409, "message": "changed"},
        responseObject={"kind": "Status", "metadata": {"resourceVersion": "9"}},
    )
    other = event(impersonatedUser={"username": "bob"})
    a, b, c = read_audit([log(tmp_path / "log", dry, refused, other)])
    assert (a.write, b.write, c.write) == (False, True, True)
    assert (b.accepted, b.revision, b.reason) == (False, None, "changed")
    assert (c.user, c.pod) == ("bob", "")


@pytest.mark.parametrize("verb", ["delete", "deletecollection"])
def test_the_body_of_a_deletion_counts_and_not_its_url(tmp_path: Path, verb: str) -> None:
    def delete(**more: Any) -> dict[str, Any]:
        return event(verb=verb, responseObject={}, **more)

    asked = {"requestURI": "/api/v1/namespaces/default/configmaps/a?dryRun=All"}
    body = {"requestObject": {"kind": "DeleteOptions", "apiVersion": "v1"}}
    dry = {"requestObject": {"kind": "DeleteOptions", "dryRun": ["All"]}}
    events = [
        delete(**asked),
        delete(**asked, **body),
        delete(**asked, **dry),
        delete(**dry),
        delete(),
        delete(**asked, level="Metadata"),
    ]
    entries = read_audit([log(tmp_path / "log", *events)])
    assert [e.write for e in entries] == [False, True, False, False, True, False]
    assert [e.doubtful for e in entries] == [False] * 5 + [True]


def test_a_dry_run_is_what_the_query_says_and_not_a_word_in_the_url(tmp_path: Path) -> None:
    path = "/api/v1/namespaces/default/configmaps/a?fieldManager="
    events = [event(requestURI=path + uri) for uri in ("dryRun%3DAll", "x&dry%52un=All", "x&dryRun=All")]
    assert [e.dry_run for e in read_audit([log(tmp_path / "log", *events)])] == [False, True, True]


def test_a_deletion_that_is_in_doubt_is_the_one_when_the_object_went() -> None:
    story = Story()
    story.child("a", "10.20.0.1", (ONE, 2))
    story.asked(ONE, verb="create")
    doubt: dict[str, Any] = {"verb": "delete", "revision": None, "dry_run": True, "doubtful": True}
    story.asked(ZERO, **doubt)
    assert parties(story) == ["pod ipam-1 (token 2)"]
    story.gone(story.child_key("a"))
    assert parties(story) == ["pod ipam-1 (token 2)", "pod ipam-0 (no token; from audit log)"]
    story.asked("alice", verb="delete", revision=None)  # certainly
    assert parties(story)[1] == "alice (kubectl/v1) (no token; from audit log)"


def test_the_answer_to_the_last_finalizers_removal_names_no_revision(tmp_path: Path) -> None:
    meta = {"resourceVersion": "312", "deletionTimestamp": "2030-01-01T00:00:00Z"}
    last = event(responseObject={"kind": "AddressClaim", "metadata": meta})
    more = event(responseObject={"kind": "AddressClaim", "metadata": {**meta, "finalizers": ["x"]}})
    assert [e.revision for e in read_audit([log(tmp_path / "log", last, more)])] == [None, 312]


def parties(story: Story) -> list[str]:
    writers = Writers(story.history, story.audit, USER)
    return [str(writers.party(change)) for change in story.history.changes]


def test_a_write_that_changed_nothing_does_not_take_the_revision() -> None:
    story = Story()
    story.claim("a")
    story.asked(ZERO)
    story.asked(ONE)  # answered with the same revision
    assert parties(story) == ["pod ipam-0 (no token; from audit log)"]


def test_a_list_of_the_same_revision_does_not_take_it() -> None:
    story = Story()
    story.claim("a")
    story.asked("controller", verb="deletecollection", name="")
    story.asked(ZERO)
    assert parties(story) == ["pod ipam-0 (no token; from audit log)"]


def test_without_revisions_the_order_tells_if_the_numbers_agree() -> None:
    story = Story()
    story.claim("a")
    story.asked("alice", revision=None)
    story.claim("a", "10.20.0.1")
    story.asked(ZERO, revision=None)
    story.asked(ONE, revision=None, code=409)
    assert parties(story) == [
        "alice (kubectl/v1) (no token; from audit log)",
        "pod ipam-0 (no token; from audit log)",
    ]
    story.asked(ONE, revision=None)
    assert parties(story) == ["somebody unknown"] * 2
    story.claim("a", "10.20.0.1")
    assert "somebody unknown" not in parties(story)
    story.claim("a", "10.20.0.2")
    assert parties(story) == ["somebody unknown"] * 4


def test_a_deletion_is_matched_though_its_answer_has_no_revision() -> None:
    story = Story()
    story.child("a", "10.20.0.1", (ONE, 2))
    story.asked(ONE, verb="create")
    story.gone(story.child_key("a"))
    story.asked(ZERO, verb="delete", revision=None)
    assert parties(story) == ["pod ipam-1 (token 2)", "pod ipam-0 (no token; from audit log)"]


def test_the_stamp_names_the_party_unless_the_audit_log_knows_better() -> None:
    story = Story()
    story.claim("a", term=(ZERO, 1))
    story.claim("a", term=(ZERO, 1))
    story.asked(ONE)
    assert parties(story) == ["pod ipam-0 (token 1)", "pod ipam-1 (no token; from audit log)"]


def test_field_managers_come_last() -> None:
    story = Story()
    managers = [
        {"manager": "kubectl", "time": "2030-01-01T00:00:00Z"},
        {"manager": "kopf", "time": "2030-01-01T00:00:09Z"},
    ]
    story.claim("a", managedFields=managers)
    assert parties(story) == ["kopf (no token; from managedFields)"]
