"""The stamp alone, as compare-and-swap on the stamp that was judged and not on the revision.

A deciding object has to be stamped before anything is decided from it (I4), and whoever may edit its spec can make
each revision old before it is used, seven times a second or more. Nobody but operators writes the stamp. So a JSON
patch tests that it is still the one that was judged. The API server applies it to the very revision that it
replaces, and again when somebody else was faster: no edit keeps it out (I10), and no token goes down (I1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kopf_ha.core.change import JSON_PATCH, is_merge
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request

#: The body of the merge patch of `/status` that asks for the stamp and for nothing else.
ALONE: dict[str, Any] = {"status": {}}


def asks_for_stamp_alone(request: Request, body: Any) -> bool:
    """Whether a write of `/status` changes nothing, so that the stamp is all that it brings."""
    return is_merge(request) and body == ALONE


def stamp_alone(path: str, status: object, mine: Stamp) -> Request:
    """Give the request that stamps one object of a stamped kind.

    Args:
        path: of the object's `/status`.
        status: of the object as it was judged; anything but a mapping for none.
        mine: the stamp to write.
    """
    fencing = mine.as_status()
    if isinstance(status, Mapping):
        was, where, value = status.get("fencing"), "/status/fencing", fencing
    else:
        was, where, value = None, "/status", {"fencing": fencing}
    # For an API server null is what is not there (tried).
    patch = [{"op": "test", "path": where, "value": was}, {"op": "add", "path": where, "value": value}]
    return Request("PATCH", path, content_type=JSON_PATCH, body=json.dumps(patch).encode())
