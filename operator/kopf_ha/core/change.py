"""The changes that the fence makes to a request: precondition and stamp, for each way to write.

Pure functions from a parsed body to another; nothing is changed in place, since a client may send its own
body again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request
from kopf_ha.errors import Unfenced

MERGE = ("application/merge-patch+json", "application/strategic-merge-patch+json")
JSON_PATCH = "application/json-patch+json"
APPLY = ("application/apply-patch+yaml", "application/apply-patch+cbor")

_RV_PATH = "/metadata/resourceVersion"


def parse_body(request: Request) -> Any:
    """Read the body of a write; None when empty.

    Raises:
        Unfenced: it is neither JSON nor YAML (protobuf, CBOR), which the fence cannot look into.
    """
    if not request.body:
        return None
    try:
        if request.content_type.startswith("application/apply-patch"):
            return yaml.safe_load(request.body)
        return json.loads(request.body)
    except (ValueError, yaml.YAMLError):
        raise Unfenced(
            f"the fence cannot read a body of type {request.content_type or 'unknown'!r};"
            " send JSON, or declare the kind exempt"
        ) from None


def is_merge(request: Request) -> bool:
    """Whether this is a merge patch, plain or strategic."""
    return request.method == "PATCH" and request.content_type in MERGE


def is_json_patch(request: Request) -> bool:
    """Whether this is a JSON patch (RFC 6902)."""
    return request.method == "PATCH" and request.content_type == JSON_PATCH


def is_apply(request: Request) -> bool:
    """Whether this is a server-side apply, which creates what does not exist."""
    return request.method == "PATCH" and request.content_type in APPLY


def caller_version(request: Request, body: Any) -> str | None:
    """Give the resourceVersion that the caller itself made a precondition; None when it made none."""
    if request.method == "DELETE":
        given = body.get("preconditions") if isinstance(body, Mapping) else None
    elif isinstance(body, list):
        return next((op.get("value") for op in body if op.get("op") == "test" and op.get("path") == _RV_PATH), None)
    else:
        given = body.get("metadata") if isinstance(body, Mapping) else None
    value = given.get("resourceVersion") if isinstance(given, Mapping) else None
    return str(value) if value else None


def may_repeat(request: Request, body: Any) -> bool:
    """Say whether the same change may go again on a newer revision (trap 3).

    A merge patch without lists under metadata or spec means the same on any revision; a list would undo
    what somebody else added to it (I6). A delete means "this uid". Everything else is planned again by
    its caller.
    """
    if request.method == "DELETE":
        return True
    return is_merge(request) and not any(_has_list(body.get(part)) for part in ("metadata", "spec"))


def _has_list(value: Any) -> bool:
    if isinstance(value, list):
        return True
    return isinstance(value, Mapping) and any(_has_list(v) for v in value.values())


def conditional(request: Request, body: Any, *, version: str, uid: str) -> Any:
    """Give the body with `version` as its precondition, in place of the caller's own if there is one."""
    if request.method == "DELETE":
        out: dict[str, Any] = dict(body) if body else {"kind": "DeleteOptions", "apiVersion": "v1"}
        preconditions: Mapping[str, Any] = out.get("preconditions") or {}
        given = {k: v for k, v in preconditions.items() if v}
        out["preconditions"] = {"uid": uid, **given, "resourceVersion": version}
        return out
    if isinstance(body, list):
        rest = [op for op in body if not (op.get("op") == "test" and op.get("path") == _RV_PATH)]
        return [{"op": "test", "path": _RV_PATH, "value": version}, *rest]
    out = dict(body)
    out["metadata"] = {**(out.get("metadata") or {}), "resourceVersion": version}
    if is_apply(request):
        # With the resourceVersion alone an apply recreates an object that was deleted meanwhile.
        out["metadata"]["uid"] = uid
    return out


def with_stamp(request: Request, body: Any, stamp: Stamp) -> Any:
    """Give a body of a status write that carries the stamp (I1)."""
    if isinstance(body, list):
        return [*body, {"op": "add", "path": "/status/fencing", "value": stamp.as_status()}]
    out = dict(body)
    if "status" in out and not isinstance(out["status"], Mapping):
        raise Unfenced("a write that removes the whole status would remove its stamp; null its fields one by one")
    out["status"] = {**out.get("status", {}), "fencing": stamp.as_status()}
    return out


def with_annotations(request: Request, body: Any, stamp: Stamp) -> Any:
    """Give a body of a write to a child that carries the stamp in annotations."""
    if isinstance(body, list):
        return [
            *body,
            *(
                {
                    "op": "add",
                    "path": "/metadata/annotations/" + name.replace("~", "~0").replace("/", "~1"),
                    "value": v,
                }
                for name, v in stamp.as_annotations().items()
            ),
        ]
    out: dict[str, Any] = copy.copy(dict(body or {}))
    metadata = dict(out.get("metadata") or {})
    if is_merge(request) and "annotations" in metadata and metadata["annotations"] is None:
        raise Unfenced("a patch that removes all annotations would remove the stamp; null them one by one")
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **stamp.as_annotations()}
    out["metadata"] = metadata
    return out


def already_so(request: Request, body: Any, current: Any) -> bool:
    """Say whether a JSON patch asks for nothing but what an object is already like."""
    if not is_json_patch(request) or not isinstance(body, list):
        return False
    return all(
        op.get("path") == _RV_PATH
        or (op.get("op") in ("add", "replace") and _at(current, op["path"]) == (True, op.get("value")))
        or (op.get("op") == "remove" and not _at(current, op["path"])[0])
        for op in body
    )


def _at(value: Any, pointer: str) -> tuple[bool, Any]:
    """Look up a JSON pointer: whether something is there, and what. Lists are not looked into."""
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(value, Mapping) or part not in value:
            return False, None
        value = value[part]
    return True, value


def with_body(request: Request, body: Any) -> Request:
    """Give the request with another body."""
    content_type = request.content_type or "application/json"
    return replace(request, body=json.dumps(body).encode(), content_type=content_type)
