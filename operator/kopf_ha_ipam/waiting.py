"""The claims of a term, and which of them wait for an address, in the order in which they are served.

Thousands of claims may wait for a full pool. So what an address costs that is freed must not depend on how many wait:
whoever gets it stands at the head of a queue that is kept in order.
"""

from __future__ import annotations

import bisect
from collections import UserDict
from collections.abc import Collection, Container, Iterator, Mapping

from kopf_ha_ipam.model import Claim, ClaimRef

#: A claim's place in the order of service; see `Claim.order`.
_Order = tuple[str, ClaimRef]


class Queue:
    """The claims of one pool that may wait for an address; see `waits`.

    Args:
        claims: by uid, where the claims are looked up.
    """

    def __init__(self, claims: Mapping[str, Claim]) -> None:
        self._claims = claims
        self._any: list[_Order] = []  #: those that take any address
        self._wishes: dict[str, list[_Order]] = {}  #: those that want a given address, by that address

    def __bool__(self) -> bool:
        return bool(self._any or self._wishes)

    def add(self, claim: Claim) -> None:
        """Let a claim wait."""
        bisect.insort(self._any if claim.wanted is None else self._wishes.setdefault(claim.wanted, []), claim.order)

    def remove(self, claim: Claim) -> None:
        """Let a claim wait no more."""
        line = self._any if claim.wanted is None else self._wishes[claim.wanted]
        del line[bisect.bisect_left(line, claim.order)]
        if not line and claim.wanted is not None:
            del self._wishes[claim.wanted]

    def heads(self, free: Collection[str], held: Container[str]) -> Iterator[Claim]:
        """Yield every claim that can get one of these addresses, and few others.

        Each address serves one claim. So of those that take any address only the oldest matter, as many as there are
        addresses, and of those that want a given one only the oldest.

        Args:
            free: addresses, each once.
            held: uids of claims that have an address already.
        """
        left = len(free)
        for order in self._any:
            if left == 0:
                break
            if order[1].uid not in held:
                left -= 1
                yield self._claims[order[1].uid]
        for address in self._wishes.keys() & free if self._wishes else ():
            oldest = next((ref for _, ref in self._wishes[address] if ref.uid not in held), None)
            if oldest is not None:
                yield self._claims[oldest.uid]


class Claims(UserDict[str, Claim]):
    """All claims that exist, by uid, as last seen."""

    def __init__(self) -> None:
        super().__init__()
        self.queues: dict[str, Queue] = {}  #: of pools that claims wait for, by the pool's name
        self._changed: set[str] = set()

    def changed(self) -> set[str]:
        """Return the uids of the claims that were changed, added or removed since the last call."""
        found, self._changed = self._changed, set()
        return found

    def __setitem__(self, uid: str, claim: Claim) -> None:
        old = self.data.get(uid)
        if old is None or _place(old) != _place(claim):
            self._leave(old)
            if waits(claim):
                self.queues.setdefault(claim.pool_name, Queue(self.data)).add(claim)
        self.data[uid] = claim
        self._changed.add(uid)

    def __delitem__(self, uid: str) -> None:
        self._leave(self.data.pop(uid))
        self._changed.add(uid)

    def _leave(self, claim: Claim | None) -> None:
        if claim is not None and waits(claim):
            queue = self.queues[claim.pool_name]
            queue.remove(claim)
            if not queue:
                del self.queues[claim.pool_name]


def waits(claim: Claim) -> bool:
    """Return whether a claim stands in the queue of its pool: it has our finalizer, is not being deleted, and shows no
    address. One that shows an address asks for itself.
    """
    return claim.held and not claim.terminating and not claim.address


def _place(claim: Claim) -> tuple[str, str | None] | None:
    return (claim.pool_name, claim.wanted) if waits(claim) else None
