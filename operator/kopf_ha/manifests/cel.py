"""Expressions that several policies share, and the frame around each policy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kopf_ha.core.token import ANNOTATION_HOLDER, ANNOTATION_LEASE, ANNOTATION_POD_UID, ANNOTATION_TOKEN
from kopf_ha.manifests.description import Description

Object = dict[str, Any]

#: Says of whom nobody but the API server itself can speak: the uid of the pod whose credentials these are.
WRITER = "request.userInfo.?extra[?'authentication.kubernetes.io/pod-uid'].orValue([''])[0]"
SUB = "has(request.subResource) ? request.subResource : ''"

#: What the field manager of the self-test's questions begins with. Each is a dry run, or it is none.
QUESTION = "kopf-ha-ask:"
#: The longest that the API server takes for a field manager.
_MANAGER_MAX = 128
UNBOUND = "fencing: the writer's token is not bound to a pod, so nobody can tell whose write it is"

STAMP = (ANNOTATION_TOKEN, ANNOTATION_HOLDER, ANNOTATION_LEASE, ANNOTATION_POD_UID)


def text(value: str) -> str:
    """Write a string as CEL does."""
    return json.dumps(value) if "'" in value or "\\" in value else f"'{value}'"


def texts(values: Sequence[str]) -> str:
    """Write a list of strings as CEL does."""
    return "[" + ", ".join(text(v) for v in values) + "]"


def asks(description: Description) -> str:
    """Say in CEL that a request is a question of the operator's self-test.

    Nothing but a Lease is ever written so, and nothing is written: it is a dry run.
    """
    return (
        f"request.resource.resource == 'leases' && request.userInfo.username == {text(description.user)}"
        " && request.?dryRun.orValue(false)"
        f" && request.?options.?fieldManager.orValue('').startsWith('{QUESTION}')"
    )


def operator_only(description: Description) -> Object:
    """Match only the operator's own requests: the cheapest question comes first."""
    return {"name": "operator", "expression": f"request.userInfo.username == {text(description.user)}"}


def others_only(description: Description) -> Object:
    """Match everybody's requests but the operator's, and the self-test's."""
    return unless_asked(description, "not-the-operator", f"request.userInfo.username != {text(description.user)}")


def not_exempt(description: Description, entries: Sequence[str]) -> list[Object]:
    """Match no write to these ``plural/subresource``."""
    if not entries:
        return []
    this = f"request.resource.resource + '/' + ({SUB})"
    return [unless_asked(description, "not-exempt", f"!({this} in {texts(entries)})")]


def unless_asked(description: Description, name: str, expression: str) -> Object:
    """Make a condition that the self-test's questions pass, too: it adds requests, which are all dry runs."""
    return {"name": name, "expression": f"{expression} || ({asks(description)})"}


def annotation(name: str, of: str) -> str:
    """Give an annotation of ``object`` or ``oldObject``, as an optional."""
    return f"{of}.metadata.?annotations[?{text(name)}]"


@dataclass(frozen=True, slots=True)
class Rule:
    """One validation; its refusal is a 403.

    Args:
        name: within its policy; the self-test asks for the rule by it, so a name stays from version to version.
        expression: true for what may be done.
        message: the sentence, for when `tokens` cannot be evaluated.
        tokens: a CEL expression of the sentence that names the tokens.
        question: what asks for it, where that must not name the policy.
    """

    name: str
    expression: str
    message: str
    tokens: str = ""
    question: str = ""

    def asked(self, policy: str) -> str:
        """Give the field manager of the question whether it is in force in this policy."""
        name = QUESTION + (self.question or f"{policy}/{self.name}")
        return name if len(name) <= _MANAGER_MAX else QUESTION + hashlib.sha256(name.encode()).hexdigest()

    def validation(self, policy: str) -> Object:
        """Give the validation of this policy.

        To the self-test's question about it, it says no, and to all its other questions yes.
        """
        question = text(self.asked(policy))
        expression = f"variables.asked == '' ? ({self.expression}) : variables.asked != {question}"
        made = {"expression": expression, "reason": "Forbidden", "message": self.message}
        return made | ({"messageExpression": self.tokens} if self.tokens else {})


def conditional_delete(what: str) -> Rule:
    """Refuse a deletion by the operator that any revision would suit."""
    return Rule(
        "conditional-delete",
        "request.operation != 'DELETE' || (has(request.options.preconditions)"
        " && has(request.options.preconditions.resourceVersion))",
        f"fencing: {what} is deleted only with preconditions.resourceVersion, the revision that was decided from",
    )


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy and its binding, of one name: removing the binding is the break-glass.

    The self-test asks each rule by a dry-run update of the Lease, whatever kind the policy is about: the Lease is
    always there, and the operator may update it. So the policy matches that, too.

    Args:
        name: of both.
        groups: API groups whose `resources` it is about.
        resources: plurals, with ``/subresource``.
        operations: ``CREATE``, ``UPDATE``, ``DELETE``.
        description: what it is written from.
        conditions: all of them have to be true for a request that it is about.
        rules: what it demands.
        variables: names and expressions that the rules use.
        namespace: that it is limited to; empty for all.
        scope: ``Cluster``, ``Namespaced`` or ``*``.
    """

    name: str
    groups: Sequence[str]
    resources: Sequence[str]
    operations: Sequence[str]
    description: Description
    conditions: Sequence[Object]
    rules: Sequence[Rule]
    variables: Sequence[tuple[str, str]] = ()
    namespace: str = ""
    scope: str = "*"

    def objects(self) -> list[Object]:
        """Give the policy and its binding."""
        api = "admissionregistration.k8s.io/v1"
        variables = [("asked", f"{asks(self.description)} ? request.options.fieldManager : ''"), *self.variables]
        spec: Object = {
            "failurePolicy": "Fail",
            "matchConstraints": self._matched(),
            "matchConditions": [*self.conditions, *self._lease_only_if_asked()],
            "variables": [{"name": n, "expression": e} for n, e in variables],
            "validations": [r.validation(self.name) for r in self.rules],
        }
        return [
            {"apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": self.name}, "spec": spec},
            {
                "apiVersion": api,
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": self.name},
                "spec": {"policyName": self.name, "validationActions": ["Deny"]},
            },
        ]

    def _matched(self) -> Object:
        about: Object = {
            "apiGroups": list(self.groups),
            "apiVersions": ["*"],
            "operations": list(self.operations),
            "resources": list(self.resources),
            "scope": self.scope,
        }
        question: Object = {
            "apiGroups": ["coordination.k8s.io"],
            "apiVersions": ["*"],
            "operations": ["UPDATE"],
            "resources": ["leases"],
            "resourceNames": [self.description.lease_parts[1]],
            "scope": "Namespaced",
        }
        match: Object = {"resourceRules": [about] if self._sees_the_lease else [about, question]}
        if self.namespace:
            match = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}, **match}
        return match

    @property
    def _sees_the_lease(self) -> bool:
        return bool(self.namespace) and "leases" in self.resources and "UPDATE" in self.operations

    def _lease_only_if_asked(self) -> list[Object]:
        if self._sees_the_lease:
            return []
        namespace, name = self.description.lease_parts
        other = (
            "request.operation != 'UPDATE' || request.resource.group != 'coordination.k8s.io'"
            f" || request.resource.resource != 'leases' || request.name != {text(name)}"
            f" || request.namespace != {text(namespace)}"
        )
        return [unless_asked(self.description, "lease-to-be-asked", other)]
