"""One Lease over HTTP: read, write, list, watch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubernetes.client import ApiClient, CoordinationV1Api

from kopf_ha.core.lease import LeaseRecord
from kopf_ha.election.http import Client, Unreached
from kopf_ha.settings import Settings

__all__ = ["LeaseClient", "Unreached"]


class LeaseClient(Client):
    """The Lease of `settings`. Not for two threads at once, but for `interrupt`.

    Args:
        settings: where the Lease is.
        api: an `ApiClient` of one's own.
    """

    def __init__(self, settings: Settings, api: ApiClient) -> None:
        super().__init__(api, settings.lease_namespace, "the Lease", f"leases.coordination.k8s.io {settings.lease}")
        self._leases = CoordinationV1Api(api)
        self._settings = settings

    def read(self, timeout: float) -> LeaseRecord | None:
        """GET the Lease from the quorum; None when there is none.

        Raises:
            Unreached: no usable answer within `timeout` seconds.
            MalformedLease: it cannot be understood.
        """
        try:
            body = self._call("get", self._leases.read_namespaced_lease, timeout, self._settings.lease_name)
        except Unreached as e:
            if e.status == 404:
                return None
            raise
        return LeaseRecord.parse(body)

    def write(self, record: LeaseRecord, timeout: float) -> LeaseRecord:
        """PUT the record on its resourceVersion, or POST it when it has none.

        Raises:
            Unreached: `status` 409 is a conflict; a PUT answers 404 when the Lease is gone.
            MalformedLease: the answer cannot be understood.
        """
        s = self._settings
        body = record.as_object(s.lease_namespace, s.lease_name)
        if record.resource_version:
            answer = self._call("update", self._leases.replace_namespaced_lease, timeout, s.lease_name, body=body)
        else:
            answer = self._call("create", self._leases.create_namespaced_lease, timeout, body=body)
        return LeaseRecord.parse(answer)

    def list(self, timeout: float) -> tuple[dict[str, Any] | None, str]:
        """LIST the one Lease from the quorum: its object or None, and the resourceVersion to watch from.

        Raises:
            Unreached: no usable answer.
        """
        answer = self._call("list", self._leases.list_namespaced_lease, timeout, field_selector=self._selector)
        items = answer.get("items") or []
        return (items[0] if items else None), str(answer["metadata"]["resourceVersion"])

    def watch(self, version: str, timeout: float, silence: float) -> Iterator[dict[str, Any]]:
        """Give the watch's events, bookmarks too, until the server ends it.

        Args:
            version: where to begin.
            timeout: seconds to connect.
            silence: seconds without a byte after which the connection is taken for dead.

        Raises:
            Unreached: refused, broken, or silent for too long; `status` 410 when `version` is too old.
        """
        return self._watch(self._leases.list_namespaced_lease, version, timeout, silence, field_selector=self._selector)

    @property
    def _selector(self) -> str:
        return f"metadata.name={self._settings.lease_name}"
