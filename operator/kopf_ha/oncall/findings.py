"""What is wrong with an operator, and what to do next. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kopf_ha.core.history import noted_in
from kopf_ha.core.orders import pause_of
from kopf_ha.core.siblings import pod_of
from kopf_ha.oncall.cluster import BAD, UNKNOWN, WELL, Unknown
from kopf_ha.oncall.objects import NAMED
from kopf_ha.oncall.output import duration
from kopf_ha.oncall.replica import Replica
from kopf_ha.oncall.report import Report

#: What a finding means: something is wrong, is worth knowing, or could not be found out.
PROBLEM, REMARK, LACKING = "problem", "remark", "unknown"
#: Seconds by which a holder's clock may differ from the API server's until that is worth a remark.
CLOCK = 3.0
#: Seconds of a term in which a Term may be behind, since the leader is about to write it.
FRESH = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, worth knowing or unknown.

    Args:
        kind: `PROBLEM`, `REMARK` or `LACKING`.
        reason: in one word, for programs; stable.
        text: a sentence.
        next: what to do; empty for nothing.
    """

    kind: str
    reason: str
    text: str
    next: str = ""


def findings(report: Report) -> list[Finding]:
    """Return all findings about one operator, the most important first."""
    found = [*_leadership(report), *_replicas(report), *_term(report), *_enforcement(report), *_objects(report)]
    order = (PROBLEM, LACKING, REMARK)
    return sorted(found, key=lambda one: order.index(one.kind))


def exit_status(found: list[Finding]) -> int:
    """Return the exit status: bad news win over what is unknown. Only what decides about that makes it unknown."""
    kinds = {one.kind for one in found}
    if PROBLEM in kinds:
        return BAD
    return UNKNOWN if any(one.kind == LACKING and one.reason == "replicas" for one in found) else WELL


def _leadership(report: Report) -> Iterator[Finding]:
    operator, record, renewal = report.operator, report.record, report.renewal
    logs = _logs(report)
    if report.malformed:
        yield Finding(
            PROBLEM, "malformed", report.malformed, "docs/runbook.md, The Lease has no usable leaseTransitions"
        )
    elif record is None:
        if operator.term is not None and not isinstance(operator.term, Unknown):
            token = (operator.term.get("spec") or {}).get("token")
            yield Finding(
                PROBLEM, "no-lease",
                f"Lease {operator.lease} is gone, and its Term counts {token} terms; the next leader makes it again",
                logs,
            )  # fmt: skip
        else:
            yield Finding(
                PROBLEM, "no-lease", f"there is no Lease {operator.lease}: no replica has ever led by it",
                "compare the name with --lease-name of the replicas, and with the Deployment's name, which is the"
                " default; `kopf-ha status -A` lists all that there are",
            )  # fmt: skip
    elif (pause := pause_of(record)) is not None:
        drains = record.holder and not (renewal is not None and renewal.expired)
        yield Finding(
            REMARK if drains else PROBLEM, "paused",
            (f"the Lease is {pause}; the leader drains its handlers" if drains else f"nobody leads: {pause}"),
            f"kopf-ha resume {operator.lease}",
        )  # fmt: skip
    elif not record.holder:
        age, noted = duration(renewal.age if renewal else None), noted_in(record)
        said = f", for this reason: {noted.cause}" if noted and noted.cause else ""
        yield Finding(
            PROBLEM,
            "nobody-leads",
            f"nobody leads: the Lease was given back{f' {age} ago' if age else ''}{said}; nobody has taken it since",
            logs,
        )
    elif renewal is not None and renewal.expired:
        yield _not_renewed(report, logs)
    if renewal is not None and renewal.ahead is not None and abs(renewal.ahead) > CLOCK:
        way = "ahead of" if renewal.ahead > 0 else "behind"
        yield Finding(
            REMARK, "clock",
            f"the clock of the leader's node is {abs(renewal.ahead):.0f} s {way} the API server's; the election does"
            " not depend on it, certificates and tokens do",
        )  # fmt: skip


def _not_renewed(report: Report, logs: str) -> Finding:
    assert report.record is not None and report.renewal is not None  # noqa: S101, PT018  the caller has looked
    pod, uid = pod_of(report.record.holder)
    what = f"nobody renews the Lease: {report.record.holder} did last {duration(report.renewal.age)} ago"
    if isinstance(report.replicas, Unknown):
        return Finding(PROBLEM, "not-renewed", what, logs)
    if not report.replicas:
        return Finding(PROBLEM, "not-renewed", f"{what}, and there is no replica", _scale(report))
    if uid and report.leader is None:
        what += f"; its Pod {pod} is gone, and no other replica has taken over"
    elif report.leader is not None and report.leader.trouble:
        what += f"; {report.leader.trouble}"
    return Finding(PROBLEM, "not-renewed", what, logs)


def _replicas(report: Report) -> Iterator[Finding]:
    replicas = report.replicas
    if isinstance(replicas, Unknown):
        yield Finding(
            LACKING, "replicas", f"the replicas are unknown: {replicas}", "docs/oncall.md has a role that is enough"
        )
        return
    if not replicas and report.leads:
        yield Finding(
            LACKING,
            "replicas",
            "no Pod that may be listed uses this Lease, and somebody renews it: replicas run in another namespace, or"
            " outside of the cluster",
        )
        return
    if not replicas:
        yield Finding(
            PROBLEM, "no-replicas", f"no replica: no Pod in namespace {report.operator.namespace} uses this Lease",
            _scale(report),
        )  # fmt: skip
        return
    for one in replicas:
        if one.trouble and one.role not in ("ended", "leaving"):
            yield _not_ready(report, one)
        # Each replica has a note about a pause, too.
        for note in one.notes if pause_of(report.record) is None else ():
            yield Finding(PROBLEM, "unfenced", f"{one.pod}: {note}", "docs/runbook.md, KopfHaUnfenced")
    if report.leads and not [r for r in replicas if r.ready and r.role == "follower"]:
        more = f"kubectl -n {replicas[0].namespace} scale deployment/{_workload(report)} --replicas=2"
        yield Finding(
            REMARK,
            "alone",
            "no other replica is ready, so nobody can take over from the leader",
            more if len(replicas) == 1 else "",
        )
    if len({r.revision for r in replicas if r.role in ("leader", "follower")}) > 1:
        yield Finding(REMARK, "revisions", "replicas of several revisions run: an update is under way, or hangs")


def _not_ready(report: Report, one: Replica) -> Finding:
    logs = f"kubectl -n {one.namespace} logs {one.pod}" + (" --previous" if one.restarts else "")
    if why := report.why_not(one):
        return Finding(PROBLEM, "not-ready", f"{one.pod} cannot lead: {why}", logs)
    text = f"{one.pod} leads, and is not shown as ready: {one.trouble}"
    if one.reported:
        return Finding(PROBLEM, "not-ready", text, logs)
    return Finding(LACKING, "not-ready", text, f"kubectl -n {one.namespace} describe pod {one.pod}")


def _term(report: Report) -> Iterator[Finding]:
    term, record = report.operator.term, report.record
    if isinstance(term, Unknown):
        yield Finding(LACKING, "term", f"the Term is unknown: {term}")
        return
    if record is None or not record.holder:
        return
    spec = (term or {}).get("spec") or {}
    if (spec.get("token"), spec.get("holder")) == (record.transitions, record.holder):
        return
    held = report.renewal.held if report.renewal else None
    if held is not None and held < FRESH:
        return
    said = f"it says token {spec.get('token')} of {spec.get('holder')}" if term else "there is none"
    kind = PROBLEM if report.protection.expected else REMARK
    yield Finding(
        kind, "term",
        f"the Term is not the leader's: {said}. So no policy knows who leads",
        "the leader's log says why it was not written; apply what `kopf-ha manifests --only term --only rbac` writes",
    )  # fmt: skip


def _enforcement(report: Report) -> Iterator[Finding]:
    protection = report.protection
    if protection.missing:
        yield Finding(
            PROBLEM, "policies",
            f"{len(protection.missing)} of {len(protection.expected)} policies are not in force:"
            f" {', '.join(protection.missing)}",
            "apply what `kopf-ha manifests` writes; after a repair, put the bindings back",
        )  # fmt: skip
    elif protection.described is None:
        yield Finding(
            PROBLEM, "policies", "no policy of this release belongs to this Lease",
            "apply what `kopf-ha manifests` writes for this Lease and service account",
        )  # fmt: skip
    if report.not_enforced:
        yield Finding(
            PROBLEM, "not-enforced", f"the leader found that the fence is not enforced: {report.not_enforced}",
            "docs/runbook.md, \"not enforced by the API server\"",
        )  # fmt: skip
    if isinstance(protection.described, Unknown):
        yield Finding(LACKING, "policies", f"the policies are unknown: {protection.described}")


def _objects(report: Report) -> Iterator[Finding]:
    aside = report.set_aside
    if isinstance(aside, Unknown):
        if report.leads:
            yield Finding(LACKING, "set-aside", f"objects set aside are unknown: {aside}")
    elif aside:
        yield Finding(
            PROBLEM, "set-aside",
            f"{aside} deciding objects are set aside: they could not be stamped, so nothing is decided from them",
            f"kubectl -n {report.operator.namespace} describe lease {report.operator.name} names them, with the API"
            " server's answers",
        )  # fmt: skip
    refused = report.refused
    if isinstance(refused, Unknown):
        yield Finding(LACKING, "events", f"stale writes that were refused are unknown: {refused}")
    elif refused:
        lines = ", ".join(f"{line} {count}" for line, count in sorted(refused.items()))
        yield Finding(
            REMARK, "refused",
            f"{sum(refused.values())} stale writes were refused in the last hour ({lines}): the fence worked, and"
            " something paused or cut off a leader",
            "`kopf-ha history` shows which terms ended how",
        )  # fmt: skip
    if report.ahead:
        names = ", ".join(f"{a.kind} {a.namespace + '/' if a.namespace else ''}{a.name} ({a.token})"
                          for a in report.ahead[:NAMED])  # fmt: skip
        more = f" and {len(report.ahead) - NAMED} more" if len(report.ahead) > NAMED else ""
        yield Finding(
            PROBLEM, "ahead",
            f"{len(report.ahead)} objects have a stamp that is ahead of the Lease: {names}{more}",
            "the Lease lost its count (deleted, edited, or restored from a backup). The leader raises it by itself when"
            " it next writes one of them; docs/backup.md",
        )  # fmt: skip
    for why in report.not_listed:
        yield Finding(LACKING, "objects", f"stamps ahead of the Lease are unknown: {why}")


def _logs(report: Report) -> str:
    """Return the command that shows what the replicas wait for."""
    namespace, replicas = report.operator.namespace, report.replicas
    if isinstance(replicas, Unknown):
        return f"kubectl -n {namespace} logs of each replica says what it waits for"
    if not replicas:
        return ""
    first = next((r for r in replicas if r.role == "follower"), replicas[0])
    return f"kubectl -n {first.namespace} logs {first.pod} --tail=50 says what it waits for"


def _scale(report: Report) -> str:
    return (
        f"kubectl -n {report.operator.namespace} get deployment {_workload(report)}; is it scaled to 0, or can it make"
        " no Pods?"
    )


def _workload(report: Report) -> str:
    return (report.record.operator if report.record else "") or report.operator.name
