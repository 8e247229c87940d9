"""Requests to the API server, by pykube-ng.

Every write here passes the fence, which sits below pykube in the same process. A refusal by the fence
(`kopf_ha.Refused`) is neither an answer of the API server nor a network error, so this module neither catches nor
repeats it (I8). The calls block, so they run in threads. These inherit the term (`asyncio.to_thread`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, cast

import kopf
import pykube
import requests

import kopf_ha
from kopf_ha_ipam.model import ADDRESS_NOTE, GROUP, VERSION, Body, ClaimRef

log = logging.getLogger(__name__)
API_VERSION = f"{GROUP}/{VERSION}"
#: Seconds to connect, and seconds to wait for an answer. The fence limits those of writes to what is left of the term.
#: Reads it leaves alone, so both together stay below the drain timeout of 10 s: a leader that was cut off from the API
#: server waits for its reads, and a process whose handlers take longer than that ends.
TIMEOUT = (3, 6)
#: How often a write is tried again when somebody else changes the object in between.
TRIES = 10
#: Objects per page of a list, as in client-go.
PAGE = 500
#: Claims on the first page. The start of a term waits for it, and with fewer claims it waits for nothing else.
FIRST = 100
#: The labels of ConfigMaps, so that people can find them. The operator itself reads each one by its name.
LABELS = {"app.kubernetes.io/managed-by": "kopf-ha-ipam"}
_MERGE = {"Content-Type": "application/merge-patch+json"}


def event(body: Body, *, type: str, reason: str, message: str) -> None:
    """Send an event about an object. Kopf posts it later. Events are not fenced.

    Kopf takes events from handlers of objects only. A new leader may serve a claim before the first of them runs. Then
    the event is left out: the claim was served, and must not count as failed (I10).
    """
    try:
        kopf.event(cast(kopf.Body, body), type=type, reason=reason, message=message)
    except LookupError:
        log.info("no event %s: no handler of an object has run in this term yet: %s", reason, message)


#: These errors end the term's work. Any other error concerns one object (I10).
ENDED = (kopf_ha.TermEnded, kopf_ha.NoTerm)


class Conflict(Exception):
    """The object has another resourceVersion than the write was meant for (409)."""


class Gone(Exception):
    """The object does not exist (404)."""


class NamespaceTerminating(Exception):
    """The namespace is being deleted and accepts no new objects (403). Its claims will be deleted, too."""


class Rejected(Exception):
    """The API server refuses the request (400, 403, 413, 422): a quota, a policy, a permission, an immutable field.

    It concerns one object (I10). The cause may go away, so the request is tried again, with growing delays.
    """


class Unavailable(Exception):
    """The API server cannot be reached, or reports an internal error. A write may or may not have been done."""


class Api:
    """The operator's requests. Each term has its own `Api`, so that no connection outlives the term."""

    def __init__(self) -> None:
        self._client = pykube.HTTPClient(pykube.KubeConfig.from_env(), timeout=TIMEOUT)
        _read_environment_once(self._client.session, self._client.url)

    # Reading. Lists have no resourceVersion parameter, so they are consistent reads: from etcd, not from a cache.

    async def pools(self) -> Sequence[Body]:
        """List all pools."""
        return await self._list("addresspools", API_VERSION)

    async def claims(self) -> Sequence[Body]:
        """List all claims of all namespaces."""
        return await self._list("addressclaims", API_VERSION)

    async def claim_pages(self) -> AsyncIterator[Sequence[Body]]:
        """List all claims of all namespaces, a page at a time, as they were when the first page was asked for."""
        async for page in self._pages("addressclaims", API_VERSION, FIRST):
            yield page

    async def addresses(self) -> Sequence[tuple[str, str]]:
        """Return the address, empty without one, and the uid of each claim.

        These are two columns of the table that `kubectl get` prints. It costs the API server and the operator a tenth
        of the objects.

        Raises:
            Rejected: the table lacks a column; the CRD is an older one.
        """
        headers = {"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
        table = await self._call("get", "addressclaims", API_VERSION, params={"includeObject": "None"}, headers=headers)
        columns = [column.get("name") for column in table.get("columnDefinitions") or ()]
        if not {"Address", "UID"} <= set(columns):
            raise Rejected(f"GET addressclaims as a table: it has the columns {columns}")
        at, by = columns.index("Address"), columns.index("UID")
        return [(row["cells"][at] or "", row["cells"][by]) for row in table.get("rows") or ()]

    async def showing(self, address: str) -> Sequence[str]:
        """Return the uids of the claims whose status shows an address.

        The API server answers that from its cache, once that has caught up with etcd. With a `limit` it would read all
        claims from etcd.

        Raises:
            Rejected: the CRD is an older one, or Kubernetes is older than 1.31: the address is no selectable field.
        """
        headers = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
        params = {"fieldSelector": f"status.address={address}"}
        answer = await self._call("get", "addressclaims", API_VERSION, params=params, headers=headers)
        return [one["metadata"]["uid"] for one in answer.get("items") or ()]

    async def pool(self, name: str) -> Body:
        """Read a pool."""
        return await self._call("get", f"addresspools/{name}", API_VERSION)

    async def claim(self, ref: ClaimRef) -> Body:
        """Read the object that has the claim's name, by a quorum read. It may be another claim by now."""
        return await self._call("get", f"addressclaims/{ref.name}", API_VERSION, ref.namespace)

    async def child(self, namespace: str, name: str) -> Body:
        """Read a ConfigMap."""
        return await self._call("get", f"configmaps/{name}", "v1", namespace)

    # Writing. Updates carry the resourceVersion of the object that they were decided from.

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
        """Stamp a claim at any resourceVersion. The fence judges the claim's present stamp and adds the new one."""
        body: dict[str, Any] = {"status": {}}
        return await self._call("patch", f"addressclaims/{ref.name}/status", API_VERSION, ref.namespace, json=body)

    async def note_address(self, ref: ClaimRef, address: str) -> Body:
        """Write a claim's address into its annotation, at any resourceVersion."""
        patch = {"metadata": {"uid": ref.uid, "annotations": {ADDRESS_NOTE: address}}}
        return await self._call("patch", f"addressclaims/{ref.name}", API_VERSION, ref.namespace, json=patch)

    async def create_child(self, body: Body) -> Body:
        """Create a ConfigMap.

        Raises:
            Conflict: one of that name exists.
        """
        return await self._call("post", "configmaps", "v1", body["metadata"]["namespace"], json=body)

    async def patch_child(self, namespace: str, name: str, version: str, patch: Mapping[str, Any]) -> Body:
        """Merge into a ConfigMap."""
        return await self._call("patch", f"configmaps/{name}", "v1", namespace, json=_versioned(version, **patch))

    async def delete_child(self, namespace: str, name: str, uid: str) -> bool:
        """Delete the ConfigMap that has this uid. Return whether it is gone; otherwise a finalizer may keep it."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        answer = await self._call("delete", f"configmaps/{name}", "v1", namespace, json=options)
        return answer.get("kind") == "Status"  # the answer is the object as long as that exists

    async def _list(self, plural: str, version: str) -> Sequence[Body]:
        """List page by page, since users can create any number of objects."""
        return [body async for page in self._pages(plural, version) for body in page]

    async def _pages(self, plural: str, version: str, first: int = PAGE) -> AsyncIterator[Sequence[Body]]:
        params: dict[str, str] = {"limit": str(first)}
        while True:
            answer = await self._call("get", plural, version, params=params)
            yield answer.get("items") or ()
            more = (answer.get("metadata") or {}).get("continue")
            if not more:
                return
            params |= {"continue": more, "limit": str(PAGE)}

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


def _read_environment_once(session: requests.Session, url: str) -> None:
    """Make a session use the proxies and CAs that the environment names now. It would look for them at each request.

    That takes a fifth of the CPU of a request. A `.netrc` is not used, since pykube has its own credentials.
    """
    found = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify = found["proxies"], found["verify"]
    session.trust_env = False


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
