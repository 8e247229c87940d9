"""Which kinds are stamped."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kopf_ha.core.schema import ask_schema, crd_is_stamped
from kopf_ha.core.wire import Flow, Request, Response
from kopf_ha.errors import StaleLeader, TermEnded, Unfenced
from tests.core.fake_api import (
    APPLY,
    CHILD,
    CRDS,
    EDIT,
    FENCING,
    JSON_PATCH,
    MERGE,
    MINE,
    WIDGET,
    Attempt,
    Body,
    FakeApi,
    Process,
    as_notes,
    crd,
    json_of,
    nothing_changed,
    patch,
    stamp,
    status,
    write,
)

# --- schemas


def openapi(*, fencing: bool = True, subresource: bool = True, namespaced: bool = True) -> Any:
    kind = {"group": "t.dev", "version": "v1", "kind": "Widget"}
    path = f"/apis/t.dev/v1/{'namespaces/{namespace}/' if namespaced else ''}widgets/{{name}}"
    item: Body = {"parameters": [{}], "options": {}, "x-others": True, "get": {"x-kubernetes-group-version-kind": kind}}
    status = {"type": "object", "properties": {"fencing": {}} if fencing else {}}
    schema = {"x-kubernetes-group-version-kind": [kind], "properties": {"status": status}}
    paths = {path: item} | ({path + "/status": item} if subresource else {})
    return {"paths": paths, "components": {"schemas": {"other": {}, "dev.t.v1.Widget": schema}}}


def schemas(crd_answer: Response, openapi_answer: Response) -> Callable[[Request], Response | None]:
    def intercept(request: Request) -> Response | None:
        if request.path.startswith(CRDS):
            return crd_answer
        return openapi_answer if request.path == "/openapi/v3/apis/t.dev/v1" else None

    return intercept


DENIED = status(403, "customresourcedefinitions is forbidden")


@pytest.mark.parametrize("code", [403, 404])
@pytest.mark.parametrize(("fencing", "subresource"), [(True, True), (False, True), (True, False)])
def test_the_published_schema_serves_without_permission_on_definitions(
    api: FakeApi, me: Process, code: int, fencing: bool, subresource: bool
) -> None:
    document = openapi(fencing=fencing, subresource=subresource)
    api.intercept = schemas(status(code, "no"), json_of(200, document))
    assert me.patch(WIDGET, EDIT).status == 200
    assert me.fence.known.schemas == {("t.dev", "v1", "widgets"): fencing and subresource}


@pytest.mark.parametrize(
    "answer",
    [
        *(status(404, "none"), DENIED, json_of(200, {}), json_of(200, openapi(namespaced=False))),
        *(json_of(200, openapi() | {"components": components}) for components in ({}, None, {"schemas": None})),
    ],
)
def test_a_kind_of_unknown_schema_is_refused(api: FakeApi, me: Process, answer: Response) -> None:
    api.intercept = schemas(DENIED, answer)
    with pytest.raises(Unfenced, match="allow this service account to get customresourcedefinitions"):
        me.patch(WIDGET, EDIT)
    assert nothing_changed(api)
    assert me.fence.known.schemas == {}


def test_the_published_schema_of_a_kind_without_namespaces(api: FakeApi, me: Process) -> None:
    path = "/apis/t.dev/v1/widgets/x"
    api.put(path, {"spec": {}})
    api.intercept = schemas(DENIED, json_of(200, openapi(namespaced=False)))
    assert me.patch(path, EDIT).status == 200
    assert me.fence.known.schemas == {("t.dev", "v1", "widgets"): True}


@pytest.mark.parametrize(
    ("answers", "said"),
    [((status(200, "no"), DENIED), False), ((DENIED, json_of(200, openapi())), True), ((DENIED, DENIED), None)],
)
def test_whether_a_kind_is_stamped_can_be_asked_outside_of_a_write(
    api: FakeApi, answers: Any, said: bool | None
) -> None:
    api.intercept = schemas(*answers)
    found: list[bool | None] = []

    def ask() -> Flow:
        found.append((yield from ask_schema(api.target(WIDGET))))
        return Response(200)

    Attempt(api, ask(), "me").finish()
    assert found == [said]


@pytest.mark.parametrize("spec", [None, {}, {"versions": None}, {"versions": []}, {"versions": [None, "v1"]}])
def test_a_definition_that_names_no_version_is_of_no_stamped_kind(spec: Any) -> None:
    assert crd_is_stamped({"spec": spec}, "widgets.t.dev") is False
    assert crd_is_stamped(None, "widgets.t.dev") is False


def test_a_version_is_served_unless_its_definition_denies_it() -> None:
    definition = crd(v1=FENCING)
    del definition["spec"]["versions"][0]["served"]
    assert crd_is_stamped(definition, "widgets.t.dev") is True


@pytest.mark.parametrize("code", [429, 500])
def test_a_group_whose_versions_cannot_be_read_now_is_asked_again(api: FakeApi, me: Process, code: int) -> None:
    serve = schemas(DENIED, json_of(200, openapi()))
    api.intercept = lambda request: status(code, "later") if request.path == "/apis/t.dev" else serve(request)
    assert me.patch(WIDGET, EDIT).status == code
    assert nothing_changed(api)
    api.intercept = serve
    assert me.patch(WIDGET, EDIT).status == 200


@pytest.mark.parametrize("answers", [(status(500, "x"), DENIED), (DENIED, status(429, "slow down"))])
def test_a_schema_that_cannot_be_read_now_is_asked_again(api: FakeApi, me: Process, answers: Any) -> None:
    api.intercept = schemas(*answers)
    assert me.patch(WIDGET, EDIT).status in (500, 429)
    api.intercept = lambda r: None
    assert me.patch(WIDGET, EDIT).status == 200


def test_a_definition_without_the_subresource_is_no_stamped_kind(api: FakeApi, me: Process) -> None:
    definition = crd()
    definition["spec"]["versions"][0]["subresources"] = {}
    api.intercept = schemas(json_of(200, definition), DENIED)
    assert me.patch(WIDGET, EDIT).status == 200
    assert api.get(WIDGET)["metadata"]["annotations"]["kopf-ha.dev/token"] == "7"


STATUS_WRITES = [
    (MERGE, {"status": {"a": 1}}),
    (JSON_PATCH, [{"op": "add", "path": "/status", "value": {"a": 1}}]),
    (APPLY, {"apiVersion": "t.dev/v1", "kind": "Widget", "metadata": {"name": "x"}, "status": {"a": 1}}),
]


@pytest.mark.parametrize("mine", [False, True])
@pytest.mark.parametrize(("content_type", "body"), STATUS_WRITES)
def test_the_status_of_a_kind_without_status_fencing(
    api: FakeApi, me: Process, content_type: str, body: Any, mine: bool
) -> None:
    """Its `/status` takes no annotations: the write was done, and the stamp was missed in the answer."""
    api.put(f"{CRDS}/widgets.t.dev", crd(v1=None))
    api.put(WIDGET, {}, stamp(7) if mine else stamp(6))
    assert me.patch(WIDGET + "/status", body, content_type).status == 200
    assert api.get(WIDGET)["status"] == {"a": 1}
    assert api.recorded(WIDGET) == MINE
    assert [r.path for r in api.sent("PATCH")] == [WIDGET] * (not mine) + [WIDGET + "/status"]


def test_a_stale_leader_s_status_of_a_kind_without_status_fencing(api: FakeApi, me: Process) -> None:
    api.put(f"{CRDS}/widgets.t.dev", crd(v1=None))
    api.put(WIDGET, {}, stamp(6))
    attempt = me.attempt(patch(WIDGET + "/status", {"status": {"a": 1}}))
    while attempt.pending is None or not attempt.pending.path.endswith("/status"):
        attempt.step()
    api.elect(stamp(8))
    api.edit(WIDGET, lambda o: o["metadata"]["annotations"].update(as_notes(stamp(8), "widgets.t.dev")))
    with pytest.raises(StaleLeader):
        attempt.finish()
    assert "status" not in api.get(WIDGET)


@pytest.mark.parametrize("recorded", [None, stamp(6), MINE])
@pytest.mark.parametrize(
    ("method", "content_type", "body"),
    [("PATCH", *STATUS_WRITES[0]), ("PATCH", *STATUS_WRITES[1]), ("PATCH", *STATUS_WRITES[2]), ("PUT", "", {})],
)
def test_the_status_of_a_kind_without_the_subresource_is_written_with_the_object(
    api: FakeApi, me: Process, method: str, content_type: str, body: Any, recorded: Any
) -> None:
    definition = crd(v1=None)
    definition["spec"]["versions"][0]["subresources"] = {}
    api.put(f"{CRDS}/widgets.t.dev", definition)
    made = api.put(WIDGET, {"spec": {}}, recorded)
    if method == "PUT":
        body = {"metadata": made["metadata"], "status": {"a": 1}}
    assert me.send(write(method, WIDGET, body) if method == "PUT" else patch(WIDGET, body, content_type)).status == 200
    assert api.get(WIDGET)["status"] == {"a": 1}
    assert api.recorded(WIDGET) == MINE


LACKS = r"version v1beta1 is served and lacks status.fencing .*kopf-ha manifests --only schema"


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_kind_with_a_version_that_would_lose_the_stamp_is_refused_however_it_is_written(
    api: FakeApi, me: Process, version: str
) -> None:
    # Tried: any user's patch by a version whose schema lacks the field removes it, past the other version's rule (I1).
    api.put(f"{CRDS}/widgets.t.dev", crd(v1=FENCING, v1beta1=None))
    with pytest.raises(Unfenced, match=LACKS):
        me.patch(WIDGET.replace("v1", version), EDIT)
    assert nothing_changed(api)


def test_the_refusal_names_all_versions_that_would_lose_it(api: FakeApi, me: Process) -> None:
    api.put(f"{CRDS}/widgets.t.dev", crd(v1=FENCING, v2=None, v3=None))
    with pytest.raises(Unfenced, match=r"versions v2, v3 are served and lack status\.fencing"):
        me.patch(WIDGET, EDIT)


def test_a_version_that_is_not_served_loses_nothing(api: FakeApi, me: Process) -> None:
    definition = crd(v1=FENCING, v1beta1=None)
    definition["spec"]["versions"][1]["served"] = False
    api.put(f"{CRDS}/widgets.t.dev", definition)
    assert me.patch(WIDGET, EDIT).status == 200


@pytest.mark.parametrize(("other", "refused"), [(openapi(), False), (openapi(fencing=False), True), ({}, False)])
def test_all_published_versions_count_without_permission_on_definitions(
    api: FakeApi, me: Process, other: Any, refused: bool
) -> None:
    text = json.dumps(other).replace("/t.dev/v1/", "/t.dev/v1beta1/").replace('"v1"', '"v1beta1"')
    answers = {
        f"{CRDS}/widgets.t.dev": DENIED,
        "/apis/t.dev": json_of(200, {"versions": [{"version": "v1"}, {"version": "v1beta1"}]}),
        "/openapi/v3/apis/t.dev/v1": json_of(200, openapi()),
        "/openapi/v3/apis/t.dev/v1beta1": json_of(200, json.loads(text)),
    }
    api.intercept = lambda request: answers.get(request.path)
    if refused:
        with pytest.raises(Unfenced, match=LACKS):
            me.patch(WIDGET, EDIT)
        assert nothing_changed(api)
    else:
        assert me.patch(WIDGET, EDIT).status == 200
        assert me.fence.known.schemas == {("t.dev", "v1", "widgets"): True}


@pytest.mark.parametrize("group", [json_of(200, {}), json_of(200, {"versions": None}), json_of(200, None), DENIED])
def test_a_group_that_does_not_say_its_versions_is_known_by_that_of_the_path(
    api: FakeApi, me: Process, group: Response
) -> None:
    serve = schemas(DENIED, json_of(200, openapi()))
    api.intercept = lambda request: group if request.path == "/apis/t.dev" else serve(request)
    assert me.patch(WIDGET, EDIT).status == 200
    assert me.fence.known.schemas == {("t.dev", "v1", "widgets"): True}


def test_a_kind_that_became_unfit_is_not_written_and_the_term_goes_on(api: FakeApi, me: Process) -> None:
    assert me.patch(WIDGET, EDIT).status == 200
    me.fence.known.unfit["widgets.t.dev"] = "widgets.t.dev: version v2 is served and lacks status.fencing"
    with pytest.raises(Unfenced, match="version v2 is served") as caught:
        me.patch(WIDGET, EDIT)
    assert not isinstance(caught.value, TermEnded)
    me.fence.known.unfit.clear()
    assert me.patch(WIDGET, EDIT).status == 200


def test_a_kind_without_stamps_in_any_version_is_a_child(api: FakeApi, me: Process) -> None:
    api.put(f"{CRDS}/widgets.t.dev", crd(v1=None))
    api.put(WIDGET, {"spec": {}})
    assert me.patch(WIDGET, EDIT).status == 200
    assert api.get(WIDGET)["metadata"]["annotations"] == as_notes(MINE, "widgets.t.dev")


def test_built_in_kinds_are_not_asked_for_and_learnt_from_watches(api: FakeApi, me: Process) -> None:
    api.put(CHILD, {"spec": {}}, MINE)
    me.watch(CHILD)
    assert me.patch(CHILD, EDIT).status == 200
    assert [r.method for r in api.sent()] == ["PATCH"]


def test_the_schema_is_asked_once_a_term(api: FakeApi, me: Process) -> None:
    for _ in range(3):
        me.patch(WIDGET, EDIT)
    assert len([r for r in api.sent("GET") if r.path.startswith(CRDS)]) == 1
    me.fence.known.new_term()
    me.patch(WIDGET, EDIT)
    assert len([r for r in api.sent("GET") if r.path.startswith(CRDS)]) == 2
