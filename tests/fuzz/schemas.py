"""Objects that a CRD's schema allows, and whether it allows an object.

Of OpenAPI v3 this knows what crds/ uses; what it does not know is an error. CEL rules are not evaluated: who draws
objects says for the fields that have some what they allow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

CRDS = Path(__file__).parents[2] / "crds"
_WORDS = {"description", "format", "x-kubernetes-validations", "x-kubernetes-map-type", "x-kubernetes-list-type"}
_WORDS |= {"x-kubernetes-list-map-keys"}
_KNOWN = _WORDS | {"type", "required", "properties", "additionalProperties", "maxProperties", "items", "maxItems"}
_KNOWN |= {"minLength", "maxLength", "pattern", "enum", "minimum", "maximum"}
_TYPES: dict[str, type | tuple[type, ...]] = {"object": dict, "array": list, "string": str, "integer": int}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")

#: What fields with CEL rules, or of other lengths than usual, look like, by their path.
Special = Mapping[str, st.SearchStrategy[Any]]


def schema_of(plural: str) -> dict[str, Any]:
    """Return the schema of one of our kinds."""
    crd = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    made: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return made


def objects(schema: Mapping[str, Any], special: Special, path: str = "") -> st.SearchStrategy[Any]:
    """Return a strategy for what a schema allows, with few and mostly short parts.

    Args:
        schema: of the value.
        special: strategies that take the place of some fields'.
        path: of the value, as ``.spec.cidr``; entries of lists and maps have ``[]``.
    """
    if path in special:
        return special[path]
    if unknown := schema.keys() - _KNOWN:
        raise NotImplementedError(f"{path}: {unknown}")
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "integer":
            bits = 31 if schema.get("format") == "int32" else 63
            return st.integers(schema.get("minimum", -(2**bits)), schema.get("maximum", 2**bits - 1))
        case "string":
            return _texts(schema)
        case "array":
            every = objects(schema["items"], special, f"{path}[]")
            names = tuple(schema.get("x-kubernetes-list-map-keys", ()))
            unique = (lambda one: tuple(one[k] for k in names)) if names else None
            return st.lists(every, max_size=min(schema.get("maxItems", 4), 8), unique_by=unique)
    if "additionalProperties" in schema:
        keys = special.get(f"{path}{{}}", st.text(max_size=12))
        return st.dictionaries(keys, objects(schema["additionalProperties"], special, f"{path}[]"), max_size=5)
    fields = {name: objects(inner, special, f"{path}.{name}") for name, inner in schema.get("properties", {}).items()}
    required = schema.get("required", ())
    return st.fixed_dictionaries(
        {name: fields[name] for name in required},
        optional={name: one for name, one in fields.items() if name not in required},
    )


def _texts(schema: Mapping[str, Any]) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return st.datetimes().map(lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0"))
    if "pattern" in schema:
        return st.from_regex(schema["pattern"].replace("$", r"\Z"), fullmatch=True).filter(lambda t: not why(schema, t))
    short = min(schema.get("maxLength", 20), 20)
    return st.text(st.characters(codec="utf-8"), min_size=schema.get("minLength", 0), max_size=short)


def why(schema: Mapping[str, Any], value: Any, path: str = "") -> str:
    """Return what a schema does not allow; empty if it allows the value."""
    return next(_wrong(schema, value, path), "")


def _wrong(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, _TYPES[schema["type"]]):
        yield f"{path}: {value!r} is no {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    size = len(value) if isinstance(value, (str, list, dict)) else 0
    for word in ("maxLength", "maxItems", "maxProperties"):
        if word in schema and size > schema[word]:
            yield f"{path}: {size} is more than {word} {schema[word]}"
    if size < schema.get("minLength", 0):
        yield f"{path}: too short"
    if isinstance(value, int) and not schema.get("minimum", -(2**63)) <= value <= schema.get("maximum", 2**63 - 1):
        yield f"{path}: {value} is out of bounds"
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{path}: {value!r} does not match"
        if schema.get("format") == "date-time" and not _MOMENT.fullmatch(value):
            yield f"{path}: {value!r} is no time"
    if isinstance(value, list):
        for one in value:
            yield from _wrong(schema["items"], one, f"{path}[]")
        keys = [tuple(one.get(k) for k in schema.get("x-kubernetes-list-map-keys", ())) for one in value]
        if any(keys) and len(set(keys)) < len(keys):
            yield f"{path}: a key is there twice"
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{path}.{name} is missing"
        for name, inner in value.items():
            known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if known is not None:
                yield from _wrong(known, inner, f"{path}.{name}")
            elif "properties" in schema:
                yield f"{path}.{name} is unknown, so the API server drops it"
