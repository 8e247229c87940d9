"""What roles and bindings in files allow an account. For an installed operator the API server itself is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kopf_ha.oncall.checks.facts import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, Facts, Right
from kopf_ha.oncall.cluster import Unknown


def may(facts: Facts, account: str, rights: Iterable[Right]) -> Mapping[Right, bool] | Unknown:
    """Return what the roles among the objects allow.

    Args:
        facts: the objects.
        account: ``namespace/name``.
        rights: what is asked about.

    Returns:
        `Unknown` if no binding among them names the account, or one names a role that is not among them.
    """
    granted: list[tuple[str, Any]] = []
    bound = False
    for where, ref in _bound(facts, account):
        bound = True
        name, kind = str(ref.get("name")), str(ref.get("kind"))
        role = facts.named(ROLES, name, where) if kind == "Role" else facts.named(CLUSTER_ROLES, name)
        if role is None or role.get("aggregationRule"):
            return Unknown(f"{kind} {name}, which is bound to {account}, is not in the files")
        granted += [(where, rule) for rule in role.get("rules") or ()]
    if not bound:
        return Unknown(f"no binding in the files names {account}")
    return {right: any(_allows(where, rule, right) for where, rule in granted) for right in rights}


def _bound(facts: Facts, account: str) -> Iterator[tuple[str, Any]]:
    """Give where each binding of the account holds, empty for everywhere, and which role it names."""
    namespace, _, name = account.partition("/")
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    for plural in (CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS):
        for binding in facts.of(plural):
            where = str(binding["metadata"].get("namespace") or "") if plural == ROLE_BINDINGS else ""
            for subject in binding.get("subjects") or ():
                kind, called = subject.get("kind"), subject.get("name")
                own = kind == "ServiceAccount" and (subject.get("namespace") or where or namespace, called) == (
                    namespace,
                    name,
                )
                user = kind == "User" and called == f"system:serviceaccount:{namespace}:{name}"
                if own or user or (kind == "Group" and called in groups):
                    yield where, binding.get("roleRef") or {}
                    break


def _allows(where: str, rule: Any, right: Right) -> bool:
    sub = right.resource.partition("/")[2]
    resources = {right.resource, "*"} | ({f"*/{sub}"} if sub else set())
    names = rule.get("resourceNames") or ()
    return (
        where in ("", right.namespace)
        and not {right.verb, "*"}.isdisjoint(rule.get("verbs") or ())
        and not {right.group, "*"}.isdisjoint(rule.get("apiGroups") or ())
        and not resources.isdisjoint(rule.get("resources") or ())
        and (not names or right.name in names)
    )
