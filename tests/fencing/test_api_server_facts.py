"""What the fence, and the server that its unit tests use, take for granted of an API server."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.fencing.clients import MERGE, Send, by_kubernetes
from tests.fencing.conftest import Terms, World
from tests.fencing.kinds import GROUP

ROOT = Path(__file__).parents[2]
APPLY = "application/apply-patch+yaml"
STRATEGIC = "application/strategic-merge-patch+json"


@pytest.fixture
def ask(world: World, terms: Terms) -> Send:
    """A client past the fence."""
    terms.fence.mode = "none"
    return by_kubernetes(world.kubeconfig)


def child(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {"a": "1"}}


def test_a_delete_with_a_body_does_not_read_its_query(world: World, ask: Send) -> None:
    ask("POST", world.maps(), child("x"))
    assert ask("DELETE", world.maps("x") + "?dryRun=All", {"kind": "DeleteOptions", "apiVersion": "v1"})[0] == 200
    assert not world.there("configmap", "x")


def test_a_delete_without_one_does(world: World, ask: Send) -> None:
    ask("POST", world.maps(), child("x"))
    assert ask("DELETE", world.maps("x") + "?uid=another")[0] == 409
    assert ask("DELETE", world.maps("x") + "?dryRun=All")[0] == 200
    assert world.there("configmap", "x")


@pytest.mark.parametrize("version", ["0", "00", "", None])
def test_version_0_is_no_precondition(world: World, ask: Send, version: str | None) -> None:
    ask("POST", world.maps(), child("x"))
    assert (
        ask("PATCH", world.maps("x"), {"metadata": {"resourceVersion": version}, "data": {"a": "2"}}, MERGE)[0] == 200
    )
    assert ask("PATCH", world.maps("x"), {"metadata": {"resourceVersion": "1"}, "data": {"a": "3"}}, MERGE)[0] == 409


@pytest.mark.parametrize("version", ["0", "", None])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ConfigMap", {"PUT": 200, "PATCH": 200}),
        ("Gadget", {"PUT": 422, "PATCH": 422}),
        ("Lease", {"PUT": 422, "PATCH": 422}),
    ],
)
def test_a_put_without_a_version_is_unconditional_only_where_the_kind_allows_it(
    world: World, ask: Send, kind: str, expected: dict[str, int], version: str | None
) -> None:
    """Custom resources and Leases do not."""
    collection, body = {
        "ConfigMap": (world.maps(), child("x")),
        "Gadget": (world.path("gadgets"), {"apiVersion": f"{GROUP}/v1", "kind": "Gadget", "metadata": {"name": "x"}}),
        "Lease": (
            f"/apis/coordination.k8s.io/v1/namespaces/{world.namespace}/leases",
            {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "x"}, "spec": {}},
        ),
    }[kind]
    assert ask("POST", collection, body)[0] == 201
    body["metadata"] = {"name": "x", "resourceVersion": version, "labels": {"a": "1"}}
    found = {
        "PUT": ask("PUT", f"{collection}/x", body)[0],
        "PATCH": ask(
            "PATCH", f"{collection}/x", {"metadata": {"resourceVersion": version, "labels": {"a": "2"}}}, MERGE
        )[0],
    }
    assert found == expected


@pytest.mark.parametrize("wide", [(), ("-o", "wide")])
def test_kubectl_does_not_show_a_lease_s_count_by_itself(world: World, ask: Send, wide: tuple[str, ...]) -> None:
    """So docs/fencing.md names another command."""
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{world.namespace}/leases"
    ask("POST", leases, {"metadata": {"name": "x"}, "spec": {"holderIdentity": "me", "leaseTransitions": 4711}})
    lines = world.cluster.kubectl("get", "lease", "-n", world.namespace, *wide).stdout.splitlines()
    assert lines[0].split() == ["NAME", "HOLDER", "AGE"]
    (command,) = re.findall(r"(?m)^kubectl (get lease NAME .*)$", (ROOT / "docs/fencing.md").read_text())
    named = shlex.split(command.replace("NAME", "x", 1))
    assert "4711" in world.cluster.kubectl(*named, "-n", world.namespace).stdout


def test_versions_are_compared_as_numbers(world: World, ask: Send) -> None:
    made = ask("POST", world.maps(), child("x"))[1]
    version = "0" + made["metadata"]["resourceVersion"]
    assert (
        ask("PATCH", world.maps("x"), {"metadata": {"resourceVersion": version}, "data": {"a": "2"}}, MERGE)[0] == 200
    )


@pytest.mark.parametrize("kind", ["ConfigMap", "Gadget"])
def test_an_apply_at_version_1_creates_and_does_nothing_else(world: World, ask: Send, kind: str) -> None:
    path = (world.maps("x") if kind == "ConfigMap" else world.path("gadgets", "x")) + "?fieldManager=f&force=true"
    body = child("x", resourceVersion="1")
    if kind == "Gadget":
        body = {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": body["metadata"]}
    status, answer = ask("PATCH", path, body, APPLY)
    assert status == 201, answer["message"]
    assert ask("PATCH", path, body, APPLY)[0] == 409


def test_a_strategic_directive_drops_what_stands_next_to_it(world: World, ask: Send) -> None:
    ask("POST", world.maps(), child("x", annotations={"a": "1"}))
    body = {"metadata": {"annotations": {"$patch": "delete", "stamp": "9"}}}
    answer = ask("PATCH", world.maps("x"), body, STRATEGIC)[1]
    assert "annotations" not in answer["metadata"]


def test_a_version_without_the_field_removes_the_stamp_past_the_other_versions_rule(world: World, ask: Send) -> None:
    """Line 3 does not hold for a kind of which one served version lacks the stamp."""
    world.create("Mixed", "x")
    stamp = {"token": 9, "holder": "h", "lease": "a/b", "podUID": "u"}
    ask("PATCH", world.path("mixeds", "x") + "/status", {"status": {"fencing": stamp}}, MERGE)
    assert ask("PATCH", world.path("mixeds", "x") + "/status", {"status": {"fencing": None}}, MERGE)[0] == 422
    assert ask("PATCH", world.path("mixeds", "x", "v1beta1") + "/status", {"status": {"a": "1"}}, MERGE)[0] == 200
    assert world.get(f"mixeds.v1.{GROUP}", "x")["status"] == {"a": "1"}
