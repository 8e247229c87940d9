"""The rules after a term: RELEASING and LOST."""

from __future__ import annotations

import math
from dataclasses import replace

from kopf_ha.core.election import following
from kopf_ha.core.election.candidate import Candidate, Step, is_paused, unseen
from kopf_ha.core.election.events import (
    Conflict,
    Failed,
    LeaseSeen,
    LeaseUnusable,
    LegacyFailed,
    LegacySeen,
    LegacyWritten,
    NotWritten,
    Phase,
    Put,
    PutLegacy,
    ReadFailed,
    Release,
    Resume,
    State,
    Stop,
    Timer,
    Warn,
    Written,
)
from kopf_ha.core.orders import successor


def release(me: Candidate, state: State, event: Release, now: float, wall: str) -> Step:
    """Stop, and give the Lease back first if this process holds it."""
    if not me.holds(state):
        return replace(state, phase=Phase.STOPPED), [Timer(math.inf)]
    return put_release(me, replace(state, then=Phase.STOPPED), now, wall)


def stop(me: Candidate, state: State, event: Stop, now: float, wall: str) -> Step:
    """Stop, and let the Lease expire."""
    return replace(state, phase=Phase.STOPPED), [Timer(math.inf)]


def put_release(me: Candidate, state: State, now: float, wall: str) -> Step:
    """Give the Lease back with its token. Its short duration is for readers that ignore an empty holder."""
    assert state.seen is not None  # noqa: S101  only a Lease that is held is released
    record = state.seen.changed(
        holder="",
        lease_duration=1,
        acquire_time=wall,
        renew_time=wall,
        handover="",
        preferred=successor(state.seen, me.pod),
    )
    state = replace(state, phase=Phase.RELEASING)
    return state, [Timer(math.inf), Put(record, now + me.timing.request_timeout)]


def released(me: Candidate, state: State, event: Written, now: float, wall: str) -> Step:
    """Go on, since the Lease is given back. The legacy lock follows it."""
    state, news = me.note(state, event.record, event.record.resource_version, now)
    state, actions = put_legacy_release(me, replace(state, conflicts=0), now, wall)
    return state, news + actions


def put_legacy_release(me: Candidate, state: State, now: float, wall: str) -> Step:
    """Give the legacy lock back, unless a sibling has it by now."""
    body = me.legacy.given_back(state.legacy, wall) if me.legacy else None
    if body is None or state.conflicts > 3:
        return after_release(me, state)
    return state, [PutLegacy(body, now + me.timing.request_timeout)]


def legacy_released(me: Candidate, state: State, event: LegacyWritten, now: float, wall: str) -> Step:
    """Go on, since the legacy lock is given back."""
    state, news = me.note_legacy(state, event, now)
    state, actions = after_release(me, state)
    return state, news + actions


def release_legacy_again(me: Candidate, state: State, event: LegacySeen, now: float, wall: str) -> Step:
    """Give the legacy lock back on its new revision if it still names me."""
    state, news = me.note_legacy(state, event, now)
    state, actions = put_legacy_release(me, replace(state, conflicts=state.conflicts + 1), now, wall)
    return state, news + actions


def read_before_releasing(me: Candidate, state: State, event: Conflict, now: float, wall: str) -> Step:
    """Read the Lease again after a conflict."""
    return replace(state, conflicts=state.conflicts + 1), [me.read(now)]


def release_again(me: Candidate, state: State, event: LeaseSeen, now: float, wall: str) -> Step:
    """Give the Lease back on its new revision if it is still mine."""
    state, news = me.note(state, event.record, event.version, now)
    again = me.holds(state) and state.conflicts <= 3
    state, actions = put_release(me, state, now, wall) if again else after_release(me, state)
    return state, news + actions


def not_released(
    me: Candidate, state: State, event: Failed | NotWritten | ReadFailed | LegacyFailed, now: float, wall: str
) -> Step:
    """Go on without having given the Lease back."""
    state, actions = after_release(me, state)
    return state, [Warn(event.cause), *actions]


def release_unseen(me: Candidate, state: State, event: LeaseUnusable, now: float, wall: str) -> Step:
    """Go on, since nobody can give back an invalid Lease."""
    state, actions = after_release(me, unseen(state, event))
    return state, [Warn(event.cause), *actions]


def after_release(me: Candidate, state: State) -> Step:
    """Enter the phase that was planned. If the Lease was not given back, it expires."""
    state = replace(state, phase=state.then, conflicts=0)
    return state, [Timer(state.not_before if state.phase is Phase.FOLLOWING else math.inf)]


def watch_only(me: Candidate, state: State, event: LeaseSeen, now: float, wall: str) -> Step:
    """Note the Lease. The lost term is still being drained."""
    return me.note(state, event.record, event.version, now)


def watch_legacy_only(me: Candidate, state: State, event: LegacySeen, now: float, wall: str) -> Step:
    """Note the legacy lock. The lost term is still being drained."""
    return me.note_legacy(state, event, now)


def resume(me: Candidate, state: State, event: Resume, now: float, wall: str) -> Step:
    """Follow or acquire again, now that the lost term is drained."""
    if not me.holds(state):
        return following.follow(me, replace(state, phase=Phase.FOLLOWING, raised=False), now, wall)
    if state.raised and not is_paused(state.seen):
        return following.acquire(me, replace(state, raised=False), now, wall)
    # The term ended badly here, so the other replicas get the first chance.
    state = replace(state, then=Phase.FOLLOWING, not_before=now + me.timing.retry_period)
    return put_release(me, state, now, wall)
