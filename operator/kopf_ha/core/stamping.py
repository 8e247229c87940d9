"""Requests that bring the stamp and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kopf_ha.core.change import with_body
from kopf_ha.core.known import Revision
from kopf_ha.core.notes import as_metadata, noted, notes_of, pointer
from kopf_ha.core.target import Target
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import JSON_PATCH, MERGE_PATCH, Request


def stamp_revision(path: str, target: Target, mine: Stamp, at: Revision, *, stamped: bool) -> Request:
    """Return the request that stamps an object at one revision.

    Args:
        path: of the object.
        target: the object.
        mine: this term's stamp.
        at: the revision whose recorded stamps were judged.
        stamped: whether the kind carries `status.fencing`.
    """
    body: dict[str, Any] = {"metadata": {"resourceVersion": at.version}}
    if stamped:
        path += "/status"
        body["status"] = {"fencing": mine.as_status()}
    else:
        body["metadata"] |= as_metadata(notes_of(mine, target.kind, at.notes))
    return with_body(Request("PATCH", path, content_type=MERGE_PATCH), body)


def note_alone(path: str, metadata: Mapping[str, Any], target: Target, mine: Stamp) -> Request:
    """Return the same as `stamp_alone` for an object without `status.fencing`.

    Only operators write the stamp where a policy protects it. Elsewhere nothing may be decided from such an object.

    Args:
        path: of the object.
        metadata: of the object as it was judged; of a part that is missing, the object has nothing.
        target: the object.
        mine: this term's stamp.
    """
    patch: list[dict[str, Any]] = []
    notes = notes_of(mine, target.kind, noted({"metadata": metadata}, target.kind))
    for section, texts in as_metadata(notes).items():
        if metadata.get(section) is None:
            where = f"/metadata/{section}"
            patch += [{"op": "test", "path": where, "value": None}, {"op": "add", "path": where, "value": texts}]
    for note in notes:
        if (there := metadata.get(note.section)) is not None:
            where, was = pointer(note), there.get(note.name)
            patch += [{"op": "test", "path": where, "value": was}, {"op": "add", "path": where, "value": note.text}]
    return with_body(Request("PATCH", path, content_type=JSON_PATCH), patch)


def stamp_alone(path: str, status: object, mine: Stamp) -> Request:
    """Return the request that stamps an object of a stamped kind, conditioned on its stamp and not on its revision.

    A deciding object has to be stamped before anything is decided from it (I4). Whoever may edit its spec can outdate
    each revision before it is used, seven times a second or more. But only operators write the stamp. So a JSON patch
    tests that the stamp is still the one that was judged. The API server applies the patch to the revision that it
    replaces, and again if another write was faster. So no edit keeps the stamp out (I10), and no token goes down (I1).

    Args:
        path: of the object.
        status: of the object as it was judged; anything but a mapping for none.
        mine: this term's stamp.
    """
    fencing = mine.as_status()
    if isinstance(status, Mapping):
        was, where, value = status.get("fencing"), "/status/fencing", fencing
    else:
        was, where, value = None, "/status", {"fencing": fencing}
    # To an API server null equals a missing value (tried).
    patch = [{"op": "test", "path": where, "value": was}, {"op": "add", "path": where, "value": value}]
    return with_body(Request("PATCH", f"{path}/status", content_type=JSON_PATCH), patch)
