"""I8, checked by the audit log: each of the operator's writes is in the log, and a pod sent it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from judge.audit import AuditEntry
from judge.finding import Finding, Party
from judge.history import Change, History
from judge.shapes import CHILDREN, CLAIMS, EXEMPT, POOLS, stamp_of
from judge.writers import Writers


def writes_have_a_pod(history: History, audit: Iterable[AuditEntry], writers: Writers) -> Iterator[Finding]:
    """I8: find writes of the operator's account without a pod, and stamps by other accounts."""
    if not writers.operator_user:
        return  # then anything that writes from a pod counts as the operator
    for entry in audit:
        if entry.write and entry.accepted and not entry.pod_uid and entry.user == writers.operator_user:
            if entry.resource in EXEMPT:
                continue
            party, what = Party.audited(entry), "/".join(p for p in (entry.namespace, entry.name) if p)
            sentence = f"{party} wrote {entry.resource} {what} ({entry.verb}) without a pod"
            yield _finding("write without a pod", entry.revision or 0, f"{entry.resource} {what}", party, sentence)
    for change in history.changes:
        stamp, known = stamp_of(change.after), writers.entry(change)
        if stamp and known and not writers.by_operator(known) and stamp != stamp_of(change.before):
            party = Party.audited(known)
            sentence = f"{party}, who is not the operator, stamped {change.key} with {stamp}"
            yield _finding("stamped by another account", change.revision, str(change.key), party, sentence)


def unaudited(history: History, writers: Writers) -> list[Change]:
    """Return changes of the operator's objects without an audit entry.

    Deletions are left out: their answers contain no revision, so their entries cannot always be identified.
    """
    return [
        change
        for change in history.of(POOLS, CLAIMS, CHILDREN)
        if change.after is not None
        and (change.key.resource != CHILDREN or stamp_of(change.after))
        and writers.entry(change) is None
    ]


def all_is_audited(history: History, writers: Writers) -> Iterator[Finding]:
    """I8: find changes without an audit entry. Only for runs without killed API servers, whose logs end early."""
    for change in unaudited(history, writers):
        party, key = writers.party(change), str(change.key)
        sentence = f"the audit log does not show the write of {key} at revision {change.revision} by {party}"
        yield _finding("write without audit entry", change.revision, key, party, sentence)


def _finding(kind: str, revision: int, what: str, party: Party, sentence: str) -> Finding:
    return Finding("I8", kind, revision, what, (party,), sentence)
