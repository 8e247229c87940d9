"""I5: no address is given to two claims, at any revision.

Three records say who has an address: the pool's allocations, the claim's status, and the ConfigMap that the claim
publishes. A claim has an address while any of them says so. Two living claims with one address are a duplicate,
whichever records say it and of whichever pool, since pools that overlap may not both be active.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from judge.finding import Finding
from judge.history import Change, History, Key, uid_of
from judge.shapes import (
    CHILDREN,
    CLAIMS,
    POOLS,
    allocations,
    claim_address,
    is_claim,
    is_pool,
    published,
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
        self.pools: dict[str, dict[str, str]] = {}
        self.records: dict[Hold, set[Key]] = defaultdict(set)
        self.since: dict[Hold, Change] = {}
        self.users: dict[str, set[str]] = defaultdict(set)

    def turn(self, change: Change) -> set[Hold]:
        """Take one change in; return what it newly gave."""
        if is_claim(change.key):
            for uid in {uid_of(change.before), uid_of(change.after)} - {""}:
                self.claims.pop(uid, None)
                self.status.pop(uid, None)
            if change.after is not None:
                self.claims[change.uid] = change.key
                self.status[change.uid] = claim_address(change.after)
        if is_pool(change.key):
            self.pools[change.key.name] = allocations(change.after)
        before, after = holds(change.key, change.before), holds(change.key, change.after)
        for hold in before - after:
            self.records[hold].discard(change.key)
            if not self.records[hold]:
                del self.records[hold], self.since[hold]
                self.users[hold[0]].discard(hold[1])
        for hold in after - before:
            self.records[hold].add(change.key)
            self.since.setdefault(hold, change)
            self.users[hold[0]].add(hold[1])
        return after - before

    def name(self, uid: str) -> str:
        """A living claim, named."""
        return f"{self.claims[uid].title} (uid {uid})"


def holds(key: Key, obj: dict[str, object] | None) -> set[Hold]:
    """What one record says."""
    if is_pool(key):
        return set(allocations(obj).items())
    if is_claim(key):
        address = claim_address(obj)
        return {(address, uid_of(obj))} if address else set()
    if key.resource == CHILDREN:
        child = published(obj)
        return {child} if child else set()
    return set()


def no_address_twice(history: History, writers: Writers) -> Iterator[Finding]:
    """I5: each pair of claims that had one address at one revision, once."""
    book = Book()
    reported = set()
    for change in history.of(POOLS, CLAIMS, CHILDREN):
        for address, uid in sorted(book.turn(change)):
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
        gained = book.turn(change)
        if is_pool(change.key) and change.same:
            lost = allocations(change.before).items() - allocations(change.after).items()
            for address, uid in sorted(lost):
                if book.status.get(uid) == address:
                    sentence = f"{change.key} dropped {address} while {book.name(uid)} still has it"
                    yield _broken("freed while held", change, address, sentence, book.since[address, uid], writers)
        if is_claim(change.key):
            pool = str(section(change.after, "spec").get("poolName", ""))
            for address, uid in gained:
                if (change.same or not claim_address(change.before)) and book.pools.get(pool, {}).get(address) != uid:
                    sentence = f"{book.name(uid)} got {address} while pool {pool} does not record it"
                    yield _broken("given without record", change, address, sentence, None, writers)


def _broken(kind: str, change: Change, address: str, sentence: str, giver: Change | None, writers: Writers) -> Finding:
    now = writers.party(change)
    parties = (writers.party(giver), now) if giver else (now,)
    return Finding("I5", kind, change.revision, address, parties, f"{sentence}, at revision {change.revision} by {now}")
