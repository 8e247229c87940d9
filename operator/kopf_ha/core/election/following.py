"""The rules of a process that does not lead: FOLLOWING and ACQUIRING."""

from __future__ import annotations

import math
from dataclasses import replace

from kopf_ha.core.election import memory
from kopf_ha.core.election.candidate import Candidate, Step, is_paused, unseen
from kopf_ha.core.election.events import (
    Attempt,
    Conflict,
    Failed,
    HeadStart,
    HolderGone,
    LeaseSeen,
    LeaseUnusable,
    LegacyFailed,
    LegacySeen,
    LegacyWritten,
    NotWritten,
    Open,
    Phase,
    Put,
    ReadFailed,
    State,
    Tick,
    Timer,
    Warn,
    Written,
)
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.revisions import newer
from kopf_ha.core.token import TOKEN_MAX


def look(me: Candidate, state: State, event: LeaseSeen, now: float, wall: str) -> Step:
    """Note the Lease, and acquire it if it is free."""
    state, news = me.note(state, event.record, event.version, now)
    state, actions = follow(me, state, now, wall)
    return state, news + actions


def look_at_legacy(me: Candidate, state: State, event: LegacySeen, now: float, wall: str) -> Step:
    """Note the legacy lock, and acquire the Lease if both are free."""
    state, news = me.note_legacy(state, event, now)
    state, actions = follow(me, state, now, wall)
    return state, news + actions


def await_repair(me: Candidate, state: State, event: LeaseUnusable, now: float, wall: str) -> Step:
    """Wait until the invalid Lease is repaired, which the watch will show."""
    # Acquiring it before that would mean guessing a token.
    return replace(unseen(state, event), reread=math.inf), [Warn(event.cause), Timer(math.inf)]


def read_later(me: Candidate, state: State, event: ReadFailed, now: float, wall: str) -> Step:
    """Repeat a GET that failed after a retry period."""
    return replace(state, reread=now + me.timing.retry_period), [Warn(event.cause), me.backoff(now)]


def read_or_acquire(me: Candidate, state: State, event: Tick, now: float, wall: str) -> Step:
    """Repeat a GET if that is due; otherwise acquire the Lease if it is free."""
    if now >= state.reread:
        return replace(state, reread=math.inf), [Timer(now + me.timing.retry_period), me.read(now)]
    return follow(me, state, now, wall)


def take_over(me: Candidate, state: State, event: HolderGone, now: float, wall: str) -> Step:
    """Acquire the Lease at once if its holder is gone."""
    before = state.gone
    state, _ = memory.keep_gone(me, state, event, now, wall)
    if state.gone is before or state.seen is None or state.seen.holder != event.holder:
        return state, []
    return follow(me, state, now, wall)


def wait_or_acquire(me: Candidate, state: State, event: HeadStart, now: float, wall: str) -> Step:
    """Take the new head start into account."""
    state, _ = memory.keep_head_start(me, state, event, now, wall)
    return follow(me, state, now, wall)


def follow(me: Candidate, state: State, now: float, wall: str) -> Step:
    """Acquire the Lease if it is free, or set the timer to when it will be."""
    seen, attempt = state.seen, state.attempt
    if not state.known:
        return state, [Timer(state.reread)]
    if attempt is not None and seen is not None:
        if seen.fields == attempt.record.fields and attempt.record.uid in ("", seen.uid):
            # The PUT whose answer was lost was done. The grant counts from when it was sent, as nobody saw it earlier.
            return begin_term(me, state, attempt.started, now, wall)
        if newer(seen.resource_version, attempt.record.resource_version):
            state = replace(state, attempt=None)  # its precondition is gone, so it will never be done
    if seen is not None and seen.holder and seen.holder not in state.gone and not me.holds(state):
        state = replace(state, conflicts=0)
    # A head start counts from when the Lease became free, so it ends.
    free = state.changed if me.holds(state) else me.free_at(state) + me.patience(state)
    stranger = me.stranger(state)
    if stranger:
        free += me.strangers_wait
    due = max(free, state.not_before)
    if now >= due:
        return acquire(me, state, now, wall)
    return state, [*([Warn(stranger)] if stranger else []), Timer(min(due, state.reread))]


def acquire(me: Candidate, state: State, now: float, wall: str) -> Step:
    """PUT my name into the revision that was seen to be free, with a token above all that are known (I2).

    Never into one that is paused. All acquisitions pass here, and each is conditioned on the revision that was judged.
    So once the Lease has been seen paused and without a holder, no term begins until somebody removes the annotation.
    """
    seen, attempt = state.seen, state.attempt
    if is_paused(seen):
        return replace(state, phase=Phase.FOLLOWING), [Timer(state.reread)]
    if now < (free := me.legacy_free_at(state, now)):
        # The Lease is free, and an old replica leads by the legacy lock.
        return replace(state, phase=Phase.FOLLOWING), [Timer(min(free, state.reread))]
    token = max(seen.transitions if seen else 0, state.floor) + 1
    if token > TOKEN_MAX:
        cause = (
            f"no token is left: the highest so far is {token - 1}, the limit is {TOKEN_MAX};"
            " docs/runbook.md says how to begin again"
        )
        state = replace(state, phase=Phase.FOLLOWING, not_before=now + me.timing.retry_period)
        return state, [Warn(cause), me.backoff(now)]
    base = seen or LeaseRecord(holder="", transitions=0)
    record = base.changed(
        operator=me.operator or base.operator,
        holder=me.identity,
        transitions=token,
        lease_duration=int(me.timing.lease_duration),
        acquire_time=wall,
        renew_time=wall,
        handover="",  # was meant for the leader of that time
        preferred="",
    )
    started = now
    if attempt is not None and attempt.record.transitions == token and _same_base(attempt.record, record):
        # Send exactly the same PUT again, so that it is recognised as mine whichever of the two is done.
        record, started = attempt.record, attempt.started
    state = replace(state, phase=Phase.ACQUIRING, attempt=Attempt(record, started), sent=now)
    return state, [me.put(state, record, now + me.timing.request_timeout, wall)]


def put_lease(me: Candidate, state: State, event: LegacyWritten, now: float, wall: str) -> Step:
    """PUT the Lease, now that the legacy lock is mine."""
    legacy, attempt = me.legacy, state.attempt
    assert legacy is not None and attempt is not None  # noqa: S101, PT018  `acquire` asked for this
    state, news = me.note_legacy(state, event, now)
    until = state.sent + me.timing.request_timeout
    if not legacy.was_stored(event.record):
        cause = f"{legacy.lock} was not stored as it was written; is there a mutating webhook or a status subresource?"
        state, actions = not_acquired(me, state, NotWritten(cause), now, wall)
    elif now >= until:
        state, actions = not_acquired(me, state, NotWritten(f"{legacy.lock} answered too late"), now, wall)
    elif not legacy.is_settled(state.legacy, now):
        at = now + me.timing.retry_period
        kept = None if attempt.started == state.sent else attempt
        state, actions = replace(state, phase=Phase.FOLLOWING, attempt=kept, not_before=at), [Timer(at)]
    else:
        actions = [Put(attempt.record, until)]
    return state, news + actions


def overtaken_at_legacy(me: Candidate, state: State, event: LegacySeen, now: float, wall: str) -> Step:
    """Follow again, since the legacy lock is not what it was thought to be. Try again at once only the first time."""
    conflicts = state.conflicts + 1
    not_before = now if conflicts < 2 else now + me.timing.retry_period / 10
    kept = state.attempt if state.attempt and state.attempt.started != state.sent else None
    state = replace(state, phase=Phase.FOLLOWING, conflicts=conflicts, not_before=not_before, attempt=kept)
    return look_at_legacy(me, state, event, now, wall)


def acquired(me: Candidate, state: State, event: Written, now: float, wall: str) -> Step:
    """Begin a term, since the PUT was accepted."""
    attempt = state.attempt
    assert attempt is not None  # noqa: S101  `acquire` sets it with the phase
    state, news = me.note(replace(state, conflicts=0), event.record, event.record.resource_version, now)
    if event.record.fields != attempt.record.fields:
        # Something changes Leases on their way to the store. A term must be what the Lease says.
        cause = f"Lease {me.lease} was not stored as it was written; is there a mutating webhook?"
        at = now + me.timing.retry_period
        state = replace(state, phase=Phase.FOLLOWING, attempt=None, not_before=at)
        return state, [*news, Warn(cause), Timer(at)]
    state, actions = begin_term(me, state, state.sent, now, wall)
    return state, news + actions


def overtaken(me: Candidate, state: State, event: Conflict, now: float, wall: str) -> Step:
    """Read the Lease again after a conflict."""
    # Keep the attempt: an earlier sending of it, whose answer was lost, may have been done.
    conflicts = state.conflicts + 1
    # Try again at once the first time, since an edited label is enough for a conflict; then slower than a busy editor.
    not_before = now if conflicts < 2 else now + me.timing.retry_period / 10
    state = replace(state, phase=Phase.FOLLOWING, conflicts=conflicts, not_before=not_before)
    return state, [Timer(now + me.timing.retry_period), me.read(now)]


def maybe_acquired(me: Candidate, state: State, event: Failed, now: float, wall: str) -> Step:
    """Read the Lease to find out whether the PUT without an answer was done."""
    state = replace(state, phase=Phase.FOLLOWING, not_before=now + me.timing.retry_period)
    return state, [Warn(event.cause), me.backoff(now), me.read(now)]


def not_acquired(me: Candidate, state: State, event: NotWritten | LegacyFailed, now: float, wall: str) -> Step:
    """Try again after a retry period."""
    state = replace(state, phase=Phase.FOLLOWING, not_before=now + me.timing.retry_period)
    if state.attempt is not None and state.attempt.started == state.sent:
        state = replace(state, attempt=None)  # otherwise an earlier sending of it may have been done
    return state, [Warn(event.cause), me.backoff(now)]


def begin_term(me: Candidate, state: State, started: float, now: float, wall: str) -> Step:
    """Begin a term with a grant that counts from `started`, when the PUT was sent."""
    record = state.seen
    assert record is not None  # noqa: S101  the callers have just seen it
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
        retiring="",
    )
    if me.overdue(state, now):
        # Acquired, but too long ago to begin a term. Nobody leads with that token, so take the next one at once.
        return acquire(me, state, now, wall)
    if me.legacy_lost_to(state, now):
        # Acquired, but an old replica has the legacy lock again. Take the next token when that is free.
        return follow(me, replace(state, phase=Phase.FOLLOWING), now, wall)
    state, ordered = memory.obey(me, replace(state, phase=Phase.LEADING))
    return state, [Open(state.token, started + me.timing.lease_duration), me.renewal_timer(state), *ordered]


def _same_base(one: LeaseRecord, other: LeaseRecord) -> bool:
    return (one.resource_version, one.uid) == (other.resource_version, other.uid)
