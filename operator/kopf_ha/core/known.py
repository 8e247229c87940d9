"""What this process knows of objects, so that the steady state costs no extra request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kopf_ha.core.token import Stamp, stamp_of

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """One object at one revision."""

    uid: str
    version: str
    stamp: Stamp | None


def seen_of(body: Mapping[str, Any], *, stamped: bool) -> Seen | None:
    """Take from an object what the fence needs; None when the body is none (a `Status`, an empty answer).

    Raises:
        MalformedStamp: the stamp is there, but not whole.
    """
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping) or not metadata.get("resourceVersion") or not metadata.get("uid"):
        return None
    return Seen(
        uid=str(metadata["uid"]),
        version=str(metadata["resourceVersion"]),
        stamp=stamp_of(body, stamped=stamped),
    )


class Known:
    """The newest revision known of each object.

    Being wrong costs a conflict and a read, never safety: what is known only conditions a write, and the API
    server compares. Values are immutable and each call is one step on a dict, so threads may share it.
    """

    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self._seen: OrderedDict[Key, Seen] = OrderedDict()

    def get(self, key: Key) -> Seen | None:
        """Give what is known of an object."""
        return self._seen.get(key)

    def learn(self, key: Key, seen: Seen) -> None:
        """Keep what was seen, unless something newer is known: a watch lags behind our own writes."""
        old = self._seen.get(key)
        if old is not None and old.uid == seen.uid and _older(seen.version, old.version):
            return
        self._seen[key] = seen
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)

    def forget(self, key: Key) -> None:
        """Drop what is known; the next write reads first."""
        self._seen.pop(key, None)

    def clear(self) -> None:
        """Drop everything, at the start of a term."""
        self._seen.clear()

    def __len__(self) -> int:
        return len(self._seen)


def _older(a: str, b: str) -> bool:
    # resourceVersions of one kind are ordered decimal numbers (KEP-5504); anything else is taken as it comes.
    return a.isdecimal() and b.isdecimal() and int(a) < int(b)
