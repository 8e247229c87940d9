"""docs/uninstall.md, followed: of the reference operator nothing is left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import ControlPlane, DevclusterError
from devcluster.waiting import until
from testbed.deployment import ACCOUNT, NAME, ROOT, SELECTOR, install
from tests.adoption.node import Node
from tests.page import Page


@pytest.fixture
def node(plane: ControlPlane, tmp_path: Path) -> Iterator[Node]:
    """The reference operator as the tutorial says, with claims of two namespaces that are bound."""
    logs = tmp_path / "logs"
    logs.mkdir()
    with Node(plane, logs, ROOT) as made:
        assert left(made) == []
        install(plane)
        plane.kubectl("create", "namespace", "team")
        documents: list[dict[str, Any]] = [
            {"kind": "AddressPool", "metadata": {"name": "pool"}, "spec": {"cidr": "10.77.0.0/24"}}
        ]
        for namespace in ("default", "team"):
            documents += [
                {
                    "kind": "AddressClaim",
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": {"poolName": "pool"},
                }
                for name in ("a", "b")
            ]
        items = [{"apiVersion": "ipam.kopf-ha.dev/v1", **d} for d in documents]
        plane.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        plane.kubectl("wait", "--for=condition=Ready", "addressclaims", "--all", "-A", "--timeout=90s", timeout=120)
        until("four ConfigMaps", lambda: len(children(plane)) == 4, watched=[made])
        yield made


def children(plane: ControlPlane) -> list[str]:
    label = f"app.kubernetes.io/managed-by={NAME}"
    return plane.kubectl("get", "configmaps", "-A", "-l", label, "-o", "name").stdout.split()


def parts(node: Node, path: str, key: str) -> list[Any]:
    """A list in an answer; nothing for a path that has just ceased to be served."""
    answer = node.ask("GET", path)
    return list(answer.json().get(key) or ()) if answer.ok else []


def left(node: Node) -> list[str]:
    """All objects of every kind that are ours, by group, label, name or namespace; events expire by themselves."""
    found = []
    for base in api_versions(node):
        for resource in parts(node, base, "resources"):
            if "list" not in resource["verbs"] or resource["name"] == "events":
                continue
            for item in parts(node, f"{base}/{resource['name']}", "items"):
                meta = item["metadata"]
                labels = meta.get("labels") or {}
                words = (base, meta["name"], meta.get("namespace", ""), *labels.values())
                if any("kopf-ha" in word for word in words):
                    found.append(f"{resource['name']} {meta.get('namespace', '')}/{meta['name']}")
    return sorted(found)


def until_nothing_is_left(node: Node) -> None:
    """Wait: deleted CRDs, garbage and what controllers made for the namespace go a moment later."""
    try:
        until("nothing to be left", lambda: not left(node), 90, 0.5, watched=[node])
    except DevclusterError as error:
        raise AssertionError(left(node)) from error


def api_versions(node: Node) -> list[str]:
    groups = node.ask("GET", "/apis").json()["groups"]
    return ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]


def test_in_the_order_of_the_page(plane: ControlPlane, node: Node) -> None:
    page = Page("uninstall.md", plane, ROOT, "In this order")
    # What is listed is more than nothing.
    kinds = {entry.split()[0] for entry in left(node)}
    assert kinds >= {"namespaces", "deployments", "leases", "pods", "configmaps", "customresourcedefinitions"}
    assert kinds >= {"addresspools", "addressclaims", "validatingadmissionpolicies", "flowschemas", "clusterroles"}
    page.next("addressclaims")
    assert children(plane) == []
    page.next("deploy/")
    page.next("crds/")
    page.check_at_end()
    until_nothing_is_left(node)
    for replica in node.all:
        assert "refused by" not in replica.log


def test_the_operator_is_gone_and_objects_hang(plane: ControlPlane, node: Node) -> None:
    plane.kubectl("delete", "deployment", NAME, "-n", NAME)
    plane.kubectl("wait", "--for=delete", "pod", "-l", SELECTOR, "-n", NAME, "--timeout=90s", timeout=120)
    plane.kubectl("delete", "addressclaims", "--all", "-A", "--wait=false")
    plane.kubectl("delete", "addresspools", "--all", "--wait=false")
    # The operator's account may not, without the pod that stamped them; this shows that the policies are in force.
    remove = ("--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    said = plane.kubectl("patch", "addresspool/pool", *remove, f"--as={ACCOUNT}", check=False).stderr
    assert f"ValidatingAdmissionPolicy '{NAME}-" in said
    assert len(plane.kubectl("get", "addressclaims", "-A", "-o", "name").stdout.split()) == 4

    page = Page("uninstall.md", plane, ROOT, "If the operator is gone already")
    page.next("finalizers")
    page.check_at_end()
    page = Page("uninstall.md", plane, ROOT, "In this order")
    for block in ("addressclaims", "deploy/", "crds/"):
        if block == "deploy/":
            page.blocks[1] = page.blocks[1].replace(" --timeout", " --ignore-not-found --timeout")
        page.next(block)
    until_nothing_is_left(node)
