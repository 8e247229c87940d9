"""Rules of the core's small parts that hang on one line, each by an example of its own."""

from __future__ import annotations

from typing import Any

import pytest

from kopf_ha.core.asked import Asked, carried, delete_options
from kopf_ha.core.election import Phase
from kopf_ha.core.fence import Fence
from kopf_ha.core.known import Known, Objects, Revision, Told
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.notes import EARLIER, as_metadata, noted, notes_of, stamp_in
from kopf_ha.core.refusal import about_term, outline
from kopf_ha.core.subresource import Part, subresources_of
from kopf_ha.core.target import Target, parse_path
from kopf_ha.core.token import MalformedStamp
from kopf_ha.core.wire import Request, Response, is_gone
from kopf_ha.errors import Unfenced
from tests.core.fake_api import (
    APPLY,
    CHILD,
    DEPLOYMENT,
    JSON_PATCH,
    LEASE,
    MERGE,
    STRATEGIC,
    WIDGET,
    FakeApi,
    Process,
    denied,
    json_of,
    patch,
    stamp,
    status,
    write,
)

WIDGETS = Target("t.dev", "v1", "widgets", "a", "x")


def asked(request: Request) -> Asked:
    target = parse_path(request.path)
    assert target is not None
    return Asked.parse(request, target)


# --- what is known


def test_a_term_begins_with_nothing_but_the_floor() -> None:
    """What an earlier term knew may be another cluster's past: a definition, a server behind the aggregation layer."""
    known = Known(LEASE)
    body = {"metadata": {"name": "x", "uid": "u", "resourceVersion": "1"}, "status": {"fencing": stamp(9).as_status()}}
    known.learn(WIDGETS, body)
    known.schemas[WIDGETS.kind_version] = True
    known.learn(WIDGETS, body)
    known.custom["widgets.t.dev"] = True
    known.blind_puts.add(("t.dev", "v1", "widgets", ""))
    known.unfit["widgets.t.dev"] = "why"
    known.told.keep(WIDGETS.key, "1", Response(200))
    known.new_term()
    assert (known.schemas, known.custom, known.blind_puts, known.unfit) == ({}, {}, set(), {})
    assert known.objects.get(WIDGETS.key) is None
    assert known.told.get(WIDGETS.key, "1") is None
    assert known.confirm(WIDGETS) == 0
    assert known.floor == 9


def test_the_oldest_are_forgotten_first_and_memory_has_a_bound() -> None:
    objects, told = Objects(limit=2), Told(limit=2)
    for name in "abc":
        objects.learn(("k", "", name), Revision(name, "1", None))
        told.keep(("k", "", name), "1", Response(200))
    assert [objects.get(("k", "", name)) is None for name in "abc"] == [True, False, False]
    assert [told.get(("k", "", name), "1") is None for name in "abc"] == [True, False, False]
    assert len(objects) == 2


def test_an_older_revision_does_not_replace_a_newer_one() -> None:
    """A watch lags behind our own writes. Of another object of that name, each is news."""
    objects, key = Objects(), ("k", "", "a")
    for uid, version, kept in (("u", "9", "9"), ("u", "8", "9"), ("u", "10", "10"), ("v", "3", "3"), ("v", "x", "x")):
        objects.learn(key, Revision(uid, version, None))
        now = objects.get(key)
        assert now is not None
        assert now.version == kept


@pytest.mark.parametrize("path", [DEPLOYMENT, WIDGET])
def test_after_a_scale_the_next_write_needs_no_read(api: FakeApi, me: Process, path: str) -> None:
    api.put(path, {"metadata": {}, "spec": {"replicas": 1}}, stamp(6))
    if me.patch(f"{path}/scale", {"spec": {"replicas": 2}}).status != 200:
        pytest.skip("this kind has no scale")
    before = len([r for r in api.sent("GET") if r.path == path])
    assert me.patch(path, {"spec": {"paused": True}}).status == 200
    assert len([r for r in api.sent("GET") if r.path == path]) == before


# --- what is asked


def test_options_of_a_deletion_are_what_the_api_server_takes() -> None:
    kind = {"kind": "DeleteOptions", "apiVersion": "v1"}
    assert delete_options(write("DELETE", CHILD), None) == kind
    query = "propagationPolicy=Orphan&gracePeriodSeconds=0&orphanDependents=TRUE&uid=u1"
    assert delete_options(write("DELETE", CHILD, query=query), None) == kind | {
        "propagationPolicy": "Orphan",
        "gracePeriodSeconds": 0,
        "orphanDependents": True,
        "preconditions": {"uid": "u1"},
    }
    body = {"gracePeriodSeconds": 3}  # then the query is not read
    assert delete_options(write("DELETE", CHILD, body, query=query), body) == kind | body


def test_only_an_eviction_has_its_dry_run_in_its_body() -> None:
    """I8: a custom resource with a field of that name would pass unfenced."""
    body = {"metadata": {"name": "x"}, "deleteOptions": {"dryRun": ["All"]}}
    assert not asked(patch(WIDGET, body, MERGE)).is_dry_run
    assert asked(write("POST", "/api/v1/namespaces/a/pods/x/eviction", body)).is_dry_run


@pytest.mark.parametrize(
    ("method", "body", "query", "is_dry"),
    [
        ("DELETE", {"dryRun": ["All"]}, "", True),
        ("DELETE", {}, "dryRun=All", False),
        ("DELETE", None, "dryRun=All", True),
        ("PUT", {}, "dryRun=All", True),
        ("PUT", {"dryRun": ["All"]}, "", False),
        ("DELETE", {"dryRun": []}, "", False),
        ("DELETE", {"dryRun": ["All", "None"]}, "", False),
    ],
)
def test_what_is_a_dry_run(method: str, body: Any, query: str, is_dry: bool) -> None:
    assert asked(write(method, CHILD, body, query=query)).is_dry_run is is_dry


def test_what_a_write_carries_is_found_for_the_log(api: FakeApi, me: Process) -> None:
    for path in (WIDGET, CHILD):
        assert me.patch(f"{path}/status" if path == WIDGET else path, {"status": {"a": 1}}).status == 200
        sent = api.sent("PATCH")[-1]
        found, version = carried(sent, LEASE)
        assert found is not None
        assert found.token == 7
        assert version is not None
    assert carried(patch(CHILD, {"data": {}}), LEASE) == (None, None)
    assert carried(Request("PATCH", CHILD, content_type=MERGE, body=b"?"), LEASE) == (None, None)


# --- stamps and the Lease


@pytest.mark.parametrize("named", ["", None, 5, ["ns/other"]])
def test_what_names_no_lease_in_an_earlier_release_s_stamp_is_nobody_else_s(named: Any) -> None:
    """I1: somebody emptied the annotation. It does not make the stamp another operator's."""
    texts = as_metadata(notes_of(stamp(6), "configmaps"))["annotations"]
    body = {"metadata": {"annotations": {name: texts[name] for name in EARLIER} | {"kopf-ha.dev/lease": named}}}
    with pytest.raises(MalformedStamp):
        stamp_in(noted(body, "configmaps"), LEASE, "configmaps")


@pytest.mark.parametrize(("given", "read"), [(1, 1), (15, 15), (0, None), (-3, None), (True, None), ("15", None)])
def test_the_duration_that_a_lease_records(given: Any, read: int | None) -> None:
    spec = {"leaseTransitions": 1, "leaseDurationSeconds": given}
    assert LeaseRecord.parse({"metadata": {}, "spec": spec}).lease_duration == read


# --- answers


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (status(404, "not found", "NotFound"), "404 NotFound"),
        (status(500, 'quotes "what a user wrote"', "a sentence of a user"), "500"),
        (status(500, "x", "Quöted"), "500"),
        (json_of(500, {"reason": ["NotFound"]}), "500"),
        (json_of(500, ["x"]), "500"),
        (Response(502, b"<html>"), "502"),
        (
            json_of(403, {"kind": "Status", "reason": "Forbidden", "details": {"causes": [{"message": (
                "ValidatingAdmissionPolicy 'p' with binding 'p' denied request: a user's word"
            )}]}}),
            "403 Forbidden, policy p",
        ),
    ],
)  # fmt: skip
def test_what_is_logged_of_an_answer_is_nothing_that_a_user_wrote(answer: Response, told: str) -> None:
    assert outline(answer) == told


@pytest.mark.parametrize(
    ("body", "message"),
    [(b'{"message": "why"}', "why"), (b'{"message": 7}', '{"message": 7}'), (b"[]", "[]"), (b"\xff<", "�<")],
)
def test_the_message_of_any_answer_is_a_text(body: bytes, message: str) -> None:
    assert Response(500, body).message == message


def test_which_subresources_a_kind_may_have() -> None:
    assert subresources_of("pods")["eviction"] is Part.EVICTION
    assert set(subresources_of("widgets.t.dev")) == {"status", "scale"}
    assert set(subresources_of("namespaces")) == {"status", "scale", "finalize"}


GROUPS = (
    "admissionregistration apiextensions apiregistration certificates coordination discovery"
    " flowcontrol.apiserver internal.apiserver networking node rbac.authorization resource"
    " scheduling storage storagemigration"
)


@pytest.mark.parametrize("group", ["", "apps", "batch", *(f"{name}.k8s.io" for name in GROUPS.split())])
def test_a_kind_of_kubernetes_own_needs_no_definition_to_be_tried(api: FakeApi, me: Process, group: str) -> None:
    """I9: a PUT that names no revision is tried by a dry run first, and must cost no more than that."""
    root = f"/apis/{group}/v1" if group else "/api/v1"
    path = f"{root}/namespaces/a/things/x"
    api.put(path, {"metadata": {}, "spec": {}}, None)
    me.send(write("PUT", path, {"metadata": {"name": "x"}, "spec": {"new": 1}}))
    assert not [r for r in api.sent("GET") if "customresourcedefinitions" in r.path]
    assert [r for r in api.sent("PUT") if "dryRun=All" in r.query]


@pytest.mark.parametrize(
    ("details", "code", "gone"),
    [({"name": "x"}, 404, True), ({"name": "y"}, 404, False), ({}, 404, False), ({"name": "x"}, 403, False)],
)
def test_an_object_is_gone_only_if_the_404_names_it(details: Any, code: int, gone: bool) -> None:
    """I4: a path that is not served yet answers 404, too, and its objects are all there."""
    assert is_gone(json_of(code, {"kind": "Status", "details": details}), "x") is gone
    assert is_gone(Response(404, b"<html>"), "x") is False


@pytest.mark.parametrize("more", [{"elsewhere": True}, {"only_reads": True}], ids=str)
def test_an_exempt_write_that_line_4_cannot_be_about_is_passed_on(api: FakeApi, me: Process, more: Any) -> None:
    """I9: to another cluster, or from code of every replica. Whatever it answers is the caller's."""
    said = f"{about_term(LEASE)}token 9 leads, in pod p, and this write is of pod q"
    answer = denied("kopf-ha-ns.op-term", said)
    flow = me.fence.flow(write("POST", "/api/v1/namespaces/a/events", {}), me.grant, lambda: me.clock, **more)
    next(flow)
    with pytest.raises(StopIteration) as ended:
        flow.send(answer)
    assert ended.value.value is answer


def test_to_find_out_about_a_schema_only_reads_are_sent(api: FakeApi, me: Process) -> None:
    api.intercept = lambda request: status(403, "no") if "customresourcedefinitions" in request.path else None
    with pytest.raises(Unfenced, match="cannot find out"):
        me.patch(WIDGET, {"spec": {}})
    assert {request.method for _, request in api.log} == {"GET"}


def test_the_phases_have_the_names_that_probes_and_logs_show() -> None:
    """The runner and `Elector.state` know them by these words."""
    assert {phase.value for phase in Phase} == {
        "following", "acquiring", "leading", "renewing", "recovering", "regaining", "releasing", "lost", "stopped"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "is_met"),
    [
        ({"op": "add", "path": "/metadata/finalizers/-", "value": "kopf"}, True),
        ({"op": "add", "path": "/metadata/finalizers/0", "value": "kopf"}, True),
        ({"op": "add", "path": "/metadata/finalizers/-", "value": "other"}, False),
        ({"op": "remove", "path": "/metadata/finalizers/0"}, False),  # what an index means depends on the revision
        ({"op": "remove", "path": "/spec/list/0/x"}, False),
        ({"op": "add", "path": "/spec/list/-", "value": 1}, False),  # elsewhere the order has a meaning
        ({"op": "replace", "path": "/spec/a", "value": 1}, True),
        ({"op": "remove", "path": "/spec/b"}, True),
        ({"op": "remove", "path": "/spec/a"}, False),
    ],
)
def test_when_a_patch_of_kopf_s_asks_for_what_is_there(operation: Any, is_met: bool) -> None:
    current = {"metadata": {"finalizers": ["kopf"]}, "spec": {"a": 1, "list": [1]}}
    one = asked(patch(WIDGET, [operation], JSON_PATCH))
    assert one.is_met_by(current) is is_met


# --- optimistic concurrency, for comparison


@pytest.mark.parametrize(
    "request_",
    [
        write("PUT", CHILD, {"metadata": {"name": "x"}, "data": {}}),
        write("POST", CHILD.rpartition("/")[0], {"metadata": {"name": "x"}}),
        write("DELETE", CHILD),
        patch(CHILD, [{"op": "add", "path": "/data", "value": {}}], JSON_PATCH),
        patch(CHILD, {"apiVersion": "v1", "kind": "ConfigMap", "data": {}}, APPLY),
        patch(CHILD.rpartition("/")[0], {"data": {}}),
        patch("/version", {"a": 1}),
    ],
)
def test_mode_rv_conditions_nothing_but_merge_patches_of_one_object(api: FakeApi, request_: Request) -> None:
    flow = Fence(LEASE, mode="rv").flow(request_, None, lambda: 0.0)
    assert next(flow) is request_
    answer = Response(409)
    with pytest.raises(StopIteration) as ended:
        flow.send(answer)
    assert ended.value.value is answer


@pytest.mark.parametrize("content_type", [MERGE, STRATEGIC])
@pytest.mark.parametrize(("faster", "code"), [(0, 200), (4, 200), (5, 409)])
def test_mode_rv_tries_five_times(api: FakeApi, content_type: str, faster: int, code: int) -> None:
    """Each time on the revision that it has read after the conflict."""
    process, left = Process(api, stamp(7), mode="rv"), [faster]

    def edit(request: Request) -> None:
        if request.method == "PATCH" and left[0]:
            left[0] -= 1
            api.edit(CHILD, lambda o: o.update(data={"theirs": str(left[0])}))

    api.intercept = edit
    assert process.patch(CHILD, {"data": {"mine": "1"}}, content_type).status == code
    assert [r.method for r in api.sent()] == ["GET", "PATCH"] * min(faster + 1, 5)


@pytest.mark.parametrize(
    "found", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": {"resourceVersion": ""}}, None]
)
def test_mode_rv_sends_nothing_without_a_revision(api: FakeApi, found: Any) -> None:
    api.intercept = lambda request: json_of(200, found)
    assert Process(api, stamp(7), mode="rv").patch(CHILD, {"data": {}}).json == found
    assert {r.method for r in api.sent()} == {"GET"}


@pytest.mark.parametrize("code", [403, 404, 500])
def test_mode_rv_answers_what_kept_it_from_reading(api: FakeApi, code: int) -> None:
    """Whatever is in the answer: only an object's own revision counts."""
    api.intercept = lambda request: json_of(code, {"metadata": {"resourceVersion": "7"}})
    assert Process(api, stamp(7), mode="rv").patch(CHILD, {"data": {}}).status == code
    assert {r.method for r in api.sent()} == {"GET"}
