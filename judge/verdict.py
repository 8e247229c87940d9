"""Runs all checks on a history and an audit log, and returns the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from judge import addresses, answers, audited, barrier, conflicts, freeing, leaks, leases, service, tokens, users
from judge.audit import AuditEntry
from judge.finding import Finding
from judge.history import History
from judge.leases import Leases, Term
from judge.shapes import CLAIMS, EXEMPT, claim_address, stamp_of
from judge.writers import Writers

REFUSALS = frozenset({403, 409, 422})


@dataclass(frozen=True)
class Expectations:
    """What the caller knows about the run: who the operator is, and how much must have happened."""

    operator_user: str | None = None
    """The operator's user name. Without it, everything that writes from a pod counts as the operator."""
    lease_names: tuple[str, ...] = ()
    """Leases to judge (`namespace/name`) in addition to those in stamps. Plain Kopf has no stamps."""
    fenced: bool = True
    """Whether stamps are expected. False for the comparison modes."""
    lease_tampered: bool = False
    """Whether the Lease was edited on purpose. Then findings about the Lease are only notes."""
    min_terms: int = 1
    min_bound_claims: int = 1
    min_refusals: int = 0
    gate_refusals: int = 0
    """How many writes the operator refused itself. They are not in the audit log, and count as refusals."""
    quiet_after: int | None = None
    """The revision after which nothing may change any more (I7).

    The run had become quiet then: the quarantine of freed addresses was over, and Kubernetes had collected objects
    without an owner. So leftovers, and claims that are not served, are findings.
    """
    older_operator: bool = False
    """Whether it is an older version: it frees addresses before the claim is gone, and activates pools without stamping
    claims."""
    pods_expected: bool = True
    """Whether the operator runs in pods. Then a write of its account without a pod is a finding."""
    audit_whole: bool = False
    """Whether the audit log is complete, because no API server was killed. Then each write needs an entry."""


@dataclass(frozen=True)
class Summary:
    """What was seen, in numbers."""

    revisions: int
    changes: int
    objects: int
    terms: tuple[Term, ...]
    claims_bound: int
    claims_waiting: int
    addresses_given: int
    refused: Mapping[int, int]
    """Refused writes of the operator, by status code, without dry runs, Events and the Lease."""
    writes_per_token: Mapping[int, int]
    late_but_harmless: int


@dataclass(frozen=True)
class Verdict:
    """Whether the promises held, and what was seen."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    summary: Summary

    @property
    def ok(self) -> bool:
        """Whether every promise held, and enough happened in the run."""
        return not self.findings

    @property
    def duplicates(self) -> tuple[Finding, ...]:
        """The addresses that were given twice."""
        return tuple(finding for finding in self.findings if finding.kind == addresses.TWICE)

    def broken(self, promise: str) -> tuple[Finding, ...]:
        """The findings of one promise."""
        return tuple(finding for finding in self.findings if finding.promise == promise)

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "every promise held"


def judge(history: History, audit: Iterable[AuditEntry] = (), expectations: Expectations | None = None) -> Verdict:
    """Judge a run, and return the verdict."""
    expected = expectations or Expectations()
    entries = list(audit)
    writers = Writers(history, entries, expected.operator_user)
    seen = Leases(history, expected.lease_names)
    about_lease = [
        *leases.numbers_are_unique(seen, writers),
        *leases.tokens_are_granted(history, seen, writers),
    ]
    late_writes = list(tokens.no_late_write(history))
    broke = {finding.revision for finding in late_writes}
    late = [c for c in tokens.late_but_harmless(history, seen, writers) if c.revision not in broke]
    summary = _summary(history, entries, writers, seen, len(late))
    fenced, quiet, older = expected.fenced, expected.quiet_after is not None, expected.older_operator
    twice = list(addresses.no_address_twice(history, writers, fenced=fenced))
    left_behind = list(leaks.nothing_is_left(history, fenced=fenced))
    findings = [
        *tokens.tokens_only_rise(history, writers),
        *tokens.tokens_have_one_holder(history),
        *late_writes,
        *(f for f in tokens.writers_match_stamps(history, writers) if fenced or f.promise != "I8"),
        *barrier.barrier_comes_first(history),
        *(barrier.pools_are_stamped_before_they_decide(history, seen) if fenced else ()),
        *(barrier.claims_are_stamped_before_activation(history) if fenced and not older else ()),
        *twice,
        *answers.answers_agree(history, entries),
        *answers.no_address_held_twice(history, writers, fenced=fenced, known={f.object for f in twice}),
        *addresses.given_by_record(history, writers, fenced=fenced),
        *freeing.pools_keep_what_exists(history, writers, fenced=fenced, early=older),
        *users.only_users_change_specs(history, writers),
        *service.served_in_order(history, writers),
        *(audited.writes_have_a_pod(history, entries, writers) if expected.pods_expected else ()),
        *(audited.all_is_audited(history, writers) if expected.audit_whole else ()),
        *([] if expected.lease_tampered else about_lease),
    ]
    if quiet:
        findings += [
            *users.writes_stop(history, expected.quiet_after),
            *left_behind,
            *service.claims_are_served(history),
            *conflicts.conflicts_are_shown(history, fenced=fenced),
        ]
    notes = [
        *(str(finding) for finding in about_lease if expected.lease_tampered),
        *leases.rebirths(seen),
        *(() if quiet else (f"the run ended while {finding.sentence}" for finding in left_behind)),
        *(f"late but harmless: {c.key} at revision {c.revision} by {writers.party(c)}" for c in late),
    ]
    if unknown := users.unknown_editors(history, writers):
        notes.append(f"{unknown} changes of users' fields have no known writer: the audit log does not show them")
    if entries and not expected.audit_whole and (gaps := audited.unaudited(history, writers)):
        notes.append(f"{len(gaps)} writes have no audit entry; the first is of {gaps[0].key} at {gaps[0].revision}")
    findings.sort(key=lambda finding: finding.revision)
    return Verdict((*findings, *_vacuous(summary, expected)), tuple(notes), summary)


def _vacuous(summary: Summary, expected: Expectations) -> Iterator[Finding]:
    """Find whether too little happened: such a run proves nothing."""
    counts = [
        ("terms", len(summary.terms), expected.min_terms),
        ("claims bound", summary.claims_bound, expected.min_bound_claims),
        ("refusals", sum(summary.refused.values()) + expected.gate_refusals, expected.min_refusals),
        ("stamped writes", sum(summary.writes_per_token.values()), int(expected.fenced)),
    ]
    for what, count, least in counts:
        if count < least:
            sentence = f"only {count} {what} seen, {least} expected"
            yield Finding("vacuous", what, summary.revisions, "the run", (), sentence)


def _summary(history: History, audit: Iterable[AuditEntry], writers: Writers, seen: Leases, late: int) -> Summary:
    given: set[tuple[str, str]] = set()
    now: dict[str, str] = {}
    per_token: Counter[int] = Counter()
    for change in history.changes:
        if change.key.resource == CLAIMS:
            now.pop(change.uid, None)
            if change.after is not None:
                now[change.uid] = address = claim_address(change.after)
                given |= {(change.uid, address)} if address else set()
        stamp = stamp_of(change.after)
        if stamp and tokens.wrote(change):
            per_token[stamp.token] += 1
    refused = Counter(
        entry.code
        for entry in audit
        if entry.write and entry.code in REFUSALS and entry.resource not in EXEMPT and writers.by_operator(entry)
    )
    return Summary(
        revisions=history.revision,
        changes=len(history.changes),
        objects=len({(change.key, change.uid) for change in history.changes if change.after is not None}),
        terms=seen.terms,
        claims_bound=len({uid for uid, _ in given}),
        claims_waiting=sum(1 for address in now.values() if not address),
        addresses_given=len(given),
        refused=dict(sorted(refused.items())),
        writes_per_token=dict(sorted(per_token.items())),
        late_but_harmless=late,
    )
