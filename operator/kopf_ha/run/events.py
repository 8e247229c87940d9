"""Terms as Kubernetes events on the Lease, where `kubectl describe lease` shows who led, and why it ended."""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable

import urllib3

from kopf_ha.errors import ConfigurationError
from kopf_ha.run.api import Api
from kopf_ha.settings import Settings

logger = logging.getLogger("kopf_ha.run")

#: Seconds to wait for one at most. It is news, and nothing depends on it.
TIMEOUT = 5.0
#: The API server's limit for a note.
SHOWN = 1000


class Events:
    """Sends events in threads of their own; one that cannot be sent is dropped.

    Args:
        settings: the Lease that they are about, and who tells.
        make: gives the client; an unfenced one, since a term that is over has something to tell, too.
    """

    def __init__(self, settings: Settings, make: Callable[[], Api]) -> None:
        self._settings = settings
        self._make = make
        self._last: threading.Thread | None = None

    def post(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Send one, without waiting."""
        s, now = self._settings, datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "metadata": {"generateName": f"{s.lease_name}.", "namespace": s.lease_namespace},
            "involvedObject": {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "name": s.lease_name,
                "namespace": s.lease_namespace,
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message[:SHOWN],
            "source": {"component": "kopf-ha", "host": s.identity.split("_")[0]},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._last = threading.Thread(target=self._send, args=(body,), name="kopf-ha-event", daemon=True)
        self._last.start()

    def flush(self, timeout: float) -> None:
        """Wait for the last one, since the process is about to end."""
        if self._last is not None:
            self._last.join(timeout)

    def _send(self, body: dict[str, object]) -> None:
        try:
            path = f"/api/v1/namespaces/{self._settings.lease_namespace}/events"
            answer = self._make().request("POST", path, body, timeout=TIMEOUT)
            if not answer.ok:
                logger.debug("no event: %s %s", answer.status, answer.message)
        except (urllib3.exceptions.HTTPError, ConfigurationError) as error:
            logger.debug("no event: %s", error)
