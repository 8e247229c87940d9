"""The rules of following: when the Lease can be had, and how it is taken."""

from __future__ import annotations

from dataclasses import replace

from kopf_ha.core.lease import LeaseRecord, newer
from kopf_ha.core.moves import (
    A,
    Attempt,
    F,
    L,
    Open,
    Put,
    State,
    Step,
    Timer,
    Warn,
)
from kopf_ha.core.term import TermRules
from kopf_ha.core.token import TOKEN_MAX
from kopf_ha.settings import JITTER_FACTOR


class FollowRules(TermRules):
    """They hold no state; `kopf_ha.core.election` has the events that lead to them."""

    def _follow(self, state: State, now: float, wall: str) -> Step:
        """Acquire if the Lease can be had now; otherwise set the timer to the moment when it can."""
        seen, attempt = state.seen, state.attempt
        if not state.known:
            return state, [Timer(state.reread)]
        if attempt is not None and seen is not None:
            if seen.fields == attempt.record.fields and attempt.record.uid in ("", seen.uid):
                # The PUT whose answer was lost was done. It counts from its start: nobody can have seen it earlier.
                return self._lead(state, attempt.started, now, wall)
            if newer(seen.resource_version, attempt.record.resource_version):
                state = replace(state, attempt=None)  # the precondition is gone: it can never be done any more
        if seen is not None and seen.holder and seen.holder not in state.gone and not self._holding(state):
            state = replace(state, conflicts=0)
        due = max(self.free_at(state), state.not_before)
        if now >= due:
            return self._acquire(state, now, wall)
        return state, [Timer(min(due, state.reread))]

    def free_at(self, state: State) -> float:
        """Say when the Lease, as seen, can be had: never before it is seen to be free, and mine at any time.

        A holder that is gone is not waited for: its term may still be open there, and what it writes is refused,
        since my token is above its own all the same (I2, I3). Whether that is enough the run layer decides.
        """
        seen = state.seen
        if self._holding(state):
            return state.changed
        if seen is None or not seen.holder:
            free = state.changed
        elif seen.holder in state.gone:
            free = max(state.changed, state.gone[seen.holder])
        else:
            free = state.changed + (seen.lease_duration or self.duration)
        # Never for ever: a head start counts from the moment at which the Lease could be had.
        return free + state.head_start

    def vacant_since(self, state: State, now: float) -> float | None:
        """Say since when anybody could have had the Lease, as seen; None while nobody can.

        None, too, while it still shows the last term of this very process, whose next one is no takeover.
        """
        if not state.known or self._holding(state):
            return None
        since = self.free_at(state) - state.head_start
        return since if now >= since else None

    def _acquire(self, state: State, now: float, wall: str) -> Step:
        """PUT my name on the revision that was seen to be free, with a token above all that is known (I2)."""
        seen, attempt = state.seen, state.attempt
        token = max(seen.transitions if seen else 0, state.floor) + 1
        if token > TOKEN_MAX:
            cause = (
                f"no token is left: the highest so far is {token - 1}, the limit is {TOKEN_MAX};"
                " docs/runbook.md says how to begin again"
            )
            state = replace(state, phase=F, not_before=now + self.retry)
            return state, [Warn(cause), self._backoff(now)]
        base = seen or LeaseRecord(holder="", transitions=0)
        record = base.changed(
            holder=self.me,
            transitions=token,
            lease_duration=int(self.duration),
            acquire_time=wall,
            renew_time=wall,
        )
        started = now
        if attempt is not None and attempt.record.transitions == token and _same_base(attempt.record, record):
            # Word for word the same PUT again, so that whichever of the two is done, it is known as mine.
            record, started = attempt.record, attempt.started
        state = replace(state, phase=A, attempt=Attempt(record, started), sent=now)
        return state, [Put(record, now + self.deadline / 2)]

    def _lead(self, state: State, started: float, now: float, wall: str) -> Step:
        record = state.seen
        assert record is not None  # noqa: S101  callers have just seen it
        state = replace(
            state,
            attempt=None,
            token=record.transitions,
            uid=record.uid,
            renewed=started,
            beat=now,
            failure="",
            conflicts=0,
            raised=False,
        )
        if self._overdue(state, now):
            # Acquired, but too long ago to begin a term. Nobody leads by it: a new token, at once.
            return self._acquire(state, now, wall)
        state = replace(state, phase=L)
        return state, [Open(state.token, started + self.duration), self._renewal_timer(state)]

    def _backoff(self, now: float) -> Timer:
        return Timer(now + self.retry, self.retry * (JITTER_FACTOR - 1))

    def _after_conflict(self, state: State, now: float) -> float:
        # Once at once, since a label edit is enough for a conflict; then slower, to outlast a busy editor.
        return now if state.conflicts < 2 else now + self.retry / 10


def _same_base(one: LeaseRecord, other: LeaseRecord) -> bool:
    return (one.resource_version, one.uid) == (other.resource_version, other.uid)
