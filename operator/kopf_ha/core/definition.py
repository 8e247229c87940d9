"""Keeps the stamp in a CustomResourceDefinition that the operator itself applies, as many do at their start.

`spec.versions` is one value for the API server. So each such write would replace what an administrator merged into it
(`kopf-ha manifests --only schema`), and the kind would lose its stamps (I1). What the live definition has is put into
the write instead: the field, its rule and the subresource. So the definition stays as it is, and a server-side apply
of the same versions meets no conflict.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kopf_ha.core.asked import Asked
from kopf_ha.core.refusal import RULE_MESSAGE
from kopf_ha.errors import Unfenced

KIND = "customresourcedefinitions.apiextensions.k8s.io"

_RULES = "x-kubernetes-validations"
#: Paths of a JSON patch that may take the stamp out of a version.
_TAKING = re.compile(r"(/spec(/versions(/[^/]+(/(schema|subresources)(/.*)?)?)?)?)?")


def is_definition(asked: Asked) -> bool:
    """Whether this write may change a definition."""
    return asked.target.kind == KIND and not asked.target.subresource and not asked.deletes


def keep_stamp(asked: Asked, live: Any) -> Asked:
    """Return the write with the stamp in each version, if the live definition has it.

    Args:
        asked: a write of a definition.
        live: the definition as it was just read.

    Raises:
        Unfenced: it is a JSON patch that may take the stamp out.
    """
    stamped = [version for version in _versions(live) if _fencing(version) is not None]
    if not stamped:
        return asked
    if isinstance(asked.body, list):
        if any(map(_takes, asked.body)):
            raise Unfenced(
                f"{asked}: it may remove status.fencing from the definition, and with it the stamps of all objects of"
                " the kind; send a merge patch, an apply or a PUT, in which the fence keeps it"
            )
        return asked
    body = copy.deepcopy(dict(asked.body))
    for version in _versions(body):
        same = next((one for one in stamped if one.get("name") == version.get("name")), stamped[0])
        _merge(version, same)
    return replace(asked, body=body)


def _merge(version: dict[str, Any], live: Mapping[str, Any]) -> None:
    schema = _part(_part(version, "schema", {}), "openAPIV3Schema", {"type": "object"})
    status = _part(_part(schema, "properties", {}), "status", {"type": "object"})
    _part(_part(status, "properties", {}), "fencing", copy.deepcopy(_fencing(live)))
    rules = schema.get(_RULES) or []
    if all(rule.get("message") != RULE_MESSAGE for rule in rules):
        theirs = live["schema"]["openAPIV3Schema"].get(_RULES) or ()
        schema[_RULES] = [*rules, *(copy.deepcopy(rule) for rule in theirs if rule.get("message") == RULE_MESSAGE)]
    if "status" in (live.get("subresources") or {}):
        _part(_part(version, "subresources", {}), "status", {})


def _part(parent: dict[str, Any], name: str, default: Any) -> Any:
    # To an API server null equals a missing value.
    if parent.get(name) is None:
        parent[name] = default
    return parent[name]


def _takes(operation: Mapping[str, Any]) -> bool:
    changed = {"test": (), "move": ("path", "from")}.get(str(operation.get("op")), ("path",))
    return any(_TAKING.fullmatch(str(operation.get(name))) for name in changed)


def _versions(definition: Any) -> list[dict[str, Any]]:
    spec = definition.get("spec") if isinstance(definition, Mapping) else None
    versions = spec.get("versions") if isinstance(spec, Mapping) else None
    return [one for one in versions if isinstance(one, dict)] if isinstance(versions, list) else []


def _fencing(version: Mapping[str, Any]) -> Any:
    found: Any = version
    for part in ("schema", "openAPIV3Schema", "properties", "status", "properties", "fencing"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
