"""Own kinds without `status.fencing`, and objects that several operators write, on a real API server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kopf_ha.core.asked import ONLY_NOTE
from kopf_ha.errors import StaleLeader
from tests.core.fake_api import as_notes, note
from tests.fencing.clients import CLIENTS, MERGE, Send, by_kubernetes
from tests.fencing.conftest import Terms, World
from tests.fencing.kinds import GROUP

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"


@pytest.fixture(params=[name for name in CLIENTS if name not in ("easykube", "lightkube async", "requests")])
def send(request: pytest.FixtureRequest, world: World, terms: Terms) -> Send:
    terms.lease = terms.fence.known.lease = f"{world.namespace}/op"
    return CLIENTS[request.param](world.kubeconfig)


def recorded(terms: Terms, body: Any, kind: str) -> list[str]:
    return str(body["metadata"]["annotations"][note(terms.lease, kind)]).split(" ")


def ways(world: World, kind: str, plural: str) -> list[tuple[str, Any, str]]:
    """Give ways to write the status: the end of the path, the body and its type."""
    where = "" if plural == "wholes" else "/status"
    named = {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": "x", "namespace": world.namespace}}
    return [
        (where, {"status": {"a": "1"}}, MERGE),
        (where, [{"op": "add", "path": "/status", "value": {"a": "1"}}], JSON_PATCH),
        (f"{where}?fieldManager=me&force=true", named | {"status": {"a": "1"}}, APPLY),
    ]


@pytest.mark.parametrize(("kind", "plural"), [("Plain", "plains"), ("Whole", "wholes")])
@pytest.mark.parametrize("way", range(3))
def test_the_first_write_is_one_of_the_status(
    world: World, terms: Terms, send: Send, kind: str, plural: str, way: int
) -> None:
    """A custom resource's `/status` takes no annotations, so the stamp has to go ahead of the status."""
    world.create(kind, "x", a=1)
    path, resource = world.path(plural, "x"), f"{plural}.{GROUP}"
    end, body, content_type = ways(world, kind, plural)[way]
    with terms.term(7):
        status, answer = send("PATCH", path + end, body, content_type)
        assert status == 200, answer
    now = world.get(resource, "x")
    assert now["status"] == {"a": "1"}
    assert recorded(terms, now, resource) == ["7", terms.lease, "uid-pod7", "pod7"]
    with terms.term(8):
        assert send("PATCH", path, {"spec": {"a": 2}}, MERGE)[0] == 200
    before = world.get(resource, "x")
    with terms.term(7), pytest.raises(StaleLeader):
        send("PATCH", path + end, body, content_type)
    assert world.get(resource, "x") == before
    assert [o for o in terms.outcomes if o.refused and not isinstance(o.refused, StaleLeader)] == []


@pytest.mark.parametrize("annotations", [None, {"theirs": "kept"}])
def test_a_barrier_stamps_annotations_whatever_others_write(
    world: World, terms: Terms, annotations: dict[str, str] | None
) -> None:
    """The JSON patch tests the recorded note; to the API server null equals a missing annotation."""
    terms.lease = terms.fence.known.lease = f"{world.namespace}/op"
    send = by_kubernetes(world.kubeconfig)
    world.create("Whole", "x", a=1)
    path, resource = world.path("wholes", "x"), f"wholes.{GROUP}"
    if annotations:
        world.ask("PATCH", path, {"metadata": {"annotations": annotations}}, MERGE)
    for token in (7, 8):
        with terms.term(token):
            assert send("PATCH", path, ONLY_NOTE, MERGE)[0] == 200
        assert recorded(terms, world.get(resource, "x"), resource)[0] == str(token)
    with terms.term(7), pytest.raises(StaleLeader):
        send("PATCH", path, ONLY_NOTE, MERGE)
    assert (annotations or {}).items() <= world.get(resource, "x")["metadata"]["annotations"].items()


def test_two_operators_write_one_object(world: World, terms: Terms, send: Send) -> None:
    """Each by its own Lease, in whichever way, and none loses the other's stamp."""
    path, own = world.maps("shared"), {"data": {"by": "own"}}
    other = as_notes(terms.grant(90).stamp, "configmaps")
    theirs = {name: text.replace(terms.lease, "ns/else") for name, text in other.items() if "stamp-" not in name}
    theirs[note("ns/else", "configmaps")] = "90 ns/else u h"
    world.ask("POST", world.maps(), {"metadata": {"name": "shared", "annotations": theirs}})
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, **own}
    with terms.term(7):
        assert send("PATCH", path, own, MERGE)[0] == 200
        for _ in range(2):  # with the caller's revision, which an earlier write gave it
            version = world.get("configmap", "shared")["metadata"]["resourceVersion"]
            status, answer = send("PUT", path, {**body, "metadata": {"name": "shared", "resourceVersion": version}})
            assert status == 200, answer
        assert send("PATCH", f"{path}?fieldManager=me&force=true", body, APPLY)[0] == 200
        replaced = [{"op": "replace", "path": "/metadata/annotations", "value": {"a": "b"}}]
        assert send("PATCH", path, replaced, JSON_PATCH)[0] == 200
    now = world.get("configmap", "shared")
    assert theirs.items() <= now["metadata"]["annotations"].items()
    assert recorded(terms, now, "configmaps")[0] == "7"
    with terms.term(6), pytest.raises(StaleLeader):
        send("PATCH", path, own, MERGE)


def test_an_operator_applies_its_own_definition(world: World, terms: Terms, send: Send) -> None:
    """An administrator merged the stamp into it. The operator ships it without."""
    terms.lease = terms.fence.known.lease = f"{world.namespace}/op"
    name = f"gadgets.{GROUP}"
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    live = json.loads(world.cluster.kubectl("get", "crd", name, "-o", "json").stdout)
    shipped = json.loads(json.dumps(live["spec"]))
    for version in shipped["versions"]:
        del version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["fencing"]
        del version["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]
    meta = {"name": name, "resourceVersion": live["metadata"]["resourceVersion"]}
    body = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name}}
    with terms.term(7):
        assert send("PUT", path, {**body, "metadata": meta, "spec": shipped})[0] == 200
        assert send("PATCH", path, {"spec": {"versions": shipped["versions"]}}, MERGE)[0] == 200
        assert send("PATCH", f"{path}?fieldManager=me&force=true", {**body, "spec": shipped}, APPLY)[0] == 200
    now = json.loads(world.cluster.kubectl("get", "crd", name, "-o", "json").stdout)
    assert now["spec"] == live["spec"]
