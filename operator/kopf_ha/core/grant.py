"""The grant: what the election gives to the writers."""

from __future__ import annotations

from dataclasses import dataclass, field

from kopf_ha.core.token import Stamp


@dataclass(eq=False, slots=True)
class Grant:
    """The right of one term to write until a deadline (I3, I8).

    A closed grant stays closed. So a handler that is left over from term 7 cannot write with the grant of term 9 of the
    same process.

    Each change is one assignment of an immutable value, so any thread may read a grant. Only the election changes it,
    with two exceptions: the barrier assigns `set_aside` and `swept`, and anybody may call `close`, which nobody can
    undo.

    Args:
        stamp: what this term's writes carry.
        deadline: in seconds on the machine's boot-time clock, which also runs while the machine sleeps. It is one lease
            duration after the *start* of the last successful renewal.
    """

    stamp: Stamp
    deadline: float
    closed: str = field(default="", init=False)  #: why it was closed; empty while it is open
    #: uids of the deciding objects that could not be stamped so far; the barrier and its later attempts replace it
    set_aside: frozenset[str] = field(default=frozenset(), init=False)
    #: namespaces whose deciding objects the barrier stamped or set aside, where it could not look into all that are
    #: served; None where it could: what is in another namespace is younger than the barrier
    swept: frozenset[str] | None = field(default=None, init=False)

    def extend(self, deadline: float) -> None:
        """Move the deadline after a renewal, never backwards. A closed grant stays closed."""
        self.deadline = max(self.deadline, deadline)

    def close(self, cause: str) -> None:
        """End the grant for good. The first cause is kept."""
        self.closed = self.closed or cause or "closed"

    def sets_aside(self, uid: str, namespace: str) -> bool:
        """Whether nothing may be decided from a deciding object: an earlier leader could still write it (I4).

        Args:
            uid: of the object.
            namespace: of the object; empty for a cluster-scoped one.
        """
        swept = self.swept
        return uid in self.set_aside or (swept is not None and namespace != "" and namespace not in swept)

    def remaining(self, now: float) -> float:
        """Return the seconds that are left to write at `now`; 0.0 when it is expired or closed."""
        return 0.0 if self.closed else max(0.0, self.deadline - now)
