"""The changes that the fence makes to a request: preconditions and stamps, for each way to write.

These are pure functions. They change nothing in place, since a client may send its own body again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kopf_ha.core.asked import REMOVING, VERSION_PATH, Asked, delete_options
from kopf_ha.core.known import Revision
from kopf_ha.core.notes import Note, as_metadata, notes_of, others_in, pointer
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request
from kopf_ha.errors import Unfenced

#: A resourceVersion that no object has. An apply with it creates, or conflicts with an existing object (tried).
NO_VERSION = "1"


def fenced(asked: Asked, mine: Stamp, found: Revision, *, stamped: bool, version: str, uid: str) -> Request:
    """Return the write with its precondition, and with the stamp where this kind of write can carry one.

    Args:
        asked: what the client asked for.
        mine: this term's stamp.
        found: the revision whose stamp was judged.
        stamped: whether the kind carries `status.fencing`.
        version: the resourceVersion to condition it on, in place of the caller's own if there is one.
        uid: of the object at that revision.

    Raises:
        Unfenced: the write would remove the stamp.
    """
    body = conditional(asked, version=version, uid=uid)
    if not asked.deletes:
        if not stamped:
            # On /status, too: there most built-in kinds take annotations, and a PUT without them removes the stamp.
            others = others_in(found.notes, mine.lease, asked.target.kind)
            body = with_notes(asked.request, body, notes_of(mine, asked.target.kind, others), others)
        elif asked.target.subresource:
            body = with_stamp(body, mine)
    return with_body(asked.request, body)


def creation(asked: Asked, mine: Stamp, *, stamped: bool) -> Request:
    """Return the write as one that creates an object and never changes an existing one.

    A child carries its stamp from the start. An object of a stamped kind cannot, since it has no status yet.
    """
    body = asked.body
    if asked.request.is_apply:
        body = {**body, "metadata": {**(body.get("metadata") or {}), "resourceVersion": NO_VERSION}}
    if not stamped:
        body = with_notes(asked.request, body, notes_of(mine, asked.target.kind))
    return with_body(asked.request, body)


def conditional(asked: Asked, *, version: str, uid: str) -> Any:
    """Return the body with `version` as its precondition, in place of the caller's own if there is one."""
    body = asked.body
    if asked.deletes:
        out = delete_options(asked.request, body)
        preconditions: Mapping[str, Any] = out.get("preconditions") or {}
        given = {k: v for k, v in preconditions.items() if v}
        out["preconditions"] = {"uid": uid, **given, "resourceVersion": version}
        return out
    if isinstance(body, list):
        # This replaces only the test that the caller was conditioned on. A second, different test goes on failing.
        own = ("test", VERSION_PATH, asked.version)
        rest = [op for op in body if (op.get("op"), op.get("path"), op.get("value")) != own]
        return [{"op": "test", "path": VERSION_PATH, "value": version}, *rest]
    out = dict(body)
    out["metadata"] = {**(out.get("metadata") or {}), "resourceVersion": version}
    if asked.request.is_apply:
        # With the resourceVersion alone, an apply recreates an object that was deleted in the meantime.
        out["metadata"]["uid"] = uid
    return out


def with_stamp(body: Any, mine: Stamp) -> Any:
    """Return the body of a status write with the stamp (I1).

    Raises:
        Unfenced: the write would remove the stamp.
    """
    if isinstance(body, list):
        return [*body, {"op": "add", "path": "/status/fencing", "value": mine.as_status()}]
    out = dict(body)
    if "status" in out and not isinstance(out["status"], Mapping):
        raise Unfenced("a write that removes the whole status would remove its stamp; null its fields one by one")
    out["status"] = {**out.get("status", {}), "fencing": mine.as_status()}
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
        return [*body, *({"op": "add", "path": pointer(note), "value": note.text} for note in notes)]
    out: dict[str, Any] = dict(body or {})
    metadata = out["metadata"] = dict(out.get("metadata") or {})
    for section, texts in as_metadata(notes).items():
        given = metadata.get(section)
        if request.is_merge_patch and (
            (given is None and section in metadata)
            or not all(REMOVING.isdisjoint(part) for part in (out, metadata, given or {}))
        ):
            raise Unfenced(f"a patch that removes all {section} would remove the stamp; null them one by one")
        metadata[section] = {**(given or {}), **texts}
    return out


def with_body(request: Request, body: Any) -> Request:
    """Return the request with another body."""
    content_type = request.content_type or "application/json"
    return replace(request, body=json.dumps(body).encode(), content_type=content_type)
