"""The peer of `benchmarks.throughput`: addresses given by an operator as people write it with Kopf, for `kopf run`.

It does for a user what the reference operator does: the claim gets a finalizer, an address, a condition and a
ConfigMap. It counts addresses in memory and has no pools, so it is for measurements only. A changed label is an update
that it answers with one write of the status.
"""

import datetime
import itertools

import kopf
import pykube

GROUP = "ipam.kopf-ha.dev"
_numbers = itertools.count(1)


@kopf.on.startup()
def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: object) -> None:
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    memo.client = pykube.HTTPClient(pykube.KubeConfig.from_env(), timeout=10)


@kopf.on.create(GROUP, "v1", "addressclaims")
def bind(body: kopf.Body, name: str, namespace: str | None, patch: kopf.Patch, memo: kopf.Memo, **_: object) -> None:
    number = next(_numbers)
    address = f"10.{64 + number // 65536}.{number // 256 % 256}.{number % 256}"
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-address", "namespace": namespace}}
    kopf.append_owner_reference(child, body)
    pykube.ConfigMap(memo.client, child | {"data": {"ADDRESS": address}}).create()
    patch.status["address"] = address
    patch.status["conditions"] = [_ready("Bound", f"The claim has {address}.")]
    kopf.event(body, type="Normal", reason="Bound", message=f"The claim has {address}.")


@kopf.on.update(GROUP, "v1", "addressclaims", field="metadata.labels")
def relabelled(labels: kopf.Labels, patch: kopf.Patch, **_: object) -> None:
    patch.status["conditions"] = [_ready("Labelled", labels.get("round", "none"))]


@kopf.on.delete(GROUP, "v1", "addressclaims")
def release(**_: object) -> None:
    """Make Kopf use its finalizer, as operators with something to clean up do."""


def _ready(reason: str, message: str) -> dict[str, str]:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "Ready", "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
