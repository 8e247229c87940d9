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
from tests.core.fake_api import APPLY, CRDS, JSON_PATCH, MERGE, FakeApi, Process, patch, write

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


def test_what_an_administrator_merges_in_between_stays_too(api: FakeApi, me: Process) -> None:
    """After the read the write is conditioned on that revision."""
    api.put(CRD, shipped(version()))
    attempt = me.attempt(patch(CRD, {"spec": {"versions": [version()]}}))
    while attempt.pending is None or attempt.pending.method != "PATCH":
        attempt.step()
    api.edit(CRD, lambda o: o["spec"].update(versions=[stamped(version())]))
    attempt.finish()
    assert api.get(CRD)["spec"]["versions"] == [stamped(version())]
