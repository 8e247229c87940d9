"""Checks of the Lease, the Term, the priority of the election's requests, and the durations."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from kopf_ha.core.lease import OPERATOR, LeaseRecord
from kopf_ha.core.orders import pause_of
from kopf_ha.core.token import TOKEN_MAX
from kopf_ha.errors import MalformedLease
from kopf_ha.manifests import flow_schema, workload
from kopf_ha.oncall.checks import commands
from kopf_ha.oncall.checks.compare import difference
from kopf_ha.oncall.checks.facts import FLOW_SCHEMAS, LEASES, Case, SaidElsewhere, Tried
from kopf_ha.oncall.checks.finding import Finding, error, unknown, warning
from kopf_ha.oncall.cluster import Unknown
from kopf_ha.oncall.renewal import renewal_of
from kopf_ha.settings import UNNAMED

#: Tokens that are left when it is time to say so.
FEW = 1_000_000
#: Lease durations without a renewal after which nobody renews.
SILENT = 3
_DEFAULTS = {"LEASE_DURATION": 15.0, "RENEW_DEADLINE": 10.0, "RETRY_PERIOD": 2.0}


def durations(container: Any) -> Mapping[str, float]:
    """Return the election's durations that a container was told, in seconds, by their variables' names.

    What is not given follows the lease duration, as in `Settings`.

    Raises:
        ValueError: one is no number.
    """
    found: dict[str, float] = {}
    for name, default in _DEFAULTS.items():
        text = workload.given(container, "--" + name.lower().replace("_", "-"))
        scale = found.get("LEASE_DURATION", _DEFAULTS["LEASE_DURATION"]) / _DEFAULTS["LEASE_DURATION"]
        found[name] = float(text.removesuffix("s")) if text else default * (scale if found else 1.0)
    return found


def times(case: Case) -> Iterator[Finding]:
    """Give a finding if `kopf-ha run` would refuse the durations."""
    try:
        found = durations(case.its.container)
    except ValueError as problem:
        yield error(f"a duration of {case.its.title} is no number: {problem}", "write seconds, such as 15")
        return
    lease, renew, retry = (found[name] for name in _DEFAULTS)
    if not lease > renew > 1.2 * retry > 0:
        yield error(
            f"lease duration {lease:g} s, renew deadline {renew:g} s and retry period {retry:g} s do not fit together,"
            " so no replica starts",
            "the lease duration must be greater than the renew deadline, and that greater than 1.2 times the retry"
            " period",
        )


def latency(case: Case) -> Iterator[Finding]:
    """Give a finding if the API server answers too slowly for the durations, as measured from here."""
    measured = case.its.asked.latencies
    try:
        deadline = durations(case.its.container)["RENEW_DEADLINE"]
    except ValueError as problem:
        raise SaidElsewhere(problem) from problem
    if not measured:
        raise SaidElsewhere("nothing was measured")
    if min(measured) <= deadline / 4:
        return
    text = (
        f"a read of the Lease took {statistics.median(measured):.2f} s in the median, measured from here, and the renew"
        f" deadline is {deadline:g} s"
    )
    hint = (
        "look at the latency of the API server and of etcd, and at the FlowSchema. If it is always this slow, set"
        " longer durations, all three together"
    )
    yield error(text, hint) if min(measured) > deadline / 2 else warning(text, hint)


def priority(case: Case) -> Iterator[Finding]:
    """Give a finding if the FlowSchema is missing, changed, or for another account."""
    facts, description = case.facts, case.its.description
    (ours,) = flow_schema(description)
    name = ours["metadata"]["name"]
    found = facts.named(FLOW_SCHEMAS, name)
    mend = commands.regenerate(facts, description, "flowschema")
    if found is None:
        yield warning(
            f"FlowSchema {name} is {facts.absent}, so a flood of other requests can delay the renewal of the Lease",
            "apply it",
            mend,
        )
    elif at := difference(ours["spec"], found["spec"], "spec"):
        yield warning(f"FlowSchema {name} is not as this version writes it: {at} differs", "apply it again", mend)


def matched(case: Case) -> Iterator[Finding]:
    """Give a finding if another FlowSchema is chosen for the election's requests."""
    tried = case.its.asked.tried
    if not isinstance(tried, Tried) or not tried.flow_schema or any(priority(case)):
        raise SaidElsewhere("it is not known, or there is none")
    ours = flow_schema(case.its.description)[0]["metadata"]["name"]
    all_known = case.facts.of(FLOW_SCHEMAS)
    chosen = next((o for o in all_known if o["metadata"].get("uid") == tried.flow_schema), None)
    name = chosen["metadata"]["name"] if chosen else tried.flow_schema
    if name != ours:
        yield warning(
            f"the election's requests are given their priority by FlowSchema {name}, and not by {ours}",
            f"give {ours} a lower matchingPrecedence than {name} has, or delete that one",
            f"{case.facts.kubectl} get flowschemas --sort-by=.spec.matchingPrecedence",
        )


# --- the Lease


def usable(case: Case) -> Iterator[Finding]:
    """Give a finding if the Lease does not count terms."""
    body = case.lease
    if body is None:
        raise SaidElsewhere("there is no Lease")
    try:
        record = LeaseRecord.parse(body)
    except MalformedLease as problem:
        namespace, name = case.its.lease_parts
        yield error(
            str(problem).partition(" Its number")[0].rstrip("."),
            "its number counts the terms and is never guessed. Set it to the highest token that any object records (0"
            " if there is none) in the place of N",
            f"{case.facts.kubectl} -n {namespace} patch lease {name} --type=merge"
            ' -p \'{"spec":{"holderIdentity":null,"leaseTransitions":N}}\'',
        )
        return
    if TOKEN_MAX - record.transitions < FEW:
        yield warning(
            f"Lease {case.its.lease} counts {record.transitions} terms, and the last token is {TOKEN_MAX}",
            "somebody edited the number. The runbook says how to start again at a low one: No token is left",
        )


def owner(case: Case) -> Iterator[Finding]:
    """Give a finding if the Lease belongs to another operator, or two elect by it."""
    operator = case.its
    if len(operator.workloads) > 1:
        names = " and ".join(f"{str(w['kind']).lower()}/{w['metadata']['name']}" for w in operator.workloads)
        yield error(
            f"{names} elect their leader by one Lease, {operator.lease}, so only one of them runs",
            "each operator needs a Lease of its own: set KOPF_HA_LEASE_NAME of one to another name, and write its"
            " policies for that",
        )
        return
    body = case.lease
    named = str(((body or {}).get("metadata", {}).get("annotations") or {}).get(OPERATOR) or "")
    own = str(operator.workload["metadata"]["name"])
    if named not in ("", own):
        namespace, name = operator.lease_parts
        yield error(
            f"Lease {operator.lease} belongs to operator {named}, and {operator.title} elects by it",
            "two operators were given one Lease, or the operator was renamed. If it was renamed",
            f"{case.facts.kubectl} -n {namespace} annotate lease {name} {OPERATOR}-",
        )


def unnamed(case: Case) -> Iterator[Finding]:
    """Give a finding if a Lease of an earlier release keeps replicas without ``--lease-name`` from leading."""
    operator = case.its
    namespace, name = operator.lease_parts
    if workload.given_lease(operator.container) or name == UNNAMED:
        return
    found = case.facts.named(LEASES, UNNAMED, namespace)
    named = str(((found or {}).get("metadata", {}).get("annotations") or {}).get(OPERATOR) or "")
    if found is not None and named in ("", str(operator.workload["metadata"]["name"])):
        yield error(
            f"Lease {namespace}/{UNNAMED} exists, by which earlier releases elect, so {operator.title} does not lead",
            "say which Lease it has: kopf-ha if that one is this operator's, otherwise its own",
            f"{case.facts.kubectl} -n {operator.namespace} set env {operator.title} KOPF_HA_LEASE_NAME={UNNAMED}",
        )


def held(case: Case) -> Iterator[Finding]:
    """Give a finding if nobody holds the Lease, nobody renews it, or it is paused."""
    record = case.record
    if record is None:
        yield error(
            f"there is no Lease {case.its.lease}, so no replica has ever led",
            "the log of a replica says what it waits for",
            _logs(case),
        )
        return
    if (pause := pause_of(record)) is not None:
        ends = f"kopf-ha resume {case.its.lease}"
        yield warning(f"nobody leads on purpose: Lease {case.its.lease} is {pause}", "when that is over, end it", ends)
        return
    if not record.holder:
        yield error(f"nobody holds Lease {case.its.lease}", "the log of a replica says what it waits for", _logs(case))
        return
    now = datetime.datetime.fromtimestamp(case.facts.now, datetime.UTC)
    renewal = renewal_of(case.lease or {}, now)
    if renewal.age is None:
        yield unknown(f"Lease {case.its.lease} does not say when it was renewed", "look again in some seconds")
        return
    if renewal.age > SILENT * (renewal.duration or _DEFAULTS["LEASE_DURATION"]):
        yield error(
            f"nobody has renewed Lease {case.its.lease} for {renewal.age:.0f} s",
            "no replica leads; the log of one says what it waits for. Do not delete the Lease: it counts the terms",
            _logs(case),
        )


def term(case: Case) -> Iterator[Finding]:
    """Give a finding if the Term does not say what the Lease says."""
    found = case.its.asked.term
    if isinstance(found, Unknown):
        yield unknown(str(found))
        return
    record = case.newest
    if record is None:
        raise SaidElsewhere("there is no Lease")
    spec: Mapping[str, Any] = (found or {}).get("spec") or {}
    token = int(spec.get("token") or 0)
    if record.holder and found is None and record.transitions:
        yield error(
            f"there is no Term {case.its.lease}, so no API server knows who leads",
            "the leader could not write it: a missing role, or an earlier release of kopf-ha. Its log says why",
            _logs(case),
        )
    elif token > record.transitions:
        yield error(
            f"Term {case.its.lease} has token {token}, and the Lease counts {record.transitions} terms: the Lease was"
            " lost or edited backwards",
            "a replica of this release counts on above the Term by itself; the log of one says why it did not",
            _logs(case),
        )
    elif record.holder and found is not None and (token, spec.get("holder")) != (record.transitions, record.holder):
        yield error(
            f"Term {case.its.lease} names token {token} of {spec.get('holder')}, and the Lease names token"
            f" {record.transitions} of {record.holder}",
            "the leader could not write the Term: a missing role, or an earlier release. Its log says why",
            _logs(case),
        )


def _logs(case: Case) -> str:
    return f"{case.facts.kubectl} -n {case.its.namespace} logs {case.its.title} --all-pods --prefix --tail=50"
