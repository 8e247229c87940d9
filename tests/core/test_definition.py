"""An operator that applies its own CRDs at its start: what an administrator merged into them stays."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from kopf_ha.core.refusal import RULE_MESSAGE
from kopf_ha.core.wire import Request
from kopf_ha.errors import Unfenced
from kopf_ha.manifests.schema import schema_fragment
from tests.core.fake_api import APPLY, CRDS, JSON_PATCH, MERGE, FakeApi, Process, invalid, patch, write

CRD = f"{CRDS}/things.t.dev"


def version(name: str = "v1", **more: Any) -> dict[str, Any]:
    """Make a version as the operator ships it."""
    schema = {"type": "object", "properties": {"spec": {"type": "object"}}}
    return {"name": name, "served": True, "storage": name == "v1", "schema": {"openAPIV3Schema": schema}, **more}


def shipped(*versions: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    made = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {
        **made,
        "metadata": {"name": "things.t.dev", **metadata},
        "spec": {"group": "t.dev", "versions": list(versions)},
    }


def stamped(made: dict[str, Any]) -> dict[str, Any]:
    """Merge the fragment into a version, as an administrator does."""
    made, fragment = copy.deepcopy(made), schema_fragment()
    schema = made["schema"]["openAPIV3Schema"]
    status = schema["properties"].setdefault("status", {"type": "object"})
    status.setdefault("properties", {}).update(fragment["properties"]["status"]["properties"])
    schema["x-kubernetes-validations"] = [
        *schema.get("x-kubernetes-validations", ()),
        *fragment["x-kubernetes-validations"],
    ]
    made["subresources"] = {"status": {}, **made.get("subresources", {})}
    return made


@pytest.fixture
def live(api: FakeApi) -> dict[str, Any]:
    return copy.deepcopy(api.put(CRD, shipped(stamped(version()))))


def put(body: dict[str, Any], live: dict[str, Any]) -> Request:
    return write(
        "PUT", CRD, {**body, "metadata": {**body["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}}
    )


WAYS: dict[str, Callable[[Any, Any], Request]] = {
    "put": put,
    "merge": lambda body, _: patch(CRD, {"spec": body["spec"]}, MERGE),
    "apply": lambda body, _: patch(CRD, body, APPLY, "fieldManager=me"),
}
SCALE = {"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}
SHIPPED = {
    "the same": [version()],
    "a new version": [version(), version("v2")],
    "another subresource": [version(subresources=SCALE)],
    "a status of its own": [version(schema={"openAPIV3Schema": {"type": "object", "properties": {"status": {
        "type": "object", "x-kubernetes-preserve-unknown-fields": True}}}})],
    "a rule of its own": [version(schema={"openAPIV3Schema": {"type": "object", "properties": {},
        "x-kubernetes-validations": [{"rule": "true", "message": "theirs"}]}})],
    "with the stamp": [stamped(version())],
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ships", SHIPPED)
def test_the_stamp_stays(api: FakeApi, me: Process, live: dict[str, Any], way: str, ships: str) -> None:
    body = shipped(*copy.deepcopy(SHIPPED[ships]))
    sent = copy.deepcopy(body)
    assert me.send(WAYS[way](body, live)).status == 200
    assert api.get(CRD)["spec"]["versions"] == [
        one if "status" in (one.get("subresources") or {}) else stamped(one) for one in sent["spec"]["versions"]
    ]
    for one in api.get(CRD)["spec"]["versions"]:
        rules = [r["message"] for r in one["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]]
        assert rules.count(RULE_MESSAGE) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "null",
    [
        "schema",
        "schema/openAPIV3Schema",
        "schema/openAPIV3Schema/properties",
        "schema/openAPIV3Schema/properties/status",
        "schema/openAPIV3Schema/properties/status/properties",
        "schema/openAPIV3Schema/properties/status/properties/fencing",
        "schema/openAPIV3Schema/x-kubernetes-validations",
        "subresources",
        "subresources/status",
    ],
)
def test_null_is_the_same_as_nothing(api: FakeApi, me: Process, live: dict[str, Any], way: str, null: str) -> None:
    """As it is to an API server. Some clients send it for what nobody gave."""
    one = version()
    *above, last = null.split("/")
    at: Any = one
    for part in above:
        at = at.setdefault(part, {"type": "object"} if part == "status" else {})
    at[last] = None
    assert me.send(WAYS[way](shipped(one), live)).status == 200
    (kept,), (expected,) = api.get(CRD)["spec"]["versions"], live["spec"]["versions"]
    schema, whole = kept["schema"]["openAPIV3Schema"], expected["schema"]["openAPIV3Schema"]
    assert schema["properties"]["status"] == whole["properties"]["status"]
    assert schema["type"] == "object"
    assert schema["x-kubernetes-validations"] == whole["x-kubernetes-validations"]
    assert kept["subresources"] == {"status": {}}


@pytest.mark.parametrize("versions", [None, {}, "v1", ["v1"]])
def test_what_is_no_list_of_versions_is_the_api_server_s_matter(
    api: FakeApi, me: Process, live: dict[str, Any], versions: Any
) -> None:
    """I9: it refuses them, in its own words."""
    api.intercept = lambda request: invalid("spec.versions", "no") if request.method == "PATCH" else None
    assert me.patch(CRD, {"spec": {"versions": versions}}).status == 422
    assert api.sent("PATCH")[-1].json["spec"] == {"versions": versions}
    assert me.patch(CRD, {"spec": versions}).status == 422
    assert api.sent("PATCH")[-1].json["spec"] == versions


@pytest.mark.parametrize(("method", "content_type"), [("PUT", "application/json"), ("PATCH", MERGE), ("PATCH", APPLY)])
def test_an_empty_body_is_refused_in_words(
    api: FakeApi, me: Process, live: dict[str, Any], method: str, content_type: str
) -> None:
    with pytest.raises(Unfenced, match="the body is empty"):
        me.send(Request(method, CRD, content_type=content_type))
    assert api.get(CRD) == live


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lacks", ["x-kubernetes-validations", "subresources"])
def test_nothing_comes_back_that_the_live_definition_lacks(api: FakeApi, me: Process, way: str, lacks: str) -> None:
    """The check of enforcement says that it is missing."""
    half = stamped(version())
    (half if lacks == "subresources" else half["schema"]["openAPIV3Schema"]).pop(lacks)
    live = copy.deepcopy(api.put(CRD, shipped(half)))
    assert me.send(WAYS[way](shipped(version()), live)).status == 200
    (kept,) = api.get(CRD)["spec"]["versions"]
    for one in (kept, half):
        one["schema"]["openAPIV3Schema"].setdefault("x-kubernetes-validations", [])
    assert kept == half


@pytest.mark.parametrize("way", WAYS)
def test_each_version_keeps_its_own(api: FakeApi, me: Process, way: str) -> None:
    """One that is new gets what the first stamped one has."""
    first, second, bare = stamped(version()), stamped(version("v2")), version("v3")
    for one in (first, second):
        fencing = one["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["fencing"]
        fencing["description"] = f"of {one['name']}"
    live = copy.deepcopy(api.put(CRD, shipped(bare, first, second)))
    ships = [version("v3"), version("v2"), version("v1"), version("v4")]
    assert me.send(WAYS[way](shipped(*ships), live)).status == 200
    kept = {one["name"]: one["schema"]["openAPIV3Schema"] for one in api.get(CRD)["spec"]["versions"]}
    assert {
        name: schema["properties"]["status"]["properties"]["fencing"]["description"] for name, schema in kept.items()
    } == {"v1": "of v1", "v2": "of v2", "v3": "of v1", "v4": "of v1"}


def test_a_write_of_a_definition_s_status_is_sent_as_it_is(api: FakeApi, me: Process, live: dict[str, Any]) -> None:
    """The API server takes no versions from it."""
    body = shipped(version(), resourceVersion=live["metadata"]["resourceVersion"]) | {
        "status": {"storedVersions": ["v1"]}
    }
    me.send(write("PUT", f"{CRD}/status", body))
    assert api.sent("PUT")[-1].json["spec"] == body["spec"]


def test_a_definition_is_deleted_without_a_look_at_its_versions(
    api: FakeApi, me: Process, live: dict[str, Any]
) -> None:
    me.watch(CRD)
    assert me.send(write("DELETE", CRD)).status == 200
    assert [r.path for r in api.sent("GET")] == []


@pytest.mark.parametrize("way", WAYS)
def test_a_definition_without_the_stamp_is_written_as_it_is(api: FakeApi, me: Process, way: str) -> None:
    live = copy.deepcopy(api.put(CRD, shipped(version())))
    assert me.send(WAYS[way](shipped(version("v1"), version("v2")), live)).status == 200
    assert api.get(CRD)["spec"]["versions"] == [version("v1"), version("v2")]


def test_a_first_definition_is_written_as_it_is(api: FakeApi, me: Process) -> None:
    assert me.send(write("POST", CRDS, shipped(version()))).status == 201
    assert api.get(CRD)["spec"]["versions"] == [version()]
    assert me.send(write("POST", CRDS, shipped(version()))).status == 409


def test_metadata_alone_is_no_matter(api: FakeApi, me: Process, live: dict[str, Any]) -> None:
    assert me.patch(CRD, {"metadata": {"labels": {"a": "b"}}}).status == 200
    assert api.get(CRD)["spec"] == live["spec"]


@pytest.mark.parametrize(
    ("path", "value", "taken"),
    [
        ("", {}, False),
        ("/spec", {}, False),
        ("/spec/versions", [], False),
        ("/spec/versions/0", {}, False),
        ("/spec/versions/-", {}, False),
        ("/spec/versions/0/schema", {}, False),
        ("/spec/versions/0/schema/openAPIV3Schema/properties/status", {}, False),
        ("/spec/versions/0/subresources", {}, False),
        ("/spec/versions/0/additionalPrinterColumns", [], True),
        ("/spec/group", "t.dev", True),
        ("/metadata/labels", {"a": "b"}, True),
    ],
)
def test_a_json_patch_that_may_take_it_is_refused_in_words(
    api: FakeApi, me: Process, live: dict[str, Any], path: str, value: Any, taken: bool
) -> None:
    ops = [{"op": "add", "path": path, "value": value}]
    if taken:
        assert me.patch(CRD, ops, JSON_PATCH).status == 200
    else:
        with pytest.raises(Unfenced, match=r"may remove status\.fencing from the definition.*send a merge patch"):
            me.patch(CRD, ops, JSON_PATCH)
        assert api.get(CRD) == live


@pytest.mark.parametrize(
    ("operations", "passes"),
    [
        ([{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/status"}], False),
        ([{"op": "move", "from": "/spec/versions/0/subresources", "path": "/metadata/annotations/old"}], False),
        ([{"op": "move", "from": "/metadata/annotations/old", "path": "/metadata/annotations/new"}], True),
        ([{"op": "copy", "from": "/spec/versions/0/schema", "path": "/metadata/annotations/copy"}], True),
        ([{"op": "test", "path": "/spec/versions/0/name", "value": "v1"}], True),
        ([{"op": "test", "path": "/spec/versions/0/subresources", "value": {"status": {}}}], True),
        (
            [
                {"op": "test", "path": "/spec/group", "value": "t.dev"},
                {"op": "replace", "path": "/spec/versions/0/schema", "value": {}},
                {"op": "add", "path": "/metadata/annotations/new", "value": "x"},
            ],
            False,
        ),
    ],
)
def test_a_move_may_take_the_stamp_from_both_of_its_paths(
    api: FakeApi, me: Process, live: dict[str, Any], operations: list[Any], passes: bool
) -> None:
    """A test takes nothing, and a copy nothing from where it reads."""
    api.edit(CRD, lambda o: o["metadata"].setdefault("annotations", {}).update(old="x"))
    if passes:
        assert me.patch(CRD, operations, JSON_PATCH).status == 200
    else:
        with pytest.raises(Unfenced, match=r"may remove status\.fencing"):
            me.patch(CRD, operations, JSON_PATCH)
    assert api.get(CRD)["spec"] == live["spec"]


def test_what_an_administrator_merges_in_between_stays_too(api: FakeApi, me: Process) -> None:
    """After the read the write is conditioned on that revision."""
    api.put(CRD, shipped(version()))
    attempt = me.attempt(patch(CRD, {"spec": {"versions": [version()]}}))
    while attempt.pending is None or attempt.pending.method != "PATCH":
        attempt.step()
    api.edit(CRD, lambda o: o["spec"].update(versions=[stamped(version())]))
    attempt.finish()
    assert api.get(CRD)["spec"]["versions"] == [stamped(version())]
