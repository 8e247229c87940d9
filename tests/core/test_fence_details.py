"""Rules of the core that hang on one line, each by an example of its own."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from kopf_ha.core.asked import Asked, carried, delete_options
from kopf_ha.core.change import fenced
from kopf_ha.core.clearing import is_left
from kopf_ha.core.floor import check_listed
from kopf_ha.core.known import Revision
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.notes import EARLIER, as_metadata, note_name, noted, notes_of, stamp_in
from kopf_ha.core.refusal import denial_of
from kopf_ha.core.schema import crd_is_stamped
from kopf_ha.core.target import parse_path
from kopf_ha.core.token import MalformedStamp, Stamp
from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import FloorLost, StampDropped, Unfenced
from tests.core.fake_api import (
    APPLY,
    CHILD,
    DEPLOYMENT,
    JSON_PATCH,
    LEASE,
    MERGE,
    MINE,
    POD,
    STRATEGIC,
    WIDGET,
    Body,
    FakeApi,
    Process,
    as_label,
    as_notes,
    json_of,
    nothing_changed,
    patch,
    stamp,
    write,
)

#: Python makes no number of so many digits.
LONG = "9" * 5000
IGNORES = "ignoreStoreReadErrorWithClusterBreakingPotential"
CLEARED: Body = {"metadata": {"name": "x", "annotations": None, "labels": None}}
WIDGETS, CHILDREN = WIDGET.removesuffix("/x"), CHILD.removesuffix("/x")

# --- steady state: no extra request (I9)


@pytest.mark.parametrize("collection", [WIDGETS, CHILDREN], ids=["stamped", "child"])
def test_what_was_just_created_is_changed_without_a_read(api: FakeApi, me: Process, collection: str) -> None:
    made = me.send(write("POST", collection, {"metadata": {"name": "new"}, "spec": {}}))
    assert made.status == 201
    assert me.patch(f"{collection}/new", {"spec": {"mine": 1}}).status == 200
    assert not [r for r in api.sent("GET") if r.path.startswith(f"{collection}/new")]


# --- what answers show


@pytest.mark.parametrize("how", ["gone", "refused", "malformed"])
def test_what_a_read_does_not_show_is_not_known_any_more(api: FakeApi, me: Process, how: str) -> None:
    me.patch(CHILD, {"spec": {"mine": 1}})
    assert me.fence.known.objects.get(api.target(CHILD).key)
    if how == "gone":
        api.delete(CHILD)
    elif how == "refused":
        api.intercept = lambda request: json_of(403, {}) if request.method == "GET" else None
    else:
        api.edit(CHILD, lambda o: o["metadata"].update(annotations={"kopf-ha.dev/token": "x"}))
    with contextlib.suppress(Unfenced):
        assert not me.patch(CHILD, {"metadata": {"resourceVersion": "1"}}).ok
    assert me.fence.known.objects.get(api.target(CHILD).key) is None


@pytest.mark.parametrize("kept", [None, stamp(6), stamp(7, "another")])
@pytest.mark.parametrize("path", [WIDGET + "/status", CHILD])
def test_an_answer_without_this_term_s_stamp_ends_the_term(
    api: FakeApi, me: Process, path: str, kept: Stamp | None
) -> None:
    """I3: the write was accepted, and nobody will see whose it was."""
    other = FakeApi()
    answer = json_of(200, other.put(path.removesuffix("/status"), {"spec": {}}, kept))
    api.intercept = lambda request: answer if request.method == "PATCH" else None
    with pytest.raises(StampDropped, match="did not keep the stamp"):
        me.patch(path, {"status": {"mine": 1}})


@pytest.mark.parametrize(("leads", "says"), [(True, "says that this process leads"), (False, "cannot be read")])
def test_the_refusal_of_a_child_with_a_later_token_says_what_the_lease_says(
    api: FakeApi, me: Process, leads: bool, says: str
) -> None:
    """I10: anybody may have written it."""
    api.put(CHILD, {"spec": {}}, stamp(8))
    api.intercept = lambda request: json_of(500, {}) if "/leases/" in request.path and not leads else None
    with pytest.raises(Unfenced, match=f"token 8 of pod8, .*although Lease ns/op {says}: remove its annotation"):
        me.patch(CHILD, {"spec": {"mine": 1}})


# --- what a definition may lack

PLAIN: dict[str, Any] = {"name": "v1", "served": True, "schema": {"openAPIV3Schema": {"type": "object"}}}


@pytest.mark.parametrize(
    "version",
    [
        PLAIN,
        PLAIN | {"subresources": None},
        PLAIN | {"subresources": {}},
        PLAIN | {"schema": None, "subresources": {"status": {}}},
        PLAIN | {"schema": {"openAPIV3Schema": {"properties": {}}}, "subresources": {"status": {}}},
        PLAIN | {"schema": {"openAPIV3Schema": {"properties": {"status": {}}}}, "subresources": {"status": {}}},
        PLAIN
        | {
            "schema": {"openAPIV3Schema": {"properties": {"status": {"x-kubernetes-preserve-unknown-fields": True}}}},
            "subresources": {"status": {}},
        },
        PLAIN
        | {
            "schema": {"openAPIV3Schema": {"properties": {"status": {"properties": None}}}},
            "subresources": {"status": {}},
        },
    ],
)
def test_a_kind_without_the_field_is_no_stamped_one_whatever_else_its_definition_lacks(version: Any) -> None:
    assert crd_is_stamped({"spec": {"versions": [version]}}, "widgets.t.dev") is False


# --- bodies


def asked(request: Request) -> Asked:
    target = parse_path(request.path)
    assert target is not None
    return Asked.parse(request, target)


@pytest.mark.parametrize(
    ("method", "body"),
    [
        *((method, body) for body in (b"[]", b"7", b'"text"', b"true") for method in ("DELETE", "POST", "PUT")),
        *((method, b"null") for method in ("POST", "PUT", "PATCH")),
    ],
)
def test_a_body_that_is_no_object_is_refused_in_words(method: str, body: bytes) -> None:
    with pytest.raises(Unfenced, match=f"the body of the {method} is no object"):
        asked(Request(method, CHILD, content_type="application/json", body=body))


@pytest.mark.parametrize("body", [b"{}", b"7", b"null", b'"text"', b"[7]", b'[{"op": "test"}, 7]'])
def test_a_json_patch_that_is_no_list_of_operations_is_refused_in_words(body: bytes) -> None:
    with pytest.raises(Unfenced, match="no list of operations"):
        asked(Request("PATCH", CHILD, content_type=JSON_PATCH, body=body))


@pytest.mark.parametrize(
    "request_",
    [
        *(patch(DEPLOYMENT, {"metadata": {"labels": labels}}) for labels in ([1], "text")),
        write("PUT", DEPLOYMENT, {"metadata": {"labels": [1]}}),
        *(write("DELETE", CHILD, {"preconditions": given}) for given in ([1], "text")),
        write("POST", POD + "/eviction", {"metadata": {"name": "x"}, "deleteOptions": [1]}),
        write("POST", POD + "/eviction", {"metadata": {"name": "x"}, "deleteOptions": {"preconditions": [1]}}),
    ],
)
def test_a_part_of_a_body_that_is_no_object_is_refused_in_words(api: FakeApi, me: Process, request_: Request) -> None:
    """The API server would refuse it, too. Without the part, it would do more than was asked for."""
    for path in (DEPLOYMENT, POD):
        api.put(path, {"spec": {}}, stamp(6))
    with pytest.raises(Unfenced, match="no object"):
        me.send(request_)
    assert nothing_changed(api)


@pytest.mark.parametrize("sub", ["eviction", "binding"])
def test_a_way_to_write_that_an_action_does_not_know_is_refused_by_the_api_server(
    api: FakeApi, me: Process, sub: str
) -> None:
    api.put(POD, {"spec": {}}, stamp(6))
    said = json_of(405, {"kind": "Status", "message": "the server does not allow this method"})
    api.intercept = lambda request: said if request.path == f"{POD}/{sub}" else None
    assert me.patch(f"{POD}/{sub}", [{"op": "add", "path": "/a", "value": 1}], JSON_PATCH) == said


@pytest.mark.parametrize("content_type", ["", "application/json", MERGE, JSON_PATCH])
def test_yaml_is_read_only_where_the_type_says_so(content_type: str) -> None:
    """I9: the API server refuses it, and would not if the fence sent JSON in its place."""
    body = b"- {op: remove, path: /spec}" if content_type == JSON_PATCH else b"spec: {a: 1}"
    with pytest.raises(Unfenced, match="the fence cannot read a body of type"):
        asked(Request("PATCH", CHILD, content_type=content_type, body=body))
    for other in (APPLY, "application/yaml"):
        assert asked(Request("PATCH", CHILD, content_type=other, body=b"spec: {a: 1}")).body == {"spec": {"a": 1}}


@pytest.mark.parametrize("given", ["All", {"All": 1}, True, 1, [], ["All", "None"], [["All"]], None])
def test_only_a_list_of_all_makes_a_deletion_a_dry_run(given: Any) -> None:
    """What passes as a dry run is not fenced, so it must be what the API server takes for one."""
    assert not asked(write("DELETE", CHILD, {"dryRun": given})).is_dry_run
    assert asked(write("DELETE", CHILD, {"dryRun": ["All"]})).is_dry_run


ONLY_STAMP: Body = {"status": {}}
ONLY_NOTE: Body = {"metadata": {"annotations": {}}}


@pytest.mark.parametrize(
    ("request_", "only"),
    [
        (patch(WIDGET + "/status", ONLY_STAMP), "stamp"),
        (patch(WIDGET, ONLY_NOTE), "note"),
        (patch(WIDGET, ONLY_STAMP), ""),
        (patch(WIDGET + "/status", ONLY_NOTE), ""),
        (patch(WIDGET + "/status", {"status": {"a": 1}}), ""),
        (patch(WIDGET + "/status", ONLY_STAMP | ONLY_NOTE), ""),
        (patch(WIDGET, {"metadata": {"annotations": {}, "labels": {}}}), ""),
        # These replace, or say whose the fields are.
        *((write("PUT", path, body), "") for path, body in ((WIDGET + "/status", ONLY_STAMP), (WIDGET, ONLY_NOTE))),
        *((patch(path, body, APPLY), "") for path, body in ((WIDGET + "/status", ONLY_STAMP), (WIDGET, ONLY_NOTE))),
    ],
)
def test_only_a_merge_patch_that_changes_nothing_asks_for_a_bare_stamp(request_: Request, only: str) -> None:
    """I9: the body of a bare stamp is not sent."""
    it = asked(request_)
    assert (it.is_only_stamp, it.is_only_note) == (only == "stamp", only == "note")


@pytest.mark.parametrize(
    ("operation", "rewrites"),
    [
        *(({"op": op, "path": path}, True) for op in ("add", "replace", "remove") for path in ("", "/metadata")),
        *(({"op": "move", "from": path, "path": "/spec/a"}, True) for path in ("", "/metadata")),
        *(({"op": op, "from": "/spec/a", "path": "/metadata"}, True) for op in ("move", "copy")),
        *(({"op": "test", "path": path}, False) for path in ("", "/metadata")),
        *(({"op": "add", "path": path}, False) for path in ("/spec", "/metadata/labels", "/metadata/resourceVersion")),
    ],
)
def test_a_json_patch_that_replaces_the_metadata_replaces_a_version_in_it(operation: Body, rewrites: bool) -> None:
    test = {"op": "test", "path": "/metadata", "value": {}}
    assert asked(patch(WIDGET, [test, operation], JSON_PATCH)).rewrites_metadata is rewrites
    assert not asked(patch(WIDGET, {"metadata": {}}, MERGE)).rewrites_metadata


OBJECT: Body = {"spec": {"a": 1, "text": "a", "list": ["a"], "b/c~d~1": 1}, "metadata": {"finalizers": ["a", "b"]}}


@pytest.mark.parametrize(
    ("operation", "met"),
    [
        *(({"op": op, "path": "/spec/a", "value": 1}, True) for op in ("add", "replace", "test")),
        *(({"op": op, "path": "/spec/a", "value": 2}, False) for op in ("add", "replace", "test")),
        *(({"op": op, "path": "/spec/a", "value": 1, "from": "/spec/text"}, False) for op in ("move", "copy", "x")),
        ({"op": "test", "path": "/spec/b~1c~0d~01", "value": 1}, True),
        ({"op": "add", "path": "/spec/gone", "value": None}, False),
        ({"op": "add", "path": "/gone/a", "value": 1}, False),
        ({"op": "add", "path": "/spec/text/a", "value": "a"}, False),
        ({"op": "add", "path": "/spec/list/0", "value": "a"}, False),
        ({"op": "add", "path": "/metadata/finalizers/0", "value": "b"}, True),
        ({"op": "add", "path": "/metadata/finalizers/0", "value": "c"}, False),
        ({"op": "replace", "path": "/metadata/finalizers/0", "value": "b"}, False),
        ({"op": "remove", "path": "/spec/gone"}, True),
        ({"op": "remove", "path": "/gone/a"}, True),
        ({"op": "remove", "path": "/spec/a"}, False),
        *(({"op": "remove", "path": path}, False) for path in ("/spec/text/a", "/spec/text/b", "/spec/a/b")),
        ({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}, True),
        ({"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}, False),
    ],
)
def test_a_json_patch_is_met_by_an_object_that_every_operation_leaves_as_it_is(operation: Body, met: bool) -> None:
    fine = {"op": "test", "path": "/spec/a", "value": 1}
    assert asked(patch(WIDGET, [operation], JSON_PATCH)).is_met_by(OBJECT) is met
    assert asked(patch(WIDGET, [fine, operation], JSON_PATCH)).is_met_by(OBJECT) is met
    assert not asked(patch(WIDGET, OBJECT, MERGE)).is_met_by(OBJECT)


@pytest.mark.parametrize(
    ("request_", "writes"),
    [
        (patch(WIDGET + "/status", {}), True),
        (write("PUT", WIDGET + "/status", {"spec": {}}), True),
        (patch(WIDGET, {"status": {"a": 1}}), True),
        (patch(WIDGET, {"status": None}), True),
        (patch(WIDGET, {"spec": {}}), False),
        *((patch(WIDGET, [{"op": "add", "path": path}], JSON_PATCH), True) for path in ("", "/status", "/status/a")),
        *((patch(WIDGET, [{"op": "add", "path": path}], JSON_PATCH), False) for path in ("/spec", "/spec/status")),
        (patch(WIDGET, [{"op": "add", "path": "/spec"}, {"op": "remove", "path": "/status/a"}], JSON_PATCH), True),
        # A Scale has a status of its own, and an object of a kind with a /status is made without one.
        (write("PUT", WIDGET + "/scale", {"spec": {"replicas": 1}, "status": {"replicas": 1}}), False),
        (write("POST", WIDGETS, {"metadata": {"name": "x"}, "status": {"a": 1}}), False),
        (write("DELETE", WIDGET, {"status": {}}), False),
        (write("DELETE", WIDGET), False),
        (Request("PATCH", WIDGET, content_type=MERGE), False),
    ],
)
def test_what_may_change_the_status(request_: Request, writes: bool) -> None:
    """I4: it is where decisions are recorded."""
    assert asked(request_).writes_status is writes


def test_a_deletion_with_null_as_its_body_has_no_options() -> None:
    one = asked(Request("DELETE", CHILD, query="dryRun=All", content_type="application/json", body=b"null"))
    assert (one.body, one.version, one.uid) == (None, None, None)
    assert not one.is_dry_run  # the API server does not read the query of a DELETE with a body


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", {}),
        ("propagationPolicy=Orphan&fieldManager=me", {"propagationPolicy": "Orphan"}),
        ("gracePeriodSeconds=0", {"gracePeriodSeconds": 0}),
        ("gracePeriodSeconds=-1", {"gracePeriodSeconds": -1}),
        ("gracePeriodSeconds=x", {"gracePeriodSeconds": "x"}),  # refused there, as in a query
        (f"gracePeriodSeconds={LONG}", {"gracePeriodSeconds": LONG}),
        *((f"orphanDependents={given}", {"orphanDependents": True}) for given in ("true", "True", "1")),
        *((f"orphanDependents={given}", {"orphanDependents": False}) for given in ("false", "0")),
        (f"{IGNORES}=true", {IGNORES: True}),
        ("uid=u1", {"preconditions": {"uid": "u1"}}),
        ("uid=", {}),
    ],
)
def test_the_query_of_a_deletion_goes_into_its_body(query: str, options: Body) -> None:
    """I9: beside a body, the API server does not read the query."""
    start = {"kind": "DeleteOptions", "apiVersion": "v1"}
    assert delete_options(Request("DELETE", CHILD, query=query), None) == start | options
    body = {"gracePeriodSeconds": 9}
    assert delete_options(write("DELETE", CHILD, body, query), body) == start | body


@pytest.mark.parametrize(
    ("given", "version"),
    [
        ("7", "7"),
        ("07", "7"),
        (LONG, LONG),
        (7, "7"),
        ("0", None),
        ("00", None),
        ("", None),
        (None, None),
        ("x", "x"),
        ("\u0667",) * 2,
    ],
)
def test_which_version_a_caller_names(given: Any, version: str | None) -> None:
    """The API server compares numbers, and takes 0 for none."""
    metadata = {"metadata": {"resourceVersion": given}}
    for one in (patch(CHILD, metadata), write("PUT", CHILD, metadata)):
        assert asked(one).version == version
    assert asked(write("DELETE", CHILD, {"preconditions": {"resourceVersion": given}})).version == version


@pytest.mark.parametrize(
    ("op", "version"), [*dict.fromkeys(("test", "add", "replace"), "7").items(), ("remove", None), ("move", None)]
)
def test_an_operation_that_gives_the_version_a_value_names_it(op: str, version: str | None) -> None:
    """What comes out of the patch is sent with it, so it is a precondition as a test of it is."""
    operation = {"op": op, "from": "/spec/a", "path": "/metadata/resourceVersion", "value": "7"}
    assert asked(patch(CHILD, [operation], JSON_PATCH)).version == version
    assert asked(patch(CHILD, [operation | {"path": "/spec/a"}], JSON_PATCH)).version is None


@pytest.mark.parametrize(
    ("metadata", "name"), [({"name": "x"}, "x"), ({"generateName": "x-"}, ""), ({"name": None}, ""), (None, "")]
)
def test_the_name_of_what_is_created_is_in_its_body(metadata: Any, name: str) -> None:
    assert asked(write("POST", CHILDREN, {"metadata": metadata})).name == name
    assert asked(write("PUT", CHILD, {"metadata": {"name": "y"}})).name == "x"


# --- what a write carries, for the log

JSON_PATCHES: list[list[Body]] = [
    [{"op": "add", "path": "/spec/a~1b", "value": 1}],
    [{"op": "remove", "path": "/metadata/annotations"}],
    [{"op": "add", "path": "/spec", "value": [1]}, {"op": "add", "path": "/spec/0/a/b", "value": 1}],
    [{"op": "add", "path": "", "value": {}}],
    [{"op": "test"}],
]


@pytest.mark.parametrize(
    "request_",
    [
        *(patch(path, {"spec": {"mine": 1}}) for path in (CHILD, DEPLOYMENT)),
        patch(WIDGET + "/status", {"status": {"mine": 1}}),
        *(patch(path, body, JSON_PATCH) for path in (CHILD, DEPLOYMENT, WIDGET + "/status") for body in JSON_PATCHES),
    ],
)
def test_the_stamp_and_the_version_of_a_write_can_be_read_from_it(request_: Request) -> None:
    it = asked(request_)
    stamped = request_.path.startswith(WIDGET)
    sent = fenced(it, MINE, Revision("u", "7", stamp(6)), stamped=stamped)
    found, version = carried(sent, LEASE)
    assert found is not None
    assert (found.token, found.pod_uid, version) == (MINE.token, MINE.pod_uid, "7")


@pytest.mark.parametrize(
    ("request_", "version"),
    [
        (write("DELETE", CHILD), None),
        (write("DELETE", CHILD, {"preconditions": {"resourceVersion": "7"}}), "7"),
        (write("POST", "/version", {"metadata": {"resourceVersion": "7"}}), "7"),
        (patch(CHILD, {"metadata": {"annotations": {"kopf-ha.dev/token": "x"}}}), None),
        (Request("PATCH", CHILD, content_type=JSON_PATCH, body=b"{}"), None),
    ],
)
def test_what_carries_no_stamp_is_no_error(request_: Request, version: str | None) -> None:
    assert carried(request_, LEASE) == (None, version)


# --- a write that removes a whole part of the object


@pytest.mark.parametrize(
    ("path", "body", "content_type"),
    [
        (WIDGET + "/status", {"status": None}, MERGE),
        *((CHILD, {"metadata": {"annotations": None, "labels": None}}, one) for one in (MERGE, STRATEGIC)),
    ],
)
def test_a_part_that_is_not_there_can_be_removed(
    api: FakeApi, me: Process, path: str, body: Body, content_type: str
) -> None:
    """I9: without the fence it succeeds, too."""
    api.put(path.removesuffix("/status"), {"spec": {}})
    assert me.patch(path, body, content_type).status == 200
    assert api.recorded(path) == MINE


@pytest.mark.parametrize("labels", [{}, {"labels": {"mine": "1"}}])
def test_the_part_beside_the_one_that_is_removed_stays(api: FakeApi, me: Process, labels: Body) -> None:
    api.put(CHILD, {"metadata": {"annotations": {"theirs": "1"}, "labels": {"theirs": "1"}}}, stamp(6))
    assert me.patch(CHILD, {"metadata": {"annotations": None, **labels}}).status == 200
    metadata = api.get(CHILD)["metadata"]
    assert metadata["annotations"] == as_notes(MINE)
    assert metadata["labels"] == {"theirs": "1"} | labels.get("labels", {})


def test_a_directive_is_one_in_a_strategic_patch_alone(api: FakeApi, me: Process) -> None:
    api.put(CHILD, {"metadata": {"annotations": {"theirs": "1"}}}, stamp(6))
    assert me.patch(CHILD, {"metadata": {"annotations": {"$patch": "replace"}}}, MERGE).status == 200
    assert api.get(CHILD)["metadata"]["annotations"]["theirs"] == "1"


def test_a_status_that_the_api_server_ignores_is_sent_as_it_is(api: FakeApi, me: Process) -> None:
    """I9: it needs no read."""
    api.put(WIDGET, {"spec": {}, "status": {"theirs": 1}}, MINE)
    me.patch(WIDGET, {"metadata": {"labels": {"known": "1"}}})
    api.log.clear()
    assert me.patch(WIDGET, {"status": None, "spec": {"mine": 1}}).status == 200
    (sent,) = api.sent()
    assert sent.json["status"] is None
    assert api.get(WIDGET)["status"]["theirs"] == 1


@pytest.mark.parametrize(("path", "section"), [(CHILD, "annotations"), (DEPLOYMENT, "labels")])
@pytest.mark.parametrize(
    ("directive", "left"),
    [({"$patch": "replace", "mine": "1"}, {"mine": "1"}), ({"$patch": "delete", "mine": "1"}, {})],
)
def test_a_directive_that_removes_what_is_around_the_stamp_leaves_the_stamp(
    api: FakeApi, me: Process, path: str, section: str, directive: Body, left: Body
) -> None:
    api.put(path, {"metadata": {section: {"theirs": "1", "mine": "0"}}, "spec": {}}, stamp(6))
    assert me.patch(path, {"metadata": {section: directive}}, STRATEGIC).status == 200
    stamps = as_notes(MINE) if path == CHILD else as_label(MINE)
    assert api.get(path)["metadata"][section] == left | stamps


@pytest.mark.parametrize("request_", [write("PUT", CHILD, CLEARED), patch(CHILD, CLEARED, APPLY, "fieldManager=me")])
def test_only_a_merge_patch_removes_entry_by_entry(api: FakeApi, me: Process, request_: Request) -> None:
    """I9: anywhere else a null is a value, or is ignored."""
    assert me.send(request_).status == 200
    sent = api.sent("PUT", "PATCH")[-1].json["metadata"]
    assert sent["annotations"] == as_notes(MINE)
    assert sent["labels"] is None


NOTES = "/metadata/annotations"


@pytest.mark.parametrize(
    ("patch_", "left"),
    [
        ([], True),
        ([{"op": "test", "path": NOTES, "value": None}], True),
        *(([{"op": "remove", "path": path}], False) for path in (NOTES, "/metadata", "")),
        *(([{"op": "remove", "path": path}], True) for path in (NOTES + "/a", "/metadata/labels", "/meta")),
        *(([{"op": "move", "from": path, "path": "/spec/a"}], False) for path in (NOTES, "/metadata")),
        *(([{"op": "move", "from": path, "path": "/spec/a"}], True) for path in (NOTES + "/a", "/spec/b", "/meta")),
        ([{"op": "copy", "from": NOTES, "path": "/spec/a"}], True),
        *(([{"op": op, "path": NOTES, "value": {"a": "b"}}], True) for op in ("add", "replace")),
        *(([{"op": op, "path": NOTES, "value": None}], False) for op in ("add", "replace")),
        ([{"op": "replace", "path": "/metadata", "value": {"name": "x"}}], False),
        ([{"op": "replace", "path": "/metadata", "value": {"annotations": {}}}], True),
        ([{"op": "replace", "path": "", "value": {"metadata": {"annotations": {}}}}], True),
        ([{"op": "remove", "path": NOTES}, {"op": "add", "path": NOTES, "value": {}}], True),
        ([{"op": "add", "path": NOTES, "value": {}}, {"op": "remove", "path": NOTES}], False),
        *(
            ([{"op": "remove", "path": NOTES}, {"op": op, "from": "/a", "path": NOTES}], True)
            for op in ("copy", "move")
        ),
        ([{"op": "remove", "path": NOTES}, {"op": "copy", "from": NOTES, "path": "/a"}], False),
        ([{"op": "remove", "path": NOTES}, {"op": "add", "path": "/spec", "value": {}}], False),
    ],
)
def test_what_a_json_patch_leaves_of_the_annotations(patch_: list[Body], left: bool) -> None:
    """I1: the stamp is added at its end, to the annotations or as the only ones."""
    assert is_left(patch_, NOTES) is left


# --- stamps


@pytest.mark.parametrize("left", EARLIER)
def test_a_part_of_an_earlier_release_s_stamp_is_malformed_and_not_none(left: str) -> None:
    """I1: somebody removed the other annotations. The object had a token, which must not go down."""
    texts = as_metadata(notes_of(stamp(6), "configmaps"))["annotations"]
    metadata = {"annotations": {left: texts[left]}}
    if left == "kopf-ha.dev/lease":
        metadata["annotations"][left] = LEASE
    with pytest.raises(MalformedStamp):
        stamp_in(noted({"metadata": metadata}, "configmaps"), LEASE, "configmaps")


@pytest.mark.parametrize(("note", "earlier"), [(6, 9), (9, 6)])
def test_of_two_forms_the_higher_token_counts(note: int, earlier: int) -> None:
    """I1: a rollback, or a leader of an earlier release, changes one of them alone."""
    new = as_metadata(notes_of(stamp(note), "configmaps"))["annotations"]
    old = as_metadata(notes_of(stamp(earlier), "configmaps"))["annotations"]
    name = note_name(LEASE, "configmaps")
    body = {"metadata": {"annotations": {**old, name: new[name]}}}
    found = stamp_in(noted(body, "configmaps"), LEASE, "configmaps")
    assert found is not None
    assert found.token == 9


def test_an_apply_that_creates_does_not_change_what_came_in_between(api: FakeApi, me: Process) -> None:
    """I3: a later leader has made the object between the read and the creation."""
    api.delete(CHILD)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"by": "mine"}}
    one = me.attempt(patch(CHILD, body, APPLY, "fieldManager=me"))
    while not any(request.path == CHILD for request in api.sent("GET")):
        one.step()
    api.put(CHILD, {"data": {"by": "later"}}, stamp(8))
    with pytest.raises(Exception, match="token 8"):
        one.finish()
    assert api.get(CHILD)["data"] == {"by": "later"}


# --- the floor


@pytest.mark.parametrize(
    ("recorded", "lost"),
    [
        (stamp(6), 0),
        (stamp(7), 7),  # also with its own holder: this term has written nothing yet
        (stamp(7, "another"), 7),
        (stamp(9), 9),
        (stamp(9, lease="ns/other"), 0),
    ],
)
@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "noted"])
def test_a_term_that_begins_is_above_all_that_objects_record(recorded: Any, lost: int, stamped: bool) -> None:
    """I2: otherwise the Lease has lost its count."""
    notes = as_metadata(notes_of(recorded, "configmaps"))
    fencing = {"fencing": recorded.as_status()}
    body: dict[str, Any] = {"metadata": {}, "status": fencing} if stamped else {"metadata": notes}
    damaged: dict[str, Any] = {"metadata": {}, "status": {"fencing": {}}}  # says nothing; its stamp will say so
    listed: list[dict[str, Any]] = [damaged, body, {"metadata": {}}]
    if not lost:
        check_listed(listed, "configmaps", stamp(7), stamped=stamped)
        return
    with pytest.raises(FloorLost) as caught:
        check_listed(listed, "configmaps", stamp(7), stamped=stamped)
    assert caught.value.floor == lost


@pytest.mark.parametrize("token", [6, 7])
def test_a_token_up_to_this_term_s_that_a_watch_showed_first_ends_no_term(
    api: FakeApi, me: Process, token: int
) -> None:
    """It is not known yet that the kind is stamped, so what the watch shows is judged later."""
    api.put(WIDGET, {"spec": {}}, stamp(token))
    me.watch(WIDGET)
    assert me.patch(WIDGET, {"spec": {"mine": 1}}).status == 200
    assert me.fence.known.floor == 7


# --- refusals


def test_a_policy_s_words_inside_of_another_text_are_no_refusal_by_it() -> None:
    """I10: an API server quotes what users write."""
    said = "ValidatingAdmissionPolicy 'kopf-ha-x-stamped' with binding 'kopf-ha-x-stamped' denied request: no"
    for cause, found in ((said, True), (f'Invalid value: "{said}"', False), (f"{said[:-2]}", True)):
        answer: Response = json_of(403, {"kind": "Status", "details": {"causes": [{"message": cause}]}})
        assert (denial_of(answer) is not None) is found, cause


# --- the Lease


def test_a_write_of_the_lease_names_the_revision_and_the_uid_that_were_seen() -> None:
    """I2: two replicas that see it free cannot both acquire it, nor one of them in a Lease that was made again."""
    read = {"metadata": {"resourceVersion": "7", "uid": "u1"}, "spec": {"leaseTransitions": 3}}
    written = LeaseRecord.parse(read).changed(holder="me", transitions=4).as_object("ns", "op")
    assert written["metadata"] == {"resourceVersion": "7", "uid": "u1", "namespace": "ns", "name": "op"}
    assert "resourceVersion" not in LeaseRecord(holder="me", transitions=1).as_object("ns", "op")["metadata"]
