"""The fragment of a CRD's schema that makes a kind a stamped one."""

from __future__ import annotations

from kopf_ha.core.refusal import RULE_MESSAGE
from kopf_ha.core.token import TOKEN_MAX
from kopf_ha.manifests.cel import Object


def schema_fragment() -> Object:
    """Give what belongs into ``openAPIV3Schema`` of each served version (I1).

    The version needs ``subresources: {status: {}}``, too. The rule stands at the root, since on the field itself
    it would be skipped when the field is removed.
    """
    return {
        "x-kubernetes-validations": [
            {
                "rule": "!has(oldSelf.status) || !has(oldSelf.status.fencing) || (has(self.status)"
                " && has(self.status.fencing) && self.status.fencing.token >= oldSelf.status.fencing.token)",
                "message": RULE_MESSAGE,
            }
        ],
        "properties": {"status": {"type": "object", "properties": {"fencing": _fencing()}}},
    }


def _fencing() -> Object:
    return {
        "type": "object",
        "description": "The stamp of the newest leadership term that wrote this object. The API server lets no lower"
        " token through.",
        # An empty one would freeze the object, its finalizers included.
        "required": ["lease", "token", "holder", "podUID"],
        "properties": {
            "lease": _text(320, "The Lease by which the token counts, as namespace/name."),
            "token": {
                "type": "integer",
                "format": "int32",
                "minimum": 1,
                "maximum": TOKEN_MAX,
                "description": "The number of the term, which is the Lease's leaseTransitions when it was acquired.",
            },
            "holder": _text(320, "The process that led in this term, as pod name, pod uid and a random part."),
            "podUID": _text(
                64, "The uid of the writer's Pod, which the API server compares with the writer's credentials."
            ),
        },
    }


def _text(length: int, description: str) -> Object:
    return {"type": "string", "minLength": 1, "maxLength": length, "description": description}
