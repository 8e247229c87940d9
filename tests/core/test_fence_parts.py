"""The small parts: stamps, paths, what is known of objects, what is decided about a request, grants and the gate."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kopf_ha.core import write as writing
from kopf_ha.core.asked import Asked
from kopf_ha.core.gate import Gate
from kopf_ha.core.grant import Grant
from kopf_ha.core.known import Known, Objects, Revision, Told, revision_of
from kopf_ha.core.notes import as_metadata, noted, notes_of, others_in, stamp_in
from kopf_ha.core.target import Target, api_root, parse_path
from kopf_ha.core.token import TOKEN_MAX, MalformedStamp, Stamp, Verdict, judge, stamp_of
from kopf_ha.core.wire import OwnRequestRefused, Request, Response, is_conflict
from kopf_ha.errors import GateClosed
from tests.core.fake_api import APPLY, JSON_PATCH, LEASE, MERGE, STRATEGIC, WIDGET, as_earlier, as_note, stamp

MINE = stamp(7)


@pytest.mark.parametrize(
    ("recorded", "verdict"),
    [
        (None, Verdict.FREE),
        (stamp(6), Verdict.FREE),
        (stamp(6, MINE.holder), Verdict.FREE),
        (MINE, Verdict.MINE),
        (stamp(7, "another"), Verdict.STALE),
        (Stamp(7, MINE.holder, MINE.lease, "another-pod"), Verdict.STALE),
        (stamp(8), Verdict.STALE),
        (stamp(1, lease="other/op"), Verdict.FOREIGN),
        (stamp(9, lease="other/op"), Verdict.FOREIGN),
    ],
)
def test_what_a_recorded_stamp_means(recorded: Stamp | None, verdict: Verdict) -> None:
    assert judge(recorded, MINE) is verdict


def in_notes(annotations: Any) -> Stamp | None:
    return stamp_in(noted({"metadata": {"annotations": annotations}}, "configmaps"), LEASE, "configmaps")


def test_a_stamp_is_read_as_it_is_written() -> None:
    """Word for word, since the CRD's schema, the policies and kopf-ha's own earlier versions have it so, too."""
    assert Stamp(7, "pod7", "ns/op", "uid-pod7") == MINE
    fencing = {"lease": "ns/op", "token": 7, "holder": "pod7", "podUID": "uid-pod7"}
    earlier = {
        "kopf-ha.dev/lease": "ns/op", "kopf-ha.dev/token": "7",
        "kopf-ha.dev/holder": "pod7", "kopf-ha.dev/pod-uid": "uid-pod7",
    }  # fmt: skip
    note = {"kopf-ha.dev/stamp-988b9ca8e05b3b80": "7 ns/op uid-pod7 pod7"}
    assert MINE.as_status() == fencing
    assert as_metadata(notes_of(MINE, "configmaps")) == {"annotations": note | earlier}
    assert stamp_of({"status": {"fencing": fencing}}) == MINE
    for made in (note, earlier, note | earlier):
        notes = noted({"metadata": {"annotations": made}}, "configmaps")
        assert stamp_in(notes, "ns/op", "configmaps") == MINE
        assert others_in(notes, "ns/op", "configmaps") == ()
        assert (stamp_in(notes, "ns/else", "configmaps"), others_in(notes, "ns/else", "configmaps")) == (None, notes)


@pytest.mark.parametrize("body", [{}, {"status": None}, {"status": {}}, {"status": {"fencing": None}}, {"status": "x"}])
def test_no_stamp(body: dict[str, Any]) -> None:
    assert stamp_of(body) is None
    assert in_notes(None) is None


@pytest.mark.parametrize("token", [None, 0, -1, True, 1.0, "7", "", TOKEN_MAX + 1, [], {}])
def test_a_token_that_is_none(token: Any) -> None:
    with pytest.raises(MalformedStamp):
        stamp_of({"status": {"fencing": {**MINE.as_status(), "token": token}}})


@pytest.mark.parametrize("token", [None, "", "0", "-1", "+7", " 7", "7.0", "\u0667", "2000000001", 7.5, True])
def test_a_token_in_an_annotation_that_is_none(token: Any) -> None:
    with pytest.raises(MalformedStamp):
        in_notes({**as_earlier(MINE), "kopf-ha.dev/token": token})
    with pytest.raises(MalformedStamp):
        in_notes({name: text.replace("7", str(token), 1) for name, text in as_note(MINE).items()})


@pytest.mark.parametrize("token", ["9" * 5000, "0" * 5000 + "7", [9] * 5000])
def test_a_malformed_stamp_of_any_size_is_told_in_few_words(token: Any) -> None:
    """Whoever may edit a child writes its annotations; Python refuses to read a number of 5,000 digits."""
    with pytest.raises(MalformedStamp) as told:
        stamp_of({"status": {"fencing": {**MINE.as_status(), "token": token}}})
    assert len(str(told.value)) < 200
    for notes in ({**as_earlier(MINE), "kopf-ha.dev/token": token}, dict.fromkeys(as_note(MINE), f"{token} ns/op u h")):
        with pytest.raises(MalformedStamp) as told:
            in_notes(notes)
        assert len(str(told.value)) < 200


@pytest.mark.parametrize("missing", ["lease", "holder", "podUID"])
@pytest.mark.parametrize("value", [None, 5, "two\nlines", "\x1b[2J", "x" * 321])
def test_a_stamp_with_a_part_missing(missing: str, value: Any) -> None:
    with pytest.raises(MalformedStamp):
        stamp_of({"status": {"fencing": {**MINE.as_status(), missing: value}}})


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/pods", Target("", "v1", "pods")),
        ("/api/v1/namespaces/a/pods/x", Target("", "v1", "pods", "a", "x")),
        ("/api/v1/namespaces/a/pods/x/", Target("", "v1", "pods", "a", "x")),
        ("/api/v1/namespaces/a/pods/x/status", Target("", "v1", "pods", "a", "x", "status")),
        ("/api/v1/namespaces/a/pods/x/proxy/a/b", Target("", "v1", "pods", "a", "x", "proxy/a/b")),
        ("/api/v1/namespaces", Target("", "v1", "namespaces")),
        ("/api/v1/namespaces/a", Target("", "v1", "namespaces", "", "a")),
        ("/api/v1/namespaces/a/status", Target("", "v1", "namespaces", "", "a", "status")),
        ("/api/v1/namespaces/a/finalize", Target("", "v1", "namespaces", "", "a", "finalize")),
        ("/api/v1/nodes/n/status", Target("", "v1", "nodes", "", "n", "status")),
        ("/apis/t.dev/v1/widgets/x", Target("t.dev", "v1", "widgets", "", "x")),
        ("/apis/t.dev/v1/namespaces/a/widgets", Target("t.dev", "v1", "widgets", "a")),
        ("/k8s/clusters/c-1/apis/t.dev/v1/namespaces/a/widgets/x", Target("t.dev", "v1", "widgets", "a", "x")),
        ("/apis/rbac.k8s.io/v1/roles/system%3Ax", Target("rbac.k8s.io", "v1", "roles", "", "system:x")),
        ("/apis/rbac.k8s.io/v1/roles/..~", Target("rbac.k8s.io", "v1", "roles", "", "..~")),
        ("/apis/t.dev/v1/namespaces/a/%77idgets/%78/%73tatus", Target("t.dev", "v1", "widgets", "a", "x", "status")),
    ],
)
def test_paths(path: str, target: Target) -> None:
    assert parse_path(path) == target


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/api", "/api/v1", "/apis", "/apis/t.dev", "/apis/t.dev/v1", "/version", "/api/v2/pods"),
        *("/api/v1//pods", "/api/v1/namespaces/a/../pods/x", "/api/v1/namespaces/%2e%2e/pods/x", "/api/v1/pods/."),
    ],
)
def test_what_is_no_path_of_an_object(path: str) -> None:
    assert parse_path(path) is None


@pytest.mark.parametrize("root", ["", "/proxy", "/api/k8s"])
@pytest.mark.parametrize("rest", ["/apis/t.dev/v1/namespaces/a/widgets/x", "/api/v1/namespaces/a", "/api/v1/nodes/n"])
def test_a_path_is_made_of_its_root_and_its_target(root: str, rest: str) -> None:
    for path in (root + rest, root + rest + "/status"):
        target = parse_path(path)
        assert target is not None
        assert api_root(path) + target.path == root + rest


def test_built_in_kinds() -> None:
    def built_in(group: str) -> bool:
        return Target(group, "v1", "x").built_in

    assert all(map(built_in, ["", "apps", "batch", "coordination.k8s.io", "rbac.authorization.k8s.io"]))
    assert not any(map(built_in, ["t.dev", "ipam.kopf-ha.dev", "cluster.x-k8s.io"]))


KEY = ("widgets.t.dev", "a", "x")


def test_what_is_known_never_gets_older() -> None:
    known = Objects()
    known.learn(KEY, Revision("u", "10", MINE))
    known.learn(KEY, Revision("u", "9", None))  # a watch lags behind our own writes
    assert known.get(KEY) == Revision("u", "10", MINE)
    known.learn(KEY, Revision("u", "11", None))
    assert known.get(KEY) == Revision("u", "11", None)


@pytest.mark.parametrize(
    ("known", "seen", "kept"),
    [("9", "10", "10"), ("10", "9", "10"), ("x", "9", "9"), ("9", "x", "x"), ("y", "x", "x"), ("9", "", "")],
)
def test_a_version_that_is_no_number_is_taken_as_newer(known: str, seen: str, kept: str) -> None:
    """At worst it costs a conflict and a read."""
    objects = Objects()
    for version in (known, seen):
        objects.learn(KEY, Revision("u", version, None))
    assert objects.get(KEY) == Revision("u", kept, None)


def test_another_uid_replaces_what_is_known() -> None:
    known = Objects()
    known.learn(KEY, Revision("u", "10", MINE))
    known.learn(KEY, Revision("other", "9", None))
    assert known.get(KEY) == Revision("other", "9", None)


def test_known_is_bounded_and_forgets() -> None:
    known = Objects(limit=2)
    for name in "abc":
        known.learn((*KEY[:2], name), Revision(name, "1", None))
    assert len(known) == 2
    assert known.get((*KEY[:2], "a")) is None
    known.forget((*KEY[:2], "b"))
    assert len(known) == 1
    known.clear()
    assert len(known) == 0


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"metadata": {}}, {"metadata": None}, {"metadata": []}, {"kind": "Status", "metadata": {}}),
        *({"metadata": {"uid": "u"}}, {"metadata": {"resourceVersion": "1"}}),
    ],
)
def test_what_has_no_uid_and_version_is_no_object(body: dict[str, Any]) -> None:
    assert revision_of(body, stamped=True, lease=LEASE, kind="widgets.t.dev") is None


def test_of_the_answers_that_are_kept_the_one_that_is_oldest_goes() -> None:
    told = Told(limit=2)
    for name in "abac":  # that of "a" is renewed
        told.keep((*KEY[:2], name), "7", Response(200))
    assert [name for name in "abc" if told.get((*KEY[:2], name), "7")] == ["a", "c"]
    assert told.get((*KEY[:2], "a"), "8") is None


WIDGETS = Target("t.dev", "v1", "widgets", "a", "x")


def body(token: int, lease: str = LEASE) -> dict[str, Any]:
    stamp_ = {"token": token, "holder": "h", "lease": lease, "podUID": "u"}
    return {"metadata": {"uid": "u", "resourceVersion": "1"}, "status": {"fencing": stamp_}}


def test_a_token_seen_before_the_schema_is_known_counts_once_it_is() -> None:
    known = Known(LEASE)
    known.learn(WIDGETS, body(8))
    known.learn(WIDGETS, body(5))
    known.learn(WIDGETS, body(99, lease="other/op"))
    assert (known.floor, len(known.objects)) == (0, 0)
    assert (known.confirm(WIDGETS), known.floor) == (8, 8)
    assert (known.confirm(WIDGETS), known.floor) == (0, 8)
    known.learn(WIDGETS, body(9))
    known.new_term()
    assert (known.confirm(WIDGETS), known.floor) == (0, 8)


@pytest.mark.parametrize("shown", [None, [], "text", 7, {}, {"metadata": None}, {"kind": "Status", "metadata": {}}])
@pytest.mark.parametrize("stamped", [True, False, None])
def test_what_a_watch_shows_and_is_no_object_changes_nothing(shown: Any, stamped: bool | None) -> None:
    known = Known(LEASE)
    if stamped is not None:
        known.schemas[WIDGETS.kind_version] = stamped
    known.objects.learn(WIDGETS.key, Revision("u", "1", MINE))
    known.learn(WIDGETS, shown)
    assert known.objects.get(WIDGETS.key) == Revision("u", "1", MINE)
    assert (known.confirm(WIDGETS), known.floor) == (0, 0)


def test_an_object_that_a_watch_shows_with_a_malformed_stamp_is_read_before_the_next_write() -> None:
    """The handlers must see it all the same, so the watch itself raises nothing."""
    known = Known(LEASE)
    known.objects.learn(WIDGETS.key, Revision("u", "1", MINE))
    known.learn(WIDGETS, body(0))
    assert known.objects.get(WIDGETS.key) is None


def test_the_floor_is_the_highest_token_of_stamped_objects_of_our_lease() -> None:
    known = Known(LEASE)
    known.schemas = {WIDGETS.kind_version: True, ("u.dev", "v1", "others"): False}
    for token, lease in ((3, LEASE), (7, LEASE), (5, LEASE), (99, "other/op")):
        known.learn(WIDGETS, body(token, lease))
    notes = {"metadata": {"uid": "u", "resourceVersion": "1", "annotations": as_earlier(stamp(50))}}
    known.learn(Target("", "v1", "configmaps", "a", "x"), notes)
    known.learn(Target("u.dev", "v1", "others", "a", "x"), notes)
    assert known.floor == 7
    assert known.stamped_kinds() == {"widgets.t.dev"}
    found = known.objects.get(("configmaps", "a", "x"))
    assert found is not None
    assert (found.version, found.stamp) == ("1", stamp(50))


def asked(method: str, content_type: str = "", body: Any = None, path: str = WIDGET) -> Asked:
    request = Request(method, path, content_type=content_type, body=b"" if body is None else json.dumps(body).encode())
    target = parse_path(path)
    assert target is not None
    return Asked.parse(request, target)


@pytest.mark.parametrize(
    ("write", "of_stamped_kind", "of_child"),
    [
        (asked("PATCH", MERGE, {}), True, False),
        (asked("PUT", "", {}), True, False),
        # On a child's /status some kinds keep the annotations, others do not.
        (asked("PATCH", MERGE, {}, WIDGET + "/status"), False, True),
        (asked("PUT", "", {}, WIDGET + "/status"), False, True),
        (asked("PUT", "", {}, WIDGET + "/scale"), True, True),
        (asked("PATCH", JSON_PATCH, []), True, True),
        (asked("PATCH", JSON_PATCH, [], WIDGET + "/status"), True, True),
        (asked("PATCH", APPLY, {}), True, True),
        (asked("PATCH", APPLY, {}, WIDGET + "/status"), True, True),
        (asked("DELETE"), True, True),
    ],
)
def test_what_is_stamped_by_a_write_of_its_own(write: Asked, of_stamped_kind: bool, of_child: bool) -> None:
    assert writing.must_stamp_first(write, True) is of_stamped_kind
    assert writing.must_stamp_first(write, False) is of_child


@pytest.mark.parametrize(
    ("write", "else_", "deciding"),
    [
        (asked("PATCH", MERGE, {"metadata": {"labels": {"a": "b"}}}), True, True),
        (asked("PATCH", MERGE, {"status": {"a": [1]}}, WIDGET + "/status"), True, False),
        (asked("DELETE"), True, False),
        (asked("PATCH", MERGE, {"metadata": {"resourceVersion": "7"}}), False, False),
        (asked("PATCH", MERGE, {"spec": {"a": [1]}}), True, True),
        (asked("PUT", "", {}), True, True),
        (asked("PUT", "", {"metadata": {"resourceVersion": "7"}}), False, False),
        (asked("PATCH", JSON_PATCH, []), True, True),
        (asked("PATCH", JSON_PATCH, [{"op": "test", "path": "/metadata/resourceVersion", "value": "7"}]), False, False),
        (asked("PATCH", APPLY, {}), True, True),
        (asked("PATCH", APPLY, {}, WIDGET + "/status"), True, False),
    ],
)
def test_what_may_be_sent_again(write: Asked, else_: bool, deciding: bool) -> None:
    assert writing.may_repeat(write, deciding=False) is else_
    assert writing.may_repeat(write, deciding=True) is deciding


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        *((one, "merge") for one in (MERGE, STRATEGIC)),
        (JSON_PATCH, "json"),
        *((one, "apply") for one in (APPLY, "application/apply-patch+cbor")),
        *((one, "") for one in ("", "application/json", "application/yaml")),
    ],
)
def test_the_type_of_its_body_says_what_kind_of_patch_a_patch_is(content_type: str, kind: str) -> None:
    def kinds(method: str) -> list[str]:
        it = Request(method, WIDGET, content_type=content_type)
        return [one for one in ("merge_patch", "json_patch", "apply") if getattr(it, f"is_{one}")]

    assert [one.removesuffix("_patch") for one in kinds("PATCH")] == [kind] * bool(kind)
    assert kinds("PUT") == kinds("POST") == []


@pytest.mark.parametrize(
    ("code", "ok"), [(0, False), (199, False), (200, True), (201, True), (299, True), (300, False)]
)
def test_which_answers_accept(code: int, ok: bool) -> None:
    assert Response(code).ok is ok


@pytest.mark.parametrize(
    ("answered", "message"),
    [
        (b'{"kind": "Status", "message": "no"}', "no"),
        (b'{"kind": "Status"}', '{"kind": "Status"}'),
        (b'{"message": 7}', '{"message": 7}'),
        (b"[]", "[]"),
        (b"<html>\xff", "<html>\ufffd"),
        (b"", ""),
    ],
)
def test_the_message_of_an_answer_is_its_own_or_what_it_says(answered: bytes, message: str) -> None:
    answer = Response(403, answered, raw=object())
    assert answer.message == message
    assert str(OwnRequestRefused(answer)) == f"403 {message}"
    # The client's own object is no part of what was answered.
    assert answer == Response(403, answered)
    assert repr(answer) == repr(Response(403, answered))


@pytest.mark.parametrize(
    ("request_", "code", "conflict"),
    [
        (Request("PUT", WIDGET), 409, True),
        (Request("PUT", WIDGET), 422, False),
        (Request("PATCH", WIDGET, content_type=MERGE), 422, False),
        (Request("PATCH", WIDGET, content_type=JSON_PATCH), 409, True),
        (Request("PATCH", WIDGET, content_type=JSON_PATCH), 422, True),
        (Request("PATCH", WIDGET, content_type=JSON_PATCH), 404, False),
        (Request("PUT", WIDGET, content_type=JSON_PATCH), 422, False),
    ],
)
def test_a_precondition_failed_by_a_409_or_the_422_of_a_json_patch(
    request_: Request, code: int, conflict: bool
) -> None:
    assert is_conflict(request_, Response(code)) is conflict


def test_the_gate_remembers_the_last_write_and_no_read() -> None:
    change = asked("PATCH", MERGE, {})
    gate = Gate(change.request, change.target, Grant(MINE, 100.0), lambda: 90.0)
    for request, answer in ((change.request, Response(409)), (Request("GET", WIDGET), Response(200))):
        flow = gate.send(request)
        assert next(flow) == replace(request, timeout=10.0)
        with pytest.raises(StopIteration):
            flow.send(answer)
    assert (gate.sent, gate.answer) == (replace(change.request, timeout=10.0), Response(409))


def test_the_gate_is_asked_before_each_request() -> None:
    change, grant = asked("PATCH", MERGE, {}), Grant(MINE, 100.0)
    gate = Gate(change.request, change.target, grant, lambda: 90.0)
    with pytest.raises(StopIteration) as left:
        next(gate.check())
    assert left.value.value == 10.0
    grant.close("lost")
    with pytest.raises(GateClosed, match=r"PATCH widgets\.t\.dev a/x: term 7 is over \(lost\)"):
        next(gate.send(Request("GET", WIDGET)))
    assert gate.sent is None


def test_a_grant_ends_at_its_deadline_and_is_never_revived() -> None:
    grant = Grant(MINE, 100.0)
    assert (grant.remaining(90.0), grant.remaining(100.0), grant.remaining(101.0)) == (10.0, 0.0, 0.0)
    grant.extend(110.0)
    grant.extend(105.0)
    assert grant.remaining(100.0) == 10.0
    grant.close("lost")
    grant.close("again")
    grant.extend(200.0)
    assert grant.remaining(100.0) == 0.0
    assert grant.closed == "lost"
