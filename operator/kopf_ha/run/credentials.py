"""An `ApiClient` for the cluster that this process belongs to: by the pod's service account, or by ``KUBECONFIG``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import kubernetes
import urllib3
import yaml

from kopf_ha.adapters.kubernetes_client import exempt
from kopf_ha.errors import ConfigurationError

#: Connections that a client keeps. The self-test alone asks eight questions at once, also twice side by side; urllib3
#: warns for each connection that it cannot keep, in the operator's log.
CONNECTIONS = 32


def make_client(user_agent: str, *, fenced: bool) -> Any:
    """Make an `ApiClient` with its own connections.

    Args:
        user_agent: as which it is seen in the API server's logs.
        fenced: its writes pass the fence.

    Raises:
        ConfigurationError: there are no credentials; the message names both ways to give them.
    """
    configuration = kubernetes.client.Configuration()
    configuration.connection_pool_maxsize = CONNECTIONS
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
