"""The kinds of these tests: with the stamp in all versions, with half of it, in one version only, without."""

from __future__ import annotations

from typing import Any

from kopf_ha.manifests import schema_fragment

GROUP = "fencing.kopf-ha.test"

_TEXT = {"type": "string"}
WHOLE = {"lease": _TEXT, "token": {"type": "integer"}, "holder": _TEXT, "podUID": _TEXT}
HALF = {"lease": _TEXT, "token": {"type": "integer"}}
LOOSE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
(RULE,) = schema_fragment()["x-kubernetes-validations"]


def version(name: str, fencing: Any, *, storage: bool = True, rule: bool = True) -> dict[str, Any]:
    status: dict[str, Any] = {"type": "object", "properties": {"a": _TEXT}}
    root: dict[str, Any] = {"type": "object", "properties": {"spec": LOOSE, "status": status}}
    if fencing is not None:
        status["properties"]["fencing"] = {"type": "object", "properties": fencing}
        if rule:
            root["x-kubernetes-validations"] = [RULE]
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": root},
    }


def crd(kind: str, *versions: dict[str, Any]) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": list(versions),
        },
    }


KINDS = [
    crd("Gadget", version("v1", WHOLE)),
    crd("Bare", version("v1", WHOLE, rule=False)),
    crd("Frame", version("v1", HALF)),
    crd("Plain", version("v1", None)),
    crd("Mixed", version("v1", WHOLE), version("v1beta1", None, storage=False)),
]
