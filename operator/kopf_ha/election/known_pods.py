"""What the watching thread and the judging thread know of the Pods, under one lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kopf_ha.core.siblings import Siblings


class KnownPods:
    """The Pods of the replicas, and whether my own is on its way out.

    Args:
        me: uid of my own Pod.
        deleted: takes a sentence when my own Pod is being deleted, once.
    """

    def __init__(self, me: str, deleted: Callable[[str], None]) -> None:
        self._siblings = Siblings(me)
        self._deleted = deleted
        self._lock = threading.Lock()
        self.leaving = False

    @contextmanager
    def locked(self) -> Iterator[Siblings]:
        """Give the Pods to one thread at a time. No request is sent meanwhile."""
        with self._lock:
            yield self._siblings

    def leave(self, cause: str) -> None:
        """Say that my own Pod is being deleted, or was. Whoever notices it first is heard."""
        with self._lock:
            first, self.leaving = not self.leaving, True
        if first:
            self._deleted(cause)
