"""The commands `kopf-ha pause` and `kopf-ha resume`: nobody leads or writes, and replicas stay ready."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import Any

import click

from kopf_ha.core.lease import PAUSED
from kopf_ha.core.orders import Pause, shown
from kopf_ha.errors import MalformedLease
from kopf_ha.oncall.cluster import BAD, WELL, Cluster, on_cluster
from kopf_ha.oncall.find import Operator, the_one
from kopf_ha.oncall.ordering import No, annotation, declined, is_paused, looks, myself, say, write
from kopf_ha.oncall.output import FORMAT, output_option, show


@click.command()
@click.argument("lease", default="", metavar="[LEASE]")
@click.option("--reason", required=True, help="Why, for all who find the operator paused.")
@click.option("--by", default="", metavar="NAME", help="Who pauses.  [default: your user name in the cluster]")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until nobody leads.")
@click.option("--timeout", default=120.0, show_default=True, metavar="SECONDS", help="How long to wait.")
@output_option("table", "json", "yaml")
@on_cluster
def pause(cluster: Cluster, lease: str, reason: str, by: str, wait: bool, timeout: float, output: str) -> int:
    """Keep an operator from leading and writing, until `kopf-ha resume`.

    The leader drains its handlers, gives the Lease back and follows. Replicas stay ready. LEASE is [NAMESPACE/]NAME,
    and can be left out if the namespace has only one.

    Needs the rights to get and patch the Lease; to list Leases if LEASE is left out.
    """
    if not reason.strip():
        raise click.UsageError("say why with --reason, for all who find the operator paused")
    operator = the_one(cluster, lease)
    order = Pause(by or myself(cluster), reason, _now())
    began, held = time.monotonic(), [""]

    def judge(body: Mapping[str, Any]) -> Mapping[str, str | None] | No:
        held[0] = (body.get("spec") or {}).get("holderIdentity") or ""
        if is_paused(body):
            return No(f"Lease {operator.lease} is {Pause.parse(annotation(body, PAUSED) or '')} already")
        return {PAUSED: order.as_annotation()}

    written = write(cluster, operator, judge)
    if isinstance(written, No):
        declined(written)
        return BAD
    say(output, f"Lease {operator.lease} is {order}")
    data: dict[str, Any] = {
        "format": FORMAT,
        "lease": operator.lease,
        "paused": {"by": order.by, "reason": order.reason, "since": order.since},
        "led": held[0] or None,
    }
    status, end = _until_nobody_leads(cluster, operator, timeout) if wait else (WELL, "")
    data |= {"nobodyLeads": None if not wait else status == WELL, "seconds": round(time.monotonic() - began, 3)}
    show(data | ({"message": end} if end else {}), output, lambda: end or "not waited for: `kopf-ha status` shows more")
    return status


def _until_nobody_leads(cluster: Cluster, operator: Operator, timeout: float) -> tuple[int, str]:
    """Wait; return the exit status and a sentence.

    A holder that does not renew cannot write: its grant ended one lease duration after its last renewal was sent.
    """
    began, renewed, since, leader = time.monotonic(), None, 0.0, ""
    try:
        for look in looks(cluster, operator, timeout):
            record, leader = look.record, look.leader
            if not record.holder:
                return (
                    WELL,
                    f"nobody leads, {look.at[1] - began:.1f} s after the order; `kopf-ha resume` ends the pause",
                )
            if record.fields != renewed:
                renewed, since = record.fields, look.at[0]
            elif look.at[0] - since >= (record.lease_duration or 0) > 0:
                return WELL, (
                    f"nobody leads: the Lease still names {shown(leader)}, which has not renewed it for"
                    f" {record.lease_duration} s; `kopf-ha resume` ends the pause"
                )
    except MalformedLease as error:
        return WELL, f"nobody leads: {error}"
    return BAD, (
        f"{shown(leader)} still leads after {timeout:g} s. It is paused as soon as its handlers end: its log says what"
        " it waits for. A release that does not know of pauses leads on"
    )


@click.command()
@click.argument("lease", default="", metavar="[LEASE]")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the next leader.")
@click.option("--timeout", default=60.0, show_default=True, metavar="SECONDS", help="How long to wait.")
@output_option("table", "json", "yaml")
@on_cluster
def resume(cluster: Cluster, lease: str, wait: bool, timeout: float, output: str) -> int:
    """End a pause, whoever paused. The next leader comes at once.

    LEASE is [NAMESPACE/]NAME, and can be left out if the namespace has only one.

    Needs the rights to get and patch the Lease; to list Leases if LEASE is left out.
    """
    operator = the_one(cluster, lease)
    ended = [""]

    def judge(body: Mapping[str, Any]) -> Mapping[str, str | None] | No:
        if not is_paused(body):
            return No(f"Lease {operator.lease} is not paused")
        ended[0] = str(Pause.parse(annotation(body, PAUSED) or ""))
        return {PAUSED: None}

    began = time.monotonic()
    written = write(cluster, operator, judge)
    if isinstance(written, No):
        declined(written)
        return BAD
    say(output, f"Lease {operator.lease} is no longer {ended[0]}")
    data: dict[str, Any] = {"format": FORMAT, "lease": operator.lease, "was": ended[0]}
    if not wait:
        show(data, output, lambda: "not waited for: `kopf-ha status` shows more")
        return WELL
    first = next((look for look in looks(cluster, operator, timeout) if look.record.holder), None)
    if first is None:
        end = f"nobody leads {timeout:g} s after the pause: do replicas run? `kopf-ha status` says what is wrong"
        show(data | {"leader": None, "message": end}, output, lambda: end)
        return BAD
    took, token = first.at[1] - began, first.record.transitions
    data |= {"leader": first.leader, "token": token, "seconds": round(took, 3)}
    show(data, output, lambda: f"{shown(first.leader)} leads with token {token}, {took:.1f} s after")
    return WELL


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
