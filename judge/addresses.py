"""I5: no address is given to two claims, at any revision.

Three records say who has an address: the pool's allocations, the claim's status, and the ConfigMap that the claim
publishes. A claim has an address while any of them says so. Two living claims with one address are a duplicate,
whichever records say it and of whichever pool, since pools that overlap may not both be active.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from judge.finding import Finding
from judge.history import Change, History, Key, Object, uid_of
from judge.shapes import (
    CHILDREN,
    CLAIMS,
    POOLS,
    allocation,
    claim_address,
    is_claim,
    is_pool,
    published,
    recorded,
    section,
)
from judge.writers import Writers

TWICE = "given twice"
Hold = tuple[str, str]  # address, uid of the claim


class Book:
    """Who has which address, kept up to date change by change."""

    def __init__(self) -> None:
        self.claims: dict[str, Key] = {}
        self.status: dict[str, str] = {}
        self.records: dict[Hold, set[Key]] = defaultdict(set)
        self.since: dict[Hold, Change] = {}
        self.users: dict[str, set[str]] = defaultdict(set)

    def turn(self, change: Change) -> tuple[set[Hold], set[Hold]]:
        """Take one change in; return what its record no longer says, and what it newly says."""
        if is_claim(change.key):
            for uid in {uid_of(change.before), uid_of(change.after)} - {""}:
                self.claims.pop(uid, None)
                self.status.pop(uid, None)
            if change.after is not None:
                self.claims[change.uid] = change.key
                self.status[change.uid] = claim_address(change.after)
        lost, gained = difference(change)
        for hold in lost:
            self.records[hold].discard(change.key)
            if not self.records[hold]:
                del self.records[hold], self.since[hold]
                self.users[hold[0]].discard(hold[1])
        for hold in gained:
            self.records[hold].add(change.key)
            self.since.setdefault(hold, change)
            self.users[hold[0]].add(hold[1])
        return lost, gained

    def pool_records(self, pool: str, hold: Hold) -> bool:
        """Whether the pool of that name says so."""
        return any(is_pool(key) and key.name == pool for key in self.records.get(hold, ()))

    def name(self, uid: str) -> str:
        """A living claim, named."""
        return f"{self.claims[uid].title} (uid {uid})"


def difference(change: Change) -> tuple[set[Hold], set[Hold]]:
    """What a record says no longer, and what it says newly."""
    if is_pool(change.key):  # it can be long, and only a little of it changes
        old, new = recorded(change.before), recorded(change.after)
        before = {allocation(*entry) for entry in old - new}
        after = {allocation(*entry) for entry in new - old}
    else:
        before, after = holds(change.key, change.before), holds(change.key, change.after)
    return before - after, after - before


def holds(key: Key, obj: Object | None) -> set[Hold]:
    """What a claim or a child says."""
    if is_claim(key):
        address = claim_address(obj)
        return {(address, uid_of(obj))} if address else set()
    child = published(obj) if key.resource == CHILDREN else None
    return {child} if child else set()


def no_address_twice(history: History, writers: Writers) -> Iterator[Finding]:
    """I5: each pair of claims that had one address at one revision, once."""
    book = Book()
    reported = set()
    for change in history.of(POOLS, CLAIMS, CHILDREN):
        _, gained = book.turn(change)
        for address, uid in sorted(gained):
            if uid not in book.claims:
                continue
            for other in sorted(book.users[address] & book.claims.keys() - {uid}):
                pair = address, frozenset((uid, other))
                if pair in reported:
                    continue
                reported.add(pair)
                sides = sorted((book.since[address, who].revision, who) for who in (uid, other))
                given = [(book.since[address, who], who) for _, who in sides]
                parties = tuple(writers.party(at) for at, _ in given)
                text = ", and to ".join(
                    f"{book.name(who)} at revision {at.revision} by {party} in {at.key}"
                    for (at, who), party in zip(given, parties, strict=True)
                )
                sentence = f"{address} was given twice: to {text}"
                yield Finding("I5", TWICE, change.revision, address, parties, sentence)


def pools_keep_what_is_held(history: History, writers: Writers) -> Iterator[Finding]:
    """I5: a pool drops an entry only after the claim gave the address up, and a claim gets one only after the entry."""
    book = Book()
    for change in history.of(POOLS, CLAIMS):
        lost, gained = book.turn(change)
        entry = writers.entry(change)
        # a user who takes a pool's finalizer away frees it, knowing or not; the operator may not
        if is_pool(change.key) and (change.same or (entry and writers.by_operator(entry))):
            for address, uid in sorted(lost):
                if book.status.get(uid) == address:
                    sentence = f"{change.key} dropped {address} while {book.name(uid)} still has it"
                    yield _broken("freed while held", change, address, sentence, book.since[address, uid], writers)
        if is_claim(change.key):
            pool = str(section(change.after, "spec").get("poolName", ""))
            for address, uid in gained:
                if not book.pool_records(pool, (address, uid)):
                    sentence = f"{book.name(uid)} got {address} while pool {pool} does not record it"
                    yield _broken("given without record", change, address, sentence, None, writers)


def _broken(kind: str, change: Change, address: str, sentence: str, giver: Change | None, writers: Writers) -> Finding:
    now = writers.party(change)
    parties = (writers.party(giver), now) if giver else (now,)
    return Finding("I5", kind, change.revision, address, parties, f"{sentence}, at revision {change.revision} by {now}")
