"""One request by each client, as their users make them."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import easykube
import httpx
import httpx2
import kopf
import kr8s.asyncio
import kubernetes
import kubernetes.aio.client
import kubernetes.aio.config
import kubernetes_asyncio.client
import kubernetes_asyncio.config
import lightkube
import pykube
import requests
import urllib3
from kopf._cogs.clients.auth import APIContext
from lightkube.config.models import Cluster, User

from kopf_ha.adapters.kopf_client import fenced_vault

T = TypeVar("T")
MERGE = "application/merge-patch+json"
#: Sends one request and gives its status and body.
Send = Callable[..., tuple[int, Any]]


def by_kubernetes(target: str, token: str = "", **configured: Any) -> Send:
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
        headers |= {"Authorization": f"bearer {token}"} if token else {}
        got = api.rest_client.request(method, url, headers, body)
        return got.status, parsed(got.read())

    return send


def by_pykube(target: str, token: str = "") -> Send:
    load = pykube.KubeConfig.from_url if target.startswith("http") else pykube.KubeConfig.from_file
    config = load(target)
    if token:
        config.doc["users"] = [{"name": "self", "user": {"token": token}}]
        config.doc["contexts"][0]["context"]["user"] = "self"
    api = pykube.HTTPClient(config)

    def send(
        method: str, path: str, body: Any = None, content_type: str = "application/json", accept: str = ""
    ) -> tuple[int, Any]:
        headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})
        raw = None if body is None else json.dumps(body)
        got = api.session.request(method, api.url + path, data=raw, headers=headers)
        return got.status_code, parsed(got.content)

    return send


def by_requests(target: str, token: str = "") -> Send:
    """As the client `k8s` does."""
    session = requests.Session()
    session.headers.update({"Authorization": f"Bearer {token}"} if token else {})
    if not target.startswith("http"):
        info = connection(target)
        target, session.verify = info.server, str(info.ca_path)
        session.cert = (str(info.certificate_path), str(info.private_key_path))

    def send(
        method: str, path: str, body: Any = None, content_type: str = "application/json", accept: str = ""
    ) -> tuple[int, Any]:
        headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})
        got = session.request(method, target + path, data=None if body is None else json.dumps(body), headers=headers)
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


def by_aiohttp(target: str, make: Callable[[str], Any] = connection, token: str = "") -> Send:
    """The session that Kopf writes with."""
    if token:
        make = lambda target: kopf.ConnectionInfo(server=target, token=token)  # noqa: E731

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
        """As Kopf does for each of its requests."""
        vault = fenced_vault()
        await vault.populate({"login": make(target)})
        try:
            _, _, context = await anext(vault.extended(APIContext, "contexts"))
            return await fn(context.session, context.server)
        finally:
            await vault.close()

    return asyncio.run(main())


def by_kr8s(target: str, token: str = "") -> Send:
    """The async client of httpx."""
    given = {"url": target} if target.startswith("http") else {"kubeconfig": target}

    def send(
        method: str, path: str, body: Any = None, content_type: str = "application/json", accept: str = ""
    ) -> tuple[int, Any]:
        async def one() -> tuple[int, Any]:
            api = kr8s.asyncio.Api(bypass_factory=True, **given)
            await api.auth
            api.auth.token = token or None
            base, _, last = path.rpartition("/")
            headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})
            raw = None if body is None else json.dumps(body)
            call = api.call_api(
                method, version="", base=base, url=last, raise_for_status=False, content=raw, headers=headers
            )
            try:
                async with call as got:
                    return got.status_code, parsed(got.content)
            finally:
                assert api._session is not None
                await api._session.aclose()  # it has no method for that

        return asyncio.run(one())

    return send


def by_easykube(target: str, token: str = "") -> Send:
    """The blocking client of httpx."""
    if target.startswith("http"):
        client = easykube.SyncClient(base_url=target, headers={"authorization": f"bearer {token}"} if token else {})
    else:
        client = easykube.Configuration.from_kubeconfig(target).sync_client()

    def send(
        method: str, path: str, body: Any = None, content_type: str = "application/json", accept: str = ""
    ) -> tuple[int, Any]:
        headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})
        try:
            got = client.request(method, path, content=None if body is None else json.dumps(body), headers=headers)
        except easykube.ApiError as error:
            got = error.response
        return got.status_code, parsed(got.content)

    return send


def by_lightkube(target: str, token: str = "t") -> Send:
    """The blocking client of httpx2."""
    client = lightkube.Client(config=_lightkubes(target, token))

    def send(
        method: str, path: str, body: Any = None, content_type: str = "application/json", accept: str = ""
    ) -> tuple[int, Any]:
        headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})
        raw = None if body is None else json.dumps(body)
        got = client._client._client.request(method, path, content=raw, headers=headers)
        return got.status_code, parsed(got.content)

    return send


def by_lightkube_async(target: str, token: str = "t") -> Send:
    """The async client of httpx2."""

    def send(
        method: str, path: str, body: Any = None, content_type: str = "application/json", accept: str = ""
    ) -> tuple[int, Any]:
        async def one() -> tuple[int, Any]:
            client = lightkube.AsyncClient(config=_lightkubes(target, token))
            headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})
            raw = None if body is None else json.dumps(body)
            try:
                got = await client._client._client.request(method, path, content=raw, headers=headers)
                return got.status_code, parsed(got.content)
            finally:
                await client.close()

        return asyncio.run(one())

    return send


def _lightkubes(target: str, token: str) -> Any:
    if not target.startswith("http"):
        return lightkube.KubeConfig.from_file(target)
    return lightkube.KubeConfig.from_one(cluster=Cluster(server=target), user=User(token=token))


def by_kubernetes_asyncio(target: str, token: str = "") -> Send:
    return _by_generated(target, kubernetes_asyncio, token, _preload_content=False)


def by_kubernetes_aio(target: str, token: str = "") -> Send:
    return _by_generated(target, kubernetes.aio, token)


def _by_generated(target: str, library: Any, token: str, **options: Any) -> Send:
    def send(
        method: str, path: str, body: Any = None, content_type: str = "application/json", accept: str = ""
    ) -> tuple[int, Any]:
        async def one() -> tuple[int, Any]:
            configuration = library.client.Configuration()
            if target.startswith("http"):
                configuration.host = target
            else:
                await library.config.load_kube_config(target, client_configuration=configuration)
            async with library.client.ApiClient(configuration) as api:
                headers = {"Content-Type": content_type, "Accept": accept or "*/*"}
                headers |= {"Authorization": f"Bearer {token}"} if token else {}
                url = configuration.host + path
                got = await api.rest_client.request(method, url, headers=headers, body=body, **options)
                return got.status, parsed(await got.read())

        return asyncio.run(one())

    return send


def parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw


CLIENTS: dict[str, Callable[..., Send]] = {
    "kubernetes": by_kubernetes,
    "pykube": by_pykube,
    "requests": by_requests,
    "kopf": by_aiohttp,
    "kr8s": by_kr8s,
    "easykube": by_easykube,
    "lightkube": by_lightkube,
    "lightkube async": by_lightkube_async,
    "kubernetes_asyncio": by_kubernetes_asyncio,
    "kubernetes.aio": by_kubernetes_aio,
}
#: As what metrics and the log know them, if it is another name.
REPORTED = {"kr8s": "httpx", "easykube": "httpx", "lightkube": "httpx2", "lightkube async": "httpx2"}
#: What each client raises when a connection breaks.
BROKEN = (
    urllib3.exceptions.HTTPError,
    OSError,
    aiohttp.ClientError,
    httpx.HTTPError,
    httpx2.HTTPError,
    kr8s.APITimeoutError,
)

__all__ = [
    "BROKEN",
    "CLIENTS",
    "MERGE",
    "REPORTED",
    "Path",
    "Send",
    "by_aiohttp",
    "by_kr8s",
    "by_kubernetes",
    "by_lightkube",
    "by_pykube",
    "in_session",
]
