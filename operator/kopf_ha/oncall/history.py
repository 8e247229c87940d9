"""The command `kopf-ha history`: which terms there were, how each ended, and how long nobody led then."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from kopf_ha.core.history import Past, between, noted_in, terms
from kopf_ha.core.siblings import pod_of
from kopf_ha.oncall.cluster import UNKNOWN, WELL, Cluster, Unknown, on_cluster
from kopf_ha.oncall.output import FORMAT, duration, output_option, printable, show, table

if TYPE_CHECKING:
    from kopf_ha.core.lease import LeaseRecord
    from kopf_ha.oncall.find import Operator

#: Terms that are not recorded are named one by one up to so many.
_NAMED = 100


@click.command()
@click.argument("lease", default="", metavar="[LEASE]")
@output_option()
@on_cluster
def history(cluster: Cluster, lease: str, output: str) -> int:
    """Show the last 20 terms: when each began and ended and why, its barrier, and how long nobody led after it.

    GAP is the time from a term's end, or its last renewal if it gave nothing back, until the next term began.

    LEASE is [NAMESPACE/]NAME. It may be left out if the namespace has only one.

    The leader keeps the history in the Term. It is for people, and nothing depends on it.

    It needs the right to get the Term and the Lease, and without LEASE to list Leases.

    Exit status: 0 if there is a history, 2 if it could not be found out.
    """
    # Here, because `--help` needs none of it.
    from kopf_ha.oncall.find import the_one

    operator = the_one(cluster, lease)
    if isinstance(operator.term, Unknown):
        click.echo(f"error: {operator.term}; docs/oncall.md has a role that is enough", err=True)
        return UNKNOWN
    found = known(operator)
    missing = "" if (operator.term or {}).get("history") else why_none(cluster, operator)
    if missing:
        click.echo(f"{'error' if not found else 'note'}: {missing}", err=True)
    show(as_data(operator.lease, found, missing), output, lambda: as_text(operator.lease, found, output == "wide"))
    return UNKNOWN if missing else WELL


def known(operator: Operator) -> list[Past]:
    """Return the terms of an operator, the oldest first: those of the Term, and what the Lease adds to them.

    Raises:
        MalformedLease: the Lease cannot be used.
    """
    record, term = operator.record, operator.term
    kept = None if term is None or isinstance(term, Unknown) else term.get("history")
    found = {past.token: past for past in terms(kept)}
    if record is not None and record.transitions:
        now = shown_by(record)
        found[now.token] = found.get(now.token, now).over(now)
    return [found[token] for token in sorted(found)]


def shown_by(record: LeaseRecord) -> Past:
    """Return the term that a Lease shows: the present one, or the last one if it was given back."""
    past = Past(record.transitions, holder=record.holder)
    if record.holder:
        return replace(past, began=record.acquire_time or "")
    return (noted_in(record) or past).over(Past(record.transitions, ended=record.renew_time or ""))


def why_none(cluster: Cluster, operator: Operator) -> str:
    """Return why a Term has no history, and what to do."""
    apply = "apply what `kopf-ha manifests` writes"
    definition = cluster.read("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/terms.kopf-ha.dev")
    if definition is None:
        return f"no history is kept: the kind terms.kopf-ha.dev is not installed; {apply}"
    if not isinstance(definition, Unknown) and not _keeps(definition.body):
        return f"no history is kept: the definition of terms.kopf-ha.dev is of an earlier release; {apply}"
    if operator.term is None:
        return f"no history is kept: there is no Term {operator.lease}; the leader's log says why it is not written"
    unsure = " the definition of terms.kopf-ha.dev, or" if isinstance(definition, Unknown) else ""
    return (
        f"the Term {operator.lease} has no history yet: the term began a moment ago, or{unsure} the leader is of an"
        " earlier release"
    )


def _keeps(definition: Any) -> bool:
    versions = (definition.get("spec") or {}).get("versions") or ()
    schemas = [((v.get("schema") or {}).get("openAPIV3Schema") or {}).get("properties") or {} for v in versions]
    return any("history" in one for one in schemas)


def as_data(lease: str, found: list[Past], missing: str = "") -> dict[str, Any]:
    """Return plain data; docs/oncall.md names the fields."""
    return {
        "format": FORMAT,
        "lease": lease,
        "terms": [
            {
                "token": one.token,
                "holder": one.holder or None,
                "pod": pod_of(one.holder)[0] or None,
                "began": one.began or None,
                "barrierSeconds": one.barrier,
                "ended": one.ended or None,
                "ledSeconds": between(one.began, one.ended),
                "reason": one.reason or None,
                "cause": one.cause or None,
                "gapSeconds": one.gap,
            }
            for one in found
        ],
        "notRecorded": not_recorded(found),
        "missing": missing or None,
    }


def not_recorded(found: list[Past]) -> list[int]:
    """Return the tokens of terms in between that nobody recorded, the newest of them if they are many."""
    tokens = {one.token for one in found}
    if not tokens:
        return []
    # Somebody may have edited the numbers: the gap may be a billion wide.
    newest = (t for t in range(max(tokens), min(tokens), -1) if t not in tokens)
    return sorted(itertools.islice(newest, _NAMED))


def as_text(lease: str, found: list[Past], wide: bool = False) -> str:
    """Return the table for people, the newest term last."""
    if not found:
        return f"Lease {lease}: no term is known"
    headings = ["token", "began", "led", "barrier", "ended", "gap", "pod", *(["holder"] if wide else []), "cause"]
    return table(headings, [_row(one, wide, last=one is found[-1]) for one in found]) + _left_out(found)


def _row(one: Past, wide: bool, last: bool) -> list[object]:
    ended = one.reason or ("" if last and not one.ended else "not recorded")
    return [
        one.token,
        _short(one.began),
        duration(between(one.began, one.ended)) if one.ended else None,
        None if one.barrier is None else f"{one.barrier:.3f}s",
        ended,
        None if one.gap is None else f"{one.gap:.3f}s" if one.gap < 10 else duration(one.gap),
        pod_of(one.holder)[0] or one.holder,
        *([one.holder] if wide else []),
        one.cause,
    ]


def _left_out(found: list[Past]) -> str:
    tokens = not_recorded(found)
    return f"\nnot recorded: {', '.join(map(str, tokens))}" if tokens else ""


def _short(began: str) -> str:
    """Return a time in whole seconds of UTC."""
    try:
        when = datetime.datetime.fromisoformat(began)
    except ValueError:
        return printable(began)
    return when.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
