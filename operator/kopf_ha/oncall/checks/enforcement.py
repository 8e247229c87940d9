"""Checks of what the API server really refuses, tried by dry runs as one of the operator's Pods."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kopf_ha.manifests.policies import all_policies
from kopf_ha.oncall.checks import commands, policies
from kopf_ha.oncall.checks.facts import Case, NotRead, Right, SaidElsewhere, Tried
from kopf_ha.oncall.checks.finding import Finding, error, unknown
from kopf_ha.oncall.cluster import Unknown


def tried(case: Case) -> Iterator[Finding]:
    """Give a finding if nothing could be tried."""
    found = case.its.asked.tried
    if found is None or (isinstance(found, Unknown) and _explained(case)):
        raise SaidElsewhere("nothing was to be tried")
    if isinstance(found, Unknown):
        namespace, _, account = case.its.account.partition("/")
        yield unknown(
            f"not tried: {found}",
            "ask as somebody who may create a token of the operator's account, such as a cluster administrator",
            f"{case.facts.kubectl} auth can-i create serviceaccounts/{account} --subresource=token -n {namespace}",
        )


def rules(case: Case) -> Iterator[Finding]:
    """Give a finding for each policy that is as it should be, and refuses less than it should."""
    found = _tried(case, of_policies=True)
    for policy in all_policies(case.its.description):
        asked = {rule.name: found.refused.get((policy.name, rule.name)) for rule in policy.rules}
        lacking = [name for name, refused in asked.items() if refused is False]
        if lacking:
            yield error(
                f"policy {policy.name} does not refuse what it must, by its rules {', '.join(lacking)}",
                "policies become active about a second after they were applied. If it lasts, the API server's log says"
                " why; its metric apiserver_validating_admission_policy_check_total counts errors",
            )


def lease(case: Case) -> Iterator[Finding]:
    """Give a finding if the Lease's count can be lowered (I2)."""
    if _tried(case, of_policies=True).lowered:
        yield error(
            f"leaseTransitions of Lease {case.its.lease} can be lowered, so tokens could be given twice",
            "apply the policies of the Lease",
            commands.regenerate(case.facts, case.its.description, "policies"),
        )


def stamps(case: Case) -> Iterator[Finding]:
    """Give a finding for each kind whose objects take another pod's stamp, or a lower token (I1, I3)."""
    found = _tried(case)
    for kind in () if _wrong_policies(case) else found.foreign:
        yield error(
            f"{kind}: a status write is accepted without its writer's own stamp",
            "apply the policy for stamped kinds",
            commands.regenerate(case.facts, case.its.description, "policies"),
        )
    for kind in found.sunk:
        yield error(
            f"{kind}: a recorded token can be lowered", "its CustomResourceDefinition needs the rule: see above"
        )


def _tried(case: Case, *, of_policies: bool = False) -> Tried:
    """Return what dry runs found out.

    Args:
        case: of an operator.
        of_policies: only if the policies are as they should be, which is said already otherwise.

    Raises:
        SaidElsewhere: there is nothing to say.
    """
    found = case.its.asked.tried
    if found is None or isinstance(found, Unknown):
        raise SaidElsewhere("nothing was tried")
    if of_policies and _wrong_policies(case):
        raise SaidElsewhere("the policies are others")
    return found


def _wrong_policies(case: Case) -> bool:
    """Return whether policies are missing or changed, which is said already."""
    checks = (policies.known, policies.names, policies.renamed, policies.present, policies.same)
    return any(_finds(check, case) for check in checks)


def _finds(check: Callable[[Case], Iterator[Finding]], case: Case) -> bool:
    try:
        return any(check(case))
    except NotRead:
        return False


def _explained(case: Case) -> bool:
    """Return whether something that is said elsewhere keeps all from being tried: the Lease, or a missing right."""
    may = case.its.asked.may
    namespace, name = case.its.lease_parts
    needed = [Right(verb, "coordination.k8s.io", "leases", namespace, name) for verb in ("get", "update")]
    if not isinstance(may, Unknown) and any(may.get(right) is False for right in needed):
        return True
    try:
        lease = case.lease
    except NotRead:
        return False
    return not ((lease or {}).get("spec") or {}).get("leaseTransitions")
