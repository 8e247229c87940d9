"""News of the legacy lock from its watch, as events of the election."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kopf_ha.api import Api
from kopf_ha.core.election.events import LegacySeen
from kopf_ha.core.legacy_lock import LegacyLock


class LegacyNews:
    """Reads what a `ListWatch` brings.

    Args:
        lock: which one.
        tell: takes the news.
        trouble: takes a sentence for what keeps the watch from working, and "" when it works.
    """

    def __init__(self, lock: LegacyLock, tell: Callable[[LegacySeen], None], trouble: Callable[[str], None]) -> None:
        self.what = str(lock)
        self.collection = lock.collection
        self.trouble = trouble
        self._lock = lock
        self._tell = tell

    def selector(self, api: Api) -> Mapping[str, str] | None:
        """Select the one object."""
        return {"fieldSelector": f"metadata.name={self._lock.name}"}

    def listed(self, items: list[dict[str, Any]], version: str) -> None:
        """Tell of the lock, or that there is none."""
        self._read(items[0] if items else None, version)

    def changed(self, kind: str, body: dict[str, Any]) -> None:
        """Tell of its new revision, or that it was deleted."""
        version = str((body.get("metadata") or {}).get("resourceVersion") or "")
        self._read(None if kind == "DELETED" else body, version)

    def _read(self, body: dict[str, Any] | None, version: str) -> None:
        record = self._lock.read(body) if body is not None else None
        # With an object its own version counts, not the list's: that one may be newer than my own next write.
        self._tell(LegacySeen(record, record.version if record else version))
