"""The command `kopf-ha manifests`."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests.description import FULL, LEVELS, TERM, Child, Description, Kind
from kopf_ha.manifests.policies import policies
from kopf_ha.manifests.priority import flow_schema
from kopf_ha.manifests.rbac import rbac
from kopf_ha.manifests.render import render
from kopf_ha.manifests.schema import schema_fragment
from kopf_ha.manifests.term_crd import definition

_SCHEMA = (
    "Merge this into spec.versions[*].schema.openAPIV3Schema of each CRD. Every served version needs it, and also\n"
    "subresources: {status: {}}. An edit through a version without it removes an object's stamp. So if one served\n"
    "version lacks it, the operator refuses to write the whole kind."
)


# Said here, too: click asks once for each command, and without the group around it, as in tests, it knows one of them.
@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE",
              help="Manifests that the operator has: CRDs, Deployment, roles. A file, a directory, or - for standard"
              " input. May be repeated. Then all of them are printed, fenced, and what follows is read from them,"
              " unless it is given.")  # fmt: skip
@click.option("--diff", "as_diff", is_flag=True, help="With -f: print what is changed in these files.")
@click.option("--deployment", default="", metavar="[NAMESPACE/]NAME", help="With -f: the operator's, of several.")
@click.option("--container", default="", metavar="NAME", help="With -f: the operator's, of several.")
@click.option("--deciding", multiple=True, metavar="PLURAL.GROUP",
              help="With -f: a kind whose objects decide about other objects; none: there is none.")  # fmt: skip
@click.option("--level", type=click.Choice(LEVELS), default=None,
              help="term: only the leader's pod may write as the operator's account; no CRD and no stamp is needed, so"
              " --group, --kind, --child, --deciding and --exempt have no meaning. full: objects have stamps, too."
              "  [default: full; with -f, as the last time]")  # fmt: skip
@click.option("--group", default="", help="API group of the operator's kinds.")
@click.option("--kind", "kinds", multiple=True, metavar="PLURAL[:FLAG…]",
              help="A kind of the operator's own. Flags: cluster (cluster-scoped), deciding, annotations (its CRD has"
              " no status.fencing), scale (the operator writes /scale, see --child); map=FIELD and value=FIELD name"
              " fields of the status that get no new entries or value once an object is deleted. With -f, none: it has"
              " no kinds of its own.")  # fmt: skip
@click.option("--child", "children", multiple=True, metavar="PLURAL[.GROUP][:LABEL=VALUE][:owner=KIND][:SUBRESOURCE]",
              help="A kind of objects that the operator creates. With a label or an owner, it may write only"
              " objects that have them. SUBRESOURCE allows the operator one in which no policy sees a stamp: scale,"
              " eviction, binding, token. With -f, none: it writes no others than those named"
              " here. Named once, they take the place of those of the last time.")  # fmt: skip
@click.option("--lease", default="", metavar="NAMESPACE/NAME", help="The Lease that elects the leader.")
@click.option("--service-account", default="", metavar="NAMESPACE/NAME", help="The account that the replicas run as.")
@click.option("-n", "--namespace", "namespaces", multiple=True, metavar="NAMESPACE",
              help="A namespace that the operator serves; the same as it is run with. Roles take the place of the"
              " ClusterRole, and other installations can serve other namespaces. May be repeated."
              "  [default: all]")  # fmt: skip
@click.option("--prefix", default="", help="All names begin with it.  [default: kopf-ha-NAMESPACE.SERVICE_ACCOUNT]")
@click.option("--exempt", multiple=True, metavar="PLURAL[.GROUP]/SUB", help="The same as the operator is run with.")
@click.option("--legacy-lock", default="", metavar="RESOURCE/NAME", help="The same as the operator is run with.")
@click.option("--only", multiple=True, type=click.Choice(["term", "policies", "schema", "rbac", "flowschema"]),
              help="Print only these parts. term is the CRD of Terms. schema, a fragment of other CRDs, is printed"
              " only if named here.")  # fmt: skip
def manifests(
    files: tuple[str, ...],
    as_diff: bool,
    deployment: str,
    container: str,
    deciding: tuple[str, ...],
    only: tuple[str, ...],
    **given: Any,
) -> None:
    """Print the manifests that fence an operator, for kubectl apply.

    With -f, they are all that the operator needs, made from what it has. Without, they are the CRD of Terms,
    policies, RBAC and FlowSchema only, made from the options --group, --kind, --lease and --service-account.

    \b
    kopf-ha manifests -f crds.yaml -f rbac.yaml -f deployment.yaml > fenced.yaml

    Stop an operator of plain Kopf before you apply them: the policies refuse its writes.

    \b
    kopf-ha manifests --group ipam.example.com --kind pools:cluster:deciding:map=allocations --kind claims \\
      --child configmaps:owner=Claim --lease ipam/operator --service-account ipam/operator | kubectl apply -f -
    """
    try:
        if as_diff and only:
            raise ConfigurationError("--diff shows what changes in all of the files; say it without --only")
        if files:
            more = {"deployment": deployment, "container": container, "deciding": deciding}
            text = _from_files(files, only, as_diff=as_diff, **more, **given)
        elif as_diff or deployment or container or deciding:
            raise ConfigurationError(
                "--diff, --deployment, --container and --deciding need -f; without it, a deciding kind is written"
                " --kind PLURAL:deciding"
            )
        else:
            text = _from_options(only, **given)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    click.echo(text, nl=False)


def _from_options(only: tuple[str, ...], *, kinds: tuple[str, ...], children: tuple[str, ...], **given: Any) -> str:
    given["level"] = given["level"] or FULL
    without = children or given["level"] == TERM
    needed: dict[str, Any] = {} if without else {"--group": given["group"], "--kind": kinds}
    needed |= {"--lease": given["lease"]}
    missing = [k for k, v in (needed | {"--service-account": given["service_account"]}).items() if not v]
    if missing:
        raise ConfigurationError(f"Missing option {', '.join(missing)}; or name the operator's manifests with -f")
    description = Description(
        kinds=tuple(Kind.parse(k) for k in kinds), children=tuple(Child.parse(c) for c in children), **given
    )
    return stream(description, only or ("term", "policies", "rbac", "flowschema"))


def _from_files(files: tuple[str, ...], only: tuple[str, ...], *, as_diff: bool, **given: Any) -> str:
    # Here, because `kopf-ha run` needs none of it.
    from kopf_ha.manifests.bundle import bundle
    from kopf_ha.manifests.documents import in_form, read
    from kopf_ha.manifests.reader import Said

    stdin = sys.stdin.read() if "-" in files else ""
    with in_form():
        made = bundle(read(list(files), stdin), Said(**given))
    remarks = made.remarks
    if only:
        said, text = remarks.hints(), stream(made.description, only)
    else:
        said = [*remarks.new_tasks(), *remarks.hints()]
        text = made.diff() if as_diff else made.text(header(made.description))
        if sys.stdout.isatty():
            said = []  # it stands in the text, on the same screen
    for line in said:
        click.echo(line, err=True)
    return text


def stream(description: Description, parts: tuple[str, ...]) -> str:
    """Return these parts as YAML."""
    objects = []
    if "term" in parts:
        objects.append(definition())
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
    """Return the comment that says where the objects come from, how the operator has to be run, and what is open."""
    deciding = [f"--deciding {k.plural}.{description.group}" for k in description.kinds if k.deciding]
    namespace, name = description.lease_parts
    run = " ".join(["kopf-ha run", f"--lease-namespace {namespace} --lease-name {name}", *deciding])
    run += "".join(f" -n {one}" for one in description.namespaces)
    run += "".join(f" --exempt {shlex.quote(e)}" for e in description.exempt)
    run += f" --legacy-lock {description.legacy_lock}" if description.legacy_lock else ""
    run += f" --level {description.level}" if description.level != FULL else ""
    return "\n".join([f"Written by kopf-ha manifests, for {run}", *_open(description)])


def _open(description: Description) -> list[str]:
    """Return lines about the subresources that no policy protects."""
    scaled = [f"{k.plural}.{description.group}/scale" for k in description.kinds if k.scale]
    unseen = [*scaled, *(f"{c.kind}/{name}" for c in description.children for name in c.unseen)]
    return [
        f"No policy sees a stamp in writes to {', '.join(unseen)}.",
        "A stale leader's write there is stopped in its own process, but not by the API server: `kubectl scale`",
        "started by an old handler would get through.",
    ] if unseen else []  # fmt: skip
