"""The adapter for pykube-ng: the method of its requests adapter that every attempt passes, also after a 401."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from kopf_ha.adapters.requests_client import send_fenced


def fenced_send(adapter: HTTPAdapter, prepared: requests.PreparedRequest, **options: Any) -> requests.Response:
    """Send one attempt of a request. A write goes through the fence, whatever its URL."""
    return send_fenced("pykube", adapter, prepared, **options)


def install() -> None:
    """Fence every `pykube.HTTPClient`, also those that exist already."""
    from pykube.http import KubernetesHTTPAdapter

    KubernetesHTTPAdapter._do_send = fenced_send
