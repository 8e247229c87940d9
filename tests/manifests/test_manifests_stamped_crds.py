"""CRDs with the stamp merged in, on a real API server: accepted, nothing is pruned that was kept, the rule holds."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster import Cluster
from kopf_ha.core.refusal import RULE_MESSAGE
from kopf_ha.manifests.definitions import merge_stamp, why_annotations

GROUP = "merged.example.com"
FREE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
#: Schemas as operators have them, by plural.
SCHEMAS: dict[str, dict[str, Any]] = {
    "frees": FREE,
    "partlies": FREE | {"properties": {"spec": {"type": "object"}}},
    "statuses": {"type": "object", "properties": {"status": FREE}},
    "untypeds": {"type": "object", "properties": {"status": {"x-kubernetes-preserve-unknown-fields": True}}},
    "nullables": {"type": "object", "properties": {"status": FREE | {"nullable": True}}},
    "named": {"type": "object", "properties": {"status": {"type": "object", "properties": {"x": {"type": "string"}}}}},
}


def crd(plural: str) -> dict[str, Any]:
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    schema = {"schema": {"openAPIV3Schema": copy.deepcopy(SCHEMAS[plural])}}
    names = {"kind": plural.title(), "plural": plural}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Cluster", "names": names, "versions": [version | schema]},
    }


@pytest.fixture(scope="module", autouse=True)
def definitions(cluster: Cluster) -> Iterator[None]:
    """All kinds, first as they were and with an object of each, then merged."""
    kinds = [crd(plural) for plural in SCHEMAS]
    apply = ("apply", "-f", "-")
    cluster.kubectl(*apply, input=json.dumps({"apiVersion": "v1", "kind": "List", "items": kinds}))
    cluster.wait_established()
    for plural in SCHEMAS:
        made = {"apiVersion": f"{GROUP}/v1", "kind": plural.title(), "metadata": {"name": "one"}}
        cluster.kubectl("create", "-f", "-", input=json.dumps(made))
        patch(cluster, plural, {"x": "kept"})
    for kind in kinds:
        assert not why_annotations(kind)
        merge_stamp(kind)
    cluster.kubectl(*apply, input=json.dumps({"apiVersion": "v1", "kind": "List", "items": kinds}))
    yield
    cluster.kubectl("delete", "crd", *(f"{plural}.{GROUP}" for plural in SCHEMAS), "--timeout=60s", timeout=90)


def patch(cluster: Cluster, plural: str, status: Any, *, check: bool = True) -> str:
    body = json.dumps({"status": status})
    args = ("patch", f"{plural}.{GROUP}", "one", "--subresource=status", "--type=merge", "-p", body)
    return cluster.kubectl(*args, check=check).stderr


def status_of(cluster: Cluster, plural: str) -> Any:
    return json.loads(cluster.kubectl("get", f"{plural}.{GROUP}", "one", "-o", "json").stdout)["status"]


@pytest.mark.parametrize("plural", SCHEMAS)
def test_the_stamp_is_kept_and_so_is_the_rest(cluster: Cluster, plural: str) -> None:
    stamp = {"lease": "a/b", "token": 5, "holder": "p_u_r", "podUID": "u"}
    patch(cluster, plural, {"fencing": stamp})
    assert status_of(cluster, plural) == {"x": "kept", "fencing": stamp}
    assert RULE_MESSAGE in patch(cluster, plural, {"fencing": {"token": 4}}, check=False)
    assert RULE_MESSAGE in patch(cluster, plural, {"fencing": None}, check=False)
    patch(cluster, plural, {"x": "changed"})
    assert status_of(cluster, plural) == {"x": "changed", "fencing": stamp}
