"""Checks of CustomResourceDefinitions: each served version of a stamped kind has the stamp and its rule (I1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kopf_ha.manifests import schema_fragment, term_crd
from kopf_ha.oncall.checks import commands
from kopf_ha.oncall.checks.compare import missing
from kopf_ha.oncall.checks.facts import CRDS, Case, Object
from kopf_ha.oncall.checks.finding import Finding, error, warning

_RULES = "x-kubernetes-validations"


def installed(case: Case) -> Iterator[Finding]:
    """Give a finding for each kind of the operator's own that is not installed."""
    facts, description = case.facts, case.its.description
    for kind in description.kinds:
        name = f"{kind.plural}.{description.group}"
        found = facts.named(CRDS, name)
        if found is None and facts.from_files:
            yield error(f"{name} is {facts.absent}", "name the file with its CustomResourceDefinition with -f, too")
        elif found is None:
            yield error(
                f"{name} is {facts.absent}", "apply its CustomResourceDefinition", f"{facts.kubectl} apply -f …"
            )
        elif not facts.from_files and not _established(found):
            yield error(f"{name} is not established", "its conditions say why", f"{facts.kubectl} describe crd {name}")


def stamp(case: Case) -> Iterator[Finding]:
    """Give a finding for each served version without the stamp: an edit by it removes an object's stamp."""
    for name, definition, version in _versions(case):
        wanted = {"properties": {"status": {"properties": {"fencing": _bare(_fencing())}}}}
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        if lacks := missing(wanted, schema):
            yield error(
                f"version {version['name']} of {name} is served and lacks status.fencing, or has another ({lacks})",
                "merge what this prints into its schema. If nobody needs this version, do not serve it",
                _mend(case, definition, version),
            )


def rule(case: Case) -> Iterator[Finding]:
    """Give a finding for each served version without the transition rule: a token could go down by it."""
    (ours,) = schema_fragment()[_RULES]
    for name, _, version in _versions(case):
        rules = ((version.get("schema") or {}).get("openAPIV3Schema") or {}).get(_RULES) or ()
        if not any(_squeezed(r) == _squeezed(ours) for r in rules):
            yield error(
                f"version {version['name']} of {name} has no rule about status.fencing, or another",
                "merge what this prints into its schema",
                "kopf-ha manifests --only schema" + _given(case),
            )


def subresource(case: Case) -> Iterator[Finding]:
    """Give a finding for each served version without the status subresource."""
    for name, _, version in _versions(case):
        if (version.get("subresources") or {}).get("status") is None:
            yield error(
                f"version {version['name']} of {name} has no status subresource, so its objects cannot be stamped by"
                " status.fencing",
                f"add `subresources: {{status: {{}}}}` to it, or fence the kind by annotations: --kind"
                f" {name.partition('.')[0]}"
                ":annotations",
            )


def conversion(case: Case) -> Iterator[Finding]:
    """Give a finding if a webhook converts objects, since it might drop the stamp."""
    seen = set()
    for name, definition, _ in _versions(case):
        strategy = (definition["spec"].get("conversion") or {}).get("strategy")
        served = [v for v in definition["spec"]["versions"] if v.get("served")]
        if strategy == "Webhook" and len(served) > 1 and name not in seen:
            seen.add(name)
            yield warning(
                f"a webhook converts objects of {name}, and nobody but you can see that it keeps status.fencing",
                "write an object by one version, and look at its status.fencing by the other",
            )


def term(case: Case) -> Iterator[Finding]:
    """Give a finding if the definition of the Term is missing, or not the one of this version."""
    facts, ours = case.facts, term_crd.definition()
    found = facts.named(CRDS, ours["metadata"]["name"])
    mend = f"kopf-ha manifests {commands.flags(case.its.description)} --only term | {facts.kubectl} apply -f -"
    if found is None:
        yield error(
            f"{ours['metadata']['name']} is {facts.absent}, so no API server can know who leads", "apply it", mend
        )
        return
    spec: Any = dict(ours["spec"])
    (version,) = spec.pop("versions")
    del version["additionalPrinterColumns"]
    live = [v for v in found["spec"]["versions"] if v.get("name") == version["name"]]
    if lacks := missing(spec, found["spec"]) or missing([version], live):
        yield error(
            f"{ours['metadata']['name']} is not as this version writes it: {lacks} differs", "apply it again", mend
        )


def _versions(case: Case) -> Iterator[tuple[str, Object, Any]]:
    """Give name, definition and each served version of the stamped kinds that are installed."""
    description = case.its.description
    for kind in description.stamped:
        name = f"{kind.plural}.{description.group}"
        definition = case.facts.named(CRDS, name)
        for version in definition["spec"]["versions"] if definition else ():
            if version.get("served"):
                yield name, definition or {}, version


def _mend(case: Case, definition: Object, version: Any) -> str:
    if version.get("storage") or case.facts.from_files:
        return "kopf-ha manifests --only schema" + _given(case)
    at = [v["name"] for v in definition["spec"]["versions"]].index(version["name"])
    patch = f'[{{"op":"replace","path":"/spec/versions/{at}/served","value":false}}]'
    return f"{case.facts.kubectl} patch crd {definition['metadata']['name']} --type=json -p '{patch}'"


def _given(case: Case) -> str:
    return " " + (case.facts.files or commands.flags(case.its.description))


def _established(definition: Object) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)


def _fencing() -> Any:
    return schema_fragment()["properties"]["status"]["properties"]["fencing"]


def _squeezed(one: Any) -> tuple[str, str]:
    return " ".join(str(one.get("rule")).split()), " ".join(str(one.get("message", "")).split())


def _bare(schema: Any) -> Any:
    """Return a schema without its descriptions, of which only people take notice."""
    if not isinstance(schema, dict):
        return schema
    return {key: _bare(value) for key, value in schema.items() if key != "description" or not isinstance(value, str)}
