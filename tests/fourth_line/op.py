"""An operator without stamps: each widget gets a ConfigMap by `kubernetes` and a Secret by kr8s.

What it saw goes to the file `SEEN`, a line for each run of its handler and for each write.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import asyncio
import json
import os
import time

import kopf
import kr8s.asyncio
import kubernetes

import kopf_ha
from tests.fourth_line.support import GROUP

SEEN = os.environ["SEEN"]


CONFIGURATION = kubernetes.client.Configuration()
kubernetes.config.load_kube_config(os.environ["KUBECONFIG"], client_configuration=CONFIGURATION)


@kopf.on.startup()
async def configure(settings, memo, **_):
    memo.api = kr8s.asyncio.Api(bypass_factory=True, kubeconfig=os.environ["KUBECONFIG"])
    await memo.api.auth
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.posting.enabled = False
    settings.scanning.disabled = True


def tell(name, **what):
    line = json.dumps({"name": name, "token": kopf_ha.current_term().token, "at": time.time(), **what}) + "\n"
    file = os.open(SEEN, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line.encode())
    os.close(file)


def config_map(name, namespace):
    with kubernetes.client.ApiClient(CONFIGURATION) as api:  # a connection of its own, to whichever API server
        core = kubernetes.client.CoreV1Api(api)
        try:
            return core.create_namespaced_config_map_with_http_info(namespace, {"metadata": {"name": name}})[1]
        except kubernetes.client.ApiException as error:
            return error.status


async def secret(api, name, namespace):
    body = json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}})
    headers = {"Content-Type": "application/json"}
    # A write waits until a late API server has heard of the term. The client's own limit must not end that.
    more = {"content": body, "headers": headers, "timeout": 60}
    async with api.call_api("POST", namespace=namespace, url="secrets", raise_for_status=False, **more) as got:
        return got.status_code


@kopf.on.create(GROUP, "v1", "widgets")
async def made(name, namespace, patch, memo, **_):
    tell(name, ran=True)
    for what in ("config map", "secret"):
        try:
            if what == "secret":
                status = await secret(memo.api, name, namespace)
            else:
                status = await asyncio.to_thread(config_map, name, namespace)
        except asyncio.CancelledError:
            tell(name, ended="CancelledError")
            raise
        except Exception as error:
            tell(name, ended=f"{type(error).__name__}: {error}")
            raise
        tell(name, wrote=what, status=status)
    patch.status["done"] = "yes"
