"""Requests to the API server, by pykube-ng.

Every write here passes the fence, which sits below pykube in the same process. What the fence refuses
(`kopf_ha.Refused`) is no answer of the API server and no network trouble: nothing here or above catches or
repeats it (I8). The calls block, so they run in threads, which inherit the term (`asyncio.to_thread`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import kopf
import pykube
import requests

import kopf_ha
from kopf_ha_ipam.model import ADDRESS_NOTE, GROUP, VERSION, Body, ClaimRef

API_VERSION = f"{GROUP}/{VERSION}"
#: Seconds to connect and to wait for an answer. The fence shortens it to what is left of the term.
TIMEOUT = (5, 10)
#: Objects that a list asks for at a time, as client-go does.
PAGE = 500
#: Children carry it, so that people find them. The operator itself reads each by its name.
LABELS = {"app.kubernetes.io/managed-by": "kopf-ha-ipam"}
_MERGE = {"Content-Type": "application/merge-patch+json"}


def event(body: Body, *, type: str, reason: str, message: str) -> None:
    """Send an event about an object. Kopf posts it later; events are exempt from the fence."""
    kopf.event(cast(kopf.Body, body), type=type, reason=reason, message=message)


#: With these everything ends that a term remembers; any other error concerns one object (I10).
ENDED = (kopf_ha.TermEnded, kopf_ha.NoTerm)


class Conflict(Exception):
    """The object is not at the resourceVersion that the write was meant for (409)."""


class Gone(Exception):
    """The object is not there (404)."""


class NamespaceTerminating(Exception):
    """The namespace is going away and takes nothing new (403); its claims follow."""


class Rejected(Exception):
    """The API server refuses the request for good (400, 403, 422): a quota, a policy, a permission, an immutable field.

    It concerns one object (I10). What is refused today may pass tomorrow, so it is tried again, more and more seldom.
    """


class Unavailable(Exception):
    """The API server cannot be reached, or has trouble of its own. Whether a write was done is unknown then."""


class Api:
    """The requests that the operator makes; one per term, so that no connection outlives it."""

    def __init__(self) -> None:
        self._client = pykube.HTTPClient(pykube.KubeConfig.from_env(), timeout=TIMEOUT)

    # Reading. Lists carry no resourceVersion parameter, so they are consistent: etcd's newest, no cache.

    async def pools(self) -> Sequence[Body]:
        """List all pools."""
        return await self._list("addresspools", API_VERSION)

    async def claims(self) -> Sequence[Body]:
        """List all claims of all namespaces."""
        return await self._list("addressclaims", API_VERSION)

    async def pool(self, name: str) -> Body:
        """Read a pool."""
        return await self._call("get", f"addresspools/{name}", API_VERSION)

    async def claim(self, ref: ClaimRef) -> Body:
        """Read the object of the claim's name, by a quorum; it may be another one by now."""
        return await self._call("get", f"addressclaims/{ref.name}", API_VERSION, ref.namespace)

    async def child(self, namespace: str, name: str) -> Body:
        """Read a ConfigMap."""
        return await self._call("get", f"configmaps/{name}", "v1", namespace)

    # Writing. Updates carry the resourceVersion they were decided on.

    async def patch_pool_status(self, name: str, version: str, status: Body) -> Body:
        """Merge into a pool's status."""
        return await self._call(
            "patch", f"addresspools/{name}/status", API_VERSION, json=_versioned(version, status=status)
        )

    async def patch_claim_status(self, ref: ClaimRef, version: str, status: Body) -> Body:
        """Merge into a claim's status."""
        return await self._call(
            "patch",
            f"addressclaims/{ref.name}/status",
            API_VERSION,
            ref.namespace,
            json=_versioned(version, status=status),
        )

    async def stamp_claim(self, ref: ClaimRef) -> Body:
        """Stamp a claim, whatever its revision: the fence adds the stamp, on the stamp that it judged."""
        body: dict[str, Any] = {"status": {}}
        return await self._call("patch", f"addressclaims/{ref.name}/status", API_VERSION, ref.namespace, json=body)

    async def note_address(self, ref: ClaimRef, address: str) -> Body:
        """Write a claim's address into its annotation, whatever its revision: only the operator writes that one."""
        patch = {"metadata": {"uid": ref.uid, "annotations": {ADDRESS_NOTE: address}}}
        return await self._call("patch", f"addressclaims/{ref.name}", API_VERSION, ref.namespace, json=patch)

    async def create_child(self, body: Body) -> Body:
        """Make a ConfigMap; `Conflict` if there is one."""
        return await self._call("post", "configmaps", "v1", body["metadata"]["namespace"], json=body)

    async def patch_child(self, namespace: str, name: str, version: str, patch: Mapping[str, Any]) -> Body:
        """Merge into a ConfigMap."""
        return await self._call("patch", f"configmaps/{name}", "v1", namespace, json=_versioned(version, **patch))

    async def delete_child(self, namespace: str, name: str, uid: str) -> None:
        """Delete the ConfigMap that has this uid."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        await self._call("delete", f"configmaps/{name}", "v1", namespace, json=options)

    async def _list(self, plural: str, version: str) -> Sequence[Body]:
        """List by pages: a list of what users make has no other bound."""
        found: list[Body] = []
        params: dict[str, str] = {"limit": str(PAGE)}
        while True:
            answer = await self._call("get", plural, version, params=params)
            found += answer.get("items") or ()
            more = (answer.get("metadata") or {}).get("continue")
            if not more:
                return found
            params["continue"] = more

    async def _call(
        self, method: str, url: str, version: str, namespace: str | None = None, **more: Any
    ) -> dict[str, Any]:
        if method == "patch":
            more["headers"] = _MERGE
        call: Callable[..., requests.Response] = getattr(self._client, method)
        try:
            answer = await asyncio.to_thread(call, url=url, version=version, namespace=namespace, **more)
        except requests.RequestException as e:
            raise Unavailable(f"{method.upper()} {url}: {e}") from e
        return _read(f"{method.upper()} {url}", answer)


def _versioned(version: str, **patch: Any) -> dict[str, Any]:
    metadata = {**patch.pop("metadata", {}), "resourceVersion": version}
    return {"metadata": metadata, **patch}


def _read(what: str, answer: requests.Response) -> dict[str, Any]:
    try:
        data = answer.json()
    except ValueError:
        data = {"message": answer.text[:300]}
    if answer.ok:
        return dict(data)
    message = f"{what}: {answer.status_code} {data.get('message', '')}"
    causes = [c.get("reason") for c in (data.get("details") or {}).get("causes") or ()]
    if answer.status_code == 409:
        raise Conflict(message)
    if answer.status_code == 404:
        raise Gone(message)
    if answer.status_code == 403 and "NamespaceTerminating" in causes:
        raise NamespaceTerminating(message)
    if answer.status_code in (400, 403, 413, 422):
        raise Rejected(message)
    raise Unavailable(message)
