"""Has Kopf store the status of an object before it notes there that it has handled it: a takeover loses nothing.

In one cycle Kopf sends two writes: what it notes in the object (its annotations), and then what the handlers left for
the status. If the term ends between the two, the second is never stored. In Kopf's own order the status is then lost
for good, since the next leader reads in the object that all has been handled. In this order the next leader calls the
handlers again, as Kopf promises: at least once (I7).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from kopf._cogs.clients import patching
from kopf._cogs.structs import patches

_patch_obj: Any = patching.patch_obj
_Change = Callable[[Any], None]


async def _patch_status_first(*, settings: Any, resource: Any, patch: Any, **given: Any) -> Any:
    """Send what concerns the status first; take and give what Kopf's `patch_obj` does.

    Without the wait for its own patch (`consistency_timeout`; older releases have none), Kopf would take the status for
    somebody's change, and call the handlers twice. Then the order stays as it is.
    """
    changes: Sequence[_Change] = tuple(getattr(patch, "fns", ()))  # since Kopf 1.44
    status, notes = _only_status(patch), _all_but_status(patch)
    has_status = "status" in resource.subresources and (status or changes)
    if not (notes and has_status and getattr(settings.persistence, "consistency_timeout", None)):
        return await _patch_obj(settings=settings, resource=resource, patch=patch, **given)
    parts = _InTwo(changes)
    first = _patch(status, patch, [parts.of_status] if changes else [])
    answer = await _patch_obj(settings=settings, resource=resource, patch=first, **given)
    if changes:
        # A conflict leaves them for the next cycle, which Kopf has to know of: so they go to Kopf as they are.
        conflict = isinstance(answer, tuple) and answer[1]
        changes = changes if conflict else [parts.of_all_else]
    return await _patch_obj(settings=settings, resource=resource, patch=_patch(notes, patch, changes), **given)


def _patch(values: dict[str, Any], whole: Any, changes: Sequence[_Change]) -> Any:
    """Make a patch for the object that `whole` is for."""
    made = patches.Patch(values, body=whole._original)
    if changes:
        made.fns.extend(changes)
    return made


class _InTwo:
    """Functions that change an object, called twice: once for its status, once for all else.

    Both times they meet the status as it was before them, since they need not bear what they made of it themselves.
    """

    def __init__(self, changes: Sequence[_Change]) -> None:
        self._changes = changes
        self._met: Any = {}

    def of_status(self, body: Any) -> None:
        self._met = copy.deepcopy(_only_status(body))
        _put(body, _all_but_status(body) | _only_status(self._changed(body)))

    def of_all_else(self, body: Any) -> None:
        _put(body, _all_but_status(self._changed(_all_but_status(body) | self._met)) | _only_status(body))

    def _changed(self, body: Any) -> Any:
        changed = copy.deepcopy(body)
        for change in self._changes:
            change(changed)
        return changed


def _only_status(body: Any) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key == "status"}


def _all_but_status(body: Any) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != "status"}


def _put(body: Any, made: dict[str, Any]) -> None:
    body.clear()
    body.update(made)


def store_status_first() -> None:
    """Have Kopf do so from now on. It has no place for it, and looks the function up in its module at each call."""
    patching.patch_obj = _patch_status_first
