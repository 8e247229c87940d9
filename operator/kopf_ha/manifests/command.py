"""The command `kopf-ha manifests`."""

from __future__ import annotations

import shlex
from typing import Any

import click

from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests.description import Child, Description, Kind
from kopf_ha.manifests.policies import policies
from kopf_ha.manifests.priority import flow_schema
from kopf_ha.manifests.rbac import rbac
from kopf_ha.manifests.render import render
from kopf_ha.manifests.schema import schema_fragment

_SCHEMA = (
    "Merge this into spec.versions[*].schema.openAPIV3Schema of each CRD. Every served version needs it, and also\n"
    "subresources: {status: {}}. An edit through a version without it removes an object's stamp. So if one served\n"
    "version lacks it, the operator refuses to write the whole kind."
)


@click.command()
@click.option("--group", required=True, help="API group of the operator's kinds.")
@click.option("--kind", "kinds", multiple=True, required=True, metavar="PLURAL[:FLAG…]",
              help="A kind of the operator's own. Flags: cluster (cluster-scoped), deciding, annotations (its CRD has"
              " no status.fencing); map=FIELD and value=FIELD name fields of the status that get no new entries or"
              " value once an object is deleted.")  # fmt: skip
@click.option("--child", "children", multiple=True, metavar="PLURAL[.GROUP][:LABEL=VALUE][:owner=KIND]",
              help="A kind of objects that the operator creates. With a label or an owner, it may write only"
              " objects that have them.")  # fmt: skip
@click.option("--lease", required=True, metavar="NAMESPACE/NAME", help="The Lease that elects the leader.")
@click.option(
    "--service-account", required=True, metavar="NAMESPACE/NAME", help="The account that the replicas run as."
)
@click.option("-n", "--namespace", "namespaces", multiple=True, metavar="NAMESPACE",
              help="A namespace that the operator serves; the same as it is run with. Roles take the place of the"
              " ClusterRole, and other installations can serve other namespaces. May be repeated."
              "  [default: all]")  # fmt: skip
@click.option("--prefix", default="", help="All names begin with it.  [default: kopf-ha-NAMESPACE.SERVICE_ACCOUNT]")
@click.option("--exempt", multiple=True, metavar="PLURAL[.GROUP]/SUB", help="The same as the operator is run with.")
@click.option("--only", multiple=True, type=click.Choice(["policies", "schema", "rbac", "flowschema"]),
              help="Print only these parts. schema, a fragment of a CRD, is printed only if named here.")  # fmt: skip
def manifests(
    group: str, kinds: tuple[str, ...], children: tuple[str, ...], only: tuple[str, ...], **given: Any
) -> None:
    """Print the policies, RBAC and FlowSchema that fence an operator in the API server, for kubectl apply.

    \b
    kopf-ha manifests --group ipam.example.com --kind pools:cluster:deciding:map=allocations --kind claims \\
      --child configmaps:owner=Claim --lease ipam/operator --service-account ipam/operator | kubectl apply -f -
    """
    try:
        description = Description(
            group=group,
            kinds=tuple(Kind.parse(k) for k in kinds),
            children=tuple(Child.parse(c) for c in children),
            **given,
        )
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    click.echo(stream(description, only or ("policies", "rbac", "flowschema")), nl=False)


def stream(description: Description, parts: tuple[str, ...]) -> str:
    """Return these parts as YAML."""
    objects = []
    if "rbac" in parts:
        objects += rbac(description)
    if "flowschema" in parts:
        objects += flow_schema(description)
    if "policies" in parts:
        objects += policies(description)
    text = render(objects, header(description)) if objects else ""
    if "schema" in parts:
        text += ("---\n" if text else "") + render([schema_fragment()], _SCHEMA)
    return text


def header(description: Description) -> str:
    """Return the comment that says where the objects come from, and how the operator has to be run."""
    deciding = [f"--deciding {k.plural}.{description.group}" for k in description.kinds if k.deciding]
    namespace, name = description.lease_parts
    run = " ".join(["kopf-ha run", f"--lease-namespace {namespace} --lease-name {name}", *deciding])
    run += "".join(f" -n {one}" for one in description.namespaces)
    run += "".join(f" --exempt {shlex.quote(e)}" for e in description.exempt)
    return f"Written by kopf-ha manifests, for {run}"
