"""Checks of the replicas' Pods, of what they reported, and of what objects record."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import Any

from kopf_ha.core.siblings import Pod
from kopf_ha.core.token import MalformedStamp, stamp_of
from kopf_ha.oncall.checks.facts import (
    EVENTS,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    Case,
    NotRead,
    Object,
    is_over,
)
from kopf_ha.oncall.checks.finding import Finding, error, warning
from kopf_ha.oncall.cluster import Unknown
from kopf_ha.oncall.objects import ahead_of
from kopf_ha.oncall.replica import OWN_EXITS

#: Warnings that replicas post, by their reason. The runbook has a section KopfHa… about each.
_REPORTED = ("NotEnforced", "SetAside", "Unfenced")
#: Seconds for which an event is news.
_NEWS = 3600.0
#: The label of namespaces from which metrics may be read (deploy/components/network-policy).
_SCRAPES = "kopf-ha.dev/scrapes"


def ready(case: Case) -> Iterator[Finding]:
    """Give a finding if fewer replicas are ready than are wanted."""
    wanted = case.its.workload["spec"].get("replicas")
    count = 1 if wanted is None else int(wanted)
    here = case.pods
    if count and len(ok := [p for p in here if Pod.parse(p).ready]) < count:
        why = [f"{p['metadata']['name']} {_why(p)}" for p in here if not Pod.parse(p).ready]
        detail = f": {'; '.join(why)}" if why else ""
        yield error(
            f"{len(ok)} of {count} replicas of {case.its.title} are ready{detail}",
            "a Pod that is Pending fits on no node; one that runs and is not ready has lost contact with the Lease",
            f"{case.facts.kubectl} -n {case.its.namespace} describe pods {_selector(case)}",
        )


def ended(case: Case) -> Iterator[Finding]:
    """Give a finding for replicas whose last process ended with a status that says something."""
    for pod in case.pods:
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            if status.get("name") != case.its.container["name"]:
                continue
            code = ((status.get("lastState") or {}).get("terminated") or {}).get("exitCode")
            if code in OWN_EXITS:
                yield warning(
                    f"{pod['metadata']['name']} ended with exit status {code}: {OWN_EXITS[code]}",
                    "the line before its end names the cause",
                    f"{case.facts.kubectl} -n {case.its.namespace} logs {pod['metadata']['name']} --previous --tail=50",
                )


def account(case: Case) -> Iterator[Finding]:
    """Give a finding if other Pods run as the operator's account: the policies refuse their writes."""
    namespace, _, name = case.its.account.partition("/")
    ours = {id(p) for p in case.pods}
    others = [
        str(p["metadata"]["name"])
        for p in case.facts.of(PODS, namespace)
        if id(p) not in ours and p["spec"].get("serviceAccountName") == name and not is_over(p)
    ]
    if others:
        yield error(
            f"{', '.join(others)} run as {case.its.account}, and are no replicas of {case.its.title}. The policies"
            " refuse their writes, or take them for a stale leader's",
            "give them an account of their own",
            f"{case.facts.kubectl} -n {namespace} get pods --field-selector=spec.serviceAccountName={name}"
            " -L app.kubernetes.io/name",
        )


def reported(case: Case) -> Iterator[Finding]:
    """Give a finding for each warning that replicas posted in the last hour."""
    pods = {str(p["metadata"]["name"]) for p in case.pods}
    names = {case.its.lease_parts[1], *pods}
    newest: dict[str, Object] = {}
    for event in case.facts.of(EVENTS):
        about = event.get("involvedObject") or {}
        if event.get("reason") in _REPORTED and about.get("name") in names and _age(case, event) < _NEWS:
            newest[str(event["reason"])] = max(event, newest.get(str(event["reason"]), event), key=_when)
    for reason, event in newest.items():
        about = event.get("involvedObject") or {}
        yield warning(
            f"event {reason} on {about.get('kind')} {about.get('name')}: {event.get('message')}",
            f"the runbook says what to do: KopfHa{reason}. The event is {_age(case, event) / 60:.0f} minutes old",
        )


def scraped(case: Case) -> Iterator[Finding]:
    """Give a finding if a NetworkPolicy waits for a label of Prometheus' namespace, and none has it."""
    waits = [
        p for p in case.facts.of(NETWORK_POLICIES, case.its.namespace) if _SCRAPES in str(p["spec"].get("ingress"))
    ]
    if waits and not any((n["metadata"].get("labels") or {}).get(_SCRAPES) for n in case.facts.of(NAMESPACES)):
        yield warning(
            f"NetworkPolicy {waits[0]['metadata']['name']} lets only namespaces with the label {_SCRAPES} read metrics,"
            " and none has it",
            "label the namespace of Prometheus, in the place of NAMESPACE, if there is one",
            f"{case.facts.kubectl} label namespace NAMESPACE {_SCRAPES}=true",
        )


# --- what objects record


def foreign(case: Case) -> Iterator[Finding]:
    """Give a finding for objects that another Lease's leader has stamped."""
    for kind, one, stamp in _stamped(case):
        if stamp.lease != case.its.lease:
            yield error(
                f"{kind} {_title(one)} is fenced by Lease {stamp.lease}, not by {case.its.lease}",
                "two operators write one kind, or the operator was moved to another Lease. The runbook says how to give"
                " objects a stamp of the new one",
            )
            return


def ahead(case: Case) -> Iterator[Finding]:
    """Give a finding for objects whose stamp is ahead of the Lease: it lost its count."""
    record = case.newest
    count, holder = (record.transitions, record.holder) if record else (0, "")
    for kind, many in _read(case):
        for one in ahead_of(many, kind, case.its.lease, count, holder):
            by = " by another holder" if one.token == count else ""
            yield error(
                f"{kind} {one.namespace}{'/' if one.namespace else ''}{one.name} records token {one.token}{by}, and"
                f" Lease {case.its.lease} counts {count} terms",
                "the next leader raises the Lease above it; the log of the present one says why it did not",
            )
            return


def _read(case: Case) -> Iterator[tuple[str, Sequence[Object]]]:
    for kind, many in case.its.asked.objects.items():
        if isinstance(many, Unknown):
            raise NotRead(many)
        yield kind, many


def _stamped(case: Case) -> Iterator[tuple[str, Object, Any]]:
    for kind, many in _read(case):
        for one in many:
            try:
                stamp = stamp_of(one)
            except MalformedStamp:
                continue
            if stamp is not None:
                yield kind, one, stamp


# --- Pods


def _why(pod: Object) -> str:
    status = pod.get("status") or {}
    for one in status.get("containerStatuses") or ():
        if reason := ((one.get("state") or {}).get("waiting") or {}).get("reason"):
            return f"waits ({reason})"
    return f"is {status.get('phase') or 'Pending'} and not ready"


def _selector(case: Case) -> str:
    selected = (case.its.workload["spec"].get("selector") or {}).get("matchLabels") or {}
    return "-l " + ",".join(f"{k}={v}" for k, v in selected.items())


def _when(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp"))


def _age(case: Case, event: Object) -> float:
    try:
        return case.facts.now - datetime.datetime.fromisoformat(_when(event)).timestamp()
    except ValueError:
        return 0.0


def _title(one: Object) -> str:
    where = one["metadata"].get("namespace")
    return f"{where}/{one['metadata']['name']}" if where else str(one["metadata"]["name"])
