"""Policies and definitions as `kopf-ha manifests` writes them, of an operator that does not exist.

Before installation the API server is asked by dry runs whether it takes them. It compiles each expression then, so that
shows more than a version number: optional fields, variables, match conditions, and limits of cost.
"""

from __future__ import annotations

from collections.abc import Iterator

from kopf_ha.manifests import Child, Description, Kind, schema_fragment, term_crd
from kopf_ha.manifests.cel import Object
from kopf_ha.manifests.policies import policies

#: Titles: what a sample shows.
EXPRESSIONS, TERM_PARAMETER, RULE = "policies", "policies by the Term", "the rule of a definition"
_GROUP = "check.kopf-ha.dev"


def description() -> Description:
    """Return an operator with one kind of each sort."""
    return Description(
        group=_GROUP,
        kinds=(
            Kind("pools", cluster=True, deciding=True, maps=("given",), scale=True),
            Kind("claims", values=("address",)),
            Kind("plains", annotations=True),
        ),
        children=(
            Child("configmaps", "", (("app", "check"),), "Claim"),
            Child("deployments", "apps"),
            Child("pods", "", subresources=("eviction", "binding")),
        ),
        lease="kopf-ha-check/check",
        service_account="kopf-ha-check/check",
        namespaces=("kopf-ha-check-served",),
    )


def samples() -> Iterator[tuple[str, str, Object]]:
    """Give what is tried: title, path of the collection, and object."""
    admission = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    for one in policies(description()):
        if one["kind"] == "ValidatingAdmissionPolicy":
            yield (TERM_PARAMETER if "paramKind" in one["spec"] else EXPRESSIONS), admission, one
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    yield RULE, definitions, _definition()
    yield RULE, definitions, term_crd.definition()


def _definition() -> Object:
    names = {"kind": "Claim", "listKind": "ClaimList", "plural": "claims", "singular": "claim"}
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    version["schema"] = {"openAPIV3Schema": {"type": "object", **schema_fragment()}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"claims.{_GROUP}"},
        "spec": {"group": _GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }
