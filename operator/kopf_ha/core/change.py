"""The changes that the fence makes to a request: preconditions and stamps, for each way to write.

These are pure functions. They change nothing in place, since a client may send its own body again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kopf_ha.core.asked import REMOVING, VERSION_PATH, Asked, delete_options, eviction_options
from kopf_ha.core.clearing import is_left
from kopf_ha.core.known import Revision
from kopf_ha.core.notes import Note, as_metadata, escaped, notes_of, others_in
from kopf_ha.core.subresource import Part
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import STRATEGIC_MERGE_PATCH, Request
from kopf_ha.errors import Unfenced

#: A resourceVersion that no object has. An apply with it creates, or conflicts with an existing object (tried).
NO_VERSION = "1"


def fenced(asked: Asked, mine: Stamp, at: Revision, *, stamped: bool, meant: bool = True) -> Request:
    """Return the write with its precondition, and with the stamp where this kind of write can carry one.

    Args:
        asked: what the client asked for.
        mine: this term's stamp.
        at: the revision to condition it on, in place of the caller's own if there is one. Its stamps were judged.
        stamped: whether the kind carries `status.fencing`.
        meant: False if the caller's own precondition is known to fail. Then a JSON patch gets no operations for the
            stamp, whose failure would hide the caller's.

    Raises:
        Unfenced: the write would remove the stamp.
    """
    body = conditional(asked, version=at.version, uid=at.uid)
    if carries_stamp(asked) and (meant or not isinstance(body, list)):
        if not stamped:
            # On /status, too: there most built-in kinds take annotations, and a PUT without them removes the stamp.
            kind = asked.target.kind
            others = others_in(at.notes, mine.lease, kind)
            body = with_notes(asked.request, body, notes_of(mine, kind, at.notes), others)
        elif asked.target.subresource:
            body = with_stamp(body, mine)
    return with_body(asked.request, body)


def carries_stamp(asked: Asked) -> bool:
    """Whether the body is the object itself, which may carry the stamp, and so may the answer."""
    return asked.part in (Part.MAIN, Part.WHOLE) and not asked.deletes


def creation(asked: Asked, mine: Stamp, *, stamped: bool) -> Request:
    """Return the write as one that creates an object and never changes an existing one.

    A child carries its stamp from the start. An object of a stamped kind cannot, since it has no status yet.
    """
    request, body = asked.request, asked.body
    if request.is_apply:
        body = {**body, "metadata": {**(body.get("metadata") or {}), "resourceVersion": NO_VERSION}}
    elif asked.replaces:
        request = replacement(asked)
        body = request.json
    if not stamped:
        body = with_notes(request, body, notes_of(mine, asked.target.kind))
    return with_body(request, body)


def replacement(asked: Asked) -> Request:
    """Return the POST that makes what a PUT would make of an object that does not exist; it never replaces one."""
    metadata = {k: v for k, v in (asked.body.get("metadata") or {}).items() if k not in ("resourceVersion", "uid")}
    collection = asked.request.path.rstrip("/").rpartition("/")[0]
    body = {**asked.body, "metadata": {**metadata, "name": asked.target.name}}
    return with_body(replace(asked.request, method="POST", path=collection), body)


def dry(asked: Asked, mine: Stamp, *, stamped: bool) -> Request:
    """Return the write as a dry run of the same write, without a precondition of the fence's."""
    request = asked.request
    if asked.deletes:
        return with_body(request, {**delete_options(request, asked.body), "dryRun": ["All"]})
    query = f"{request.query}&dryRun=All" if request.query else "dryRun=All"
    body = asked.body
    if carries_stamp(asked) and not stamped:
        body = with_notes(request, body, notes_of(mine, asked.target.kind))
    return replace(with_body(request, body), query=query)


def conditional(asked: Asked, *, version: str, uid: str) -> Any:
    """Return the body with `version` as its precondition, in place of the caller's own if there is one."""
    body = asked.body
    if asked.deletes:
        return _with_preconditions(delete_options(asked.request, body), version, uid)
    if isinstance(body, list):
        return _conditional_patch(asked, version)
    if asked.part is Part.EVICTION:
        return {**body, "deleteOptions": _with_preconditions(eviction_options(body), version, uid)}
    out = dict(body)
    out["metadata"] = {**(out.get("metadata") or {}), "resourceVersion": version}
    if asked.request.is_apply or asked.replaces or asked.part is Part.BINDING:
        # With the resourceVersion alone, an apply, and a PUT of some kinds, recreates an object that was deleted.
        out["metadata"]["uid"] = uid
    return out


def _with_preconditions(options: Mapping[str, Any], version: str, uid: str) -> dict[str, Any]:
    given = {k: v for k, v in (options.get("preconditions") or {}).items() if v}
    return {**options, "preconditions": {"uid": uid, **given, "resourceVersion": version}}


def _conditional_patch(asked: Asked, version: str) -> list[Any]:
    body: list[Any] = asked.body
    test = {"op": "test", "path": VERSION_PATH, "value": version}
    own = ("test", VERSION_PATH, asked.version)
    rest = [op for op in body if (op.get("op"), op.get("path"), op.get("value")) != own]
    if len(rest) < len(body) or asked.rewrites_metadata:
        # This replaces only the test that the caller was conditioned on. A second, different test goes on failing.
        return [test, *rest]
    # The API server applies the patch to the newest revision, and compares the resourceVersion of what comes out. So an
    # operation that fails there, a 422, is the caller's own, and the precondition fails with a 409.
    return [*body, {"op": "add", "path": VERSION_PATH, "value": version}]


def with_stamp(body: Any, mine: Stamp) -> Any:
    """Return the body of a status write with the stamp (I1).

    Raises:
        Unfenced: the write would remove the stamp.
    """
    if isinstance(body, list):
        return [*body, *_added("/status", {"fencing": mine.as_status()}, body)]
    out = dict(body)
    given = out.get("status")
    if not isinstance(given, Mapping | None):
        raise Unfenced("a status that is no object has no place for its stamp")
    out["status"] = {**(given or {}), "fencing": mine.as_status()}
    return out


def with_notes(request: Request, body: Any, notes: list[Note], others: tuple[Note, ...] = ()) -> Any:
    """Return the body of a write to a child with the stamp in its metadata.

    Args:
        request: what the client wants to send.
        body: its body.
        notes: this term's.
        others: of other Leases, as recorded at the revision that the write is conditioned on. A write that may replace
            all annotations keeps them (I1).

    Raises:
        Unfenced: the write would remove the stamp.
    """
    if request.method == "PUT" or isinstance(body, list):
        notes = [*notes, *others]
    if isinstance(body, list):
        many = as_metadata(notes).items()
        return [*body, *(op for name, texts in many for op in _added(f"/metadata/{name}", texts, body))]
    out: dict[str, Any] = dict(body or {})
    metadata = out["metadata"] = dict(out.get("metadata") or {})
    for section, texts in as_metadata(notes).items():
        given = metadata.get(section)
        strategic = request.content_type == STRATEGIC_MERGE_PATCH
        if strategic and not all(REMOVING.isdisjoint(part) for part in (out, metadata, given or {})):
            raise Unfenced(f"a patch with such a directive may remove the stamp in {section}; null them one by one")
        metadata[section] = {**(given or {}), **texts}
    return out


def _added(section: str, entries: Mapping[str, Any], patch: list[Any]) -> list[dict[str, Any]]:
    """Return the operations that add entries to a part of the object, at the end of a JSON patch."""
    if not is_left(patch, section):
        return [{"op": "add", "path": section, "value": entries}]
    return [{"op": "add", "path": f"{section}/{escaped(name)}", "value": value} for name, value in entries.items()]


def with_body(request: Request, body: Any) -> Request:
    """Return the request with another body."""
    content_type = request.content_type or "application/json"
    return replace(request, body=json.dumps(body).encode(), content_type=content_type)
