"""Checks the Lease: its numbers never go down, and each number belongs to one holder."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from judge.finding import Finding, Party
from judge.history import Change, History
from judge.shapes import LEASES, lease_of, stamp_of
from judge.writers import Writers


@dataclass(frozen=True)
class Term:
    """One leadership, as the Lease shows it. `until` is the revision at which it had ended, or None."""

    lease: str
    token: int
    holder: str
    since: int
    until: int | None


class Leases:
    """The Leases to judge: those in stamps, and those that the caller names."""

    def __init__(self, history: History, named: Iterable[str] = ()):
        seen = {stamp.lease for change in history.changes if (stamp := stamp_of(change.after))}
        self.names = seen | set(named)
        self.changes = [change for change in history.of(LEASES) if self._judged(change)]
        self.terms = tuple(_terms(self.changes))
        self._marks: dict[str, tuple[list[int], list[int]]] = {}
        for change in self.changes:
            revisions, numbers = self._marks.setdefault(change.key.title, ([], []))
            revisions.append(change.revision)
            numbers.append((lease_of(change.after).number or 0) if change.after else 0)

    def _judged(self, change: Change) -> bool:
        return change.key.title in self.names or change.key.name in self.names

    def number_at(self, lease: str, revision: int) -> int:
        """Return the Lease's number at a revision, or 0 if it did not exist."""
        for title, (revisions, numbers) in self._marks.items():
            if named(lease, title):
                index = bisect_right(revisions, revision)
                return numbers[index - 1] if index else 0
        return 0

    def granted(self, lease: str, token: int, holder: str, revision: int) -> bool:
        """Return whether the Lease had given this token to this holder by this revision."""
        return any(
            term.token == token and term.holder == holder and term.since <= revision and named(lease, term.lease)
            for term in self.terms
        )


def named(lease: str, title: str) -> bool:
    """Return whether `lease` names the Lease with this ``namespace/name``: in full, or by its name alone."""
    return lease in (title, title.rsplit("/", 1)[-1])


def _terms(changes: Iterable[Change]) -> Iterator[Term]:
    """Return the terms in the order of their beginning. A holder that raises its own number begins a new term."""
    running: dict[str, tuple[int, str, int]] = {}
    done: list[Term] = []
    for change in changes:
        name, state = change.key.title, lease_of(change.after)
        old = running.get(name)
        if old and (state.number, state.holder) != old[:2]:
            done.append(Term(name, *running.pop(name), change.revision))
        if state.holder and state.number is not None and name not in running:
            running[name] = (state.number, state.holder, change.revision)
    done += [Term(name, *state, None) for name, state in running.items()]
    yield from sorted(done, key=lambda term: term.since)


def numbers_are_unique(leases: Leases, writers: Writers) -> Iterator[Finding]:
    """Find numbers that went down or that a new holder did not raise, until the Lease is deleted."""
    owners: dict[tuple[str, int], tuple[str, Change]] = {}
    for change in leases.changes:
        if change.after is None:
            continue
        now = lease_of(change.after)
        before = lease_of(change.before) if change.same else None
        title = change.key.title
        parties = (writers.party(change),)
        if now.number is None:
            if now.holder or (before and before.number is not None):
                yield _finding("number missing", change, parties, f"Lease {title} has no valid number")
            continue
        if before and before.number is not None and now.number < before.number:
            sentence = f"the number of Lease {title} went down from {before.number} to {now.number}"
            yield _finding("number went down", change, parties, sentence)
        if not now.holder:
            continue
        new = before is not None and now.holder != before.holder
        if new and before and before.number is not None and now.number <= before.number:
            sentence = f"{now.holder} took Lease {title} from {before.holder or 'nobody'} without raising {now.number}"
            yield _finding("not raised", change, parties, sentence)
        holder, first = owners.setdefault((change.uid, now.number), (now.holder, change))
        if holder != now.holder:
            sentence = f"Lease {title} gave {now.number} to {holder} at revision {first.revision} and to {now.holder}"
            yield _finding("number shared", change, (writers.party(first), *parties), sentence)


def tokens_are_granted(history: History, leases: Leases, writers: Writers) -> Iterator[Finding]:
    """Find stamps with a token that the Lease had not given to their holder."""
    reported = set()
    for change in history.changes:
        stamp = stamp_of(change.after)
        if stamp is None or stamp in reported or (change.same and stamp == stamp_of(change.before)):
            continue
        if not leases.granted(stamp.lease, stamp.token, stamp.holder, change.revision):
            reported.add(stamp)
            sentence = f"{change.key} was stamped with {stamp}, which Lease {stamp.lease} had not given"
            yield _finding("token not given", change, (writers.party(change),), sentence)


def _finding(kind: str, change: Change, parties: tuple[Party, ...], sentence: str) -> Finding:
    return Finding(
        "Lease", kind, change.revision, str(change.key), parties, f"{sentence}, at revision {change.revision}"
    )


def rebirths(leases: Leases) -> Iterator[str]:
    """Return notes about deleted Leases. Numbers are compared only until a deletion, stamps also beyond it."""
    for change in leases.changes:
        if change.after is None:
            number = lease_of(change.before).number
            yield f"Lease {change.key.title} was deleted at revision {change.revision}, at number {number}"
