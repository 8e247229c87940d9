"""News of the legacy lock from its watch, as events of the election."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kopf_ha.core.election.events import LegacySeen
from kopf_ha.core.legacy_lock import LegacyLock
from kopf_ha.election.oneobject import OneObject


class LegacyNews(OneObject):
    """Reads what a `ListWatch` brings.

    Args:
        lock: which one.
        tell: takes the news.
        trouble: takes a sentence for what keeps the watch from working, and "" when it works.
    """

    def __init__(self, lock: LegacyLock, tell: Callable[[LegacySeen], None], trouble: Callable[[str], None]) -> None:
        super().__init__(str(lock), lock.collection, lock.name, trouble)
        self._lock = lock
        self._tell = tell

    def read(self, body: dict[str, Any] | None, version: str) -> None:
        """Tell of the lock, or that there is none."""
        record = self._lock.read(body) if body is not None else None
        # With an object its own version counts, not the list's: that one may be newer than my own next write.
        self._tell(LegacySeen(record, record.version if record else version))
