"""I5: no address is given to two claims, at any revision.

Two existing claims with one address are a duplicate, whichever records say so (book.py). Their pools do not matter,
since overlapping pools must not both be active. A claim that is being deleted exists until it is gone: a ConfigMap that
is created for it late still publishes its address. A ConfigMap for a claim that is gone is garbage; see leaks.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from judge.book import Book
from judge.finding import Finding
from judge.history import Change, History
from judge.shapes import CHILDREN, CLAIMS, POOLS, is_claim, pool_of
from judge.writers import Writers

TWICE = "given twice"


def no_address_twice(history: History, writers: Writers, *, fenced: bool = False) -> Iterator[Finding]:
    """I5: find each pair of claims that had one address at the same revision. Each pair is reported once."""
    book = Book(fenced=fenced)
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


def given_by_record(history: History, writers: Writers, *, fenced: bool = False) -> Iterator[Finding]:
    """I5: find addresses that a claim got, or a ConfigMap published, without the pool's record for that claim."""
    book = Book(fenced=fenced)
    for change in history.of(POOLS, CLAIMS, CHILDREN):
        _, gained = book.turn(change)
        for address, uid in sorted(gained):
            if uid not in book.claims:
                continue
            if is_claim(change.key) and not book.pool_records(pool_of(change.after), (address, uid)):
                sentence = f"{book.name(uid)} got {address} while pool {pool_of(change.after)} does not record it"
                yield _broken("given without record", change, address, sentence, writers)
            if change.key.resource == CHILDREN:
                others = book.pools_of(address)
                if others and uid not in others:
                    other, pool = sorted(others.items())[0]
                    sentence = (
                        f"{change.key} publishes {address} for {book.name(uid)} while {pool} records it for uid {other}"
                    )
                    yield _broken("published over another's record", change, address, sentence, writers)


def _broken(kind: str, change: Change, address: str, sentence: str, writers: Writers) -> Finding:
    now = writers.party(change)
    return Finding("I5", kind, change.revision, address, (now,), f"{sentence}, at revision {change.revision} by {now}")
