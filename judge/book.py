"""Who has which address, according to three records: a pool's allocations, a claim's status, a claim's ConfigMap.

A claim has an address as long as one of them says so.
"""

from __future__ import annotations

from collections import defaultdict

from judge.history import Change, Key, Object, uid_of
from judge.shapes import (
    CHILDREN,
    allocation,
    claim_address,
    is_claim,
    is_pool,
    published,
    recorded,
    stamp_of,
    terminating,
)

Hold = tuple[str, str]  # address, uid of the claim


class Book:
    """Who has which address, updated change by change.

    Args:
        fenced: whether the operator's ConfigMaps have a stamp. Then one without a stamp is a user's, and is ignored.
    """

    def __init__(self, *, fenced: bool = False) -> None:
        self.fenced = fenced
        self.claims: dict[str, Key] = {}
        self.status: dict[str, str] = {}
        self.records: dict[Hold, set[Key]] = defaultdict(set)
        self.since: dict[Hold, Change] = {}
        self.dropped: dict[
            Hold, Change
        ] = {}  # what no record says since the last change, with the change that said it first
        self.users: dict[str, set[str]] = defaultdict(set)
        self._going: set[Key] = set()  # ConfigMaps that are being deleted

    def turn(self, change: Change) -> tuple[set[Hold], set[Hold]]:
        """Take in one change. Return what its record no longer says, and what it says now."""
        if is_claim(change.key):
            for uid in change.uids:
                self.claims.pop(uid, None)
                self.status.pop(uid, None)
            if change.after is not None:
                self.claims[change.uid] = change.key
                self.status[change.uid] = claim_address(change.after)
        if change.key.resource == CHILDREN:
            self._going.discard(change.key)
            if terminating(change.after):
                self._going.add(change.key)
        lost, gained = self._difference(change)
        self.dropped.clear()
        for hold in lost:
            self.records[hold].discard(change.key)
            if not self.records[hold]:
                del self.records[hold]
                self.dropped[hold] = self.since.pop(hold)
                self.users[hold[0]].discard(hold[1])
        for hold in gained:
            self.records[hold].add(change.key)
            self.since.setdefault(hold, change)
            self.users[hold[0]].add(hold[1])
        return lost, gained

    def pool_records(self, pool: str, hold: Hold) -> bool:
        """Return whether the pool of this name records it."""
        return any(is_pool(key) and key.name == pool for key in self.records.get(hold, ()))

    def pools_of(self, address: str) -> dict[str, Key]:
        """Return the claims that pools record the address for, by uid, each with such a pool."""
        keys = {uid: next(filter(is_pool, self.records[address, uid]), None) for uid in self.users.get(address, ())}
        return {uid: key for uid, key in keys.items() if key}

    def children(self, hold: Hold) -> list[Key]:
        """Return the ConfigMaps that publish it, except those being deleted: a user's finalizer may keep them."""
        found = (key for key in self.records.get(hold, ()) if key.resource == CHILDREN)
        return sorted(key for key in found if key not in self._going)

    def name(self, uid: str) -> str:
        """Return the name of an existing claim, for a sentence."""
        return f"{self.claims[uid].title} (uid {uid})"

    def _difference(self, change: Change) -> tuple[set[Hold], set[Hold]]:
        if is_pool(change.key):  # a record can be long, and only a small part of it changes
            old, new = recorded(change.before), recorded(change.after)
            before = {allocation(*entry) for entry in old - new}
            after = {allocation(*entry) for entry in new - old}
        else:
            before, after = self._holds(change.key, change.before), self._holds(change.key, change.after)
        return before - after, after - before

    def _holds(self, key: Key, obj: Object | None) -> set[Hold]:
        """Return what a claim or a ConfigMap says."""
        if is_claim(key):
            address = claim_address(obj)
            return {(address, uid_of(obj))} if address else set()
        counts = key.resource == CHILDREN and not (self.fenced and stamp_of(obj) is None)
        child = published(obj) if counts else None
        return {child} if child else set()
