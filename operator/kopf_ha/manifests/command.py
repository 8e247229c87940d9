"""The command `kopf-ha manifests`."""

from __future__ import annotations

import shlex
from typing import Any

import click

from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests.description import Child, Description, Kind
from kopf_ha.manifests.flow import flow_schema
from kopf_ha.manifests.policies import policies
from kopf_ha.manifests.rbac import rbac
from kopf_ha.manifests.render import render
from kopf_ha.manifests.schema import schema_fragment

_SCHEMA = (
    "Merge this into spec.versions[*].schema.openAPIV3Schema of each CRD. Every served version needs it, and\n"
    "subresources: {status: {}} as well: by a version without it any edit removes an object's stamp, so one such\n"
    "version makes the operator refuse the whole kind."
)


@click.command()
@click.option("--group", required=True, help="API group of the operator's kinds.")
@click.option("--kind", "kinds", multiple=True, required=True, metavar="PLURAL[:FLAG…]",
              help="A kind with status.fencing; flags: cluster, deciding, and for what a terminating object gets no"
              " more of, map=FIELD (entries) or value=FIELD of its status.")  # fmt: skip
@click.option("--child", "children", multiple=True, metavar="PLURAL[.GROUP][:LABEL=VALUE][:owner=KIND]",
              help="A kind that it makes; with a label or an owner it writes no others of it.")  # fmt: skip
@click.option("--lease", required=True, metavar="NAMESPACE/NAME", help="The Lease that elects the leader.")
@click.option("--service-account", required=True, metavar="NAMESPACE/NAME", help="What the replicas run as.")
@click.option("--prefix", default="", help="Of all names.  [default: kopf-ha-SERVICE_ACCOUNT]")
@click.option("--exempt", multiple=True, metavar="PLURAL[.GROUP]/SUB", help="As the operator is run with.")
@click.option("--only", multiple=True, type=click.Choice(["policies", "schema", "rbac", "flowschema"]),
              help="Only these; schema is a fragment, and comes only when asked for.")  # fmt: skip
def manifests(
    group: str, kinds: tuple[str, ...], children: tuple[str, ...], only: tuple[str, ...], **given: Any
) -> None:
    """Write what fences an operator on the API server's side, for kubectl apply.

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
    """Give the YAML of some of the parts."""
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
    """Say where it comes from, and how the operator is to be run."""
    deciding = [f"--deciding {k.plural}.{description.group}" for k in description.kinds if k.deciding]
    namespace, name = description.lease_parts
    run = " ".join(["kopf-ha run", f"--lease-namespace {namespace} --lease-name {name}", *deciding])
    run += "".join(f" --exempt {shlex.quote(e)}" for e in description.exempt)
    return f"Written by kopf-ha manifests, for {run}"
