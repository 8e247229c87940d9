"""The CustomResourceDefinition of the Term. All operators in a cluster use the same."""

from __future__ import annotations

from kopf_ha.core.refusal import TERM_RULE_MESSAGE
from kopf_ha.core.token import TOKEN_MAX
from kopf_ha.manifests.cel import TERM_API, TERMS, Object

_GROUP, _VERSION = TERM_API.split("/")


def definition() -> Object:
    """Return the CustomResourceDefinition."""

    def column(name: str, kind: str, path: str) -> Object:
        return {"name": name, "type": kind, "jsonPath": path}

    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{TERMS}.{_GROUP}", "labels": {"app.kubernetes.io/part-of": "kopf-ha"}},
        "spec": {
            "group": _GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "Term",
                "listKind": "TermList",
                "plural": TERMS,
                "singular": "term",
                "shortNames": ["fterm"],
                "categories": ["kopf-ha"],
            },
            "versions": [
                {
                    "name": _VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [
                        column("Token", "integer", ".spec.token"),
                        column("Holder", "string", ".spec.holder"),
                        column("Age", "date", ".metadata.creationTimestamp"),
                    ],
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }


def is_definition(data: Object) -> bool:
    """Return whether an object is the CustomResourceDefinition of the Term."""
    return data.get("kind") == "CustomResourceDefinition" and data["metadata"].get("name") == f"{TERMS}.{_GROUP}"


def _schema() -> Object:
    def field(kind: str, description: str, **more: str | int) -> Object:
        return {"type": kind, **more, "description": description}

    return {
        "type": "object",
        "description": "Tells the API server which replica of an operator leads. It has the name of the operator's"
        " Lease. Only the leader writes it, and policies refuse the writes of other pods.",
        "required": ["spec"],
        "x-kubernetes-validations": [
            # At the root, as the rule about stamps: on a field it would be skipped when the field is removed.
            {
                "rule": "self.spec.token > oldSelf.spec.token || self.spec == oldSelf.spec",
                "message": TERM_RULE_MESSAGE,
            }
        ],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "description": "The present term.",
                "required": ["token", "holder", "podUID"],
                "properties": {
                    "token": field(
                        "integer",
                        "The number of the term: the Lease's leaseTransitions when the leader acquired it.",
                        format="int32",
                        minimum=1,
                        maximum=TOKEN_MAX,
                    ),
                    "holder": field(
                        "string",
                        "The process that leads: pod name, pod uid and a random part.",
                        minLength=1,
                        maxLength=320,
                    ),
                    "podUID": field(
                        "string",
                        "The uid of the leader's Pod. Policies compare it with the writer's credentials.",
                        minLength=1,
                        maxLength=64,
                    ),
                },
            },
            # Beside the spec, so that the rule above holds for the term alone. It demands nothing: a history that
            # another release wrote must not keep a leader from writing its term.
            "history": {
                "type": "array",
                "description": "The last terms, the oldest first, for people. Only the leader writes it.",
                "items": field(
                    "string",
                    "A line of JSON. token; holder: the process that led; began: when it acquired the Lease; ended:"
                    " when it gave that back, or else renewed it last; barrierSeconds: how long its barrier took;"
                    " reason: why it ended, in a word; cause: the same in a sentence; gapSeconds: how long nobody led"
                    " after it. Times are by the process's own clock.",
                ),
            },
        },
    }
