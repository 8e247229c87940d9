"""What a request may say and what it may not: no body takes the stamp away (I1), nothing slips by (I8)."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import (
    StaleLeader,
    Unfenced,
)
from tests.core.fake_api import (
    APPLY,
    CHILD,
    EDIT,
    JSON_PATCH,
    LEASES,
    MERGE,
    MINE,
    STRATEGIC,
    WIDGET,
    FakeApi,
    Process,
    as_note,
    as_notes,
    as_status,
    nothing_changed,
    patch,
    stamp,
    status,
    write,
)

# --- what cannot be fenced


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (patch("/api/v1/namespaces/a/configmaps", EDIT), "a whole collection cannot be written"),
        (write("PUT", "/apis/t.dev/v1/namespaces/a/widgets", EDIT), "a whole collection cannot be written"),
        (write("POST", CHILD, {}), "creates in a collection"),
        (write("POST", WIDGET + "/status", {}), "creates in a collection"),
        (write("PUT", "/api/v1/namespaces/a/configmaps/x/sub", {}), "--exempt configmaps/sub"),
        (
            write("PUT", "/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachines/x/start", {}),
            "does not know this",
        ),
        (write("PUT", WIDGET + "/ephemeralcontainers", {}), "--exempt widgets.t.dev/ephemeralcontainers"),
        (write("POST", WIDGET + "/exec", query="dryRun=All"), "--exempt widgets.t.dev/exec"),
        (Request("PUT", CHILD, body=b"k8s\x00\n\x0c", content_type="application/vnd.kubernetes.protobuf"), "send JSON"),
        (Request("PATCH", CHILD, body=b"\xa1\x61a\x01", content_type="application/apply-patch+cbor"), "send JSON"),
        (Request("PATCH", CHILD, body=b"a: 2020-01-01", content_type=APPLY), "send JSON"),
        (Request("POST", CHILD[:-2], body=b"k8s\x00", content_type="application/vnd.kubernetes.protobuf"), "send JSON"),
        (Request("POST", CHILD[:-2], body=b"\xd9\xd9\xf7\xa0", content_type="application/cbor"), "send JSON"),
        (Request("DELETE", CHILD, body=b"k8s\x00", content_type="application/vnd.kubernetes.protobuf"), "send JSON"),
        (Request("DELETE", CHILD[:-2], body=b"k8s\x00", content_type="application/cbor"), "send JSON"),
        (
            Request("POST", "/api/v1/namespaces/a/bindings", body=b"k8s\x00", content_type="application/cbor"),
            "send JSON",
        ),
        (Request("PATCH", CHILD, content_type=MERGE), "the body is empty"),
        (write("POST", "/api/v1/namespaces/a/configmaps"), "the body is empty"),
        (patch(CHILD, [EDIT]), "no object"),
        (patch(CHILD, EDIT, JSON_PATCH), "no object"),
        (patch(CHILD, [1], JSON_PATCH), "no object"),
        (patch(CHILD, "text"), "no object"),
        (patch(CHILD, {"metadata": [1]}), "no object"),
        (patch(CHILD, {"metadata": {"annotations": [1]}}), "no object"),
        (write("PUT", CHILD, [EDIT]), "no object"),
        (patch(WIDGET + "/status", {"status": [1]}), "no object has no place for its stamp"),
        (patch(CHILD, {"metadata": {"annotations": {"$retainKeys": ["a"]}}}, STRATEGIC), "null them one by one"),
        (patch(CHILD, {"metadata": {"$patch": "replace"}}, STRATEGIC), "null them one by one"),
        (patch(CHILD, {"$patch": "delete"}, STRATEGIC), "null them one by one"),
    ],
)
def test_what_cannot_be_fenced_is_refused_with_a_way_out(api: FakeApi, me: Process, asked: Request, why: str) -> None:
    with pytest.raises(Unfenced, match=why):
        me.send(asked)
    assert nothing_changed(api)


@pytest.mark.parametrize(
    "asked",
    [
        write("PUT", LEASES + "/op", {"metadata": {"resourceVersion": "1"}}),
        write("DELETE", LEASES + "/op"),
        write("DELETE", LEASES + "/%6fp"),
        patch("/apis/coordination.k8s.io/v1/namespaces/n%73/leases/op", EDIT),
        patch("/apis/coordination.k8s.io/v1beta1/namespaces/ns/leases/op", EDIT),
        write("POST", LEASES, {"metadata": {"name": "op"}}),
        patch(LEASES + "/op", EDIT, query="dryRun=All"),
    ],
)
def test_the_lease_is_the_elections(api: FakeApi, me: Process, asked: Request) -> None:
    with pytest.raises(Unfenced, match="written by the election alone"):
        me.send(asked)
    assert nothing_changed(api)


def test_another_lease_is_a_child_as_any(api: FakeApi, me: Process) -> None:
    assert me.send(write("POST", LEASES, {"metadata": {"name": "mine"}})).status == 201
    assert api.recorded(LEASES + "/mine") == MINE


# --- attacks on the stamp by what a request says


@pytest.mark.parametrize("fencing", [None, {}, {"token": 99}, {"token": None, "holder": "x"}, [], "gone"])
def test_a_status_patch_cannot_say_what_the_stamp_is(api: FakeApi, me: Process, fencing: Any) -> None:
    assert me.patch(WIDGET + "/status", {"status": {"fencing": fencing, "a": 1}}).status == 200
    assert api.recorded(WIDGET) == MINE


@pytest.mark.parametrize(
    "ops",
    [
        [{"op": "replace", "path": "/status", "value": {"a": 1}}],
        [{"op": "add", "path": "/status/fencing", "value": {}}],
        [{"op": "remove", "path": "/status/fencing"}],
        [{"op": "replace", "path": "/status/fencing/token", "value": 99}],
        [{"op": "move", "from": "/status/fencing", "path": "/status/elsewhere"}],
    ],
)
def test_a_json_patch_of_the_status_ends_with_my_stamp(api: FakeApi, me: Process, ops: Any) -> None:
    assert me.patch(WIDGET + "/status", ops, JSON_PATCH).status == 200
    assert api.recorded(WIDGET) == MINE


@pytest.mark.parametrize(
    ("path", "ops"),
    [
        (WIDGET + "/status", [{"op": "remove", "path": "/status"}]),
        (WIDGET + "/status", [{"op": "replace", "path": "/status", "value": None}]),
        (WIDGET + "/status", [{"op": "move", "from": "/status", "path": "/moved"}]),
        (CHILD, [{"op": "move", "from": "/metadata/annotations", "path": "/moved"}]),
        (
            CHILD,
            [{"op": "copy", "from": "/metadata/uid", "path": "/x"}, {"op": "remove", "path": "/metadata/annotations"}],
        ),
        (CHILD, [{"op": "remove", "path": "/metadata/annotations"}]),
        (CHILD, [{"op": "replace", "path": "/metadata", "value": {"name": "x"}}]),
    ],
)
def test_a_json_patch_that_takes_the_stamps_place_away_leaves_the_stamp(
    api: FakeApi, me: Process, path: str, ops: list[Any]
) -> None:
    assert me.patch(path, ops, JSON_PATCH).status == 200
    assert api.recorded(path.removesuffix("/status")) == MINE


@pytest.mark.parametrize(
    "asked",
    [
        patch(CHILD, {"metadata": {"annotations": None}}),
        patch(CHILD, {"metadata": {"annotations": {"$patch": "delete"}}}, STRATEGIC),
        patch(CHILD, [{"op": "remove", "path": "/metadata/annotations"}], JSON_PATCH),
    ],
)
def test_what_removes_everything_leaves_the_stamps_of_all_leases(api: FakeApi, me: Process, asked: Request) -> None:
    others = as_note(stamp(9, lease="ns/other"))
    api.put(CHILD, {"metadata": {"annotations": {"theirs": "gone", **others}}}, stamp(6))
    assert me.send(asked).status == 200
    assert api.get(CHILD)["metadata"]["annotations"] == as_notes(MINE) | others


def test_a_status_of_a_deciding_kind_is_not_removed_without_its_revision(api: FakeApi) -> None:
    me = Process(api, MINE, deciding=["widgets.t.dev"])
    me.saw = True
    me.watch(WIDGET)
    with pytest.raises(Unfenced, match="must carry the resourceVersion"):
        me.patch(WIDGET + "/status", {"status": None})
    version = api.get(WIDGET)["metadata"]["resourceVersion"]
    assert me.patch(WIDGET + "/status", {"metadata": {"resourceVersion": version}, "status": None}).status == 200
    assert set(api.get(WIDGET)["status"]) == {"fencing"}


@pytest.mark.parametrize("value", [None, "99", ""])
def test_a_patch_of_a_child_cannot_say_what_the_stamp_is(api: FakeApi, me: Process, value: str | None) -> None:
    notes = dict.fromkeys(as_notes(MINE), value)
    assert me.patch(CHILD, {"metadata": {"annotations": notes}}).status == 200
    assert api.recorded(CHILD) == MINE
    ops = [{"op": "remove", "path": "/metadata/annotations/kopf-ha.dev~1token"}]
    assert me.patch(CHILD, ops, JSON_PATCH).status == 200
    assert api.recorded(CHILD) == MINE


def test_a_patch_of_metadata_null_is_none(api: FakeApi, me: Process) -> None:
    assert me.patch(CHILD, {"metadata": None, "spec": {"mine": 1}}).status == 200
    assert api.get(CHILD)["metadata"]["annotations"]["theirs"] == "kept"


def test_names_may_be_percent_encoded_and_paths_have_a_prefix(api: FakeApi, me: Process) -> None:
    prefix = "/k8s/clusters/c1"

    def proxy(request: Request) -> Response | None:
        if not request.path.startswith(prefix):
            return status(404, "no such cluster")
        return api2.handle(Request(**{f: getattr(request, f) for f in request.__slots__} | {"path": rest(request)}))

    def rest(request: Request) -> str:
        return request.path.removeprefix(prefix)

    api2, api.intercept = api, proxy
    api2 = copy.deepcopy(api)
    api2.intercept = lambda request: None
    assert me.patch(prefix + "/apis/t.dev/v1/namespaces/%61/widgets/%78/statu%73", {"status": {"a": 1}}).status == 200
    assert api2.recorded(WIDGET) == MINE
    assert me.patch(prefix + WIDGET.replace("widgets", "%77idgets"), EDIT).status == 200
    assert api2.get(WIDGET)["metadata"]["annotations"] == {"theirs": "kept"}, "it is the same stamped kind"
    assert {r.path for r in api2.sent("GET")} >= {WIDGET}


def test_the_query_of_the_client_stays(api: FakeApi, me: Process) -> None:
    query = "fieldManager=kopf&fieldValidation=Strict"
    me.patch(WIDGET, EDIT, query=query)
    assert [r.query for r in api.sent("PATCH")] == ["", query]


# --- dry runs


@pytest.mark.parametrize("query", ["fieldManager=dryRun", "dryrun=All", "fieldManager=dryRun%3DAll", "dryRun="])
def test_only_a_dry_run_is_one(api: FakeApi, me: Process, query: str) -> None:
    me.patch(WIDGET, EDIT, query=query)
    assert api.recorded(WIDGET) == MINE


@pytest.mark.parametrize("query", ["dryRun=All", "dryRun=All&dryRun=All", "dry%52un=All"])
def test_a_dry_run_teaches_nothing(api: FakeApi, me: Process, query: str) -> None:
    before = copy.deepcopy(api.objects)
    assert me.patch(WIDGET, EDIT, query=query).status == 200
    assert me.patch(WIDGET + "/status", {"status": {"fencing": as_status(MINE)}}, query=query).status == 200
    assert len(me.fence.known.objects) == 0
    assert api.objects == before
    assert [r.method for r in api.sent()] == ["PATCH", "PATCH"]


@pytest.mark.parametrize("path", [WIDGET, CHILD])
def test_a_delete_with_a_body_is_no_dry_run_for_its_query(api: FakeApi, me: Process, path: str) -> None:
    # The API server reads one or the other: it deletes. So it has to be fenced.
    api.put(path, {"spec": {}}, stamp(8))
    api.elect(stamp(8))
    with pytest.raises(StaleLeader):
        me.send(write("DELETE", path, {"propagationPolicy": "Background"}, query="dryRun=All"))


def test_a_dry_run_of_a_delete(api: FakeApi, me: Process) -> None:
    assert me.send(write("DELETE", CHILD, {"dryRun": ["All"]})).status == 200
    assert CHILD.rpartition("/")[2] in str(api.objects.keys())
    assert api.accepted == []


def test_the_options_of_a_delete_move_from_the_query_into_the_body(api: FakeApi, me: Process) -> None:
    # With a body, which the preconditions need, the API server does not read the query any more.
    query = "propagationPolicy=Foreground&gracePeriodSeconds=5&orphanDependents=false"
    me.send(write("DELETE", CHILD, query=query))
    sent = api.sent("DELETE")[0].json
    assert sent["propagationPolicy"] == "Foreground"
    assert sent["gracePeriodSeconds"] == 5
    assert sent["orphanDependents"] is False
    assert set(sent["preconditions"]) == {"uid", "resourceVersion"}


def test_the_options_of_a_delete_in_its_body_stay(api: FakeApi, me: Process) -> None:
    me.send(write("DELETE", CHILD, {"propagationPolicy": "Orphan"}, query="propagationPolicy=Foreground"))
    assert api.sent("DELETE")[0].json["propagationPolicy"] == "Orphan"
