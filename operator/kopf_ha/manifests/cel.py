"""How a policy is written in CEL: expressions that several policies share, and the objects around them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kopf_ha.manifests.description import Description

Object = dict[str, Any]

#: The uid of the pod that the writer's credentials are bound to. Only the API server itself can set it.
WRITER = "request.userInfo.?extra[?'authentication.kubernetes.io/pod-uid'].orValue([''])[0]"
SUB = "has(request.subResource) ? request.subResource : ''"

#: The field managers of the self-test's questions begin with this. A question is always a dry run.
QUESTION = "kopf-ha-ask:"
#: The greatest length of a field manager that the API server accepts.
_MANAGER_MAX = 128
#: The API of the Term, and its plural.
TERM_API, TERMS = "kopf-ha.dev/v1", "terms"
#: What to do about a token that is bound to no pod.
BIND = "use the token that Kubernetes mounts into the pod"
UNBOUND = (
    f"fencing: the writer's service account token is not bound to a pod, so its writes cannot be attributed; {BIND}"
)

#: The likely cause where a write shows no stamp, or its object has none: the fence adds one to every write.
NOT_FENCED = "; `kopf-ha run` and kopf_ha.operator() send stamps, a plain `kopf run` sends none"


def text(value: str) -> str:
    """Return a string as a CEL literal."""
    return json.dumps(value) if "'" in value or "\\" in value else f"'{value}'"


def texts(values: Sequence[str]) -> str:
    """Return a list of strings as a CEL literal."""
    return "[" + ", ".join(text(v) for v in values) + "]"


def unless_unbound(said: str, otherwise: str) -> str:
    """Return the CEL expression of a message about the writer's pod; the policy has the variable `writer`.

    Args:
        said: how it begins; a token that is not bound to a pod is named as the cause then.
        otherwise: the rest of it for any other token, a CEL expression.
    """
    unbound = f", and the service account token of this one is not bound to a pod; {BIND}"
    return f"{text(said)} + (variables.writer == '' ? {text(unbound)} : {otherwise})"


def asks(description: Description, *, of_any_kind: bool = False) -> str:
    """Return the CEL expression for: the request is a question of the operator's self-test.

    A question is a dry-run write, so it changes nothing. Most policies are asked by one of a Lease.
    """
    return (
        ("" if of_any_kind else "request.resource.resource == 'leases' && ")
        + f"request.userInfo.username == {text(description.user)} && request.?dryRun.orValue(false)"
        f" && request.?options.?fieldManager.orValue('').startsWith('{QUESTION}')"
    )


def operator_only(description: Description) -> Object:
    """Return the condition that matches only the operator's requests. It is cheap to evaluate, so it comes first."""
    return {"name": "operator", "expression": f"request.userInfo.username == {text(description.user)}"}


def others_only(description: Description) -> Object:
    """Return the condition that matches all requests except the operator's, and the self-test's questions."""
    return unless_asked(description, "not-the-operator", f"request.userInfo.username != {text(description.user)}")


def not_exempt(description: Description, entries: Sequence[str]) -> list[Object]:
    """Return the condition that leaves out writes to these ``plural/subresource``."""
    if not entries:
        return []
    this = f"request.resource.resource + '/' + ({SUB})"
    return [unless_asked(description, "not-exempt", f"!({this} in {texts(entries)})")]


def unless_asked(description: Description, name: str, expression: str, *, of_any_kind: bool = False) -> Object:
    """Return a condition that also matches the self-test's questions, which are all dry runs."""
    return {"name": name, "expression": f"{expression} || ({asks(description, of_any_kind=of_any_kind)})"}


def joined(conditions: Sequence[Object]) -> list[Object]:
    """Return all conditions as one, in this order.

    The API server evaluates each condition of a policy, for the requests of everybody, whatever those before it said.
    Within one expression it stops at the first that is false.
    """
    if len(conditions) < 2:
        return list(conditions)
    return [{"name": "applies", "expression": " && ".join(f"({one['expression']})" for one in conditions)}]


def metadata(section: str, name: str, of: str) -> str:
    """Return the CEL expression for an annotation or a label of ``object`` or ``oldObject``; empty without one.

    Args:
        section: ``annotations`` or ``labels``.
        name: of the entry.
        of: ``object`` or ``oldObject``, which may be null.
    """
    return f"({of} == null ? '' : {of}.metadata.?{section}[?{text(name)}].orValue(''))"


@dataclass(frozen=True, slots=True)
class Rule:
    """One validation of a policy. It refuses with 403.

    Args:
        name: its name within the policy. The self-test asks for the rule by this name, so it must not change from
            version to version.
        expression: a CEL expression that is true for what is allowed.
        message: the message of the refusal.
        tokens: a CEL expression for a message that also names the tokens, or the likely cause. `message` is used where
            it cannot be evaluated, and in the self-test's sentences.
        question: what the self-test asks for, if that must not contain the policy's name.
    """

    name: str
    expression: str
    message: str
    tokens: str = ""
    question: str = ""

    def asked(self, policy: str) -> str:
        """Return the field manager by which the self-test asks whether the rule is in force in this policy."""
        name = QUESTION + (self.question or f"{policy}/{self.name}")
        return name if len(name) <= _MANAGER_MAX else QUESTION + hashlib.sha256(name.encode()).hexdigest()

    def validation(self, policy: str) -> Object:
        """Return the validation as part of a policy.

        It refuses the self-test's question about this rule, and accepts the questions about all others.
        """
        question = text(self.asked(policy))
        expression = f"variables.asked == '' ? ({self.expression}) : variables.asked != {question}"
        made = {"expression": expression, "reason": "Forbidden", "message": self.message}
        return made | ({"messageExpression": self.tokens} if self.tokens else {})


def known_subresource(names: Sequence[str], option: str) -> Rule:
    """Return the rule that refuses the operator's writes to all other subresources than `names`.

    Args:
        names: the subresources whose body is the object, with its stamp; empty for the object itself.
        option: of `kopf-ha manifests`, by which another subresource can be allowed.
    """
    why = "shows no stamp, so no policy can judge it; to allow it, write"
    return Rule(
        "subresource",
        f"variables.sub in {texts(names)}",
        f"fencing: a write to this subresource {why} {option}:SUBRESOURCE for kopf-ha manifests",
        f"'fencing: a write to ' + variables.sub + {text(f' {why} {option}:')} + variables.sub"
        " + ' for kopf-ha manifests'",
    )


def conditional_delete(what: str) -> Rule:
    """Return the rule that refuses the operator's deletions without a resourceVersion as precondition."""
    return Rule(
        "conditional-delete",
        "request.operation != 'DELETE' || (has(request.options.preconditions)"
        " && has(request.options.preconditions.resourceVersion))",
        f"fencing: {what} is deleted only with preconditions.resourceVersion, the revision that was decided from",
    )


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy and its binding, which has the same name. In an emergency, removing the binding switches the policy off.

    The self-test asks about each rule by a dry-run update of the Lease, whatever kind the policy is for, because the
    Lease always exists and the operator may update it. So every policy also matches that request.

    Args:
        name: the name of policy and binding.
        groups: the API groups of `resources`.
        resources: plurals, also with ``/subresource``.
        operations: ``CREATE``, ``UPDATE``, ``DELETE``, ``CONNECT``.
        description: the operator that the policy is for.
        conditions: the policy applies to requests for which all of them are true.
        rules: what the policy demands.
        variables: names and CEL expressions that the rules use.
        namespaces: the only namespaces that the policy applies to; empty for all. Cluster-scoped objects are in none,
            so it applies to them, too. The API server itself sets the label by which namespaces are selected, and
            nobody can change it (I10).
        scope: ``Cluster``, ``Namespaced`` or ``*``.
        by_term: the rules compare with the operator's Term, as ``params``. The API server looks for the Term before it
            evaluates the conditions, so an error there would refuse the writes of everybody in the cluster. Hence the
            policy is not in force where the API server does not know the Term, its kind, or cannot evaluate a rule.
        excluded: resource rules of what the policy is not for.
    """

    name: str
    groups: Sequence[str]
    resources: Sequence[str]
    operations: Sequence[str]
    description: Description
    conditions: Sequence[Object]
    rules: Sequence[Rule]
    variables: Sequence[tuple[str, str]] = ()
    namespaces: Sequence[str] = ()
    scope: str = "*"
    by_term: bool = False
    excluded: Sequence[Object] = ()

    def objects(self) -> list[Object]:
        """Return the policy and its binding."""
        api = "admissionregistration.k8s.io/v1"
        asks_this = asks(self.description, of_any_kind=self._for_everything)
        variables = [("asked", f"{asks_this} ? request.options.fieldManager : ''"), *self.variables]
        namespace, name = self.description.lease_parts
        ref = {"name": name, "namespace": namespace, "parameterNotFoundAction": "Allow"}
        spec: Object = {
            "failurePolicy": "Ignore" if self.by_term else "Fail",
            **({"paramKind": {"apiVersion": TERM_API, "kind": "Term"}} if self.by_term else {}),
            "matchConstraints": self._matched(),
            "matchConditions": joined([*self._inside(), *self.conditions, *self._lease_only_if_asked()]),
            "variables": [{"name": n, "expression": e} for n, e in variables],
            "validations": [r.validation(self.name) for r in self.rules],
        }
        return [
            {"apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": self.name}, "spec": spec},
            {
                "apiVersion": api,
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": self.name},
                "spec": {
                    "policyName": self.name,
                    **({"paramRef": ref} if self.by_term else {}),
                    "validationActions": ["Deny"],
                },
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
        if self.excluded:
            match["excludeResourceRules"] = list(self.excluded)
        if self.namespaces:
            # The Lease's namespace, too, where the self-test asks.
            names = sorted({*self.namespaces, self.description.lease_parts[0]})
            only = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": names}
            match = {"namespaceSelector": {"matchExpressions": [only]}, **match}
        return match

    def _inside(self) -> list[Object]:
        """Return the condition that leaves out the Lease's namespace, if that is not one of the policy's."""
        if not self.namespaces or self.description.lease_parts[0] in self.namespaces:
            return []
        inside = f"request.?namespace.orValue('') in {texts(['', *self.namespaces])}"
        return [unless_asked(self.description, "inside", inside)]

    @property
    def _for_everything(self) -> bool:
        return "*/*" in self.resources

    @property
    def _sees_the_lease(self) -> bool:
        if self._for_everything:
            return True
        return bool(self.namespaces) and "leases" in self.resources and "UPDATE" in self.operations

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
