"""Checks of what the operator's service account may do: enough, and not too much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from kopf_ha.manifests import rbac
from kopf_ha.manifests.cel import TERM_API, TERMS
from kopf_ha.manifests.description import Description
from kopf_ha.oncall.checks import commands
from kopf_ha.oncall.checks.facts import (
    BINDINGS,
    CRDS,
    POLICIES,
    Case,
    NotRead,
    Operator,
    Right,
    SaidElsewhere,
    in_words,
)
from kopf_ha.oncall.checks.finding import Finding, error, warning
from kopf_ha.oncall.cluster import Unknown

_RBAC, _LEASES = "rbac.authorization.k8s.io", "coordination.k8s.io"
_WRITES = ("create", "update", "patch", "delete")
_EVERYTHING = Right("*", "*", "*")


def asked(operator: Operator) -> list[Right]:
    """Return all rights that the checks below ask about."""
    expected = operator.expected
    if isinstance(expected, Unknown):
        return [_EVERYTHING, *_to_policies(), *_to_others()]
    found = [*needed(expected), *(right for rights in _of_children(expected).values() for right in rights)]
    return [_EVERYTHING, *found, *_to_policies(), *_to_definitions(), *_to_others(), *_to_count(expected)]


def needed(description: Description) -> list[Right]:
    """Return what the roles that `kopf-ha manifests` writes allow, apart from children."""
    found = []
    for role in rbac(replace(description, children=(), exempt=())):
        where = str(role["metadata"].get("namespace") or "")
        for rule in role.get("rules") or ():
            found += [
                Right(verb, group, resource, where, name)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for name in rule.get("resourceNames") or ("",)
                for verb in rule["verbs"]
            ]
    return list(dict.fromkeys(found))


def enough(case: Case) -> Iterator[Finding]:
    """Give a finding if the account lacks what the election and the fence need."""
    may, description = _may(case), case.its.description
    if lacking := [right for right in needed(description) if may.get(right) is False]:
        yield error(
            f"{description.service_account} may not {in_words(lacking)}",
            "apply the roles and their bindings",
            commands.regenerate(case.facts, description, "rbac"),
        )


def children(case: Case) -> Iterator[Finding]:
    """Give a finding for each child kind that the account may change, and neither read nor stamp."""
    may, description = _may(case), case.its.description
    for kind, rights in _of_children(description).items():
        allowed = {right.verb for right in rights if may.get(right)}
        lacking = {"get", "patch"} - allowed
        if allowed and lacking:
            yield error(
                f"{description.service_account} may {', '.join(sorted(allowed))} {kind}, and not"
                f" {', '.join(sorted(lacking))}",
                "the fence reads and stamps an object before it is changed: add these verbs to the role",
            )
        elif not allowed:
            yield warning(
                f"{description.service_account} may do nothing with {kind} in all namespaces, which the policies name"
                " as children",
                "this is right if its roles allow it by name, or in some namespaces",
            )


def everything(case: Case) -> Iterator[Finding]:
    """Give a finding if the account may do everything."""
    if _may(case).get(_EVERYTHING):
        yield warning(
            f"{case.its.account} may do everything, so whoever has its credentials can remove the policies, and with"
            " them lines 3 and 4 of the fence",
            "give it a role with what it writes; `kopf-ha manifests --only rbac` writes what the fence needs",
        )


def policies(case: Case) -> Iterator[Finding]:
    """Give a finding if the account may change policies, which no policy judges."""
    yield from _too_much(
        case, _to_policies(), "no policy judges writes of policies, so a stale leader could remove them"
    )


def definitions(case: Case) -> Iterator[Finding]:
    """Give a finding if the account may change definitions."""
    yield from _too_much(
        case,
        _to_definitions(),
        "if it applies its own definitions, the fence keeps the stamp in them. Otherwise take the right away",
    )


def others(case: Case) -> Iterator[Finding]:
    """Give a finding if the account may become another one."""
    yield from _too_much(
        case, _to_others(), "as another account it can write past the policies, which know it by its name"
    )


def count(case: Case) -> Iterator[Finding]:
    """Give a finding if the account may delete its Lease or Term, or write other Leases."""
    description = case.its.description
    yield from _too_much(
        case,
        [right for right in _to_count(description) if not _is_child(description, right)],
        "the Lease and the Term count the terms, and other Leases are other operators': see `kopf-ha manifests --only"
        " rbac`",
    )


def _too_much(case: Case, rights: list[Right], why: str) -> Iterator[Finding]:
    may = _may(case)
    if may.get(_EVERYTHING):
        raise SaidElsewhere("it may do everything")
    if held := [right for right in rights if may.get(right)]:
        yield warning(f"{case.its.account} may {in_words(held)}", why)


def _to_policies() -> list[Right]:
    plurals = (POLICIES, BINDINGS)
    return [Right(verb, "admissionregistration.k8s.io", plural) for plural in plurals for verb in _WRITES]


def _to_definitions() -> list[Right]:
    return [Right(verb, "apiextensions.k8s.io", CRDS) for verb in ("update", "patch", "delete")]


def _to_others() -> list[Right]:
    found = [Right("impersonate", "", plural) for plural in ("users", "groups", "serviceaccounts")]
    found += [Right(verb, _RBAC, plural) for plural in ("clusterroles", "roles") for verb in ("escalate", "bind")]
    return [*found, Right("create", "", "serviceaccounts/token")]


def _to_count(description: Description) -> list[Right]:
    namespace, name = description.lease_parts
    found = [Right(verb, _LEASES, "leases", namespace, name) for verb in ("delete", "deletecollection")]
    found += [Right("delete", TERM_API.partition("/")[0], TERMS, namespace, name)]
    return found + [Right(verb, _LEASES, "leases") for verb in ("update", "patch", "delete")]


def _is_child(description: Description, right: Right) -> bool:
    return any((c.group, c.plural) == (right.group, right.resource) for c in description.children)


def _of_children(description: Description) -> dict[str, list[Right]]:
    where = description.namespaces[0] if description.namespaces else ""
    verbs = ("get", *_WRITES)
    return {c.kind: [Right(v, c.group, c.plural, where) for v in verbs] for c in description.children}


def _may(case: Case) -> Mapping[Right, bool]:
    found = case.its.asked.may
    if isinstance(found, Unknown):
        raise NotRead(found)
    return found
