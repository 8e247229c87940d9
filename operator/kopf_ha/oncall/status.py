"""The command `kopf-ha status`: who leads, whether anybody could take over, and whether the fence is enforced."""

from __future__ import annotations

import click

from kopf_ha.oncall.cluster import Cluster, on_cluster
from kopf_ha.oncall.output import output_option


@click.command()
@click.argument("lease", default="", metavar="[LEASE]")
@click.option("-A", "--all-namespaces", is_flag=True, help="Look in all namespaces.")
@output_option()
@on_cluster
def status(cluster: Cluster, lease: str, all_namespaces: bool, output: str) -> int:
    """Show who leads, and what is wrong (under construction)."""
    raise NotImplementedError
