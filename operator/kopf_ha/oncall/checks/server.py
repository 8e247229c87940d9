"""Checks before installation: the API server, and what the person may do."""

from __future__ import annotations

from collections.abc import Iterator

from kopf_ha.oncall.checks import samples
from kopf_ha.oncall.checks.facts import BINDINGS, POLICIES, Case, NotRead, in_words
from kopf_ha.oncall.checks.finding import Finding, error, unknown
from kopf_ha.oncall.checks.operators import operators as operators_of
from kopf_ha.oncall.cluster import Unknown

#: The first version in which ValidatingAdmissionPolicies are generally available, as (major, minor).
OLDEST = (1, 30)
_ADMISSION = "admissionregistration.k8s.io/v1"


def version(case: Case) -> Iterator[Finding]:
    """Give a finding if the API server is too old."""
    found = case.facts.version
    if isinstance(found, Unknown):
        yield unknown(found)
    elif found < OLDEST:
        yield error(
            f"the API server is Kubernetes {found[0]}.{found[1]}",
            f"the policies need {OLDEST[0]}.{OLDEST[1]} or newer: update the cluster. Without policies only lines 1 and"
            " 2 of the fence hold",
        )


def policies(case: Case) -> Iterator[Finding]:
    """Give a finding if the API server has no ValidatingAdmissionPolicies."""
    served = case.facts.served
    if isinstance(served, Unknown):
        raise NotRead(served)
    lacking = [p for p in (POLICIES, BINDINGS) if f"{_ADMISSION}/{p}" not in served]
    if lacking:
        yield error(
            f"the API server does not serve {' and '.join(lacking)} of {_ADMISSION}",
            "see that --runtime-config and --feature-gates of the API server leave them on",
        )


def expressions(case: Case) -> Iterator[Finding]:
    """Give a finding if the API server refuses policies like those that are written."""
    yield from _sample(case, samples.EXPRESSIONS)
    yield from _sample(case, samples.TERM_PARAMETER)


def rule(case: Case) -> Iterator[Finding]:
    """Give a finding if the API server refuses definitions with the stamp and its rule."""
    yield from _sample(case, samples.RULE)


def operators(case: Case) -> Iterator[Finding]:
    """Give a finding if there is no operator of kopf-ha where it was looked for."""
    facts = case.facts
    if not operators_of(facts):
        named = f" that elects by Lease {facts.lease}" if facts.lease else ""
        yield error(
            f"no Deployment or StatefulSet of kopf-ha{named} was found in {facts.looked_at}",
            "name its namespace with -n, or look everywhere with -A. Before installation, say --pre",
        )


def person(case: Case) -> Iterator[Finding]:
    """Give a finding if the person may not apply what `kopf-ha manifests` writes."""
    may = case.facts.person
    if isinstance(may, Unknown):
        raise NotRead(may)
    if lacking := [right for right, allowed in may.items() if not allowed]:
        yield error(
            f"you may not {in_words(lacking)}",
            "a cluster administrator has to apply what `kopf-ha manifests` writes, or to give you these rights",
        )


def _sample(case: Case, title: str) -> Iterator[Finding]:
    refused = case.facts.samples.get(title, Unknown("not tried"))
    if isinstance(refused, Unknown):
        yield unknown(f"{title}: {refused}")
    elif refused:
        yield error(
            f"the API server refuses {title} as kopf-ha writes them: {refused}",
            "this version of Kubernetes, or one of its feature gates, does not fit this version of kopf-ha",
        )
