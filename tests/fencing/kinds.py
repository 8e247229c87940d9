"""The kinds of these tests: with the stamp in all versions, with half of it, in one version only, without; and without
a status subresource.
"""

from __future__ import annotations

from kopf_ha.manifests import schema_fragment
from tests.kit.crd import STAMP, crd, version

GROUP = "fencing.kopf-ha.test"
RULES = schema_fragment()["x-kubernetes-validations"]

_STATUS = {"type": "object", "properties": {"a": {"type": "string"}}}
_HALF = {name: STAMP[name] for name in ("lease", "token")}
_WHOLE = version(status=_STATUS, rules=RULES)

KINDS = [
    crd(GROUP, "Gadget", _WHOLE),
    crd(GROUP, "Bare", version(status=_STATUS)),
    crd(GROUP, "Frame", version(fencing=_HALF, status=_STATUS, rules=RULES)),
    crd(GROUP, "Plain", version(fencing=None, status=_STATUS)),
    crd(GROUP, "Whole", version(fencing=None, status=_STATUS) | {"subresources": {}}),
    crd(GROUP, "Mixed", _WHOLE, version("v1beta1", None, status=_STATUS, storage=False)),
]
