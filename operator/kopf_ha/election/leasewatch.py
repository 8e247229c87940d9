"""News of the Lease from its watch, as events of the election."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kopf_ha.core.election.events import LeaseSeen, LeaseUnusable
from kopf_ha.core.lease import LeaseRecord, lease_path
from kopf_ha.election.oneobject import OneObject, version_of
from kopf_ha.errors import MalformedLease
from kopf_ha.settings import Settings


class LeaseNews(OneObject):
    """Reads what a `ListWatch` brings.

    Args:
        settings: where the Lease is.
        tell: takes the news.
        trouble: takes a sentence for what keeps the watch from working, and "" when it works.
    """

    def __init__(
        self, settings: Settings, tell: Callable[[LeaseSeen | LeaseUnusable], None], trouble: Callable[[str], None]
    ) -> None:
        super().__init__(f"Lease {settings.lease}", lease_path(settings.lease_namespace), settings.lease_name, trouble)
        self._tell = tell

    def read(self, body: dict[str, Any] | None, version: str) -> None:
        """Tell of the Lease, or that there is none."""
        try:
            record = LeaseRecord.parse(body) if body is not None else None
        except MalformedLease as error:
            self._tell(LeaseUnusable(str(error), version_of(body or {})))
            return
        # With a Lease its own version counts, not the list's: that one may be newer than my own next write.
        self._tell(LeaseSeen(record, record.resource_version if record else version))
