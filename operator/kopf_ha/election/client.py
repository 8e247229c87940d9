"""One Lease at the API server: read, write, list, watch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from kubernetes.client import ApiClient

from kopf_ha.api import Api, single_attempts
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.errors import ApiRefused
from kopf_ha.settings import Settings


class LeaseClient:
    """The Lease of `settings`. Not for two threads at once, but for `interrupt`.

    Args:
        settings: where the Lease is.
        client: an `ApiClient` for this object alone; its retries are switched off.
    """

    def __init__(self, settings: Settings, client: ApiClient) -> None:
        self._settings = settings
        self._api = Api(single_attempts(client), rbac="deploy/")
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{quote(settings.lease_namespace, safe='')}/leases"
        self._path = f"{self._collection}/{quote(settings.lease_name, safe='')}"
        self._selector = {"fieldSelector": f"metadata.name={settings.lease_name}"}

    def read(self, timeout: float) -> LeaseRecord | None:
        """GET the Lease from the quorum; None when there is none.

        Raises:
            ApiRefused: the request was refused.
            Unreached: no usable answer within `timeout` seconds.
            MalformedLease: the Lease cannot be understood.
        """
        try:
            return LeaseRecord.parse(self._api.call("GET", self._path, timeout=timeout))
        except ApiRefused as e:
            if e.status == 404:
                return None
            raise

    def write(self, record: LeaseRecord, timeout: float) -> LeaseRecord:
        """PUT the record on its resourceVersion, or POST it when it has none.

        Raises:
            ApiRefused: `status` 409 is a conflict; a PUT answers 404 when the Lease is gone.
            Unreached: no usable answer within `timeout` seconds.
            MalformedLease: the answer cannot be understood.
        """
        body = record.as_object(self._settings.lease_namespace, self._settings.lease_name)
        method, path = ("PUT", self._path) if record.resource_version else ("POST", self._collection)
        return LeaseRecord.parse(self._api.call(method, path, body, timeout=timeout))

    def list(self, timeout: float) -> tuple[dict[str, Any] | None, str]:
        """LIST the one Lease from the quorum: its object or None, and the resourceVersion to watch from.

        Raises:
            ApiRefused: the request was refused.
            Unreached: no usable answer within `timeout` seconds.
        """
        page = next(self._api.pages(self._collection, self._selector, timeout=timeout))
        items = page.get("items") or []
        return (items[0] if items else None), str(page["metadata"]["resourceVersion"])

    def watch(self, version: str, timeout: float, silence: float) -> Iterator[dict[str, Any]]:
        """Give the watch's events, bookmarks too, until the server ends it.

        Args:
            version: where to begin.
            timeout: seconds to connect.
            silence: seconds without a byte after which the connection is taken for dead.

        Raises:
            ApiRefused: refused; `status` 410 when `version` is too old.
            Unreached: not connected, broken, or silent for too long.
        """
        query = {**self._selector, "resourceVersion": version}
        return self._api.stream(self._collection, query, timeout=timeout, silence=silence)

    def interrupt(self) -> None:
        """End a `watch` that another thread is blocked in, and any later one."""
        self._api.interrupt()

    def close(self) -> None:
        """Drop the connections."""
        self._api.close()
