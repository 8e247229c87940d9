"""The rules of a term: what the Lease says of it, and how it is renewed, lost and given back."""

from __future__ import annotations

import math
from dataclasses import replace

from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.moves import (
    Close,
    D,
    F,
    G,
    L,
    NewLeader,
    Put,
    R,
    State,
    Step,
    Timer,
)
from kopf_ha.settings import JITTER_FACTOR, Settings


class TermRules:
    """They hold no state; `kopf_ha.core.election` has the events that lead to them.

    Args:
        settings: names, identity and durations.
    """

    def __init__(self, settings: Settings) -> None:
        self.me = settings.identity
        self.lease = settings.lease
        self.duration = settings.lease_duration
        self.deadline = settings.renew_deadline
        self.retry = settings.retry_period

    # --- looking at the Lease

    def _note(self, state: State, record: LeaseRecord | None, version: str, now: float) -> Step:
        """Keep what was seen. The expiry starts anew only if the spec changed (trap 9)."""
        old = state.seen
        same = state.known and (
            (old is None and record is None) or (old is not None and record is not None and old.same_spec(record))
        )
        state = replace(
            state,
            known=True,
            seen=record,
            version=version or state.version,
            changed=state.changed if same else now,
            floor=max(state.floor, record.transitions if record else 0),
            reread=math.inf,
        )
        leader = (record.holder, record.transitions) if record and record.holder else None
        if leader is None or leader == state.announced:
            return state, []
        return replace(state, announced=leader), [NewLeader(*leader)]

    def _lost_to(self, state: State) -> str:
        """Say why the Lease, as seen, is no longer that of my term; empty if it is."""
        seen = state.seen
        if seen is None:
            return f"Lease {self.lease} was deleted"
        if seen.uid != state.uid:
            return f"Lease {self.lease} was deleted and made again"
        if seen.holder != self.me:
            return f"Lease {self.lease} is held by {seen.holder or 'nobody'} (token {seen.transitions})"
        if seen.transitions != state.token:
            way = "lowered" if seen.transitions < state.token else "raised"
            return f"leaseTransitions of Lease {self.lease} was {way} to {seen.transitions}, my token is {state.token}"
        return ""

    def _holding(self, state: State) -> bool:
        """Whether the Lease still shows my present or last term.

        Only I ever wrote this token with my name into this Lease, so nobody leads by it but me.
        """
        return state.known and state.token > 0 and not self._lost_to(state)

    def _overdue(self, state: State, now: float) -> bool:
        return now >= state.renewed + self.deadline

    def _why_overdue(self, state: State, now: float) -> str:
        passed = now - state.renewed
        if state.failure:
            return f"not renewed for {passed:.1f} s: {state.failure}"
        return f"not renewed for {passed:.1f} s, and no attempt failed: the process or the machine was paused"

    # --- leading

    def _renewal_timer(self, state: State) -> Timer:
        return Timer(state.renewed + self.retry, self.retry * (JITTER_FACTOR - 1))

    def _put_renewal(self, state: State, now: float, wall: str) -> Step:
        assert state.seen is not None  # noqa: S101  a leader that sees no Lease has lost
        record = state.seen.changed(lease_duration=int(self.duration), renew_time=wall)
        state = replace(state, phase=R, sent=now)
        return state, [Put(record, min(now + self.deadline / 2, state.renewed + self.deadline))]

    def _renew_again(self, state: State, now: float, wall: str) -> Step:
        if state.conflicts < 2:
            return self._put_renewal(state, now, wall)
        at = min(now + self.retry / 10, state.renewed + self.deadline)
        return replace(state, phase=L, failure="the Lease is being edited all the time"), [Timer(at)]

    def _lose(self, state: State, cause: str) -> Step:
        return replace(state, phase=D, attempt=None), [Close(cause), Timer(math.inf)]

    # --- releasing

    def _put_release(self, state: State, now: float, wall: str) -> Step:
        """Give the Lease back with its counter. The short duration is for readers that ignore the empty holder."""
        assert state.seen is not None  # noqa: S101  only what is held is released
        record = state.seen.changed(holder="", lease_duration=1, acquire_time=wall, renew_time=wall)
        return replace(state, phase=G), [Timer(math.inf), Put(record, now + self.deadline / 2)]

    def _released(self, state: State, now: float) -> Step:
        """Go on, given back or not: what could not be given back expires."""
        state = replace(state, phase=state.then, conflicts=0)
        return state, [Timer(state.not_before if state.phase is F else math.inf)]
