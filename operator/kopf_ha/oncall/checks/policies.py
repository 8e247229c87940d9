"""Checks of policies and bindings: they are there, for this Lease and account, and as this version writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kopf_ha.core.refusal import PREFIX
from kopf_ha.manifests import policies as written
from kopf_ha.manifests import programs, workload
from kopf_ha.manifests.description import FULL, Description
from kopf_ha.oncall.checks import commands
from kopf_ha.oncall.checks.compare import difference
from kopf_ha.oncall.checks.facts import BINDINGS, POLICIES, Case, Object, Operator, SaidElsewhere
from kopf_ha.oncall.checks.finding import Finding, error, warning
from kopf_ha.oncall.checks.operators import named_for
from kopf_ha.oncall.cluster import Unknown
from kopf_ha.oncall.protection import described

_PLURALS = {"ValidatingAdmissionPolicy": POLICIES, "ValidatingAdmissionPolicyBinding": BINDINGS}


def known(case: Case) -> Iterator[Finding]:
    """Give a finding if nobody can tell what the policies should be, or if nothing protects the operator."""
    facts, operator = case.facts, case.its
    facts.of(BINDINGS)
    facts.of(POLICIES)
    if isinstance(operator.expected, Unknown):
        yield error(
            f"no policy is for Lease {operator.lease}, and {operator.expected}",
            "apply what `kopf-ha manifests` writes from the manifests of the operator",
            f"kopf-ha manifests {facts.files or '-f FILE'} | {facts.kubectl} apply -f -",
        )


def names(case: Case) -> Iterator[Finding]:
    """Give a finding if the policies name another Lease or account, as after an overlay of kustomize."""
    operator = case.its
    if not operator.descriptions:
        raise SaidElsewhere("there are none")
    if _right(operator):
        return
    name, found = next(iter(operator.descriptions.items()))
    changed = [
        f"{what} {there}, and {operator.title} {has} {here}"
        for what, there, here, has in (
            ("Lease", found.lease, operator.lease, "elects by"),
            ("service account", found.service_account, operator.account, "runs as"),
        )
        if there != here
    ]
    yield error(
        f"the policies (such as {name}) are for {'; and for '.join(changed)}. So they refuse its pods nothing",
        "kustomize does not change names inside of expressions. Write policies and FlowSchema for these names, and"
        " leave the others out",
        commands.regenerate(case.facts, operator.description, "policies", "flowschema"),
    )


def renamed(case: Case) -> Iterator[Finding]:
    """Give a finding if the policies have other names than they were written with, as after a prefix of kustomize."""
    facts, operator = case.facts, case.its
    for name, found in _right(operator).items():
        prefix = named_for(name, found)
        if prefix != found.prefix:
            yield error(
                f"the policies were written with the names {found.prefix}-…, and are called {prefix}-…. The fence does"
                " not recognise their refusals, and cannot ask whether they are in force",
                "write them with kopf-ha's names, and delete the renamed ones",
                commands.regenerate(facts, operator.description, "policies")
                + f" && {_delete(case, [n for n in _all(case) if n.startswith(prefix + '-')])}",
            )


def present(case: Case) -> Iterator[Finding]:
    """Give a finding if policies or bindings are missing."""
    _check_names(case)
    lacking: dict[str, list[str]] = {}
    for kind, name, stored, _ in _compared(case):
        if stored is None:
            lacking.setdefault(name, []).append("policy" if _PLURALS[kind] == POLICIES else "binding")
    if lacking:
        listed = [f"{name} ({' and '.join(kinds)})" for name, kinds in lacking.items()]
        yield error(
            f"what a stale leader does is not refused by {', '.join(listed)}: {case.facts.absent}",
            "apply them",
            _again(case),
        )


def same(case: Case) -> Iterator[Finding]:
    """Give a finding for each policy and binding that is not as this version of kopf-ha writes it."""
    _check_names(case)
    for kind, name, stored, made in _compared(case):
        if stored is not None and (at := difference(made["spec"], stored["spec"], "spec")):
            yield error(
                f"{kind} {name} is not as this version writes it: {at} differs",
                "somebody changed it, or another version of kopf-ha wrote it; apply it again",
                _again(case),
            )


def typed(case: Case) -> Iterator[Finding]:
    """Give a finding if the API server warns about an expression."""
    _check_names(case)
    for kind, name, stored, _ in _compared(case):
        warnings = ((stored or {}).get("status") or {}).get("typeChecking") or {}
        told = [str(w.get("warning")) for w in warnings.get("expressionWarnings") or ()]
        if kind == "ValidatingAdmissionPolicy" and told:
            yield warning(
                f"the API server warns about {name}: {told[0]}", "it says where an expression cannot be judged"
            )


def earlier(case: Case) -> Iterator[Finding]:
    """Give a finding if policies of an earlier release, or with another prefix, are there beside the right ones."""
    right = _right(case.its)
    wanted = case.its.description.prefix
    others = [named_for(name, found) for name, found in case.its.descriptions.items() if found.prefix != wanted]
    here = _all(case)
    for prefix in dict.fromkeys(p for p in others if right and p):
        # Another account's prefix may begin like this one.
        theirs = [n for n in here if n.startswith(prefix + "-") and not n.startswith(wanted + "-")]
        yield warning(
            f"policies with the names {prefix}-… are for the same Lease or account as those with {wanted}-…",
            "they are of an earlier release, or were written with another --prefix: delete them",
            _delete(case, theirs),
        )
    before = f"{PREFIX}-{case.its.account.partition('/')[2]}"  # how earlier releases named them
    for one in described(case.facts.of(POLICIES)):
        if one.description is None and named_for(one.policy, case.its.description) in (wanted, before):
            yield error(
                f"policy {one.policy} was written by a version of kopf-ha whose form this one does not know",
                "update this program, or apply the policies that this version writes",
                _again(case),
            )


def fit(case: Case) -> Iterator[Finding]:
    """Give a finding if the policies were written for other options than the replicas run with."""
    operator = case.its
    right = _right(operator)
    if not right or not _shows_options(operator.container):
        raise SaidElsewhere("there is nothing to compare")
    description = next(iter(right.values()))
    for what, theirs, ours in _options(description, operator):
        if theirs != ours:
            yield error(
                f"the policies were written for {what} {theirs or 'none'}, and {operator.title} runs with"
                f" {ours or 'none'}",
                f"{_to_change(operator.container, what)}, or write the policies for what it runs with",
            )


def _to_change(container: Any, flag: str) -> str:
    """Return what to do in the workload."""
    place, where = workload.place_of(container, flag), f"container {container['name']}"
    return f"change {place} of {where}" if place else f"add {flag} to the arguments of {where}"


def _options(description: Description, operator: Operator) -> Iterator[tuple[str, str, str]]:
    container = operator.container
    deciding = sorted(f"{k.plural}.{description.group}" for k in description.kinds if k.deciding)
    yield "--deciding", ", ".join(deciding), ", ".join(sorted(workload.given_deciding(container)))
    level = workload.given(container, "--level") or FULL
    yield "--level", description.level, level
    exempt = {*programs.option(container, "--exempt"), *workload.variable(container, "KOPF_HA_EXEMPT").split(",")} - {
        ""
    }
    missing = sorted({e.strip() for e in exempt} - {*description.exempt})
    # An exempt kind as a whole is unknown to policies.
    yield "--exempt", "", ", ".join(e for e in missing if "/" in e)
    served = workload.served_namespaces(container, operator.namespace)
    if description.namespaces and not served:
        yield "-n", ", ".join(description.namespaces), "-A" if workload.names_all_namespaces(container) else ""
    elif description.namespaces:
        # Nobody can tell here which namespaces a pattern or a variable means.
        plain = {n for n in served if not set(n) & set("*?!,[]$")}
        yield "-n", "", ", ".join(sorted(plain - {*description.namespaces}))


def _shows_options(container: Any) -> bool:
    """Return whether a container's command is seen: not an image's own, nor a program that has `kopf_ha.Settings`."""
    return programs.is_fenced(container) or (container.get("args") or ("",))[0] in ("run", "exec")


# --- what is compared


def _right(operator: Operator) -> dict[str, Description]:
    """Return the descriptions that are for exactly this Lease and account, by the names of policies."""
    names = operator.lease, operator.account
    return {n: d for n, d in operator.descriptions.items() if (d.lease, d.service_account) == names}


def _check_names(case: Case) -> None:
    """Check that the operator's policies have its names in them and on them.

    Raises:
        SaidElsewhere: they have others.
    """
    right = _right(case.its)
    renamed = any(named_for(name, found) != found.prefix for name, found in right.items())
    if renamed or (case.its.descriptions and not right):
        raise SaidElsewhere("they have other names")


def _compared(case: Case) -> Iterator[tuple[str, str, Object | None, Any]]:
    """Give kind, name, the stored object and the written one of all policies and bindings."""
    for made in written(case.its.description):
        name = made["metadata"]["name"]
        yield made["kind"], name, case.facts.named(_PLURALS[made["kind"]], name), made


def _again(case: Case) -> str:
    return commands.regenerate(case.facts, case.its.description, "policies")


def _all(case: Case) -> list[str]:
    names = [str(o["metadata"]["name"]) for plural in (POLICIES, BINDINGS) for o in case.facts.of(plural)]
    return list(dict.fromkeys(names))


def _delete(case: Case, names: list[str]) -> str:
    kubectl, listed = case.facts.kubectl, " ".join(names)
    return f"{kubectl} delete {POLICIES},{BINDINGS} --ignore-not-found {listed}"
