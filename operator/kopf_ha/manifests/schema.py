"""The part of a CRD's schema that adds the stamp to a kind."""

from __future__ import annotations

from kopf_ha.core.refusal import RULE_MESSAGE
from kopf_ha.core.token import TOKEN_MAX
from kopf_ha.manifests.cel import Object


def schema_fragment() -> Object:
    """Return what belongs into ``openAPIV3Schema`` of each served version (I1).

    Each version also needs ``subresources: {status: {}}``. The rule is at the root, because a rule on the field itself
    is skipped when the field is removed.
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
        "description": "The stamp of the newest leadership term that wrote this object. The API server refuses writes"
        " with a lower token.",
        # With an incomplete stamp nobody could write the object any more, not even its finalizers.
        "required": ["lease", "token", "holder", "podUID"],
        "properties": {
            "lease": _text(320, "The Lease that the token comes from, as namespace/name."),
            "token": {
                "type": "integer",
                "format": "int32",
                "minimum": 1,
                "maximum": TOKEN_MAX,
                "description": "The number of the term: the Lease's leaseTransitions when the leader acquired it.",
            },
            "holder": _text(320, "The process that led in this term: pod name, pod uid and a random part."),
            "podUID": _text(
                64, "The uid of the writer's Pod. The API server compares it with the writer's credentials."
            ),
        },
    }


def _text(length: int, description: str) -> Object:
    return {"type": "string", "minLength": 1, "maxLength": length, "description": description}
