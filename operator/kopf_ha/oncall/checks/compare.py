"""Compares what was written with what an API server stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What an API server fills in where a policy or a binding says nothing. The names are nowhere used for anything else.
_FILLED_IN: Mapping[str, Any] = {
    "matchPolicy": "Equivalent",
    "namespaceSelector": {},
    "objectSelector": {},
    "scope": "*",
    "conversion": {"strategy": "None"},
}


def difference(written: Any, stored: Any, path: str = "") -> str:
    """Return where an object differs from what was written; empty if it does not.

    Args:
        written: what this version writes.
        stored: what is there. What the API server fills in does not count.
        path: of both in their object.
    """
    if isinstance(written, Mapping) and isinstance(stored, Mapping):
        for key in dict.fromkeys((*written, *stored)):
            at = f"{path}.{key}" if path else str(key)
            if key not in written:
                if stored[key] not in (None, _FILLED_IN.get(key)):
                    return at
            elif found := difference(written[key], stored.get(key, _FILLED_IN.get(key)), at):
                return found
        return ""
    if isinstance(written, list) and isinstance(stored, list):
        if len(written) != len(stored):
            return path
        pairs = enumerate(zip(written, stored, strict=True))
        return next((found for n, (w, s) in pairs if (found := difference(w, s, f"{path}[{n}]"))), "")
    return "" if written == stored else path


def missing(wanted: Any, stored: Any, path: str = "") -> str:
    """Return where an object lacks something that it needs; empty if it has all. It may have more."""
    if isinstance(wanted, Mapping):
        if not isinstance(stored, Mapping):
            return path
        items = ((value, stored.get(key), f"{path}.{key}" if path else str(key)) for key, value in wanted.items())
        return next((found for value, there, at in items if (found := missing(value, there, at))), "")
    if isinstance(wanted, list) and isinstance(stored, list) and len(wanted) == len(stored):
        pairs = enumerate(zip(wanted, stored, strict=True))
        return next((found for n, (w, s) in pairs if (found := missing(w, s, f"{path}[{n}]"))), "")
    return "" if wanted == stored else path or "."
