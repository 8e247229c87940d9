"""News of the Lease from its watch, as events of the election."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kopf_ha.api import Api
from kopf_ha.core.election.events import LeaseSeen, LeaseUnusable
from kopf_ha.core.lease import LeaseRecord, lease_path
from kopf_ha.errors import MalformedLease
from kopf_ha.settings import Settings


class LeaseNews:
    """Reads what a `ListWatch` brings.

    Args:
        settings: where the Lease is.
        tell: takes the news.
        trouble: takes a sentence for what keeps the watch from working, and "" when it works.
    """

    def __init__(
        self, settings: Settings, tell: Callable[[LeaseSeen | LeaseUnusable], None], trouble: Callable[[str], None]
    ) -> None:
        self.what = f"Lease {settings.lease}"
        self.collection = lease_path(settings.lease_namespace)
        self.trouble = trouble
        self._selector = {"fieldSelector": f"metadata.name={settings.lease_name}"}
        self._tell = tell

    def selector(self, api: Api) -> Mapping[str, str] | None:
        """Select the one Lease."""
        return self._selector

    def listed(self, items: list[dict[str, Any]], version: str) -> None:
        """Tell of the Lease, or that there is none."""
        self._read(items[0] if items else None, version)

    def changed(self, kind: str, body: dict[str, Any]) -> None:
        """Tell of its new revision, or that it was deleted."""
        self._read(None if kind == "DELETED" else body, _version(body))

    def _read(self, body: dict[str, Any] | None, version: str) -> None:
        try:
            record = LeaseRecord.parse(body) if body is not None else None
        except MalformedLease as error:
            self._tell(LeaseUnusable(str(error), _version(body or {})))
            return
        # With a Lease its own version counts, not the list's: that one may be newer than my own next write.
        self._tell(LeaseSeen(record, record.resource_version if record else version))


def _version(body: dict[str, Any]) -> str:
    return str((body.get("metadata") or {}).get("resourceVersion") or "")
