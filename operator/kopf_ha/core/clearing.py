"""Keeps the stamp in a patch that removes everything around it, such as ``annotations: null`` (I1, I9).

In one merge patch nothing can be removed and set again. So the patch names what is there instead, each entry as null,
but for the stamps. It is conditioned on the revision whose entries it names, so its outcome is the caller's. A JSON
patch sets the stamps at its end, so there it is enough to know whether anything is left that they can be added to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from kopf_ha.core.asked import Asked, value_at
from kopf_ha.core.notes import is_stamp
from kopf_ha.core.wire import STRATEGIC_MERGE_PATCH


def is_clearing(asked: Asked, stamped: bool) -> bool:
    """Whether this is a merge patch that would remove the stamp with all that is around it.

    Args:
        asked: the write.
        stamped: whether its kind carries `status.fencing`.
    """
    return asked.request.is_merge_patch and any(_clears(asked, section) for section in _sections(asked, stamped))


def keep_stamp(asked: Asked, live: Mapping[str, Any], stamped: bool) -> Asked:
    """Return the write with a null for each entry that it removes, but for the stamps.

    Args:
        asked: a write that `is_clearing`.
        live: the object as it was just read.
        stamped: whether its kind carries `status.fencing`.
    """
    for section in _sections(asked, stamped):
        if _clears(asked, section):
            there = value_at(live, section) or {}
            stamps = {"fencing"} if stamped else {name for name in there if is_stamp(name)}
            asked = _with(asked, section, _nulls(there, value_at(asked.body, section), stamps))
    return asked


def is_left(patch: Iterable[Mapping[str, Any]], section: str) -> bool:
    """Return whether a JSON patch leaves a part of the object that was there, or makes it.

    Args:
        patch: its operations.
        section: a JSON pointer to the part, such as ``/metadata/annotations``.
    """
    left = True
    for op in patch:
        verb, path = op.get("op"), op.get("path")
        if (verb == "remove" and _contains(path, section)) or (verb == "move" and _contains(op.get("from"), section)):
            left = False
        if verb in ("add", "replace") and _contains(path, section):
            left = value_at(op.get("value"), section.removeprefix(str(path))) is not None
        elif verb in ("copy", "move") and _contains(path, section):
            left = True
    return left


def _sections(asked: Asked, stamped: bool) -> tuple[str, ...]:
    """Return JSON pointers to the parts of the object in which this write meets stamps."""
    if asked.part is None or not asked.part.shows_stamp:
        return ()
    if stamped:
        return ("/status",) if asked.is_status else ()
    return ("/metadata/annotations", "/metadata/labels")


def _clears(asked: Asked, section: str) -> bool:
    above, _, name = section.rpartition("/")
    parent = value_at(asked.body, above)
    if not isinstance(parent, Mapping) or name not in parent:
        return False
    value = parent[name]
    strategic = asked.request.content_type == STRATEGIC_MERGE_PATCH
    directive = value.get("$patch") if strategic and isinstance(value, Mapping) else None
    return value is None or directive in ("replace", "delete")


def _nulls(there: Mapping[str, Any], given: Any, stamps: Collection[str]) -> dict[str, Any]:
    """Return the patch that puts `given` in place of `there`: what it sets, and null for what goes."""
    own = {k: v for k, v in given.items() if k != "$patch"} if given and given["$patch"] == "replace" else {}
    return {**{name: None for name in there if name not in stamps}, **own}


def _with(asked: Asked, section: str, value: Any) -> Asked:
    above, _, name = section[1:].rpartition("/")
    changed = {above: {**asked.body[above], name: value}} if above else {name: value}
    return replace(asked, body={**asked.body, **changed})


def _contains(path: object, section: str) -> bool:
    return f"{section}/".startswith(f"{path}/")
