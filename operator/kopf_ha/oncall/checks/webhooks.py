"""Checks of admission webhooks of others: what they are asked about waits for them, and fails with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kopf_ha.oncall.checks.facts import MUTATING, NAMESPACES, VALIDATING, Case, SaidElsewhere
from kopf_ha.oncall.checks.finding import Finding, warning


def between(case: Case) -> Iterator[Finding]:
    """Give a finding for each webhook that is asked about each renewal of the Lease, or about stamps."""
    namespace = case.its.lease_parts[0]
    targets = [("coordination.k8s.io", "leases", namespace, "each renewal of the Lease")]
    try:
        description = case.its.description
    except SaidElsewhere:
        pass
    else:
        stamped = [
            (description.group, f"{k.plural}/status", "", f"the stamps of {k.plural}") for k in description.stamped
        ]
        targets += stamped
    for plural in (VALIDATING, MUTATING):
        for configuration in case.facts.of(plural):
            for webhook in configuration.get("webhooks") or ():
                about = [
                    what for group, resource, where, what in targets if _asks(case, webhook, group, resource, where)
                ]
                if about:
                    name = f"{configuration['metadata']['name']} ({webhook.get('name')})"
                    fails = webhook.get("failurePolicy", "Fail") == "Fail"
                    yield warning(
                        f"webhook {name} is asked about {' and '.join(about)}, and waited for up to"
                        f" {webhook.get('timeoutSeconds', 10)} s" + (", and they fail with it" if fails else ""),
                        "leave the operator's Lease and kinds out of its rules, or its namespace by a"
                        " namespaceSelector",
                    )


def _asks(case: Case, webhook: Any, group: str, resource: str, namespace: str) -> bool:
    """Return whether a webhook is asked about updates of a resource, as far as its rules and its namespaces tell."""
    plural, _, sub = resource.partition("/")
    names = {resource, "*/*"} | ({f"{plural}/*", f"*/{sub}"} if sub else {"*"})
    matches = any(
        not {"UPDATE", "*"}.isdisjoint(rule.get("operations") or ())
        and not {group, "*"}.isdisjoint(rule.get("apiGroups") or ())
        and not names.isdisjoint(rule.get("resources") or ())
        for rule in webhook.get("rules") or ()
    )
    selector = webhook.get("objectSelector") or {}
    if not matches or selector or webhook.get("matchConditions"):
        return False
    found = case.facts.named(NAMESPACES, namespace) if namespace else None
    labels = (found["metadata"].get("labels") or {}) if found else {}
    return not namespace or _selects(webhook.get("namespaceSelector") or {}, labels)


def _selects(selector: Any, labels: Any) -> bool:
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for one in selector.get("matchExpressions") or ():
        key, values = one.get("key"), one.get("values") or ()
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not holds.get(str(one.get("operator")), True):
            return False
    return True
