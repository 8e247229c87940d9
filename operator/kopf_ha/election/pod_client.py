"""Requests to the Pods of the replica's namespace."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from kubernetes.client import ApiClient

from kopf_ha.api import Api, single_attempts
from kopf_ha.errors import ApiRefused
from kopf_ha.settings import Settings

#: Seconds until something is tried again without permission, which may come while this runs.
REFUSED = 30.0


def pods_path(settings: Settings) -> str:
    """Give the path of the Pods in the replica's namespace."""
    return f"/api/v1/namespaces/{quote(settings.pod_namespace, safe='')}/pods"


def pod_api(settings: Settings, client: ApiClient) -> Api:
    """Give a client of the Pods; the retries of the `ApiClient` are switched off."""
    rule = f"in namespace {settings.pod_namespace} with pods: get, list, watch"
    return Api(
        single_attempts(client),
        remedy=f"apply the Role and the RoleBinding that `kopf-ha manifests` writes, {rule}",
    )


def read_pod(api: Api, settings: Settings, name: str) -> dict[str, Any] | None:
    """GET the Pod of this name from the quorum; None when there is none.

    Raises:
        ApiRefused: the request was refused.
        Unreached: there was no usable answer within half a renew deadline.
    """
    try:
        return api.call("GET", f"{pods_path(settings)}/{quote(name, safe='')}", timeout=settings.renew_deadline / 2)
    except ApiRefused as error:
        if error.status == 404:
            return None
        raise
