"""Whether a kind carries `status.fencing`, as its published schema says."""

from __future__ import annotations

from typing import Any

from kopf_ha.core.target import Target


def crd_is_stamped(crd: Any, version: str) -> bool:
    """Say whether a CustomResourceDefinition has `status.fencing` in a version, and a `/status` to write it by."""
    return version in stamped_versions(crd)


def stamped_versions(crd: Any) -> list[str]:
    """Name the served versions of a CustomResourceDefinition that have it."""
    return [
        str(served.get("name"))
        for served in ((crd or {}).get("spec") or {}).get("versions") or ()
        if served.get("served", True)
        and "status" in (served.get("subresources") or {})
        and _has_fencing((served.get("schema") or {}).get("openAPIV3Schema") or {})
    ]


def openapi_is_stamped(document: Any, target: Target) -> bool | None:
    """Say the same from a published OpenAPI document; None when the kind is not in it (yet)."""
    middle = "/namespaces/{namespace}" if target.namespace else ""
    path = f"/apis/{target.group}/{target.version}{middle}/{target.resource}/{{name}}"
    paths = document.get("paths") or {}
    item = paths.get(path)
    if item is None:
        return None
    kind = next(
        (
            op["x-kubernetes-group-version-kind"]
            for op in item.values()
            if isinstance(op, dict) and "x-kubernetes-group-version-kind" in op
        ),
        None,
    )
    for schema in ((document.get("components") or {}).get("schemas") or {}).values():
        if kind in (schema.get("x-kubernetes-group-version-kind") or ()):
            return f"{path}/status" in paths and _has_fencing(schema)
    return None


def _has_fencing(schema: Any) -> bool:
    status = (schema.get("properties") or {}).get("status") or {}
    return "fencing" in (status.get("properties") or {})
