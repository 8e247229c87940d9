"""Expressions that several policies share, and the frame around each policy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kopf_ha.core.token import ANNOTATION_HOLDER, ANNOTATION_LEASE, ANNOTATION_POD_UID, ANNOTATION_TOKEN
from kopf_ha.manifests.description import Description

Object = dict[str, Any]

#: Says of whom nobody but the API server itself can speak: the uid of the pod whose credentials these are.
WRITER = "request.userInfo.?extra[?'authentication.kubernetes.io/pod-uid'].orValue([''])[0]"
SUB = "has(request.subResource) ? request.subResource : ''"

UNBOUND = "fencing: the writer's token is not bound to a pod, so nobody can tell whose write it is"

STAMP = (ANNOTATION_TOKEN, ANNOTATION_HOLDER, ANNOTATION_LEASE, ANNOTATION_POD_UID)


def text(value: str) -> str:
    """Write a string as CEL does."""
    return json.dumps(value) if "'" in value or "\\" in value else f"'{value}'"


def texts(values: Sequence[str]) -> str:
    """Write a list of strings as CEL does."""
    return "[" + ", ".join(text(v) for v in values) + "]"


def operator_only(description: Description) -> Object:
    """Match only the operator's own requests: the cheapest question comes first."""
    return {"name": "operator", "expression": f"request.userInfo.username == {text(description.user)}"}


def others_only(description: Description) -> Object:
    """Match everybody's requests but the operator's."""
    return {"name": "not-the-operator", "expression": f"request.userInfo.username != {text(description.user)}"}


def not_exempt(entries: Sequence[str]) -> list[Object]:
    """Match no write to these ``plural/subresource``."""
    if not entries:
        return []
    this = f"request.resource.resource + '/' + ({SUB})"
    return [{"name": "not-exempt", "expression": f"!({this} in {texts(entries)})"}]


def annotation(name: str, of: str) -> str:
    """Give an annotation of ``object`` or ``oldObject``, as an optional."""
    return f"{of}.metadata.?annotations[?{text(name)}]"


def rule(expression: str, message: str, tokens: str = "") -> Object:
    """Make one validation; its refusal is a 403.

    Args:
        expression: true for what may be done.
        message: the sentence, for when `tokens` cannot be evaluated.
        tokens: a CEL expression of the sentence that names the tokens.
    """
    made = {"expression": expression, "reason": "Forbidden", "message": message}
    return made | ({"messageExpression": tokens} if tokens else {})


def conditional_delete(what: str) -> Object:
    """Refuse a deletion by the operator that any revision would suit."""
    return rule(
        "request.operation != 'DELETE' || (has(request.options.preconditions)"
        " && has(request.options.preconditions.resourceVersion))",
        f"fencing: {what} is deleted only with preconditions.resourceVersion, the revision that was decided from",
    )


def policy(
    name: str,
    groups: Sequence[str],
    resources: Sequence[str],
    operations: Sequence[str],
    *,
    conditions: Sequence[Object],
    validations: Sequence[Object],
    variables: Sequence[tuple[str, str]] = (),
    namespace: str = "",
    scope: str = "*",
) -> list[Object]:
    """Make a policy and its binding, of one name: removing the binding is the break-glass."""
    match: Object = {
        "resourceRules": [
            {
                "apiGroups": list(groups),
                "apiVersions": ["*"],
                "operations": list(operations),
                "resources": list(resources),
                "scope": scope,
            }
        ]
    }
    if namespace:
        match = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}, **match}
    spec: Object = {"failurePolicy": "Fail", "matchConstraints": match, "matchConditions": list(conditions)}
    if variables:
        spec["variables"] = [{"name": n, "expression": e} for n, e in variables]
    spec["validations"] = list(validations)
    api = "admissionregistration.k8s.io/v1"
    return [
        {"apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec},
        {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]
