"""The clients of the parity suite's operator, called as their users call them.

Each takes a namespace and a `Write` and gives the status that its user sees, or ``ok`` if it shows none; of a ``get``,
the object. The operator imports this module, so it imports nothing of kopf-ha.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import kr8s
import kr8s.asyncio
import kubernetes
import kubernetes.dynamic
import kubernetes_asyncio.client
import kubernetes_asyncio.config
import lightkube
import pykube
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta, Status
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap
from lightkube.types import PatchType

from tests.parity.shapes import APPLY, GROUP, JSON_PATCH, KINDS, MERGE, STRATEGIC, Write

MANAGER = "mine"
Seen = int | str | dict[str, Any]


#: The part of a generated client with a built-in kind, and the kind's name in its methods.
_BUILT_IN = {
    "configmaps": ("CoreV1Api", "config_map"),
    "deployments": ("AppsV1Api", "deployment"),
    "pods": ("CoreV1Api", "pod"),
}


def _method(
    library: Any, api: Any, namespace: str, write: Write
) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    """Give the generated method for a write, and its arguments."""
    child = write.plural in _BUILT_IN
    verb = "delete_collection" if write.verb == "collection" else write.verb
    part, thing = _BUILT_IN.get(write.plural, ("CustomObjectsApi", "custom_object"))
    sub = f"_{write.sub}" if write.sub else ""
    names = [write.name] if write.sub or write.verb not in ("create", "collection") else []
    args: list[Any] = [*names, namespace] if child else [GROUP, "v1", namespace, write.plural, *names]
    args += [write.body] if write.body is not None else []
    more: dict[str, Any] = {"label_selector": f"cell={write.name}"} if write.verb == "collection" else {}
    if write.content_type:
        more["_content_type"] = write.content_type
    if write.content_type == APPLY:
        more |= {"field_manager": MANAGER, "force": write.force}
    name = f"{verb}_namespaced_{thing}{sub}" if child or verb != "get" else f"get_namespaced_{thing}"
    if child and verb == "get":
        name = f"read_namespaced_{thing}"
    return getattr(getattr(library, part)(api), name + "_with_http_info"), args, more


@cache
def _kubernetes() -> Any:
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(os.environ["KUBECONFIG"], client_configuration=configuration)
    configuration.connection_pool_maxsize = 50
    return kubernetes.client.ApiClient(configuration)


def typed(namespace: str, write: Write) -> Seen:
    """`kubernetes`, its typed part."""
    api = _kubernetes()
    method, args, more = _method(kubernetes.client, api, namespace, write)
    got = method(*args, **more)
    return dict(api.sanitize_for_serialization(got[0])) if write.verb == "get" else int(got[1])


@cache
def _dynamic() -> Any:
    return kubernetes.dynamic.DynamicClient(_kubernetes())


def dynamic(namespace: str, write: Write) -> Seen:
    """`kubernetes`, its dynamic client, which shows no status of what went well."""
    kind, api = KINDS[write.plural]
    resource = _dynamic().resources.get(api_version=api, kind=kind)
    resource = resource.subresources[write.sub] if write.sub else resource
    where = {"namespace": namespace, "name": write.name}
    if write.verb == "get":
        return dict(resource.get(**where).to_dict())
    if write.verb == "collection":
        resource.delete(namespace=namespace, label_selector=f"cell={write.name}")
    elif write.verb == "delete":
        resource.delete(**where)
    elif write.verb == "create":
        resource.create(body=write.body, namespace=namespace)
    elif write.verb == "replace":
        resource.replace(body=write.body, **where)
    elif write.content_type == APPLY:
        resource.server_side_apply(body=write.body, field_manager=MANAGER, force_conflicts=write.force, **where)
    else:
        resource.patch(body=write.body, content_type=write.content_type, **where)
    return "ok"


def _request(write: Write) -> tuple[str, str, dict[str, str], dict[str, str]]:
    """Give the HTTP method, the path below the namespace, parameters and headers."""
    verbs = {"get": "GET", "create": "POST", "patch": "PATCH", "replace": "PUT"}
    path = write.plural + ("" if write.verb in ("create", "collection") else f"/{write.name}")
    path += f"/{write.sub}" if write.sub else ""
    params = {"labelSelector": f"cell={write.name}"} if write.verb == "collection" else {}
    if write.content_type == APPLY:
        params |= {"fieldManager": MANAGER, "force": str(write.force).lower()}
    headers = {"Content-Type": write.content_type or "application/json"}
    return verbs.get(write.verb, "DELETE"), path, params, headers


@cache
def _pykube() -> Any:
    return pykube.HTTPClient(pykube.KubeConfig.from_file(os.environ["KUBECONFIG"]))


def by_pykube(namespace: str, write: Write) -> Seen:
    """pykube-ng, by the methods of its HTTPClient, on which its objects are built."""
    api = _pykube()
    method, path, params, headers = _request(write)
    got = getattr(api, method.lower())(
        version=KINDS[write.plural][1],
        namespace=namespace,
        url=path,
        params=params,
        headers=headers,
        data=None if write.body is None else json.dumps(write.body),
    )
    api.raise_for_status(got)
    return dict(got.json()) if write.verb == "get" else int(got.status_code)


@cache
def _lightkube() -> Any:
    return lightkube.Client(config=lightkube.KubeConfig.from_file(os.environ["KUBECONFIG"]), field_manager=MANAGER)


_RESOURCES: dict[str, Any] = {
    "cells": create_namespaced_resource(GROUP, "v1", "Cell", "cells"),
    "looses": create_namespaced_resource(GROUP, "v1", "Loose", "looses"),
    "configmaps": ConfigMap,
    "deployments": Deployment,
}
# msgspec 0.22, on which lightkube 1 is built, crashes the interpreter if several threads are the first to read a type.
for _kind in (*_RESOURCES.values(), ObjectMeta, Status):
    _kind.from_dict({"spec": {"selector": {}, "template": {}}} if _kind is Deployment else {})
_PATCHES = {MERGE: PatchType.MERGE, JSON_PATCH: PatchType.JSON, STRATEGIC: PatchType.STRATEGIC, APPLY: PatchType.APPLY}


def by_lightkube(namespace: str, write: Write) -> Seen:
    """lightkube, which shows no status of what went well."""
    client, resource = _lightkube(), _RESOURCES[write.plural]
    if write.verb == "get":
        return dict(client.get(resource, write.name, namespace=namespace).to_dict())
    if write.verb == "delete":
        client.delete(resource, write.name, namespace=namespace)
    elif write.verb == "create":
        client.create(resource.from_dict(write.body), namespace=namespace)
    elif write.verb == "replace":
        client.replace(resource.from_dict(write.body), write.name, namespace=namespace)
    else:
        part = getattr(resource, write.sub.capitalize()) if write.sub else resource
        force = {"force": write.force} if write.content_type == APPLY else {}
        patch_type = _PATCHES[write.content_type]
        client.patch(part, write.name, write.body, namespace=namespace, patch_type=patch_type, **force)
    return "ok"


async def by_kr8s(namespace: str, write: Write) -> Seen:
    """kr8s, by the method on which its objects are built."""
    api = kr8s.asyncio.Api(bypass_factory=True, kubeconfig=os.environ["KUBECONFIG"])
    await api.auth
    method, path, params, headers = _request(write)
    version = KINDS[write.plural][1]
    raw = None if write.body is None else json.dumps(write.body)
    call = api.call_api(
        method, version=version, namespace=namespace, url=path, params=params, content=raw, headers=headers
    )
    try:
        async with call as got:
            return dict(got.json()) if write.verb == "get" else int(got.status_code)
    finally:
        assert api._session is not None
        await api._session.aclose()  # it has no method for that


async def by_asyncio(namespace: str, write: Write) -> Seen:
    """kubernetes_asyncio, its typed part."""
    configuration = kubernetes_asyncio.client.Configuration()
    await kubernetes_asyncio.config.load_kube_config(os.environ["KUBECONFIG"], client_configuration=configuration)
    async with kubernetes_asyncio.client.ApiClient(configuration) as api:
        method, args, more = _method(kubernetes_asyncio.client, api, namespace, write)
        got = await method(*args, **more)
        return dict(api.sanitize_for_serialization(got[0])) if write.verb == "get" else int(got[1])


#: Those that make requests themselves; Kopf's patch is sent by Kopf.
WRITERS: dict[str, Callable[[str, Write], Seen | Awaitable[Seen]]] = {
    "typed": typed,
    "dynamic": dynamic,
    "pykube": by_pykube,
    "lightkube": by_lightkube,
    "kr8s": by_kr8s,
    "kubernetes_asyncio": by_asyncio,
}


def shown(error: Exception) -> int | str:
    """Give the status that an error has, or else the error's name."""
    for one in (error, getattr(error, "response", None), getattr(error, "status", None)):
        for name in ("status", "status_code", "code"):
            value = getattr(one, name, None)
            if isinstance(value, int) and value:
                return int(value)
    return f"{type(error).__name__}: {error}"
