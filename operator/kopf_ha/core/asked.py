"""What a client asks for with one write."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import yaml

from kopf_ha.core.notes import noted, stamp_in
from kopf_ha.core.revisions import number
from kopf_ha.core.subresource import Part, part_of
from kopf_ha.core.target import Target, parse_path
from kopf_ha.core.token import MalformedStamp, Stamp, stamp_of
from kopf_ha.core.wire import Request
from kopf_ha.errors import Unfenced

#: The body of the merge patch of `/status` with which a client asks for the stamp and nothing else.
ONLY_STAMP: dict[str, Any] = {"status": {}}
#: The same for an object without `status.fencing`: a merge patch of the object.
ONLY_NOTE: dict[str, Any] = {"metadata": {"annotations": {}}}

VERSION_PATH = "/metadata/resourceVersion"
_UID_PATH = "/metadata/uid"
_FINALIZERS = "/metadata/finalizers"
_INT64 = re.compile(r"-?[0-9]{1,18}")

#: Directives of a strategic merge patch that remove what the patch does not name, such as the stamp.
REMOVING = frozenset({"$patch", "$retainKeys"})


@dataclass(frozen=True, slots=True)
class Asked:
    """One write as its client asks for it.

    Args:
        request: what the client wants to send.
        target: what it writes to.
        body: of the request, parsed; None for none.
        name: of the object, from the path or else from the body.
        version: the resourceVersion that the caller made a precondition; None for none.
        uid: the uid that the caller named; None if the write is for whichever object has the name.
        is_dry_run: the API server will change nothing.
    """

    request: Request
    target: Target
    body: Any
    name: str
    version: str | None
    uid: str | None
    is_dry_run: bool

    @classmethod
    def parse(cls, request: Request, target: Target) -> Asked:
        """Read a write.

        Raises:
            Unfenced: the fence cannot read its body (protobuf, CBOR), or the body's shape is not what its type says.
        """
        body = parse_body(request)
        part = part_of(target)
        return cls(
            request,
            target,
            body,
            name=target.name or _name_in(body),
            version=_version(request, body, part),
            uid=str(_precondition(request, body, part, "uid", _UID_PATH) or "") or None,
            is_dry_run=_is_dry_run(request, body, part),
        )

    def __str__(self) -> str:
        return f"{self.request.method} {self.target}"

    @property
    def part(self) -> Part | None:
        """What is written; None for a subresource that nobody decided about."""
        return part_of(self.target)

    @property
    def creates(self) -> bool:
        """Whether this is a POST to a collection."""
        return self.request.method == "POST" and not self.target.name

    @property
    def deletes(self) -> bool:
        """Whether this is a DELETE."""
        return self.request.method == "DELETE"

    @property
    def is_status(self) -> bool:
        """Whether this is a write of `/status`."""
        return self.target.subresource == "status"

    @property
    def is_only_stamp(self) -> bool:
        """Whether this write of `/status` changes nothing, so that the stamp is all that it brings."""
        return self.is_status and self.request.is_merge_patch and bool(self.body == ONLY_STAMP)

    @property
    def is_only_note(self) -> bool:
        """Whether this is the same for a kind without `status.fencing`: a write of the object that changes nothing."""
        return not self.target.subresource and self.request.is_merge_patch and bool(self.body == ONLY_NOTE)

    @property
    def replaces(self) -> bool:
        """Whether this is a PUT of the object, which some kinds accept without a resourceVersion, or as a creation."""
        return self.request.method == "PUT"

    @property
    def rewrites_metadata(self) -> bool:
        """Whether this is a JSON patch that replaces the object's metadata, and with it any resourceVersion in it."""
        return self.request.is_json_patch and any(
            op.get(place) in ("", "/metadata")
            for op in self.body
            if op.get("op") != "test"
            for place in ("path", "from")
        )

    @property
    def writes_status(self) -> bool:
        """Whether this may change the status: also through the object, as of kinds without the subresource."""
        if self.is_status:
            return True
        if self.target.subresource or self.deletes or self.creates:
            return False
        if isinstance(self.body, list):
            return any(str(op.get("path")).split("/")[1:2] in ([], ["status"]) for op in self.body)
        return "status" in (self.body or {})

    def is_met_by(self, current: Any) -> bool:
        """Whether this is a JSON patch that asks only for what the object `current` is like already."""
        if not isinstance(self.body, list):
            return False
        return all(_holds(operation, current) for operation in self.body)


def parse_body(request: Request) -> Any:
    """Parse the body of a write; None when it is empty.

    Raises:
        Unfenced: the fence cannot read it (protobuf, CBOR), or its shape is not what its type says.
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
    if request.is_json_patch:
        fits = isinstance(body, list) and all(isinstance(op, Mapping) for op in body)
    else:
        metadata = body.get("metadata") or {} if isinstance(body, Mapping) else None
        fits = isinstance(metadata, Mapping) and all(
            isinstance(metadata.get(section) or {}, Mapping) for section in ("annotations", "labels")
        )
        fits = fits or (body is None and request.method == "DELETE")
    if not fits:
        raise Unfenced(f"the body of the {request.method} is no object, or no list of operations, as its type says")
    return body


def delete_options(request: Request, body: Any) -> dict[str, Any]:
    """Return the options of a DELETE. The API server reads the query only if there is no body."""
    out: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
    if request.body:
        return {**out, **(body or {})}
    query = {k: v[0] for k, v in parse_qs(request.query).items()}
    if "propagationPolicy" in query:
        out["propagationPolicy"] = query["propagationPolicy"]
    if "gracePeriodSeconds" in query:
        seconds = query["gracePeriodSeconds"]  # what is none is the API server's to refuse
        out["gracePeriodSeconds"] = int(seconds) if _INT64.fullmatch(seconds) else seconds
    for name in ("orphanDependents", "ignoreStoreReadErrorWithClusterBreakingPotential"):
        if name in query:
            out[name] = query[name].lower() in ("true", "1")
    if query.get("uid"):
        out["preconditions"] = {"uid": query["uid"]}
    return out


def eviction_options(body: Any) -> Mapping[str, Any]:
    """Return the options of the deletion that an Eviction asks for.

    Raises:
        Unfenced: they are no object.
    """
    return _object(body.get("deleteOptions") if isinstance(body, Mapping) else None)


def carried(request: Request, lease: str) -> tuple[Stamp | None, str | None]:
    """Return the stamp and the resourceVersion that a write carries, for the log; None for what cannot be read.

    Args:
        request: as it was sent.
        lease: ``namespace/name`` of the writer's Lease.
    """
    try:
        body = parse_body(request)
        version = _version(request, body, Part.MAIN)
        if isinstance(body, list):
            body = _added(body)
        body, target = body or {}, parse_path(request.path)
        stamp = stamp_of(body)
        if stamp is None and target is not None:
            stamp = stamp_in(noted(body, target.kind), lease, target.kind)
        return stamp, version
    except (Unfenced, MalformedStamp):
        return None, None


def _added(patch: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a JSON patch of ours adds, as an object."""
    made: dict[str, Any] = {}
    for operation in patch:
        at = made
        *above, last = map(_unescaped, str(operation.get("path")).split("/")[1:] or [""])
        for part in above:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                break
        else:
            at[last] = operation.get("value")
    return made


def _parsed(request: Request) -> Any:
    try:
        return json.loads(request.body)
    except ValueError:
        if "yaml" not in request.content_type:
            raise
    body = yaml.safe_load(request.body)
    json.dumps(body)  # YAML knows dates, JSON does not
    return body


def _name_in(body: Any) -> str:
    metadata = body.get("metadata") if isinstance(body, Mapping) else None
    return str((metadata or {}).get("name") or "")


def _is_dry_run(request: Request, body: Any, part: Part | None) -> bool:
    # If a DELETE has a body, the API server does not read its query.
    if request.method == "DELETE" and request.body:
        given = body.get("dryRun") if isinstance(body, Mapping) else None
    else:
        given = parse_qs(request.query).get("dryRun")
        if part is Part.EVICTION and not given:
            given = eviction_options(body).get("dryRun")
    return isinstance(given, list) and bool(given) and all(value == "All" for value in given)


def _version(request: Request, body: Any, part: Part | None) -> str | None:
    # The API server compares numbers: "07" is 7, and "0" makes the write unconditional.
    value = str(_precondition(request, body, part, "resourceVersion", VERSION_PATH) or "")
    found = number(value)
    return (value if found is None else found[1]) or None


def _precondition(request: Request, body: Any, part: Part | None, name: str, path: str) -> Any:
    if request.method == "DELETE":
        given = _object(delete_options(request, body).get("preconditions"))
    elif body is None:
        return None
    elif isinstance(body, list):
        # An operation that sets the resourceVersion is one, too: the object that comes out is sent with it.
        tests = (op for op in body if op.get("path") == path and op.get("op") in ("test", "add", "replace"))
        return next((op.get("value") for op in tests), None)
    elif part is Part.EVICTION:
        given = _object(eviction_options(body).get("preconditions"))
    else:
        given = body.get("metadata") or {}
    return given.get(name)


def _object(given: Any) -> Mapping[str, Any]:
    if not isinstance(given or {}, Mapping):
        raise Unfenced("the options of a deletion, or its preconditions, are no object")
    return given or {}


def _holds(op: Mapping[str, Any], current: Any) -> bool:
    verb, path = op.get("op"), str(op.get("path"))
    if path == VERSION_PATH:
        return bool(verb == "test")
    above, _, last = path.rpartition("/")
    parent = value_at(current, above)
    if isinstance(parent, list):
        # What an index means depends on the revision. Only the order of finalizers has no meaning.
        return verb == "add" and above == _FINALIZERS and op.get("value") in parent
    name = _unescaped(last)
    if verb == "remove":
        return parent is None or (isinstance(parent, Mapping) and name not in parent)
    return (
        verb in ("add", "replace", "test")
        and isinstance(parent, Mapping)
        and (name in parent and parent[name] == op.get("value"))
    )


def value_at(value: Any, pointer: str) -> Any:
    """Look up a JSON pointer; None when nothing is there. A pointer into a list gives the whole list."""
    for part in pointer.split("/")[1:]:
        if isinstance(value, list):
            return value
        value = value.get(_unescaped(part)) if isinstance(value, Mapping) else None
    return value


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")
