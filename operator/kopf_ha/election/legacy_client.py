"""Requests to the legacy lock. What becomes of each is an event of the election."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubernetes.client import ApiClient

from kopf_ha.api import Api, single_attempts
from kopf_ha.core.election.events import LegacyFailed, LegacySeen, LegacyWritten
from kopf_ha.core.legacy_lock import LegacyLock
from kopf_ha.errors import ApiError, ApiRefused

_PAUSED = "the process or the machine was paused before a request to the legacy lock"


def legacy_api(client: ApiClient) -> Api:
    """Give a client of the legacy lock; the retries of the `ApiClient` are switched off."""
    return Api(single_attempts(client), remedy="apply what `kopf-ha manifests --legacy-lock … --only rbac` writes")


class LegacyClient:
    """Writes the legacy lock, one request at a time.

    Args:
        lock: which one.
        api: a client of its own, as `legacy_api` gives it.
    """

    def __init__(self, lock: LegacyLock, api: Api) -> None:
        self._lock = lock
        self._api = api

    def write(self, body: Mapping[str, Any], timeout: float) -> LegacyWritten | LegacySeen | LegacyFailed:
        """PUT the object on its resourceVersion, or POST it when it has none, unless the time is over already.

        Args:
            body: what to write.
            timeout: seconds for the answer.

        Returns:
            What was written; or the lock as it is, if the write conflicts with that; or why there is no answer.
        """
        if timeout <= 0:
            return LegacyFailed(_PAUSED)
        exists = bool(body["metadata"].get("resourceVersion"))
        method, path = ("PUT", self._lock.path) if exists else ("POST", self._lock.collection)
        try:
            return LegacyWritten(self._lock.read(self._api.call(method, path, dict(body), timeout=timeout)))
        except ApiError as error:
            if error.status == 409 or (error.status == 404 and exists):
                return self._read(timeout)
            return LegacyFailed(str(error))

    def _read(self, timeout: float) -> LegacySeen | LegacyFailed:
        try:
            record = self._lock.read(self._api.call("GET", self._lock.path, timeout=timeout))
        except ApiRefused as error:
            return LegacySeen(None, "", read=True) if error.status == 404 else LegacyFailed(str(error))
        except ApiError as error:
            return LegacyFailed(str(error))
        return LegacySeen(record, record.version, read=True)

    def close(self) -> None:
        """Drop the connection."""
        self._api.close()
