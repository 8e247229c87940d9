"""The report of `kopf-ha status`: as text for people, and as plain data for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kopf_ha.core.siblings import pod_of
from kopf_ha.manifests.description import Description
from kopf_ha.oncall.cluster import Unknown
from kopf_ha.oncall.findings import PROBLEM, Finding, exit_status, findings
from kopf_ha.oncall.output import FORMAT, duration, printable, table
from kopf_ha.oncall.renewal import API_SERVER, ROUNDED
from kopf_ha.oncall.replica import Replica
from kopf_ha.oncall.report import Report

_MARKS = {PROBLEM: "×", "remark": "‼", "unknown": "?"}


# --- for programs


def as_data(reports: list[Report]) -> dict[str, Any]:
    """Return plain data; docs/oncall.md names the fields."""
    return {"format": FORMAT, "operators": [_operator(one) for one in reports]}


def _operator(report: Report) -> dict[str, Any]:
    found = findings(report)
    record, protection = report.record, report.protection
    return {
        "lease": report.operator.lease,
        "state": state_of(report),
        "exitStatus": exit_status(found),
        "token": record.transitions if record else None,
        "leader": _leader(report),
        "replicas": _replicas(report),
        "fence": {
            "level": report.level,
            "enforcedAsOfLastMinute": protection.noted,
            "policiesExpected": list(protection.expected) if isinstance(protection.described, Description) else None,
            "policiesMissing": list(protection.missing) if isinstance(protection.described, Description) else None,
        },
        "objects": {
            "setAside": _or_none(report.set_aside),
            "staleWritesRefusedLastHour": _or_none(report.refused),
            "ahead": None if report.ahead is None else [
                {"kind": a.kind, "namespace": a.namespace or None, "name": a.name, "token": a.token}
                for a in report.ahead
            ],
        },
        "findings": [{"kind": f.kind, "reason": f.reason, "text": f.text, "next": f.next or None} for f in found],
    }  # fmt: skip


def state_of(report: Report) -> str:
    """Return ``led``, ``not-renewed``, ``free``, ``missing`` or ``malformed``."""
    if report.malformed:
        return "malformed"
    if report.record is None:
        return "missing"
    if not report.record.holder:
        return "free"
    return "led" if report.leads else "not-renewed"


def _leader(report: Report) -> dict[str, Any] | None:
    record, renewal = report.record, report.renewal
    if record is None or not record.holder or renewal is None:
        return None
    return {
        "holder": record.holder,
        "pod": pod_of(record.holder)[0] or None,
        "node": (report.leader.node or None) if report.leader else None,
        "since": record.acquire_time,
        "leadsSeconds": renewal.held,
        "renewed": record.renew_time,
        "renewedSecondsAgo": renewal.age,
        "renewedByClockOf": renewal.clock,
        "leaseDurationSeconds": renewal.duration,
        "leaseLeftSeconds": renewal.left,
        "clockAheadSeconds": renewal.ahead,
    }


def _replicas(report: Report) -> list[dict[str, Any]] | None:
    return None if isinstance(report.replicas, Unknown) else [_replica(report, one) for one in report.replicas]


def _replica(report: Report, one: Replica) -> dict[str, Any]:
    return {
        "pod": one.pod,
        "namespace": one.namespace,
        "node": one.node or None,
        "revision": one.revision or None,
        "role": one.role,
        "ready": one.ready,
        "restarts": one.restarts,
        "created": one.made.isoformat().replace("+00:00", "Z") if one.made else None,
        "cannotLead": report.why_not(one) or None,
    }


def _or_none(value: Any) -> Any:
    return None if isinstance(value, Unknown) else value


# --- for people


def as_text(reports: list[Report], *, wide: bool = False) -> str:
    """Return what people read: for each operator its leader, its replicas, and what is wrong."""
    return "\n\n".join("\n".join(_lines(one, wide)) for one in reports)


def _lines(report: Report, wide: bool) -> Iterator[str]:
    yield f"Lease {report.operator.lease}: {headline(report)}"
    facts = list(_facts(report, wide))
    width = max((len(name) for name, _ in facts), default=0)
    for name, text in facts:
        yield f"  {name.ljust(width)}  {printable(text)}"
    # Before the table: a screen may be too short for all of it.
    found = findings(report)
    if found:
        yield ""
    for one in found:
        yield from finding_lines(one)
    if not isinstance(report.replicas, Unknown) and report.replicas:
        yield ""
        yield _table(report, report.replicas, wide)


def headline(report: Report) -> str:
    """Return in a few words who leads."""
    record, renewal = report.record, report.renewal
    if report.malformed:
        return "it cannot be used"
    if record is None or renewal is None:
        return "it does not exist"
    if not record.holder:
        return "nobody leads"
    who = pod_of(record.holder)[0] or record.holder
    if report.leads:
        return printable(f"{who} leads, token {record.transitions}")
    return printable(f"nobody renews it; {who} led last, token {record.transitions}")


def _facts(report: Report, wide: bool) -> Iterator[tuple[str, str]]:
    record, renewal = report.record, report.renewal
    if record is not None and record.holder and renewal is not None:
        node = f" on node {report.leader.node}" if report.leader and report.leader.node else ""
        since = f"for {duration(renewal.held)}" if renewal.held is not None else f"since {record.acquire_time}"
        yield "leader", f"{pod_of(record.holder)[0] or record.holder}{node}, {since}"
        if wide:
            yield "holder", record.holder
        yield "renewed", _renewed(report)
    yield "fence", _fence(report)
    if wide and report.protection.expected:
        yield "policies", ", ".join(report.protection.expected)
    yield "objects", _objects(report)


def _renewed(report: Report) -> str:
    renewal = report.renewal
    assert renewal is not None  # noqa: S101  the caller has looked
    if renewal.age is None or renewal.left is None:
        return "unknown: the Lease does not say when, or the API server does not say what time it is"
    by = (
        f"by the API server's clock, to {ROUNDED:.0f} s" if renewal.clock == API_SERVER
        else "the holder's clock compared with the API server's"
    )  # fmt: skip
    left = "expired" if renewal.expired else f"{renewal.left:.0f}s of {renewal.duration}s left"
    return f"{duration(renewal.age)} ago, {left} ({by})"


def _fence(report: Report) -> str:
    protection, parts = report.protection, []
    if report.leads:
        level = f"enforced at level {report.level}" if report.level else "not known to be enforced"
        parts.append(f"{level}, by the leader's dry runs" if report.level else level)
    if isinstance(protection.described, Unknown):
        parts.append(f"policies unknown: {protection.described}")
    elif protection.described is None:
        parts.append("no policies")
    else:
        there = len(protection.expected) - len(protection.missing)
        parts.append(f"{there} of {len(protection.expected)} policies bound")
    return "; ".join(parts)


def _objects(report: Report) -> str:
    def counted(value: int | Unknown | None, what: str) -> str:
        if isinstance(value, Unknown):
            return f"{what} unknown"
        return f"{'not looked for' if value is None else value} {what}"

    refused = report.refused
    total = refused if isinstance(refused, Unknown) else sum(refused.values())
    ahead: int | Unknown | None = len(report.ahead) if report.ahead is not None else None
    if report.not_listed and report.ahead is None:
        ahead = report.not_listed[0]
    return ", ".join(
        (
            counted(report.set_aside, "set aside"),
            counted(total, "stale writes refused in the last hour"),
            counted(ahead, "ahead of the Lease"),
        )
    )


def _table(report: Report, replicas: tuple[Replica, ...], wide: bool) -> str:
    now = report.operator.at

    def row(one: Replica) -> list[object]:
        age = duration((now - one.made).total_seconds()) if now and one.made else None
        cells: list[object] = [
            one.pod,
            one.node,
            one.revision,
            one.role,
            "yes" if one.ready else "no",
            one.restarts,
            age,
        ]
        return [*cells, one.uid, report.why_not(one)] if wide else [*cells, report.why_not(one)]

    more = ["uid"] if wide else []
    headings = ["pod", "node", "revision", "role", "ready", "restarts", "age", *more, "cannot lead because"]
    return table(headings, [row(one) for one in replicas], indent="  ")


def finding_lines(one: Finding) -> Iterator[str]:
    """Yield a finding as text, and below it what to do."""
    yield f"{_MARKS[one.kind]} {printable(one.text)}"
    if one.next:
        yield f"    {printable(one.next)}"
