"""Requests to the Lease. What becomes of each is an event of the election."""

from __future__ import annotations

from kubernetes.client import ApiClient

from kopf_ha.api import Api, single_attempts
from kopf_ha.core.election import events
from kopf_ha.core.lease import LeaseRecord, lease_path
from kopf_ha.errors import ApiError, ApiRefused, MalformedLease
from kopf_ha.settings import Settings

_PAUSED = "the process or the machine was paused before a request to the Lease"


def lease_api(client: ApiClient) -> Api:
    """Give a client of the Lease; the retries of the `ApiClient` are switched off."""
    return Api(single_attempts(client), rbac="deploy/")


class LeaseClient:
    """Reads and writes the Lease of `settings`, one request at a time.

    Args:
        settings: where the Lease is.
        api: a client of its own, as `lease_api` gives it.
    """

    def __init__(self, settings: Settings, api: Api) -> None:
        self._settings = settings
        self._api = api
        self._collection = lease_path(settings.lease_namespace)
        self._path = lease_path(settings.lease_namespace, settings.lease_name)

    def read(self, timeout: float) -> events.LeaseSeen | events.LeaseUnusable | events.ReadFailed:
        """GET the Lease from the quorum, unless the time is over already.

        Args:
            timeout: seconds for the answer.
        """
        if timeout <= 0:
            return events.ReadFailed(_PAUSED)
        try:
            record = LeaseRecord.parse(self._api.call("GET", self._path, timeout=timeout))
        except MalformedLease as error:
            return events.LeaseUnusable(str(error), read=True)
        except ApiRefused as error:
            return events.LeaseSeen(None, "", read=True) if error.status == 404 else events.ReadFailed(str(error))
        except ApiError as error:
            return events.ReadFailed(str(error))
        return events.LeaseSeen(record, record.resource_version, read=True)

    def write(
        self, record: LeaseRecord, timeout: float
    ) -> events.Written | events.Conflict | events.Failed | events.Denied:
        """PUT the record on its resourceVersion, or POST it when it has none, unless the time is over already.

        Args:
            record: what to write.
            timeout: seconds for the answer.

        Returns:
            `Denied` if the write certainly did not happen, `Failed` if it may have, or may happen later.
        """
        if timeout <= 0:
            return events.Denied(_PAUSED)
        body = record.as_object(self._settings.lease_namespace, self._settings.lease_name)
        method, path = ("PUT", self._path) if record.resource_version else ("POST", self._collection)
        try:
            return events.Written(LeaseRecord.parse(self._api.call(method, path, body, timeout=timeout)))
        except MalformedLease as error:
            return events.Failed(str(error))
        except ApiError as error:
            # A PUT answers 404 when the Lease is gone.
            if error.status == 409 or (error.status == 404 and record.resource_version):
                return events.Conflict()
            return events.Denied(str(error)) if error.definite else events.Failed(str(error))

    def close(self) -> None:
        """Drop the connection."""
        self._api.close()
