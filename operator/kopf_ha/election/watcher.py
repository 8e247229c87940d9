"""The thread that tells the elector what happens to the Lease."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from kopf_ha._context import boottime
from kopf_ha.core.election.events import LeaseSeen, LeaseUnusable
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.election.client import LeaseClient
from kopf_ha.errors import ApiError, MalformedLease
from kopf_ha.settings import Settings

#: Bookmarks come about once a minute. After this silence the watch is taken for dead, and the LIST with
#: which the next one begins is the poll.
SILENCE = 90.0


class Watcher:
    """LIST, then watch from there, for ever. A LIST comes again only when a watch ended or fell silent.

    Args:
        settings: the Lease and the durations.
        client: for this thread alone; the watch occupies its connection.
        tell: takes the news; called in the watcher's thread.
        trouble: takes a sentence for what keeps the watch from working, and "" when it works.
        clock: seconds, on a clock that goes on while the machine sleeps.
    """

    def __init__(
        self,
        settings: Settings,
        client: LeaseClient,
        tell: Callable[[LeaseSeen | LeaseUnusable], None],
        trouble: Callable[[str], None],
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._settings = settings
        self._client = client
        self._tell = tell
        self._trouble = trouble
        self._clock = clock
        self.turned = clock()  #: when it last began something, or got something
        self.heard = -math.inf  #: when the server last told of the Lease, be it by a bookmark
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf-ha-election-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the thread, soon; nothing is told any more."""
        self._stopping.set()
        self._client.interrupt()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.turned = self._clock()
            begun = time.monotonic()
            try:
                self._watch_once()
                pause = 0.0
            except ApiError as e:
                # 410 is no trouble: the next LIST begins anew.
                pause = 0.0 if e.status == 410 else self._settings.retry_period
                if pause and not self._stopping.is_set():
                    self._trouble(str(e))
            except Exception as e:  # noqa: BLE001  without the watch nobody would notice a released Lease
                pause = self._settings.retry_period
                if not self._stopping.is_set():
                    self._trouble(f"the watch of Lease {self._settings.lease} failed: {e!r}")
            # A server that ends every watch at once must not be asked in a hot loop.
            if time.monotonic() - begun < self._settings.retry_period:
                pause = max(pause, self._settings.retry_period / 10)
            self._stopping.wait(pause * random.uniform(0.5, 1))  # noqa: S311
        self._client.close()

    def _watch_once(self) -> None:
        timeout = self._settings.renew_deadline / 2
        body, version = self._client.list(timeout)
        self.heard = self.turned = self._clock()
        self._send(body, version)
        self._trouble("")
        for event in self._client.watch(version, timeout, SILENCE):
            if self._stopping.is_set():
                return
            self.heard = self.turned = self._clock()
            body = event.get("object") or {}
            version = str((body.get("metadata") or {}).get("resourceVersion") or "")
            if event.get("type") in ("ADDED", "MODIFIED"):
                self._send(body, version)
            elif event.get("type") == "DELETED":
                self._send(None, version)

    def _send(self, body: dict[str, Any] | None, version: str) -> None:
        if self._stopping.is_set():
            return
        try:
            record = LeaseRecord.parse(body) if body is not None else None
        except MalformedLease as e:
            self._tell(LeaseUnusable(str(e), str((body or {}).get("metadata", {}).get("resourceVersion") or "")))
            return
        # With a Lease its own version counts, not the list's: that one may be newer than my own next write.
        self._tell(LeaseSeen(record, record.resource_version if record else version))
