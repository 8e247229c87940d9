"""The election as a table: ``(state, event, now) → (state, actions)``.

Nothing here reads a clock, waits, or talks to anybody. `TABLE` says which event may come in which phase and
where it may lead; the rules below it say when. An event that has no place raises `IllegalMove` and
changes nothing.

What the rules keep, given that nobody deletes or edits the Lease and clocks run at one rate: no two grants
are open and unexpired at the same time. Whatever happens to the Lease, the token of a new grant is above
every token that this process ever saw in it or was told of (I2).
"""

from __future__ import annotations

import math
from dataclasses import replace

from kopf_ha.core.lease import LeaseRecord
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
)
from kopf_ha.core.token import TOKEN_MAX
from kopf_ha.settings import JITTER_FACTOR, Settings

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


class Election:
    """The rules, for one configuration. It holds no state: `step` is a pure function.

    Args:
        settings: names, identity and durations.
    """

    def __init__(self, settings: Settings) -> None:
        self.me = settings.identity
        self.lease = settings.lease
        self.duration = settings.lease_duration
        self.deadline = settings.renew_deadline
        self.retry = settings.retry_period

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
        if not event.read and not _newer(event.version, state.version):
            # Old news. Taken for new, the echo of the record before mine would end my term.
            return state, []
        seen, read = state.seen, event.record if event.read else None
        undone = seen is not None and read is not None and _newer(seen.resource_version, read.resource_version)
        state, actions = self._note(state, event.record, event.version, now)
        if state.phase in (L, R) and undone:
            cause = f"Lease {self.lease} went back to an earlier revision; was etcd restored from a snapshot?"
            return _with(actions, self._lose(state, cause))
        if state.phase in (L, R):
            cause = self._lost_to(state)
            if cause:
                return _with(actions, self._lose(state, cause))
            if self._overdue(state, now):
                return _with(actions, self._lose(state, self._why_overdue(state, now)))
            if state.phase is R:  # after a conflict that was not about the holder, such as a label
                return _with(actions, self._renew_again(state, now, wall))
            return state, actions
        if state.phase is G:
            if self._holding(state) and state.conflicts <= 3:
                return _with(actions, self._put_release(state, now, wall))
            return _with(actions, self._released(state, now))
        if state.phase is D:
            return state, actions
        return _with(actions, self._follow(state, now, wall))

    def _unusable(self, state: State, event: Unusable, now: float) -> Step:
        if not event.read and not _newer(event.version, state.version):
            return state, []
        state = replace(state, known=False, seen=None, attempt=None, version=event.version or state.version)
        if state.phase in (L, R):
            lost, actions = self._lose(state, event.cause)
            return lost, [*actions, Warn(event.cause)]
        if state.phase is G:
            return _with([Warn(event.cause)], self._released(state, now))
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
            return _with(actions, self._lead(state, state.sent, now, wall))
        if state.phase is R:
            state = replace(state, renewed=state.sent)
            state, actions = self._note(state, event.record, event.record.resource_version, now)
            cause = self._lost_to(state)
            if cause:
                return _with(actions, self._lose(state, cause))
            if self._overdue(state, now):
                return _with(actions, self._lose(state, self._why_overdue(state, now)))
            state = replace(state, phase=L, failure="")
            return state, [Extend(state.renewed + self.duration), *actions, self._renewal_timer(state)]
        state, actions = self._note(state, event.record, event.record.resource_version, now)
        return _with(actions, self._released(state, now))

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
                return _with([warn], self._lose(state, self._why_overdue(state, now)))
            return state, [warn, Timer(min(now + self.retry, state.renewed + self.deadline))]
        if state.phase is G:
            return _with([warn], self._released(state, now))
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

    def _step_down(self, state: State, event: StepDown, now: float, wall: str) -> Step:
        if state.phase is not L:
            return state, []
        return _with([Close(event.cause)], self._put_release(replace(state, then=D), now, wall))

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
        return _with(actions, self._put_release(replace(state, then=S), now, wall))

    def _stop(self, state: State) -> Step:
        actions: list[Action] = [Close("stopped")] if state.phase is L else []
        return replace(state, phase=S), [*actions, Timer(math.inf)]

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

    # --- following and acquiring

    def _follow(self, state: State, now: float, wall: str) -> Step:
        """Acquire if the Lease can be had now; otherwise set the timer to the moment when it can."""
        seen, attempt = state.seen, state.attempt
        if not state.known:
            return state, [Timer(state.reread)]
        if attempt is not None and seen is not None:
            if seen.fields == attempt.record.fields and attempt.record.uid in ("", seen.uid):
                # The PUT whose answer was lost was done. It counts from its start: nobody can have seen it earlier.
                return self._lead(state, attempt.started, now, wall)
            if _newer(seen.resource_version, attempt.record.resource_version):
                state = replace(state, attempt=None)  # the precondition is gone: it can never be done any more
        if seen is None or not seen.holder or self._holding(state):
            due = state.not_before
        else:
            due = max(state.changed + (seen.lease_duration or self.duration), state.not_before)
            state = replace(state, conflicts=0)
        if now >= due:
            return self._acquire(state, now, wall)
        return state, [Timer(min(due, state.reread))]

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


def _with(first: list[Action], step: Step) -> Step:
    """Put actions in front, but nothing in front of a `Close`."""
    state, actions = step
    closing = [a for a in actions if isinstance(a, Close)]
    return state, [*closing, *first, *(a for a in actions if not isinstance(a, Close))]


def _same_base(one: LeaseRecord, other: LeaseRecord) -> bool:
    return (one.resource_version, one.uid) == (other.resource_version, other.uid)


def _newer(version: str, than: str) -> bool:
    """Compare two resourceVersions. What is no number cannot be ordered, and is taken for new."""
    if version.isdigit() and than.isdigit():
        return int(version) > int(than)
    return True
