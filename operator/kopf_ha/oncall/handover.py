"""The command `kopf-ha handover`: another replica leads, and no Pod is deleted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from kopf_ha.core.hearing import term_path
from kopf_ha.core.lease import HANDOVER, PAUSED
from kopf_ha.core.orders import ANY, Pause, named, shown
from kopf_ha.core.siblings import Pod, pod_of
from kopf_ha.errors import ConfigurationError
from kopf_ha.oncall.cluster import BAD, WELL, Answered, Cluster, Unknown, on_cluster
from kopf_ha.oncall.find import Operator, the_one
from kopf_ha.oncall.ordering import PERIOD, Look, No, annotation, declined, is_paused, looks, say, write
from kopf_ha.oncall.output import FORMAT, output_option, show


@click.command()
@click.argument("lease", default="", metavar="[LEASE]")
@click.option("--to", default=ANY, metavar="POD", help="Who leads next.  [default: a replica of the newest revision]")
@click.option("--wait", is_flag=True, help="Wait for the new leader's first fenced write, too.")
@click.option("--timeout", default=120.0, show_default=True, metavar="SECONDS", help="How long to wait for each.")
@output_option("table", "json", "yaml")
@on_cluster
def handover(cluster: Cluster, lease: str, to: str, wait: bool, timeout: float, output: str) -> int:
    """Have another replica lead. No Pod is deleted.

    The leader drains its handlers, gives the Lease back and follows. The named replica takes it at once, and all others
    wait for it for some seconds. LEASE is [NAMESPACE/]NAME, and can be left out if the namespace has only one.

    Needs the rights to get and patch the Lease, and to list Pods in its namespace; to list Leases if LEASE is left out;
    with --wait to get its Term.
    """
    operator = the_one(cluster, lease)
    if isinstance(operator.pods, Unknown):
        raise ConfigurationError(f"{operator.pods}, so nobody knows whether another replica is ready to lead")
    pods = [Pod.parse(pod) for pod in operator.pods]
    written = write(cluster, operator, lambda body: judge(operator.lease, body, pods, to))
    if isinstance(written, No):
        declined(written)
        return BAD
    spec = written["spec"]
    changing = Changing(
        operator.lease, to, str(spec["holderIdentity"]), int(spec["leaseTransitions"]), time.monotonic()
    )
    say(output, f"asked {changing.old} (token {changing.token}) to hand over Lease {operator.lease} to {named(to)}")
    if not any(changing.saw(look) for look in looks(cluster, operator, timeout)):
        write(cluster, operator, lambda body: {HANDOVER: None})
        end = changing.given_up(timeout)
        show(changing.data() | {"message": end}, output, lambda: end)
        return BAD
    say(output, changing.told())
    status = WELL if to in (ANY, changing.new) else BAD
    if wait and (why := changing.await_write(cluster, operator, timeout)):
        status = BAD
        say(output, why)
    show(changing.data(), output, changing.summary)
    return status


def judge(lease: str, body: Mapping[str, Any], pods: Iterable[Pod], to: str) -> Mapping[str, str | None] | No:
    """Return the annotation that asks for a handover, or why it would not help.

    Args:
        lease: ``namespace/name``, for people.
        body: the Lease.
        pods: the replicas'.
        to: a pod's name, or `ANY`.
    """
    holder = str((body.get("spec") or {}).get("holderIdentity") or "")
    leader = pod_of(holder)[0] or holder
    if is_paused(body):
        return No(f"Lease {lease} is {Pause.parse(annotation(body, PAUSED) or '')}; `kopf-ha resume` ends the pause")
    if not holder:
        return No(f"nobody leads by Lease {lease}, so nobody can hand it over; `kopf-ha status` says what is wrong")
    if to == leader:
        return No(f"{shown(to)} leads already")
    others = [pod for pod in pods if pod.name != leader and not pod.over]
    ready = [pod.name for pod in others if pod.ready and not pod.deleting]
    if not others:
        return No(f"{shown(leader)} is the only replica, so nobody else can lead")
    if to != ANY and to not in (pod.name for pod in others):
        return No(f"{shown(to)} is no replica of this operator; these could lead: {', '.join(ready) or 'none'}")
    if not ready:
        return No(f"no other replica is ready to lead: {', '.join(why_not(pod) for pod in others)}")
    if to != ANY and to not in ready:
        chosen = next(pod for pod in others if pod.name == to)
        return No(f"{why_not(chosen)}; these could lead: {', '.join(ready)}")
    return {HANDOVER: to}


def why_not(pod: Pod) -> str:
    """Return why a replica cannot lead next."""
    return f"{pod.name} is being deleted" if pod.deleting else f"{pod.name} is not ready"


@dataclass
class Changing:
    """One change of leader, as it is seen.

    Args:
        lease: ``namespace/name``.
        to: who was asked for.
        holder: that leads at first.
        token: of its term.
        began: when it was asked, in seconds of this process's clock.
    """

    lease: str
    to: str
    holder: str
    token: int
    began: float
    led: float = 0.0  #: when the old leader was last seen to hold the Lease: the begin of that request
    next: Look | None = None  #: the first look at the new leader
    wrote: float | None = None  #: when its first fenced write was seen

    @property
    def old(self) -> str:
        """The old leader's pod."""
        return shown(pod_of(self.holder)[0] or self.holder)

    @property
    def new(self) -> str:
        """The new leader's pod; empty while there is none."""
        return self.next.leader if self.next is not None else ""

    def saw(self, look: Look) -> bool:
        """Take in a look; return whether it shows the next term."""
        if look.record.holder == self.holder and look.record.transitions == self.token:
            self.led = look.at[0]
        elif look.record.holder:
            self.next = look
        return self.next is not None

    @property
    def gap(self) -> float:
        """For how many seconds nobody led, at most."""
        assert self.next is not None  # noqa: S101  asked for after `saw`
        return self.next.at[1] - (self.led or self.began)

    def await_write(self, cluster: Cluster, operator: Operator, timeout: float) -> str:
        """Wait for the first fenced write of the new term, which is that of its Term; return why it was not seen."""
        assert self.next is not None  # noqa: S101  asked for after `saw`
        token, until = self.next.record.transitions, time.monotonic() + timeout
        while time.monotonic() < until:
            found = cluster.read(term_path(operator.namespace, operator.name))
            if not isinstance(found, Answered):
                return f"the first fenced write cannot be seen: {found or 'there is no Term (line 4 is not installed)'}"
            if int((found.body.get("spec") or {}).get("token") or 0) >= token:
                self.wrote = time.monotonic()
                return ""
            time.sleep(PERIOD)
        return f"the new leader has written nothing after {timeout:g} s: its log says why"

    def told(self) -> str:
        """Say who leads."""
        assert self.next is not None  # noqa: S101  asked for after `saw`
        return f"{shown(self.new)} leads with token {self.next.record.transitions}"

    def summary(self) -> str:
        """Say how long it took."""
        assert self.next is not None  # noqa: S101  asked for after `saw`
        drained = max(0.0, (self.led or self.began) - self.began)
        text = f"the old leader drained for {drained:.1f} s; then nobody led for {self.gap:.2f} s at most"
        if self.wrote is not None:
            text += f"; the first fenced write came {self.wrote - self.next.at[1]:.2f} s later at most"
        if self.to not in (ANY, self.new):
            text += f"; {shown(self.to)} did not take the Lease in time: its log says why"
        return text

    def given_up(self, timeout: float) -> str:
        """Say why there is no next leader."""
        if self.led > self.began + timeout / 2:
            return (
                f"{self.old} still leads after {timeout:g} s, and was asked no longer: its handlers drain, as its log"
                " says, or its release does not know of handovers"
            )
        return f"nobody has led for {timeout:g} s: `kopf-ha status` says what is wrong"

    def data(self) -> dict[str, Any]:
        """Return all of it for programs."""
        found = self.next
        return {
            "format": FORMAT,
            "lease": self.lease,
            "to": self.to,
            "from": self.old,
            "fromToken": self.token,
            "leader": self.new or None,
            "token": found.record.transitions if found else None,
            "drainSeconds": round(max(0.0, (self.led or self.began) - self.began), 3),
            "nobodyLedSeconds": round(self.gap, 3) if found else None,
            "firstWriteSeconds": round(self.wrote - found.at[1], 3) if found and self.wrote is not None else None,
        }
