"""I5, if it was broken: both claims show that they have one address, so that people can delete one of them."""

from __future__ import annotations

from collections.abc import Iterator

from judge.book import Book
from judge.finding import Finding
from judge.history import History
from judge.shapes import CHILDREN, CLAIMS, POOLS, condition

CONDITION = "AddressConflict"


def conflicts_are_shown(history: History, *, fenced: bool = False) -> Iterator[Finding]:
    """I5: find claims that share an address with another claim, without a condition that says so, after a quiet run."""
    book = Book(fenced=fenced)
    for change in history.of(POOLS, CLAIMS, CHILDREN):
        book.turn(change)
    for address, users in sorted(book.users.items()):
        having = sorted(users & book.claims.keys())
        if len(having) < 2:
            continue
        silent = [uid for uid in having if not _says_so(history, book, uid)]
        if silent:
            both, names = (" and ".join(map(book.name, uids)) for uids in (having, silent))
            sentence = f"{both} have {address}, and no condition {CONDITION} says so on {names}"
            yield Finding("I5", "conflict not shown", history.revision, address, (), sentence)


def _says_so(history: History, book: Book, uid: str) -> bool:
    return condition(history.end[book.claims[uid]], CONDITION).get("status") == "True"
