"""CustomResourceDefinitions with a stamp, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOOSE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
#: The stamp's fields and their types, as docs/fencing.md has them.
STAMP: Mapping[str, Any] = {
    "lease": {"type": "string"},
    "token": {"type": "integer", "format": "int32", "minimum": 1},
    "holder": {"type": "string"},
    "podUID": {"type": "string"},
}


def version(
    name: str = "v1",
    fencing: Mapping[str, Any] | None = STAMP,
    *,
    status: Mapping[str, Any] = LOOSE,
    rules: list[Any] | None = None,
    storage: bool = True,
) -> dict[str, Any]:
    """Give a served version.

    Args:
        name: of the version.
        fencing: the properties of `status.fencing`; None for a kind without a stamp. A whole stamp is required whole.
        status: the schema of the rest of the status.
        rules: the kind's transition rules.
        storage: whether objects are stored in it.
    """
    if fencing is not None:
        stamp = {"type": "object", "properties": dict(fencing)}
        if fencing.keys() == STAMP.keys():
            stamp["required"] = list(STAMP)
        status = {**status, "properties": {**status.get("properties", {}), "fencing": stamp}}
    root: dict[str, Any] = {"type": "object", "properties": {"spec": LOOSE, "status": dict(status)}}
    if rules:
        root["x-kubernetes-validations"] = rules
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": root},
    }


def crd(group: str, kind: str, *versions: dict[str, Any]) -> dict[str, Any]:
    """Give the definition of a namespaced kind; stamped, with one version, if none is given."""
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": list(versions) or [version()],
        },
    }
