"""I5: an address is freed only when nothing can publish it for its claim any more.

A creation is not compare-and-swap: a paused leader can send a claim's ConfigMap at any later time. That does no harm
once the claim is gone. So the order is: ConfigMap, finalizer, and the pool's entry last, when the claim and its
ConfigMap are gone.
"""

from __future__ import annotations

from collections.abc import Iterator

from judge.book import Book, Hold
from judge.finding import Finding
from judge.history import History
from judge.shapes import CHILDREN, CLAIMS, POOLS, is_pool
from judge.writers import Writers


def pools_keep_what_exists(
    history: History, writers: Writers, *, fenced: bool = False, early: bool = False
) -> Iterator[Finding]:
    """I5: find entries that the operator removed from a pool before the claim and its ConfigMap were gone.

    Args:
        history: the history of the run.
        writers: who made its changes.
        fenced: whether ConfigMaps without a stamp are users', and are ignored.
        early: whether the operator is an older version, which frees an address once the claim's status has none.
    """
    book = Book(fenced=fenced)
    for change in history.of(POOLS, CLAIMS, CHILDREN):
        lost, _ = book.turn(change)
        if not is_pool(change.key):
            continue
        entry = writers.entry(change)
        # An administrator may edit the record. Removing a pool's finalizer frees its addresses, too: without an audit
        # entry it is unknown who did that.
        if (entry and not writers.by_operator(entry)) or not (entry or change.same):
            continue
        for hold in sorted(lost):
            kind, why = _wrong(book, hold, early)
            if not kind:
                continue
            now = writers.party(change)
            giver = book.since.get(hold) or book.dropped[hold]
            parties = (writers.party(giver), now)
            sentence = f"{change.key} dropped {hold[0]} while {why}, at revision {change.revision} by {now}"
            yield Finding("I5", kind, change.revision, hold[0], parties, sentence)


def _wrong(book: Book, hold: Hold, early: bool) -> tuple[str, str]:
    address, uid = hold
    if uid in book.claims and book.status[uid] == address:
        return "freed while held", f"{book.name(uid)} still has it"
    if early:
        return "", ""
    if uid in book.claims:
        return "freed while the claim exists", f"{book.name(uid)} still exists"
    if children := book.children(hold):
        return "freed while published", f"{children[0]} still publishes it for uid {uid}"
    return "", ""
