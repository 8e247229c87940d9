"""What the watches of the Lease and of the legacy lock share: each is of one object, by its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from kopf_ha.api import Api


class OneObject(ABC):
    """Takes what a `ListWatch` brings of one object.

    Args:
        what: names it, for messages.
        collection: the API path of its collection.
        name: of the object.
        trouble: takes a sentence for what keeps the watch from working, and "" when it works.
    """

    def __init__(self, what: str, collection: str, name: str, trouble: Callable[[str], None]) -> None:
        self.what = what
        self.collection = collection
        self.trouble = trouble
        self._selector = {"fieldSelector": f"metadata.name={name}"}

    def selector(self, api: Api) -> Mapping[str, str] | None:
        """Select the one object."""
        return self._selector

    def listed(self, items: list[dict[str, Any]], version: str) -> None:
        """Tell of it, or that there is none."""
        self.read(items[0] if items else None, version)

    def changed(self, kind: str, body: dict[str, Any]) -> None:
        """Tell of its new revision, or that it was deleted."""
        self.read(None if kind == "DELETED" else body, version_of(body))

    @abstractmethod
    def read(self, body: dict[str, Any] | None, version: str) -> None:
        """Tell of one revision.

        Args:
            body: the object; None if there is none.
            version: resourceVersion of the news.
        """


def version_of(body: Mapping[str, Any]) -> str:
    """Return an object's resourceVersion; empty if it has none."""
    return str((body.get("metadata") or {}).get("resourceVersion") or "")
