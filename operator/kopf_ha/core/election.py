"""The election as a table: ``(state, event, now) → (state, actions)``.

Nothing here reads a clock, waits, or talks to anybody. `TABLE` says which event may come in which phase and
where it may lead; the rules below it say when. An event that has no place raises `IllegalMove` and
changes nothing.

What the rules keep, given that nobody deletes or edits the Lease and clocks run at one rate: no two grants
are open and unexpired at the same time. Whatever happens to the Lease, the token of a new grant is above
every token that this process ever saw in it or was told of (I2).

`HolderGone` gives up the first of these where it is told of a process that still runs: then two grants may be open,
and the tokens alone, which still rise, tell whose writes count (I3).
"""

from __future__ import annotations

import math
from dataclasses import replace

from kopf_ha.core.following import FollowRules
from kopf_ha.core.lease import newer
from kopf_ha.core.moves import (
    TABLE,
    A,
    Action,
    Attempt,
    Close,
    Conflict,
    D,
    Denied,
    Event,
    Extend,
    F,
    Failed,
    G,
    HeadStart,
    HolderGone,
    IllegalMove,
    L,
    NewLeader,
    Open,
    Phase,
    Put,
    R,
    RaiseFloor,
    Read,
    ReadFailed,
    Release,
    Resume,
    S,
    Seen,
    State,
    Step,
    StepDown,
    Stop,
    Tick,
    Timer,
    Unusable,
    Warn,
    Written,
    with_first,
)

__all__ = [
    "TABLE",
    "Action",
    "Attempt",
    "Close",
    "Conflict",
    "Denied",
    "Election",
    "Event",
    "Extend",
    "Failed",
    "HeadStart",
    "HolderGone",
    "IllegalMove",
    "NewLeader",
    "Open",
    "Phase",
    "Put",
    "RaiseFloor",
    "Read",
    "ReadFailed",
    "Release",
    "Resume",
    "Seen",
    "State",
    "Step",
    "StepDown",
    "Stop",
    "Tick",
    "Timer",
    "Unusable",
    "Warn",
    "Written",
]


class Election(FollowRules):
    """The rules, for one configuration. It holds no state: `step` is a pure function.

    Args:
        settings: names, identity and durations.
    """

    def step(self, state: State, event: Event, now: float, wall: str = "") -> Step:
        """Take one event in.

        Args:
            state: is not changed.
            event: what happened.
            now: seconds on this machine's boot-time clock, taken just before.
            wall: the time for people, as MicroTime; written into the Lease and never read back.

        Returns:
            The next state, and what to do, in order: a `Close` always comes first, a request last.

        Raises:
            IllegalMove: the event has no place in this phase.
        """
        allowed = TABLE[state.phase].get(type(event))
        if allowed is None:
            raise IllegalMove(f"{type(event).__name__} cannot come while {state.phase.value}")
        new, actions = self._rule(state, event, now, wall)
        if new.phase not in allowed:
            raise IllegalMove(f"{type(event).__name__} may not lead from {state.phase.value} to {new.phase.value}")
        return new, actions

    def _rule(self, state: State, event: Event, now: float, wall: str) -> Step:
        match event:
            case Seen():
                return self._seen(state, event, now, wall)
            case Unusable():
                return self._unusable(state, event, now)
            case Tick():
                return self._tick(state, event, now, wall)
            case Written():
                return self._written(state, event, now, wall)
            case Conflict():
                return self._conflict(state, now)
            case Failed() | Denied() | ReadFailed():
                return self._failed(state, event, now)
            case RaiseFloor():
                return self._raise_floor(state, event)
            case HolderGone():
                return self._holder_gone(state, event, now, wall)
            case HeadStart(seconds):
                state = replace(state, head_start=max(0.0, seconds))
                return self._follow(state, now, wall) if state.phase is F else (state, [])
            case StepDown():
                return self._step_down(state, event, now, wall)
            case Resume():
                return self._resume(state, now, wall)
            case Release():
                return self._release(state, now, wall)
            case Stop():
                return self._stop(state)

    # --- what came in

    def _seen(self, state: State, event: Seen, now: float, wall: str) -> Step:
        if not event.read and not newer(event.version, state.version):
            # Old news. Taken for new, the echo of the record before mine would end my term.
            return state, []
        seen, read = state.seen, event.record if event.read else None
        undone = seen is not None and read is not None and newer(seen.resource_version, read.resource_version)
        state, actions = self._note(state, event.record, event.version, now)
        if state.phase in (L, R) and undone:
            cause = f"Lease {self.lease} went back to an earlier revision; was etcd restored from a snapshot?"
            return with_first(actions, self._lose(state, cause))
        if state.phase in (L, R):
            cause = self._lost_to(state)
            if cause:
                return with_first(actions, self._lose(state, cause))
            if self._overdue(state, now):
                return with_first(actions, self._lose(state, self._why_overdue(state, now)))
            if state.phase is R:  # after a conflict that was not about the holder, such as a label
                return with_first(actions, self._renew_again(state, now, wall))
            return state, actions
        if state.phase is G:
            if self._holding(state) and state.conflicts <= 3:
                return with_first(actions, self._put_release(state, now, wall))
            return with_first(actions, self._released(state, now))
        if state.phase is D:
            return state, actions
        return with_first(actions, self._follow(state, now, wall))

    def _unusable(self, state: State, event: Unusable, now: float) -> Step:
        if not event.read and not newer(event.version, state.version):
            return state, []
        state = replace(state, known=False, seen=None, attempt=None, version=event.version or state.version)
        if state.phase in (L, R):
            lost, actions = self._lose(state, event.cause)
            return lost, [*actions, Warn(event.cause)]
        if state.phase is G:
            return with_first([Warn(event.cause)], self._released(state, now))
        # Nothing to do until the watch shows it repaired. Acquiring would have to invent a token.
        return replace(state, reread=math.inf), [Warn(event.cause), Timer(math.inf)]

    def _tick(self, state: State, event: Tick, now: float, wall: str) -> Step:
        if state.phase is L:
            state = replace(state, beat=max(state.beat, event.beat))
            if self._overdue(state, now):
                return self._lose(state, self._why_overdue(state, now))
            if now - state.beat > self.deadline:
                return self._lose(
                    state,
                    f"event loop blocked: no sign of life for {now - state.beat:.1f} s;"
                    " a handler blocks it, call blocking code in a sync handler or a thread",
                )
            return self._put_renewal(replace(state, conflicts=0), now, wall)
        if state.phase is D:
            return state, []
        if now >= state.reread:
            return replace(state, reread=math.inf), [Timer(now + self.retry), Read(now + self.deadline / 2)]
        return self._follow(state, now, wall)

    def _written(self, state: State, event: Written, now: float, wall: str) -> Step:
        state = replace(state, conflicts=0)
        attempt = state.attempt
        if state.phase is A and attempt is not None:
            state, actions = self._note(state, event.record, event.record.resource_version, now)
            if event.record.fields != attempt.record.fields:
                # Something rewrites Leases on their way. A term must be what the Lease says.
                cause = f"Lease {self.lease} was stored otherwise than it was written; is there a mutating webhook?"
                state = replace(state, phase=F, attempt=None, not_before=now + self.retry)
                return state, [*actions, Warn(cause), Timer(now + self.retry)]
            return with_first(actions, self._lead(state, state.sent, now, wall))
        if state.phase is R:
            state = replace(state, renewed=state.sent)
            state, actions = self._note(state, event.record, event.record.resource_version, now)
            cause = self._lost_to(state)
            if cause:
                return with_first(actions, self._lose(state, cause))
            if self._overdue(state, now):
                return with_first(actions, self._lose(state, self._why_overdue(state, now)))
            state = replace(state, phase=L, failure="")
            return state, [Extend(state.renewed + self.duration), *actions, self._renewal_timer(state)]
        state, actions = self._note(state, event.record, event.record.resource_version, now)
        return with_first(actions, self._released(state, now))

    def _conflict(self, state: State, now: float) -> Step:
        state = replace(state, conflicts=state.conflicts + 1)
        read = Read(now + self.deadline / 2)
        if state.phase is A:
            # The attempt is kept: it may be that an earlier sending of it, whose answer was lost, was done.
            state = replace(state, phase=F, not_before=self._after_conflict(state, now))
            return state, [Timer(now + self.retry), read]
        if state.phase is R:
            if self._overdue(state, now):
                return self._lose(state, self._why_overdue(state, now))
            return state, [Read(min(read.until, state.renewed + self.deadline))]
        return state, [read]

    def _failed(self, state: State, event: Failed | Denied | ReadFailed, now: float) -> Step:
        warn = Warn(event.cause)
        if state.phase is A:
            state = replace(state, phase=F, not_before=now + self.retry)
            if isinstance(event, Denied):
                # An attempt of which an earlier sending is open stays open.
                if state.attempt is not None and state.attempt.started == state.sent:
                    state = replace(state, attempt=None)
                return state, [warn, self._backoff(now)]
            return state, [warn, self._backoff(now), Read(now + self.deadline / 2)]
        if state.phase is R:
            state = replace(state, phase=L, failure=event.cause)
            if self._overdue(state, now):
                return with_first([warn], self._lose(state, self._why_overdue(state, now)))
            return state, [warn, Timer(min(now + self.retry, state.renewed + self.deadline))]
        if state.phase is G:
            return with_first([warn], self._released(state, now))
        return replace(state, reread=now + self.retry), [warn, self._backoff(now)]

    def _raise_floor(self, state: State, event: RaiseFloor) -> Step:
        state = replace(state, floor=max(state.floor, event.floor))
        if state.attempt is not None and state.attempt.record.transitions <= event.floor:
            # Should that PUT turn out to have been done, its token is too low by now: acquire over it.
            state = replace(state, attempt=replace(state.attempt, started=-math.inf))
        if state.phase is not L or event.floor < state.token:
            return state, []
        cause = f"floor: an object records token {event.floor}, which is not below mine ({state.token})"
        return self._lose(replace(state, raised=True), cause)

    def _holder_gone(self, state: State, event: HolderGone, now: float, wall: str) -> Step:
        """Wait for that process no longer. News about myself is wrong: this process lives."""
        if event.holder in ("", self.me) or event.holder in state.gone:
            return state, []
        state = replace(state, gone={**state.gone, event.holder: now})
        concerned = state.phase is F and state.seen is not None and state.seen.holder == event.holder
        return self._follow(state, now, wall) if concerned else (state, [])

    def _step_down(self, state: State, event: StepDown, now: float, wall: str) -> Step:
        if state.phase is not L:
            return state, []
        return with_first([Close(event.cause)], self._put_release(replace(state, then=D), now, wall))

    def _resume(self, state: State, now: float, wall: str) -> Step:
        if not self._holding(state):
            return self._follow(replace(state, phase=F, raised=False), now, wall)
        if state.raised:
            return self._acquire(replace(state, raised=False), now, wall)
        # The term did not end well here, so the others get their chance first.
        return self._put_release(replace(state, then=F, not_before=now + self.retry), now, wall)

    def _release(self, state: State, now: float, wall: str) -> Step:
        actions: list[Action] = [Close("released")] if state.phase is L else []
        if not self._holding(state):
            return replace(state, phase=S), [*actions, Timer(math.inf)]
        return with_first(actions, self._put_release(replace(state, then=S), now, wall))

    def _stop(self, state: State) -> Step:
        actions: list[Action] = [Close("stopped")] if state.phase is L else []
        return replace(state, phase=S), [*actions, Timer(math.inf)]
