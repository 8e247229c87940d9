"""The grant: what the election hands the writers."""

from __future__ import annotations

from dataclasses import dataclass, field

from kopf_ha.core.token import Stamp


@dataclass(eq=False, slots=True)
class Grant:
    """A term, and until when it may write. Line 1 of the fence (I3, I8).

    One grant belongs to one term and is never revived: once closed it stays closed, so that a handler left
    over from term 7 cannot write with the grant of term 9 of the same process.

    Fields are single assignments of immutable values, hence safe to read from any thread. The one writer is
    the election, but for `set_aside`, which is the barrier's, and `close`, which anybody may call and nobody can undo.

    Args:
        stamp: what this term's writes carry.
        deadline: seconds on the machine's boot-time clock (it also runs while the machine sleeps); one lease
            duration after the *start* of the last successful renewal.
    """

    stamp: Stamp
    deadline: float
    closed: str = field(default="", init=False)  #: why it was closed; empty while open
    #: uids of the deciding objects that could not be stamped so far; the barrier and its later tries assign it anew
    set_aside: frozenset[str] = field(default=frozenset(), init=False)

    def extend(self, deadline: float) -> None:
        """Move the deadline after a renewal; never backwards, and without effect once closed."""
        self.deadline = max(self.deadline, deadline)

    def close(self, cause: str) -> None:
        """End the grant for good. The first cause stays."""
        self.closed = self.closed or cause or "closed"

    def remaining(self, now: float) -> float:
        """Give the seconds that are left to write at `now`; 0.0 when expired or closed."""
        return 0.0 if self.closed else max(0.0, self.deadline - now)
