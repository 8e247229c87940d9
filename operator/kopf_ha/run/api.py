"""Plain JSON requests by the `kubernetes` client, for the little that the layer itself asks of the cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes
import urllib3
import yaml

from kopf_ha.adapters.kubernetes_client import exempt
from kopf_ha.core.wire import Response
from kopf_ha.errors import ConfigurationError

#: Seconds between attempts at a list. An API server that meets a custom kind for the first time answers 429.
WAITS = (0.1, 0.2, 0.4, 0.8)
#: Items a list asks for at a time, as client-go does.
PAGE = 500


def make_client(user_agent: str, *, fenced: bool) -> Any:
    """Make an `ApiClient` of its own connections, from the pod's service account or ``KUBECONFIG``.

    Raises:
        ConfigurationError: there are no credentials; the sentence names both ways.
    """
    configuration = kubernetes.client.Configuration()
    if os.environ.get("KUBERNETES_SERVICE_HOST") and Path("/var/run/secrets/kubernetes.io/serviceaccount").exists():
        kubernetes.config.load_incluster_config(client_configuration=configuration)
    else:
        # The client looks at KUBECONFIG when it is imported, which may be long ago.
        given = os.environ.get("KUBECONFIG") or None
        try:
            kubernetes.config.load_kube_config(config_file=given, client_configuration=configuration)
        # The last two: a file with something else in it.
        except (kubernetes.config.ConfigException, OSError, yaml.YAMLError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                "no credentials for a cluster: run inside of a pod with a service account, or name a kubeconfig"
                f" file in KUBECONFIG ({given or '~/.kube/config'}: {error})"
            ) from error
    # Attempts are the caller's decision: a PUT that urllib3 replays could land after the term.
    configuration.retries = urllib3.Retry(0, redirect=3) if fenced else False
    client = kubernetes.client.ApiClient(configuration)
    client.user_agent = user_agent
    return client if fenced else exempt(client)


class Api:
    """One client and its requests as bytes; answers of 4xx and 5xx are answers, not exceptions.

    Args:
        client: an `ApiClient`; whether it is fenced is its own matter.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "", timeout: float = 30
    ) -> Response:
        """Send one request.

        Raises:
            urllib3.exceptions.HTTPError: no answer within `timeout` seconds, no connection.
            Refused: a fenced client's write was refused.
        """
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type or "application/json"
        call = self.client.param_serialize(
            method, path, header_params=headers, query_params=[], body=body, auth_settings=["BearerToken"]
        )
        try:
            got = self.client.call_api(*call, _request_timeout=timeout)
        except kubernetes.client.ApiException as error:  # what the client makes of a TLS error
            raise urllib3.exceptions.SSLError(str(error.reason)) from error
        return Response(got.status, got.read(), got)

    def items(self, path: str) -> Iterator[dict[str, Any]]:
        """List objects with a consistent read, page by page.

        Raises:
            LookupError: the list was refused; the message is the server's.
        """
        cursor = ""
        while True:
            answer = self._page(f"{path}?limit={PAGE}" + (f"&continue={cursor}" if cursor else ""))
            if not answer.ok:
                raise LookupError(f"cannot list {path}: {answer.status} {answer.message}")
            data = answer.json
            yield from data.get("items") or ()
            cursor = (data.get("metadata") or {}).get("continue") or ""
            if not cursor:
                return

    def _page(self, path: str) -> Response:
        """Ask for one page; a server that is about to be ready (429, 503) is asked again a few times."""
        for wait in WAITS:
            answer = self.request("GET", path)
            if answer.status not in (429, 503):
                return answer
            time.sleep(wait)
        return self.request("GET", path)
