"""The two kinds of the parity suite: one with a status subresource and the stamp, one without either."""

from __future__ import annotations

from kopf_ha.manifests import schema_fragment
from tests.kit.crd import crd, version
from tests.parity.shapes import GROUP

_SCALE = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
_CELL = version(rules=schema_fragment()["x-kubernetes-validations"])

KINDS = [
    crd(GROUP, "Cell", _CELL | {"subresources": {"status": {}, "scale": _SCALE}}),
    crd(GROUP, "Loose", version(fencing=None) | {"subresources": {"scale": _SCALE}}),
]
