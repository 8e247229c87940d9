"""The ConfigMap that publishes a bound claim's address.

A creation is not compare-and-swap, and a paused leader can send it at any later time. So what the ConfigMap says must
stay true as long as the claim exists: a pool frees an address only once its claim is gone (I5).

Anybody can compute the ConfigMap's name, and a user who may write ConfigMaps in the claim's namespace can take it
first. The operator neither changes nor deletes a ConfigMap that does not belong to the claim. The claim's condition
says so, and no other claim is affected (I10).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import kopf_ha
from kopf_ha_ipam.model import GROUP, VERSION, Body, Claim, ClaimRef, PoolSpec
from kopf_ha_ipam.writes import ENDED, LABELS, TRIES, Api, Conflict, Gone, NamespaceTerminating, Rejected, Unavailable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Blocked:
    """The ConfigMap cannot be written. The claim's condition gets this reason and message."""

    reason: str
    message: str


def child_name(ref: ClaimRef) -> str:
    """Return the ConfigMap's name. It contains the uid, so that a late creation for another claim does not match."""
    return f"{ref.name}-{ref.uid[:8]}"


async def publish(api: Api, claim: Claim, address: str, spec: PoolSpec, *, fresh: bool) -> Blocked | None:
    """Create or correct the ConfigMap. Return what prevents that, or None if it is right.

    Args:
        api: makes the requests.
        claim: the claim. Its status has the address already.
        address: the claim's address.
        spec: the spec of its pool.
        fresh: there is probably no ConfigMap yet, so try to create it without reading first.

    Raises:
        Unavailable: the API server does not answer.
        kopf_ha.TermEnded: the term is over.
    """
    ref, wish = claim.ref, _child(claim, address, spec)
    name = child_name(ref)
    try:
        for number in range(TRIES):
            found = None if fresh and number == 0 else await _find(api, ref)
            try:
                if found is None:
                    await api.create_child(wish)
                    return None
                blocked = _obstacle(found, ref)
                if blocked is not None:
                    return blocked
                patch = _correction(found, wish)
                if "data" in patch and found.get("immutable"):
                    await api.delete_child(ref.namespace, name, found["metadata"]["uid"])
                    continue
                if patch:
                    log.warning("ConfigMap %s/%s differs from its claim and is corrected", ref.namespace, name)
                    await api.patch_child(ref.namespace, name, found["metadata"]["resourceVersion"], patch)
                return None
            except (Gone, Conflict):
                continue  # somebody changed it in between: look again
    except NamespaceTerminating:
        return Blocked("NamespaceTerminating", "The namespace is being deleted, so no ConfigMap can be created.")
    except Rejected as error:
        return Blocked("ConfigMapRejected", f"ConfigMap {name} cannot be written: {error}"[:1000])
    except ENDED:
        raise
    except kopf_ha.Refused as error:
        return Blocked("ConfigMapRefused", f"ConfigMap {name} cannot be written: {error}"[:1000])
    raise Unavailable(f"ConfigMap {ref.namespace}/{name} changes faster than it can be written")


async def remove(api: Api, ref: ClaimRef) -> bool:
    """Delete the ConfigMap if it belongs to the claim. Return whether nothing is left to wait for.

    A ConfigMap that cannot be deleted is no reason to wait: it belongs to the claim, and Kubernetes collects it once
    the claim is gone. A user may keep one by a finalizer, but that does not mean that the claim still has the address.

    Raises:
        Unavailable: the API server does not answer.
        kopf_ha.TermEnded: the term is over.
    """
    name = child_name(ref)
    for _ in range(TRIES):
        try:
            found = await api.child(ref.namespace, name)
            if not _ours(found, ref) or found["metadata"].get("deletionTimestamp"):
                return True
            if await api.delete_child(ref.namespace, name, found["metadata"]["uid"]):
                return True
        except Gone:
            return True
        except Conflict:
            continue  # it changed between the read and the deletion
        except ENDED:
            raise
        except (kopf_ha.Refused, Rejected) as error:
            log.warning("ConfigMap %s/%s could not be deleted: %s", ref.namespace, name, error)
            return True
    return False


async def _find(api: Api, ref: ClaimRef) -> Body | None:
    try:
        return await api.child(ref.namespace, child_name(ref))
    except Gone:
        return None


def _ours(found: Body, ref: ClaimRef) -> bool:
    """Return whether it belongs to this claim: its owner is the claim, or it has our labels and no owner at all."""
    owners = _owners(found)
    return ref.uid in owners or (_labelled(found) and not owners)


def _owners(found: Body) -> list[str | None]:
    return [owner.get("uid") for owner in found["metadata"].get("ownerReferences") or ()]


def _labelled(found: Body) -> bool:
    return LABELS.items() <= (found["metadata"].get("labels") or {}).items()


def _obstacle(found: Body, ref: ClaimRef) -> Blocked | None:
    meta = found["metadata"]
    if not _ours(found, ref):
        text = f"A ConfigMap named {meta['name']} exists that was not created for this claim. Delete it."
        return Blocked("ConfigMapTaken", text)
    if meta.get("deletionTimestamp"):
        text = f"ConfigMap {meta['name']} is being deleted, but a finalizer keeps it. Remove the finalizer."
        return Blocked("ConfigMapTerminating", text)
    return None


def _child(claim: Claim, address: str, spec: PoolSpec) -> dict[str, Any]:
    ref = claim.ref
    data = {
        "ADDRESS": address,
        "PREFIX_LENGTH": str(spec.prefix_length),
        "CIDR": spec.cidr,
        "POOL": claim.pool_name,
    }
    owner = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "AddressClaim",
        "name": ref.name,
        "uid": ref.uid,
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": child_name(ref),
            "namespace": ref.namespace,
            "labels": dict(LABELS),
            "ownerReferences": [owner],
        },
        "data": data | ({"GATEWAY": spec.gateway} if spec.gateway else {}),
    }


def _correction(found: Body, wish: Body) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    data = found.get("data") or {}
    if data != wish["data"]:
        patch["data"] = wish["data"] | {k: None for k in data if k not in wish["data"]}
    if wish["metadata"]["ownerReferences"][0]["uid"] not in _owners(found):
        patch["metadata"] = {"ownerReferences": wish["metadata"]["ownerReferences"]}
    if not _labelled(found):
        patch.setdefault("metadata", {})["labels"] = dict(LABELS)
    return patch
