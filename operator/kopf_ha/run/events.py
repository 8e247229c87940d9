"""Sends Kubernetes events about terms: on the Lease, and on this replica's Pod.

`kubectl describe` shows them. It looks for events by name, namespace, kind and uid of the object, so an event without
the uid is stored but not shown there.
"""

from __future__ import annotations

import datetime
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kopf_ha._context import outside
from kopf_ha.api import Api
from kopf_ha.errors import ConfigurationError, Unreached
from kopf_ha.settings import Settings

logger = logging.getLogger("kopf_ha.run")

#: Seconds to wait for an answer. Nothing depends on an event.
TIMEOUT = 5.0
#: The API server's limit for a note.
SHOWN = 1000
#: Events that may wait while the API server does not answer. Further ones are dropped.
WAITING = 100
#: The source, in the words of `kubectl describe`.
COMPONENT = "kopf-ha"


@dataclass(frozen=True, slots=True)
class About:
    """The object that events are about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""


def own_pod(settings: Settings) -> About | None:
    """Return this replica's Pod; None if the downward API does not name it."""
    if not settings.pod_name or not settings.pod_uid:
        return None
    return About("v1", "Pod", settings.pod_namespace, settings.pod_name, settings.pod_uid)


class Events:
    """Sends events in one thread, in order, by one client. An event that cannot be sent is dropped.

    Args:
        settings: of the replica that reports.
        make: makes an unfenced client, since the end of a term is reported, too.
    """

    def __init__(self, settings: Settings, make: Callable[[], Api]) -> None:
        self._instance = settings.identity.split("_")[0]
        self._make = make
        self._api: Api | None = None
        self._lock = threading.Lock()  #: of posting
        self._named = 0  #: the number in the newest one's name
        self._forbidden: set[str] = set()  #: where no events may be made, as was said once
        self._queue: queue.Queue[tuple[str, dict[str, object]]] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None

    def post(
        self, about: About, reason: str, message: str, *, warning: bool = False, notes: Mapping[str, str] | None = None
    ) -> None:
        """Send one, without waiting for the API server. From any thread; events are sent in the order of the calls.

        Args:
            about: the object.
            reason: one word.
            message: for people.
            warning: whether something is wrong.
            notes: annotations, for programs.
        """
        with self._lock:
            self._post(about, reason, message, warning, dict(notes or {}))

    def _post(self, about: About, reason: str, message: str, warning: bool, notes: dict[str, str]) -> None:
        # Named here, as client-go does, so that an event that is sent again is not stored twice. Two events of the same
        # moment need two names, or the second would get the 409 of one that is sent again.
        self._named = max(time.time_ns(), self._named + 1)
        wall = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        involved = {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
        }
        body: dict[str, object] = {
            "metadata": {"name": f"{about.name}.{self._named:x}", "namespace": about.namespace}
            | ({"annotations": notes} if notes else {}),
            "involvedObject": involved | ({"uid": about.uid} if about.uid else {}),
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message[:SHOWN],
            "source": {"component": COMPONENT, "host": self._instance},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
            "firstTimestamp": wall,
            "lastTimestamp": wall,
            "count": 1,
        }
        try:
            self._queue.put_nowait((f"/api/v1/namespaces/{about.namespace}/events", body))
        except queue.Full:
            logger.debug("event dropped: %d wait already", WAITING)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="kopf-ha-events", daemon=True)
            with outside():  # it lives longer than a term
                self._thread.start()

    def flush(self, timeout: float) -> None:
        """Wait until all events are sent, at most `timeout` seconds; for the end of the process."""
        with self._queue.all_tasks_done:
            self._queue.all_tasks_done.wait_for(lambda: not self._queue.unfinished_tasks, timeout)

    def _run(self) -> None:
        while True:
            path, body = self._queue.get()
            try:
                self._send(path, body)
            except (Unreached, ConfigurationError, OSError) as error:
                logger.debug("event dropped: %s", error)
            except Exception:
                logger.debug("event dropped", exc_info=True)
            finally:
                self._queue.task_done()

    def _send(self, path: str, body: dict[str, object]) -> None:
        if self._api is None:
            self._api = self._make()
        try:
            answer = self._api.request("POST", path, body, timeout=TIMEOUT)
        except Unreached:
            # Hours may pass between two events, and the connection may be dead by now.
            answer = self._api.request("POST", path, body, timeout=TIMEOUT)
        if answer.status == 403 and path not in self._forbidden:
            self._forbidden.add(path)
            logger.warning("events about terms are not posted, and all else goes on: %s", answer.message)
        elif not answer.ok and answer.status != 409:
            logger.debug("event dropped: %s %s", answer.status, answer.message)
