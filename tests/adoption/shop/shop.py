"""An operator as people write them with Kopf alone: a Box gets a slot of its Rack, and a ConfigMap that says which.

It knows nothing of kopf-ha. `kopf run shop.py` and `kopf-ha run shop.py` run the same file.
"""

import threading
from typing import Any

import kopf
import pykube

LOCK = threading.Lock()


class Rack(pykube.objects.NamespacedAPIObject):
    version, endpoint, kind = "shop.example.com/v1", "racks", "Rack"


def client() -> pykube.HTTPClient:
    return pykube.HTTPClient(pykube.KubeConfig.from_env(), timeout=10)


@kopf.on.create("boxes", backoff=1)
def place(body: kopf.Body, uid: str, spec: Any, patch: kopf.Patch, logger: Any, **_: Any) -> None:
    logger.info("HANDLER create")
    api = client()
    with LOCK:
        rack = Rack.objects(api, namespace=body["metadata"]["namespace"]).get(name=spec["rack"])
        slots = rack.obj.get("status", {}).get("slots", {})
        slot = next((s for s, owner in slots.items() if owner == uid), None)
        if slot is None:
            slot = next(s for n in range(100) if (s := f"s{n:02}") not in slots)
            version = rack.obj["metadata"]["resourceVersion"]
            change = {"metadata": {"resourceVersion": version}, "status": {"slots": {slot: uid}}}
            rack.patch(change, subresource="status")
    tell(api, body, slot)
    patch.status["slot"] = slot


@kopf.on.resume("boxes", backoff=1)
def again(body: kopf.Body, logger: Any, **_: Any) -> None:
    logger.info("HANDLER resume")
    if slot := body.get("status", {}).get("slot"):
        tell(client(), body, slot)


@kopf.on.update("boxes", field="spec.color", backoff=1)
def repaint(body: kopf.Body, logger: Any, **_: Any) -> None:
    logger.info("HANDLER update")
    tell(client(), body, body["status"]["slot"])


@kopf.on.delete("boxes", backoff=1)
def take_back(body: kopf.Body, spec: Any, logger: Any, **_: Any) -> None:
    logger.info("HANDLER delete")
    if slot := body.get("status", {}).get("slot"):
        with LOCK:
            rack = Rack.objects(client(), namespace=body["metadata"]["namespace"]).get(name=spec["rack"])
            version = rack.obj["metadata"]["resourceVersion"]
            rack.patch({"metadata": {"resourceVersion": version}, "status": {"slots": {slot: None}}},
                       subresource="status")  # fmt: skip


def tell(api: pykube.HTTPClient, body: kopf.Body, slot: str) -> None:
    """Make the ConfigMap, or set it right: an operator's usual way with its children."""
    wish: Any = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"box-{body['metadata']['name']}", "labels": {"app": "shop"}},
        "data": {"slot": slot, "color": body["spec"].get("color", "none")},
    }
    kopf.adopt(wish, owner=body)
    child = pykube.ConfigMap(api, wish)
    if child.exists():
        child.patch({"data": wish["data"]})
    else:
        child.create()
