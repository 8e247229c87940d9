"""The operator of benchmarks.tokens: every client writes every few seconds, and was made once, when the term began.

It knows nothing of kopf-ha. Each ConfigMap with the label `by` is written by the client that it names.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import asyncio
import inspect
import logging
import os
import time
from pathlib import Path

import easykube
import httpx
import kopf
import kubernetes.aio.client
import kubernetes.aio.config
import kubernetes.dynamic
import kubernetes_asyncio.client
import kubernetes_asyncio.config
import lightkube
import pykube
import requests
from kr8s.asyncio.objects import ConfigMap
from lightkube.resources import core_v1
from lightkube.types import PatchType

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MERGE = "application/merge-patch+json"
MAPS = "/api/v1/namespaces/{}/configmaps/{}"

logger = logging.getLogger("tokens")


def typed():
    kubernetes.config.load_incluster_config()
    core = kubernetes.client.CoreV1Api()

    def write(name, namespace, body):
        core.read_namespaced_config_map(name, namespace)
        core.patch_namespaced_config_map(name, namespace, body)

    return write


def dynamic():
    kubernetes.config.load_incluster_config()
    maps = kubernetes.dynamic.DynamicClient(kubernetes.client.ApiClient()).resources.get(
        api_version="v1", kind="ConfigMap"
    )

    def write(name, namespace, body):
        maps.get(name=name, namespace=namespace)
        maps.patch(name=name, namespace=namespace, body=body, content_type=MERGE)

    return write


def by_pykube():
    api = pykube.HTTPClient(pykube.KubeConfig.from_service_account())
    return lambda name, namespace, body: pykube.ConfigMap.objects(api, namespace).get_by_name(name).patch(body)


def _headers():
    return {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}", "Content-Type": MERGE}


def _server():
    return f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"


def by_requests():
    session = requests.Session()
    session.headers.update(_headers())
    session.verify = str(ACCOUNT / "ca.crt")
    session.trust_env = False  # REQUESTS_CA_BUNDLE would win

    def write(name, namespace, body):
        url = _server() + MAPS.format(namespace, name)
        session.get(url).raise_for_status()
        session.patch(url, json=body).raise_for_status()

    return write


def by_httpx():
    verify = httpx.create_ssl_context(verify=str(ACCOUNT / "ca.crt"))
    client = httpx.AsyncClient(base_url=_server(), headers=_headers(), verify=verify)

    async def write(name, namespace, body):
        path = MAPS.format(namespace, name)
        (await client.get(path)).raise_for_status()
        (await client.patch(path, json=body, headers={"Content-Type": MERGE})).raise_for_status()

    return write


def by_kr8s():
    async def write(name, namespace, body):
        await (await ConfigMap.get(name, namespace=namespace)).patch(body)

    return write


def by_lightkube():
    client = lightkube.Client()

    def write(name, namespace, body):
        client.get(core_v1.ConfigMap, name, namespace=namespace)
        client.patch(core_v1.ConfigMap, name, body, namespace=namespace, patch_type=PatchType.MERGE)

    return write


def by_easykube():
    maps = easykube.Configuration.from_serviceaccount().sync_client().api("v1").resource("configmaps")

    def write(name, namespace, body):
        maps.fetch(name, namespace=namespace)
        maps.json_merge_patch(name, body, namespace=namespace)

    return write


def _generated(library):
    library.config.load_incluster_config()
    core = library.client.CoreV1Api(library.client.ApiClient())

    async def write(name, namespace, body):
        await core.read_namespaced_config_map(name, namespace)
        await core.patch_namespaced_config_map(name, namespace, body, _content_type=MERGE)

    return write


def by_kubernetes_asyncio():
    return _generated(kubernetes_asyncio)


def by_kubernetes_aio():
    return _generated(kubernetes.aio)


MAKERS = {
    "typed": typed,
    "dynamic": dynamic,
    "pykube": by_pykube,
    "requests": by_requests,
    "httpx": by_httpx,
    "kr8s": by_kr8s,
    "lightkube": by_lightkube,
    "easykube": by_easykube,
    "kubernetes-asyncio": by_kubernetes_asyncio,
    "kubernetes-aio": by_kubernetes_aio,
}


@kopf.on.startup()
async def begin(settings, memo, **_):
    settings.posting.enabled = False
    settings.scanning.disabled = True
    memo.writers = {name: make() for name, make in MAKERS.items()}


@kopf.timer("configmaps", interval=5, labels={"by": kopf.PRESENT})
async def write(name, namespace, labels, patch, memo, **_):
    by, body = labels["by"], {"data": {"at": str(time.time())}}
    if by == "kopf":
        patch.update(body)
        return
    try:
        writer = memo.writers[by]
        if inspect.iscoroutinefunction(writer):
            await writer(name, namespace, body)
        else:
            await asyncio.to_thread(writer, name, namespace, body)
    except Exception as error:  # noqa: BLE001  as operators do
        logger.error("%s failed: %s: %s", by, type(error).__name__, error)
