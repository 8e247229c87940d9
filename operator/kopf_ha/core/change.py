"""The changes that the fence makes to a request: precondition and stamp, for each way to write.

Pure functions from a parsed body to another; nothing is changed in place, since a client may send its own
body again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import yaml

from kopf_ha.core.token import ANNOTATIONS, MalformedStamp, Stamp, stamp_of
from kopf_ha.core.wire import Request
from kopf_ha.errors import Unfenced

MERGE = ("application/merge-patch+json", "application/strategic-merge-patch+json")
JSON_PATCH = "application/json-patch+json"
APPLY = ("application/apply-patch+yaml", "application/apply-patch+cbor")

_RV_PATH = "/metadata/resourceVersion"
_UID_PATH = "/metadata/uid"
_FINALIZERS = "/metadata/finalizers"
_ANNOTATIONS_PATH = "/metadata/annotations/"

#: Directives by which a strategic merge patch drops what it does not name; the stamp would be among it.
_DROPPING = frozenset({"$patch", "$retainKeys"})

#: A resourceVersion that no object has: an apply with it creates, or conflicts with what is there (tried).
NO_VERSION = "1"


def parse_body(request: Request) -> Any:
    """Read the body of a write; None when empty.

    Raises:
        Unfenced: it is neither JSON nor YAML (protobuf, CBOR), which the fence cannot look into, or no shape
            that an API server would take.
    """
    if not request.body:
        return None
    try:
        body = _parsed(request)
    except (ValueError, TypeError, yaml.YAMLError):
        raise Unfenced(
            f"the fence cannot read a body of type {request.content_type or 'unknown'!r};"
            " send JSON, or declare the kind exempt"
        ) from None
    if is_json_patch(request):
        fits = isinstance(body, list) and all(isinstance(op, Mapping) for op in body)
    else:
        metadata = body.get("metadata") or {} if isinstance(body, Mapping) else None
        fits = isinstance(metadata, Mapping) and isinstance(metadata.get("annotations") or {}, Mapping)
        fits = fits or (body is None and request.method == "DELETE")
    if not fits:
        raise Unfenced(f"the body of the {request.method} is no object, or no list of operations, as its type says")
    return body


def _parsed(request: Request) -> Any:
    try:
        return json.loads(request.body)
    except ValueError:
        if not is_apply(request):
            raise
    body = yaml.safe_load(request.body)
    json.dumps(body)  # a date is none in JSON
    return body


def is_merge(request: Request) -> bool:
    """Whether this is a merge patch, plain or strategic."""
    return request.method == "PATCH" and request.content_type in MERGE


def is_json_patch(request: Request) -> bool:
    """Whether this is a JSON patch (RFC 6902)."""
    return request.method == "PATCH" and request.content_type == JSON_PATCH


def is_apply(request: Request) -> bool:
    """Whether this is a server-side apply, which creates what does not exist."""
    return request.method == "PATCH" and request.content_type in APPLY


def is_dry_run(request: Request, body: Any) -> bool:
    """Whether the API server will change nothing. Of a delete with a body it does not read the query."""
    if request.method == "DELETE" and request.body:
        given = body.get("dryRun") if isinstance(body, Mapping) else None
    else:
        given = parse_qs(request.query).get("dryRun")
    return isinstance(given, list) and bool(given) and all(value == "All" for value in given)


def caller_version(request: Request, body: Any) -> str | None:
    """Give the resourceVersion that the caller itself made a precondition; None when it made none.

    The API server compares numbers, and 0 is none: "0" would make the write unconditional, and "07" is 7.
    """
    value = str(_precondition(request, body, "resourceVersion", _RV_PATH) or "")
    if value.isascii() and value.isdecimal():
        value = str(int(value))
    return None if value in ("", "0") else value


def caller_uid(request: Request, body: Any) -> str | None:
    """Give the uid that the caller itself named; None when it means whatever has the name."""
    return str(_precondition(request, body, "uid", _UID_PATH) or "") or None


def _precondition(request: Request, body: Any, name: str, path: str) -> Any:
    if request.method == "DELETE":
        given = _delete_options(request, body).get("preconditions")
    elif isinstance(body, list):
        return next((op.get("value") for op in body if op.get("op") == "test" and op.get("path") == path), None)
    else:
        given = body.get("metadata")
    return given.get(name) if isinstance(given, Mapping) else None


def _delete_options(request: Request, body: Any) -> dict[str, Any]:
    """Give the options of a delete. In the query they count only while there is no body."""
    out: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
    if request.body:
        return {**out, **(body or {})}
    query = {k: v[0] for k, v in parse_qs(request.query).items()}
    if "propagationPolicy" in query:
        out["propagationPolicy"] = query["propagationPolicy"]
    if query.get("gracePeriodSeconds", "").isdecimal():
        out["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
    for name in ("orphanDependents", "ignoreStoreReadErrorWithClusterBreakingPotential"):
        if name in query:
            out[name] = query[name].lower() in ("true", "1")
    if query.get("uid"):
        out["preconditions"] = {"uid": query["uid"]}
    return out


def may_repeat(request: Request, body: Any) -> bool:
    """Say whether the same change may go again on a newer revision (trap 3).

    A merge patch means the same on any revision as long as it has no list outside of status, which would
    undo what somebody else added to it, and replaces no map (I6). A delete means "this uid". Everything
    else is planned again by its caller.
    """
    if request.method == "DELETE":
        return True
    return is_merge(request) and not any(_replaces(v) for k, v in body.items() if k != "status")


def _replaces(value: Any) -> bool:
    if isinstance(value, list):
        return True
    return isinstance(value, Mapping) and (not _DROPPING.isdisjoint(value) or any(_replaces(v) for v in value.values()))


def conditional(request: Request, body: Any, *, version: str, uid: str) -> Any:
    """Give the body with `version` as its precondition, in place of the caller's own if there is one."""
    if request.method == "DELETE":
        out = _delete_options(request, body)
        preconditions: Mapping[str, Any] = out.get("preconditions") or {}
        given = {k: v for k, v in preconditions.items() if v}
        out["preconditions"] = {"uid": uid, **given, "resourceVersion": version}
        return out
    if isinstance(body, list):
        own = caller_version(request, body)
        # Only what the caller was conditioned on is replaced; a second, other test goes on failing.
        rest = [op for op in body if (op.get("op"), op.get("path"), op.get("value")) != ("test", _RV_PATH, own)]
        return [{"op": "test", "path": _RV_PATH, "value": version}, *rest]
    out = dict(body)
    out["metadata"] = {**(out.get("metadata") or {}), "resourceVersion": version}
    if is_apply(request):
        # With the resourceVersion alone an apply recreates an object that was deleted meanwhile.
        out["metadata"]["uid"] = uid
    return out


def only_create(body: Any) -> Any:
    """Give the body of an apply that must not change what somebody else made meanwhile."""
    return {**body, "metadata": {**(body.get("metadata") or {}), "resourceVersion": NO_VERSION}}


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
                    "path": _ANNOTATIONS_PATH + _escaped(name),
                    "value": v,
                }
                for name, v in stamp.as_annotations().items()
            ),
        ]
    out: dict[str, Any] = dict(body or {})
    metadata = dict(out.get("metadata") or {})
    notes = metadata.get("annotations")
    if is_merge(request) and (
        (notes is None and "annotations" in metadata)
        or not all(_DROPPING.isdisjoint(part) for part in (out, metadata, notes or {}))
    ):
        raise Unfenced("a patch that removes all annotations would remove the stamp; null them one by one")
    metadata["annotations"] = {**(notes or {}), **stamp.as_annotations()}
    out["metadata"] = metadata
    return out


def carried(request: Request) -> tuple[Stamp | None, str | None]:
    """Give the stamp and the resourceVersion that a write carries; None for what it does not, or cannot be read."""
    try:
        body = parse_body(request)
        version = caller_version(request, body)
        if isinstance(body, list):
            added = {str(op.get("path")): op.get("value") for op in body}
            notes = {name: added[path] for name in ANNOTATIONS if (path := _ANNOTATIONS_PATH + _escaped(name)) in added}
            body = {"status": {"fencing": added.get("/status/fencing")}, "metadata": {"annotations": notes}}
        body = body or {}
        return stamp_of(body, stamped=True) or stamp_of(body, stamped=False), version
    except (Unfenced, MalformedStamp):
        return None, None


def already_so(request: Request, body: Any, current: Any) -> bool:
    """Say whether a JSON patch asks for nothing but what an object is already like."""
    if not is_json_patch(request) or not isinstance(body, list):
        return False
    return all(_holds(op, current) for op in body)


def _holds(op: Mapping[str, Any], current: Any) -> bool:
    verb, path = op.get("op"), str(op.get("path"))
    if path == _RV_PATH:
        return bool(verb == "test")
    above, _, last = path.rpartition("/")
    parent = _at(current, above)
    if isinstance(parent, list):
        # What an index means depends on the revision; only of finalizers the order says nothing.
        return verb == "add" and above == _FINALIZERS and op.get("value") in parent
    name = _unescaped(last)
    if verb == "remove":
        return parent is None or (isinstance(parent, Mapping) and name not in parent)
    return (
        verb in ("add", "replace", "test")
        and isinstance(parent, Mapping)
        and (name in parent and parent[name] == op.get("value"))
    )


def _at(value: Any, pointer: str) -> Any:
    """Look up a JSON pointer; None when nothing is there. Lists are not looked into: they are given as a whole."""
    for part in pointer.split("/")[1:]:
        if isinstance(value, list):
            return value
        value = value.get(_unescaped(part)) if isinstance(value, Mapping) else None
    return value


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def with_body(request: Request, body: Any) -> Request:
    """Give the request with another body."""
    content_type = request.content_type or "application/json"
    return replace(request, body=json.dumps(body).encode(), content_type=content_type)
