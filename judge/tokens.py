"""Checks objects' tokens: they only rise (I1), have one holder (I2), are not late (I3) and are on all writes (I8)."""

from __future__ import annotations

from collections.abc import Iterator

from judge.finding import Finding, Party
from judge.history import Change, History
from judge.leases import Leases
from judge.shapes import ANNOTATION, EXEMPT, Stamp, section, stamp_of, terminating
from judge.writers import Writers


def tokens_only_rise(history: History, writers: Writers) -> Iterator[Finding]:
    """I1: find recorded tokens that went down, and stamps that were removed."""
    for change in history.changes:
        before, after = stamp_of(change.before), stamp_of(change.after)
        if not change.same or before is None or before == after:
            continue
        parties = (Party.stamped(before), writers.party(change))
        if after is None:
            yield _finding("I1", "stamp removed", change, parties, f"the stamp of {change.key}, {before}, was removed")
        elif after.lease != before.lease:
            sentence = f"the stamp of {change.key} counted by Lease {before.lease} and now by {after.lease}"
            yield _finding("I1", "another Lease", change, parties, sentence)
        elif after.token < before.token:
            sentence = f"the token of {change.key} went down from {before} to {after}"
            yield _finding("I1", "token went down", change, parties, sentence)


def tokens_have_one_holder(history: History) -> Iterator[Finding]:
    """I2: find objects that two processes wrote under one token."""
    owners: dict[tuple[str, str, int], tuple[Stamp, int]] = {}
    reported = set()
    for change in history.changes:
        stamp = stamp_of(change.after)
        if stamp is None:
            continue
        first, revision = owners.setdefault((change.uid, stamp.lease, stamp.token), (stamp, change.revision))
        if (first.holder, first.pod_uid) != (stamp.holder, stamp.pod_uid) and (change.uid, stamp) not in reported:
            reported.add((change.uid, stamp))
            parties = (Party.stamped(first), Party.stamped(stamp))
            sentence = (
                f"{change.key} was written under token {stamp.token} by {first.holder} at revision {revision}"
                f" and by {stamp.holder}"
            )
            yield _finding("I2", "token shared", change, parties, sentence)


def no_late_write(history: History) -> Iterator[Finding]:
    """I3: find writes with a token below one that was accepted on the object before, whatever came in between."""
    highest: dict[tuple[str, str], tuple[Stamp, int]] = {}
    for change in history.changes:
        stamp = stamp_of(change.after)
        if stamp is None:
            continue
        high, revision = highest.get((change.uid, stamp.lease), (stamp, change.revision))
        if stamp.token >= high.token:
            highest[change.uid, stamp.lease] = stamp, change.revision
        elif not change.same or stamp != stamp_of(change.before) or wrote(change):
            parties = (Party.stamped(high), Party.stamped(stamp))
            sentence = f"{change.key} took a write with {stamp} after revision {revision} had {high}"
            yield _finding("I3", "late write", change, parties, sentence)


def writers_match_stamps(history: History, writers: Writers) -> Iterator[Finding]:
    """I3 and I8, by the audit log: find replicas' writes to objects without the stamp of the replica's pod.

    This finds stale writes that do not change the stamp: to metadata or spec, and deletions. The end of an object that
    was being deleted already is not reported: the API server removes the last finalizer without comparing revisions,
    and nothing is decided from such an object.
    """
    for change in history.changes:
        entry = writers.entry(change)
        if change.key.resource in EXEMPT or entry is None or not entry.pod_uid or not writers.by_operator(entry):
            continue
        stamp = stamp_of(change.after or change.before)
        what = "deleted" if change.after is None else "changed"
        if stamp is None:
            sentence = f"pod {entry.pod} {what} {change.key}, which bears no stamp"
            yield _finding("I8", "write without stamp", change, (Party.audited(entry),), sentence)
        elif stamp.pod_uid != entry.pod_uid and not (change.after is None and terminating(change.before)):
            parties = (Party.stamped(stamp), Party.audited(entry))
            sentence = f"pod {entry.pod} {what} {change.key}, which bears the stamp with {stamp}"
            yield _finding("I3", "write under another's stamp", change, parties, sentence)


def late_but_harmless(history: History, leases: Leases, writers: Writers) -> Iterator[Change]:
    """Return late writes that are allowed: with an old token, on objects that no later term had stamped."""
    for change in history.changes:
        stamp = stamp_of(change.after)
        if stamp is None or stamp.token >= leases.number_at(stamp.lease, change.revision):
            continue
        entry = writers.entry(change)
        if wrote(change) if entry is None else entry.pod_uid == stamp.pod_uid:
            yield change


def wrote(change: Change) -> bool:
    """Return whether a change is in a part that only the operator writes: a status, or a stamped child."""
    if not change.same:
        return True
    before, after = change.before or {}, change.after or {}
    if _notes(after):
        return any(before.get(part) != after.get(part) for part in ("data", "spec")) or _notes(before) != _notes(after)
    return before.get("status") != after.get("status")


def _notes(obj: dict[str, object]) -> dict[str, object]:
    metadata = section(obj, "metadata")
    notes = {**section(metadata, "annotations"), **section(metadata, "labels")}
    return {name: value for name, value in notes.items() if name.startswith(ANNOTATION)}


def _finding(promise: str, kind: str, change: Change, parties: tuple[Party, ...], sentence: str) -> Finding:
    text = f"{sentence}, at revision {change.revision}"
    return Finding(promise, kind, change.revision, str(change.key), parties, text)
