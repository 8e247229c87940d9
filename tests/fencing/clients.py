"""One request by each of the three clients, as their users make them."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import kopf
import kubernetes
import pykube
import urllib3

from kopf_ha.adapters.kopf_client import fenced_credentials

T = TypeVar("T")
MERGE = "application/merge-patch+json"
#: Sends one request and gives its status and body.
Send = Callable[..., tuple[int, Any]]


def by_kubernetes(target: str, **configured: Any) -> Send:
    """A client for a kubeconfig file, or for a plain URL."""
    configuration = kubernetes.client.Configuration()
    if target.startswith("http"):
        configuration.host = target
    else:
        kubernetes.config.load_kube_config(target, client_configuration=configuration)
    for name, value in configured.items():
        setattr(configuration, name, value)
    api = kubernetes.client.ApiClient(configuration)

    def send(
        method: str, path: str, body: Any = None, content_type: str = "application/json", accept: str = ""
    ) -> tuple[int, Any]:
        url, headers = api.configuration.host + path, {"Content-Type": content_type, "Accept": accept or "*/*"}
        got = api.rest_client.request(method, url, headers, body)
        return got.status, parsed(got.read())

    return send


def by_pykube(target: str) -> Send:
    load = pykube.KubeConfig.from_url if target.startswith("http") else pykube.KubeConfig.from_file
    config = load(target)
    api = pykube.HTTPClient(config)

    def send(
        method: str, path: str, body: Any = None, content_type: str = "application/json", accept: str = ""
    ) -> tuple[int, Any]:
        headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})
        raw = None if body is None else json.dumps(body)
        got = api.session.request(method, api.url + path, data=raw, headers=headers)
        return got.status_code, parsed(got.content)

    return send


def connection(target: str) -> kopf.ConnectionInfo:
    """Kopf's credentials, as its own login handlers make them."""
    if target.startswith("http"):
        return kopf.ConnectionInfo(server=target)
    config = pykube.KubeConfig.from_file(target)
    return kopf.ConnectionInfo(
        server=config.cluster["server"],
        ca_path=config.cluster["certificate-authority"].filename(),
        certificate_path=config.user["client-certificate"].filename(),
        private_key_path=config.user["client-key"].filename(),
    )


def own_session(target: str) -> Any:
    """What an operator's own login handler may return."""
    info = connection(target)
    context = info.as_ssl_context() or ssl.create_default_context()
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
    return kopf.AiohttpSession(server=info.server, aiohttp_session=session)


def by_aiohttp(target: str, make: Callable[[str], Any] = connection) -> Send:
    """The session that Kopf writes with."""

    def send(
        method: str, path: str, body: Any = None, content_type: str = "application/json", accept: str = ""
    ) -> tuple[int, Any]:
        headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})

        async def one(session: aiohttp.ClientSession, server: str) -> tuple[int, Any]:
            raw = None if body is None else json.dumps(body).encode()
            async with session.request(method, server + path, data=raw, headers=headers) as got:
                return got.status, parsed(await got.read())

        return in_session(target, one, make)

    return send


def in_session(target: str, fn: Callable[[aiohttp.ClientSession, str], Awaitable[T]], make: Any = connection) -> T:
    async def main() -> T:
        info: Any = fenced_credentials(make(target))
        try:
            return await fn(info.aiohttp_session, info.server)
        finally:
            await info.aiohttp_session.close()

    return asyncio.run(main())


def parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw


CLIENTS: dict[str, Callable[[str], Send]] = {"kubernetes": by_kubernetes, "pykube": by_pykube, "kopf": by_aiohttp}
#: What each client raises when a connection breaks.
BROKEN = (urllib3.exceptions.HTTPError, OSError, aiohttp.ClientError)

__all__ = ["BROKEN", "CLIENTS", "MERGE", "Path", "Send", "by_aiohttp", "by_kubernetes", "by_pykube", "in_session"]
