"""The grant: what the election gives to the writers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kopf_ha.core.token import Stamp

#: Stamps a deciding object and gives it as it is then; None if it is gone. It blocks.
Stamper = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


@dataclass(eq=False, slots=True)
class Grant:
    """The right of one term to write until a deadline (I3, I8).

    A closed grant stays closed. So a handler that is left over from term 7 cannot write with the grant of term 9 of the
    same process. A held one may open again, as the grant of the same term: the Lease could not be renewed in time, and
    it is not known yet whether another replica acquired it.

    Each change is one step, so any thread may read a grant. Only the election changes it, with two exceptions: the
    barrier assigns `set_aside`, `swept`, `unread` and `stamper`, and anybody may call `close` and `wait_no_more`, which
    nobody can undo.

    Args:
        stamp: what this term's writes carry.
        deadline: in seconds on the machine's boot-time clock, which also runs while the machine sleeps. It is one lease
            duration after the *start* of the last successful renewal.
        recovers: for how many seconds after that a grant which is not closed may open again; 0 for none.
    """

    stamp: Stamp
    deadline: float
    recovers: float = 0.0
    closed: str = field(default="", init=False)  #: why it was closed; empty while it is open
    #: uids of the deciding objects that could not be stamped so far; the barrier and its later attempts replace it
    set_aside: frozenset[str] = field(default=frozenset(), init=False)
    #: namespaces whose deciding objects the barrier stamped or set aside, where it could not look into all that are
    #: served; None where it could: what is in another namespace is younger than the barrier
    swept: frozenset[str] | None = field(default=None, init=False)
    #: uids of the deciding objects that were listed when the term began, and that its code has not read since their
    #: stamp (`read`). An earlier leader may have changed them after that list. Empty if all were stamped first.
    unread: set[str] = field(default_factory=set, init=False)
    #: of this term; None without a barrier
    stamper: Stamper | None = field(default=None, init=False)
    behind: bool = field(default=False, init=False)  #: whether handlers run before all deciding objects are stamped
    held: str = field(default="", init=False)  #: why nothing may leave for now; empty if something may, or is closed
    _woken: set[Callable[[], None]] = field(default_factory=set, init=False, repr=False)  #: by whoever waits

    def extend(self, deadline: float) -> None:
        """Move the deadline after a renewal, never backwards. A closed grant stays closed."""
        self.deadline = max(self.deadline, deadline)
        self._wake()

    def hold(self, cause: str) -> None:
        """Let nothing leave until `reopen`, or for good after `close`."""
        self.held = cause or "held"

    def reopen(self, deadline: float) -> None:
        """Open a held grant again, since nobody acquired the Lease in between. A closed grant stays closed."""
        self.held = ""
        self.extend(deadline)

    def close(self, cause: str) -> None:
        """End the grant for good. The first cause is kept."""
        self.closed = self.closed or cause or "closed"
        self._wake()

    def wait_no_more(self) -> None:
        """Let nothing wait for a held or expired grant any more: what asks, and what waits already, is refused."""
        self.recovers = -math.inf
        self._wake()

    def may_reopen(self, now: float) -> bool:
        """Whether a grant with which nothing may leave at `now` may still open again, so that a write waits for it."""
        return not self.closed and now < self.deadline + self.recovers

    def on_change(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, in any thread, whenever the grant may have opened or closed. It must not raise."""
        self._woken.add(wake)

    def off_change(self, wake: Callable[[], None]) -> None:
        """Have it called no more."""
        self._woken.discard(wake)

    def _wake(self) -> None:
        for wake in list(self._woken):
            wake()

    def sets_aside(self, uid: str, namespace: str) -> bool:
        """Whether nothing may be decided from a deciding object: an earlier leader could still write it (I4).

        Args:
            uid: of the object.
            namespace: of the object; empty for a cluster-scoped one.
        """
        swept = self.swept
        return uid in self.set_aside or (swept is not None and namespace != "" and namespace not in swept)

    def read(self, uid: str) -> None:
        """Note that the term's code got a deciding object as it was after its stamp; from any thread."""
        self.unread.discard(uid)

    def remaining(self, now: float) -> float:
        """Return the seconds that are left to write at `now`; 0.0 when it is expired, held or closed."""
        return 0.0 if self.closed or self.held else max(0.0, self.deadline - now)
