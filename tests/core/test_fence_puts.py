"""PUTs without a resourceVersion: fenced where the API server accepts them, its own answer where it does not (I9)."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from kopf_ha.core.trial import OWN_GROUPS
from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import Denied, StaleLeader
from tests.core.fake_api import (
    CHILD,
    CRDS,
    DEPLOYMENT,
    LEASES,
    MINE,
    SERVICE,
    WIDGET,
    FakeApi,
    Process,
    as_notes,
    denied,
    stamp,
    status,
    write,
)

NEW: dict[str, Any] = {"metadata": {"name": "x"}, "spec": {"mine": 1}}
AGGREGATED = "/apis/a.example.com/v1/namespaces/a/things/x"
VERSIONS = pytest.mark.parametrize("given", [None, "", "0", "00"])


@pytest.fixture
def api(api: FakeApi) -> FakeApi:
    api.put(DEPLOYMENT, {"spec": {}, "status": {}}, stamp(6))
    return api


def named(given: str | None, **spec: Any) -> dict[str, Any]:
    """Give a body that names no revision: for the API server "0" is none."""
    return {"metadata": {"name": "x", "resourceVersion": given}, "spec": {"mine": 1, **spec}}


def tried(api: FakeApi) -> list[Request]:
    return [r for r in api.sent("PUT") if "dryRun=All" in r.query]


@VERSIONS
@pytest.mark.parametrize("path", [CHILD, DEPLOYMENT, DEPLOYMENT + "/status"])
@pytest.mark.parametrize("before", [None, stamp(6), MINE])
def test_it_replaces_the_object_at_the_revision_that_was_judged(
    api: FakeApi, me: Process, path: str, given: str | None, before: Any
) -> None:
    main = path.removesuffix("/status")
    made = api.put(main, {"spec": {"theirs": 1}, "status": {}}, before)
    assert me.send(write("PUT", path, {**named(given), "status": {"a": 1}})).status == 200
    now = api.get(main)
    assert now["status"] == {"a": 1} if path.endswith("/status") else now["spec"] == {"mine": 1}
    recorded = api.recorded(main)
    assert recorded is not None
    assert (recorded.token, recorded.pod_uid) == (MINE.token, MINE.pod_uid)
    for accepted in api.accepted:
        assert accepted.before is not None
        assert accepted.request.json["metadata"]["resourceVersion"] == accepted.before["metadata"]["resourceVersion"]
    # With the revision alone, a PUT of some kinds would make a deleted object again.
    assert api.accepted[-1].request.json["metadata"]["uid"] == made["metadata"]["uid"]


@pytest.mark.parametrize("before", [stamp(6), MINE])
def test_one_with_null_for_all_annotations_leaves_my_stamp_alone(api: FakeApi, me: Process, before: Any) -> None:
    """What null means in a merge patch it does not mean here: an API server takes null for an empty text."""
    api.put(CHILD, {"metadata": {"annotations": {"theirs": "old"}}, "spec": {}}, before)
    body = {"metadata": {"name": "x", "annotations": None}, "spec": {"mine": 1}}
    assert me.send(write("PUT", CHILD, body)).status == 200
    assert api.get(CHILD)["metadata"]["annotations"] == as_notes(MINE)


def test_one_that_names_a_revision_is_not_tried(api: FakeApi, me: Process) -> None:
    """The API server accepts such a PUT of each kind."""
    for path in (CHILD, WIDGET, WIDGET + "/status"):
        version = api.get(path.removesuffix("/status"))["metadata"]["resourceVersion"]
        assert me.send(write("PUT", path, named(version))).status == 200
    assert tried(api) == []


def test_it_goes_again_after_another_edit(api: FakeApi, me: Process) -> None:
    me.send(write("PUT", CHILD, named(None)))
    api.edit(CHILD, lambda o: o["spec"].update(theirs=2))
    assert me.send(write("PUT", CHILD, named(None, mine=2))).status == 200
    assert api.get(CHILD)["spec"] == {"mine": 2}, "as it would have without the fence"


def test_what_the_api_server_would_do_is_asked_once_for_a_kind(api: FakeApi, me: Process) -> None:
    for _ in range(3):
        assert me.send(write("PUT", CHILD, named(None))).status == 200
    assert len(tried(api)) == 1
    me.send(write("PUT", DEPLOYMENT, named(None)))
    me.send(write("PUT", DEPLOYMENT + "/status", {**named(None), "status": {}}))
    assert len(tried(api)) == 3


@VERSIONS
@pytest.mark.parametrize("path", [WIDGET, WIDGET + "/status", LEASES + "/other"])
def test_where_the_api_server_refuses_it_the_answer_is_its_own(
    api: FakeApi, me: Process, path: str, given: str | None
) -> None:
    api.put(LEASES + "/other", {"spec": {}})
    before = copy.deepcopy(api.objects)
    for _ in range(2):
        asked = write("PUT", path, named(given), query="fieldManager=me")
        plain = api.handle(asked)
        assert plain.status == 422
        assert me.send(asked) == plain
    assert api.objects == before
    assert {r.query for r in tried(api)} == {"fieldManager=me&dryRun=All"}


@pytest.mark.parametrize("path", [WIDGET, WIDGET + "/status", DEPLOYMENT + "/scale"])
def test_what_carries_no_stamp_in_its_metadata_is_tried_as_it_is(api: FakeApi, me: Process, path: str) -> None:
    asked = write("PUT", path, named(None, replicas=1))
    me.send(asked)
    assert [r.body for r in tried(api)] == [asked.body]


def test_a_stale_leader_does_not_even_ask(api: FakeApi, me: Process) -> None:
    api.put(CHILD, {"spec": {}}, stamp(8))
    api.elect(stamp(8))
    with pytest.raises(StaleLeader):
        me.send(write("PUT", CHILD, named(None)))
    assert api.sent("PUT") == []


def test_a_server_that_may_know_no_dry_runs_is_not_asked(api: FakeApi, me: Process) -> None:
    """Behind the aggregation layer a dry run may be a write. So it is fenced, whatever that server thinks of it."""
    api.put(AGGREGATED, {"spec": {}}, stamp(6))
    gvk = {"kind": "Thing"}
    path = "/apis/a.example.com/v1/namespaces/{namespace}/things/{name}"
    paths = {path: {"get": {"x-kubernetes-group-version-kind": gvk}}}
    schemas = {"Thing": {"x-kubernetes-group-version-kind": [gvk]}}
    document = json.dumps({"paths": paths, "components": {"schemas": schemas}}).encode()

    def served(request: Request) -> Response | None:
        return Response(200, document) if request.path == "/openapi/v3/apis/a.example.com/v1" else None

    api.intercept = served
    for _ in range(2):
        assert me.send(write("PUT", AGGREGATED, named(None))).status == 200
    api.delete(AGGREGATED)
    assert me.send(write("PUT", AGGREGATED, named(None))).status == 404
    assert tried(api) == []
    assert all(r.json["metadata"]["resourceVersion"] for r in api.sent("PUT"))
    assert [r.path for r in api.sent("GET")].count(f"{CRDS}/things.a.example.com") == 1


def test_a_kind_whose_schema_the_watch_told_is_asked_for_its_definition(api: FakeApi, me: Process) -> None:
    """It says whether a dry run is one. The schema may be known without it."""
    me.fence.known.schemas[api.target(WIDGET).kind_version] = True
    assert me.send(write("PUT", WIDGET, named(None))).status == 422
    assert len(tried(api)) == 1
    assert [r.path for r in api.sent("GET")].count(f"{CRDS}/widgets.t.dev") == 1


def test_our_own_policy_refuses_no_dry_run_for_its_missing_stamp(api: FakeApi, me: Process) -> None:
    """For a child the dry run carries the stamp. If our policy refuses it all the same, the write itself tells."""
    me.send(write("PUT", CHILD, named(None)))
    (asked,) = tried(api)
    assert asked.json["metadata"]["annotations"] == as_notes(MINE)
    me.fence.known.blind_puts.clear()
    said = denied("kopf-ha-op-child-configmaps", "fencing: of configmaps the operator makes only its own")
    api.intercept = lambda r: said if "dryRun" in r.query else None
    assert me.send(write("PUT", CHILD, named(None))).status == 200
    api.delete(CHILD)
    api.intercept = lambda r: said if r.method in ("PUT", "POST") else None
    with pytest.raises(Denied):
        me.send(write("PUT", CHILD, named(None)))


def test_an_answer_about_the_body_is_the_callers(api: FakeApi, me: Process) -> None:
    invalid = status(422, "spec.mine is invalid", "Invalid", {"field": "spec.mine"})
    api.intercept = lambda r: invalid if r.method == "PUT" else None
    assert me.send(write("PUT", CHILD, named(None))) == invalid
    api.intercept = lambda r: None
    assert me.send(write("PUT", CHILD, named(None))).status == 200
    assert len(tried(api)) == 2, "a refusal says nothing of the kind"


# --- an object that does not exist


@pytest.mark.parametrize("given", [None, "5"])
@pytest.mark.parametrize("path", [CHILD, WIDGET, WIDGET + "/status", CHILD + "/status"])
def test_an_object_that_does_not_exist_is_not_found(api: FakeApi, me: Process, path: str, given: str | None) -> None:
    api.delete(path.removesuffix("/status"))
    assert me.send(write("PUT", path, named(given))).status == 404
    assert api.accepted == []
    assert len(api.sent("PUT", "POST", "PATCH")) == (0 if path.endswith("/status") else 1), "a PUT of a part makes none"


@pytest.mark.parametrize("given", [None, "5"])
def test_some_kinds_make_it(api: FakeApi, me: Process, given: str | None) -> None:
    answer = me.send(write("PUT", SERVICE, named(given), query="fieldManager=me"))
    assert answer.status == 201
    assert api.recorded(SERVICE) == MINE
    assert api.accepted[-1].request.query == "fieldManager=me"
    assert me.patch(SERVICE, {"spec": {"mine": 2}}).status == 200


def test_it_is_made_and_replaces_nothing_that_came_in_between(api: FakeApi, me: Process) -> None:
    """I3: a PUT would have overwritten what a newer leader made."""
    late = me.attempt(write("PUT", SERVICE, named(None)))
    while late.pending is not None and (late.pending.method, late.pending.query) != ("POST", ""):
        late.step()
    api.elect(stamp(8))
    api.put(SERVICE, {"spec": {"theirs": 1}}, stamp(8))
    with pytest.raises(StaleLeader):
        late.finish()
    assert api.get(SERVICE)["spec"] == {"theirs": 1}


def test_one_that_somebody_else_made_in_between_is_replaced(api: FakeApi, me: Process) -> None:
    late = me.attempt(write("PUT", SERVICE, named(None)))
    while late.pending is not None and late.pending.method != "POST":
        late.step()
    api.put(SERVICE, {"spec": {"theirs": 1}})
    assert late.finish().status == 200
    assert api.get(SERVICE)["spec"] == {"mine": 1}
    assert api.recorded(SERVICE) == MINE


def test_one_that_somebody_else_made_before_the_dry_run_is_replaced(api: FakeApi, me: Process) -> None:
    api.delete(CHILD)
    late = me.attempt(write("PUT", CHILD, named(None)))
    late.step()  # there is none
    api.put(CHILD, {"spec": {"theirs": 1}})
    assert late.finish().status == 200
    assert api.get(CHILD)["spec"] == {"mine": 1}


def test_one_that_was_there_for_the_dry_run_alone_is_not_made(api: FakeApi, me: Process) -> None:
    """ConfigMaps are not made by a PUT. That its dry run found one is no leave to create one."""
    api.delete(CHILD)
    late = me.attempt(write("PUT", CHILD, named(None)))
    late.step()  # there is none
    api.put(CHILD, {"spec": {"theirs": 1}})
    late.step()  # the dry run finds one
    api.delete(CHILD)
    assert late.finish().status == 404
    assert api.accepted == []


def test_one_that_goes_in_between_is_made_again(api: FakeApi, me: Process) -> None:
    api.put(SERVICE, {"spec": {}}, MINE)
    me.send(write("PUT", SERVICE, named(None)))
    api.delete(SERVICE)
    assert me.send(write("PUT", SERVICE, named(None))).status == 201


def test_the_groups_of_kubernetes_itself_have_a_dot() -> None:
    assert "rbac.authorization.k8s.io" in OWN_GROUPS
    assert all("." in group for group in OWN_GROUPS)
