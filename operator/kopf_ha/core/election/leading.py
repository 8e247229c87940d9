"""The rules of a process that leads: LEADING and RENEWING."""

from __future__ import annotations

import math
from dataclasses import replace

from kopf_ha.core.election import leaving, memory
from kopf_ha.core.election.candidate import Candidate, Step, unseen
from kopf_ha.core.election.events import (
    Action,
    Close,
    Conflict,
    Extend,
    Failed,
    Hold,
    LeaseSeen,
    LeaseUnusable,
    LegacyFailed,
    LegacySeen,
    LegacyWritten,
    NotWritten,
    Phase,
    Put,
    RaiseFloor,
    Read,
    ReadFailed,
    Release,
    State,
    StepDown,
    Stop,
    Tick,
    Timer,
    Warn,
    Written,
)
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.orders import successor


def check(me: Candidate, state: State, event: LeaseSeen, now: float, wall: str) -> Step:
    """End the term if the Lease no longer belongs to it, and have it ended by choice if the Lease orders that."""
    cause = me.went_back(state, event)
    state, news = me.note(state, event.record, event.version, now)
    if cause := cause or me.lost_to(state):
        state, actions = lose(me, state, cause)
    elif cause := me.overdue(state, now):
        state, actions = hold(me, state, cause, now)
    else:
        state, actions = memory.obey(me, state)
    return state, news + actions


def check_legacy(me: Candidate, state: State, event: LegacySeen, now: float, wall: str) -> Step:
    """End the term if the legacy lock no longer belongs to this Lease."""
    state, news = me.note_legacy(state, event, now)
    cause = me.legacy_lost_to(state, now) or me.overdue(state, now)
    if not cause:
        return state, news
    state, actions = lose(me, state, cause)
    return state, news + actions


def lose_sight(me: Candidate, state: State, event: LeaseUnusable, now: float, wall: str) -> Step:
    """End the term, since the Lease is invalid."""
    state, actions = lose(me, unseen(state, event), event.cause)
    return state, [*actions, Warn(event.cause)]


def renew(me: Candidate, state: State, event: Tick, now: float, wall: str) -> Step:
    """Renew the Lease, unless the last renewal or the last sign of life is too long ago."""
    state = replace(state, beat=max(state.beat, event.beat))
    if cause := me.overdue(state, now):
        return hold(me, state, cause, now)
    if now - state.beat > me.timing.renew_deadline:
        cause = (
            f"event loop blocked: no sign of life for {now - state.beat:.1f} s;"
            " a handler blocks it, call blocking code in a sync handler or a thread"
        )
    return lose(me, state, cause) if cause else put_renewal(me, replace(state, conflicts=0), now, wall)


def check_floor(me: Candidate, state: State, event: RaiseFloor, now: float, wall: str) -> Step:
    """End the term if an object records a token that is not below mine. The next term is above it (I2)."""
    state, _ = memory.keep_floor(me, state, event, now, wall)
    if event.floor < state.token:
        return state, []
    cause = f"floor: an object records token {event.floor}, which is not below mine ({state.token})"
    return lose(me, replace(state, raised=True), cause)


def step_down(me: Candidate, state: State, event: StepDown, now: float, wall: str) -> Step:
    """End the term and give the Lease back. Acquire it again only after `Resume`."""
    state, actions = leaving.put_release(me, replace(state, then=Phase.LOST), now, wall)
    return state, [Close(event.cause), *actions]


def close_and_release(me: Candidate, state: State, event: Release, now: float, wall: str) -> Step:
    """End the term, give the Lease back, and stop."""
    state, actions = leaving.release(me, state, event, now, wall)
    return state, [Close("released"), *actions]


def close_and_stop(me: Candidate, state: State, event: Stop, now: float, wall: str) -> Step:
    """End the term and stop."""
    state, actions = leaving.stop(me, state, event, now, wall)
    return state, [Close("stopped"), *actions]


def put_renewal(me: Candidate, state: State, now: float, wall: str) -> Step:
    """PUT the Lease with the current time."""
    state = replace(state, phase=Phase.RENEWING, sent=now)
    return state, [me.put(state, renewal(me, state, wall), _until(me, state), wall)]


def put_lease(me: Candidate, state: State, event: LegacyWritten, now: float, wall: str) -> Step:
    """PUT the Lease, now that the legacy lock is renewed."""
    state, news = me.note_legacy(state, event, now)
    cause = me.legacy_lost_to(state, now) or me.overdue(state, now)
    if cause:
        state, actions = lose(me, state, cause)
    elif now >= _until(me, state):
        state, actions = not_renewed(me, state, LegacyFailed("the legacy lock answered too late"), now, wall)
    else:
        actions = [Put(renewal(me, state, wall), _until(me, state))]
    return state, news + actions


def renew_legacy_again(me: Candidate, state: State, event: LegacySeen, now: float, wall: str) -> Step:
    """Renew once more at once if the conflict left the legacy lock ours; then wait a little."""
    state, actions = check_legacy(me, replace(state, conflicts=state.conflicts + 1), event, now, wall)
    return _renew_unless_lost(me, state, actions, now, wall)


def renewed(me: Candidate, state: State, event: Written, now: float, wall: str) -> Step:
    """Extend the grant, counted from when the renewal was sent."""
    state = replace(state, conflicts=0, renewed=state.sent)
    state, news = me.note(state, event.record, event.record.resource_version, now)
    if cause := me.lost_to(state):
        state, actions = lose(me, state, cause)
        return state, news + actions
    if cause := me.overdue(state, now):
        state, actions = hold(me, state, cause, now)
        return state, news + actions
    # Whatever way an order got into the Lease as I know it, I obey it with the next renewal at the latest.
    state, ordered = memory.obey(me, replace(state, phase=Phase.LEADING, failure=""))
    return state, [Extend(state.renewed + me.timing.lease_duration), *news, me.renewal_timer(state), *ordered]


def read_before_renewing(me: Candidate, state: State, event: Conflict, now: float, wall: str) -> Step:
    """Read the Lease again after a conflict."""
    state = replace(state, conflicts=state.conflicts + 1)
    cause = me.overdue(state, now)
    if cause:
        return hold(me, state, cause, now)
    return state, [Read(min(now + me.timing.request_timeout, state.renewed + me.timing.renew_deadline))]


def renew_again(me: Candidate, state: State, event: LeaseSeen, now: float, wall: str) -> Step:
    """Renew once more at once if the conflict left the Lease mine, as an edited label does; then wait a little."""
    state, actions = check(me, state, event, now, wall)
    return _renew_unless_lost(me, state, actions, now, wall)


def _renew_unless_lost(me: Candidate, state: State, actions: list[Action], now: float, wall: str) -> Step:
    if state.phase is not Phase.RENEWING:
        return state, actions
    if state.conflicts < 2:
        state, renewal = put_renewal(me, state, now, wall)
        return state, actions + renewal
    at = min(now + me.timing.retry_period / 10, state.renewed + me.timing.renew_deadline)
    state = replace(state, phase=Phase.LEADING, failure="other clients edit the Lease or the legacy lock all the time")
    return state, [*actions, Timer(at)]


def not_renewed(
    me: Candidate, state: State, event: Failed | NotWritten | ReadFailed | LegacyFailed, now: float, wall: str
) -> Step:
    """Try again after a retry period, unless the renew deadline has passed."""
    state = replace(state, phase=Phase.LEADING, failure=event.cause)
    cause = me.overdue(state, now)
    if cause:
        state, actions = hold(me, state, cause, now)
        return state, [Warn(event.cause), *actions]
    at = min(now + me.timing.retry_period, state.renewed + me.timing.renew_deadline)
    return state, [Warn(event.cause), Timer(at)]


def hold(me: Candidate, state: State, cause: str, now: float) -> Step:
    """Hold the gate after the renew deadline, and try to get the Lease back; end the term if it is too late for that.

    Until it is known that nobody acquired the Lease in between, nothing leaves (`recovering`).
    """
    if now >= me.recovers_until(state):
        return lose(me, state, cause)
    return replace(state, phase=Phase.RECOVERING, conflicts=0), [Hold(cause), Timer(now)]


def lose(me: Candidate, state: State, cause: str) -> Step:
    """End the term without giving the Lease back."""
    return replace(state, phase=Phase.LOST, attempt=None), [Close(cause), Timer(math.inf)]


def renewal(me: Candidate, state: State, wall: str) -> LeaseRecord:
    """Return the Lease as it was seen, with the current time."""
    assert state.seen is not None  # noqa: S101  without a Lease there is no term
    return state.seen.changed(
        operator=me.operator or state.seen.operator,
        lease_duration=int(me.timing.lease_duration),
        renew_time=wall,
        handover=successor(state.seen, me.pod),  # an order to hand over to myself is done
    )


def _until(me: Candidate, state: State) -> float:
    """Return when to give up a renewal: with the legacy lock it is two requests in one time."""
    return min(state.sent + me.timing.request_timeout, state.renewed + me.timing.renew_deadline)
