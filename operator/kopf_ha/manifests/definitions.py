"""Merges the stamp into a CustomResourceDefinition, or says why its objects are fenced by annotations."""

from __future__ import annotations

from typing import Any

from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests.documents import Document
from kopf_ha.manifests.schema import schema_fragment

_RULES = "x-kubernetes-validations"
_UNKNOWN = "x-kubernetes-preserve-unknown-fields"


def check(document: Document) -> None:
    """Check what the API server demands of a CustomResourceDefinition, as far as the stamp depends on it.

    Raises:
        ConfigurationError: it would not be accepted.
    """
    title = f"{document.title} in {document.source}"
    if document.data["apiVersion"] != "apiextensions.k8s.io/v1":
        raise ConfigurationError(
            f"{title} has apiVersion {document.data['apiVersion']}, which Kubernetes no longer serves;"
            " convert it to apiextensions.k8s.io/v1"
        )
    spec = document.data.get("spec") or {}
    for field in ("group", "names", "scope", "versions"):
        if not spec.get(field):
            raise ConfigurationError(f"{title} has no spec.{field}; the API server would refuse it")
    if not spec["names"].get("plural"):
        raise ConfigurationError(f"{title} has no spec.names.plural; the API server would refuse it")
    if not any(v.get("served") for v in spec["versions"]):
        raise ConfigurationError(f"{title} serves no version; set served: true in one of spec.versions")
    for version in spec["versions"]:
        if not isinstance((version.get("schema") or {}).get("openAPIV3Schema"), dict):
            raise ConfigurationError(
                f"version {version.get('name')} of {title} has no schema; the API server would refuse it. The least is"
                f" schema: {{openAPIV3Schema: {{type: object, {_UNKNOWN}: true}}}}"
            )


def group_of(definition: Document) -> str:
    """Return the API group of a CRD's kind."""
    return str((definition.data.get("spec") or {}).get("group", ""))


def kind_of(definition: Document) -> str:
    """Return the kind that a CRD defines."""
    return str(definition.data["spec"]["names"].get("kind", ""))


def plural_of(definition: Document) -> str:
    """Return the plural of a CRD's kind."""
    return str(((definition.data.get("spec") or {}).get("names") or {}).get("plural", ""))


def why_annotations(definition: Any) -> str:
    """Return why objects of the kind can only be stamped by an annotation; empty if the stamp fits into the schema.

    Adding the status subresource is advised and not done: it breaks operators that write `status` with the object.
    """
    for version in definition["spec"]["versions"]:
        name = version["name"]
        if version.get("served") and (version.get("subresources") or {}).get("status") is None:
            return f"version {name} has no status subresource"
        status = ((version["schema"]["openAPIV3Schema"].get("properties")) or {}).get("status") or {}
        if status.get("type", "object") != "object":
            return f"status is of type {status['type']} in version {name}"
        if status.get("additionalProperties"):
            return f"status is a map (additionalProperties) in version {name}, which can have no field of its own"
        if (status.get("properties") or {}).get("fencing", {}).get("type", "object") != "object":
            return f"version {name} has another status.fencing"
    return ""


def merge_stamp(definition: Any) -> None:
    """Put the stamp and its rule into each version (I1). What is there already stays as it is written."""
    for version in definition["spec"]["versions"]:
        schema = version["schema"]["openAPIV3Schema"]
        _merge_rule(schema)
        _merge_field(schema)


def _merge_rule(schema: Any) -> None:
    (ours,) = schema_fragment()[_RULES]
    rules = schema.setdefault(_RULES, [])
    for n, rule in enumerate(rules):
        if "oldSelf.status.fencing.token" in rule.get("rule", ""):
            if _squeezed(rule) != _squeezed(ours):
                rules[n] = ours
            return
    rules.append(ours)


def _merge_field(schema: Any) -> None:
    ours = schema_fragment()["properties"]["status"]["properties"]["fencing"]
    properties = schema.setdefault("properties", {})
    # What is named in a schema is pruned again, also below something that preserves unknown fields.
    free = "status" not in properties and schema.get(_UNKNOWN)
    status = properties.setdefault("status", {})
    status.setdefault("type", "object")
    if free:
        status[_UNKNOWN] = True
    fields = status.setdefault("properties", {})
    if "fencing" not in fields or _bare(fields["fencing"]) != _bare(ours):
        fields["fencing"] = ours


def _squeezed(rule: Any) -> tuple[str, str]:
    return " ".join(rule["rule"].split()), " ".join(rule.get("message", "").split())


def _bare(schema: Any) -> Any:
    """Return a schema without its descriptions, of which only people take notice."""
    if not isinstance(schema, dict):
        return schema
    return {key: _bare(value) for key, value in schema.items() if key != "description" or not isinstance(value, str)}
