"""The command `kopf-ha status`: who leads, whether anybody could take over, and whether the fence is enforced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kopf_ha.oncall.cluster import BAD, UNKNOWN, WELL, Cluster, on_cluster
from kopf_ha.oncall.output import output_option, show

if TYPE_CHECKING:
    from kopf_ha.oncall.report import Report


@click.command()
@click.argument("lease", default="", metavar="[LEASE]")
@click.option("-A", "--all-namespaces", is_flag=True, help="Look in all namespaces.")
@click.option("-w", "--watch", is_flag=True, help="Show it live, until Ctrl-C.")
@output_option()
@on_cluster
def status(cluster: Cluster, lease: str, all_namespaces: bool, watch: bool, output: str) -> int:
    """Show who leads, who could take over, whether the fence is enforced, and what is wrong.

    LEASE is [NAMESPACE/]NAME. Without it all operators of the namespace are shown.

    It needs the right to get and list Leases and Pods in that namespace. With get of Terms, list of Events, get of
    pods/proxy, and list of validatingadmissionpolicies, of their bindings and of the operator's own kinds it says more;
    where one of these rights is missing, the line says so.

    Exit status: 0 if all is well, 1 if something is wrong, 2 if that could not be found out.
    """
    if watch and output in ("json", "yaml"):
        raise click.UsageError(f"--watch is for people; for -o {output} call it again and again")
    # Here, because `--help` needs none of it.
    from kopf_ha.oncall.findings import exit_status, findings
    from kopf_ha.oncall.shown import as_data, as_text

    if watch:
        from kopf_ha.oncall.live import live

        return live(lambda objects: look(cluster, lease, all_namespaces, objects=objects), wide=output == "wide")
    reports = look(cluster, lease, all_namespaces)
    if not reports:
        click.echo(nothing(cluster, all_namespaces), err=True)
        show(as_data([]), output, lambda: "") if output in ("json", "yaml") else None
        return BAD
    show(as_data(reports), output, lambda: as_text(reports, wide=output == "wide"))
    found = {exit_status(findings(one)) for one in reports}
    return BAD if BAD in found else UNKNOWN if UNKNOWN in found else WELL


def look(cluster: Cluster, lease: str, everywhere: bool, *, objects: bool = True) -> list[Report]:
    """Collect what is known about the operators that are meant.

    Args:
        cluster: where to look.
        lease: as given; empty for all.
        everywhere: look in all namespaces.
        objects: list the operators' objects, too.

    Raises:
        ConfigurationError: they cannot be looked for.
        ApiError: the API server does not answer.
    """
    from kopf_ha.errors import ConfigurationError
    from kopf_ha.oncall.cluster import Unknown
    from kopf_ha.oncall.find import find
    from kopf_ha.oncall.protection import Policies
    from kopf_ha.oncall.report import report_on

    found = find(cluster, lease, everywhere=everywhere)
    if isinstance(found, Unknown):
        raise ConfigurationError(f"{found}; docs/oncall.md has a role that is enough, and -n names another namespace")
    policies = Policies.read(cluster) if found else Policies([], [])
    return [report_on(cluster, one, policies, objects=objects) for one in found]


def nothing(cluster: Cluster, everywhere: bool) -> str:
    """Return what to do if there is no operator at all."""
    if everywhere:
        return "no namespace has a Lease of kopf-ha: no replica has ever led in this cluster"
    return (
        f"namespace {cluster.namespace} has no Lease of kopf-ha: no replica has ever led there; name its namespace with"
        " -n, or look at all with -A"
    )
