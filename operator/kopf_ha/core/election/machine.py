"""The election's rules: `RULES`, at the end, says which rule takes which event in which phase.

`Election.step` looks the rule up there and calls it. An event that cannot come in a phase has no cell.
Nothing here reads a clock, waits, or sends a request.

While nobody deletes or edits the Lease and all clocks run at the same rate, no two grants are open and unexpired
at the same time. A wrong `HolderGone` gives that up; I2 and I3 hold all the same, since they rest on the tokens:
whatever happens to the Lease, `_acquire` takes a token above all that this process saw in it or was told of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kopf_ha.core.election.events import (
    Action,
    Attempt,
    Close,
    Conflict,
    Denied,
    Event,
    Extend,
    Failed,
    HeadStart,
    HolderGone,
    LeaseSeen,
    LeaseUnusable,
    NewLeader,
    Open,
    Phase,
    Put,
    RaiseFloor,
    Read,
    ReadFailed,
    Release,
    Resume,
    State,
    StepDown,
    Stop,
    Tick,
    Timer,
    Warn,
    Written,
)
from kopf_ha.core.election.timing import Timing
from kopf_ha.core.lease import LeaseRecord, newer
from kopf_ha.core.token import TOKEN_MAX
from kopf_ha.errors import KopfHAError

Step = tuple[State, list[Action]]


class IllegalMove(KopfHAError):
    """An event that cannot come in this phase; nothing has changed."""


@dataclass(frozen=True, slots=True)
class Election:
    """The rules for one process and one Lease. It keeps nothing between two steps.

    Args:
        identity: the holder identity, unique per process.
        lease: ``namespace/name`` of the Lease, for messages.
        timing: the durations.
    """

    identity: str
    lease: str
    timing: Timing

    def step(self, state: State, event: Event, now: float, wall: str = "") -> Step:
        """Take in one event.

        Args:
            state: is not changed.
            event: what happened.
            now: seconds on this machine's boot-time clock, taken just before.
            wall: the time for people, as MicroTime. It is written into the Lease, and nothing is timed by it.

        Returns:
            The next state, and what to do, in order: a `Close` always comes first, a request last.

        Raises:
            IllegalMove: the event cannot come in this phase.
        """
        rule = RULES[state.phase].get(type(event))
        if rule is None:
            raise IllegalMove(f"{type(event).__name__} cannot come while {state.phase.value}")
        if isinstance(event, LeaseSeen | LeaseUnusable) and not event.read and not newer(event.version, state.version):
            # Late news from the watch. The record from before my own, taken for new, would end my term.
            return state, []
        state, actions = rule(self, state, event, now, wall)
        # The sort is stable, so what is not a `Close` keeps its order.
        return state, sorted(actions, key=lambda action: not isinstance(action, Close))

    def vacant_since(self, state: State, now: float) -> float | None:
        """Say since when the Lease, as seen, has been free for anybody; None while it is not.

        None, too, while it still shows the last term of this process, since its next term is no takeover.
        """
        if not state.known or self._holds(state):
            return None
        since = self._free_at(state)
        return since if now >= since else None

    # --- FOLLOWING

    def _look(self, state: State, event: LeaseSeen, now: float, wall: str) -> Step:
        state, news = self._note(state, event.record, event.version, now)
        state, actions = self._follow(state, now, wall)
        return state, news + actions

    def _await_repair(self, state: State, event: LeaseUnusable, now: float, wall: str) -> Step:
        # The watch will show the repair. To acquire before that, a token would have to be guessed.
        return replace(_unseen(state, event), reread=math.inf), [Warn(event.cause), Timer(math.inf)]

    def _read_later(self, state: State, event: ReadFailed, now: float, wall: str) -> Step:
        return replace(state, reread=now + self.timing.retry_period), [Warn(event.cause), self._backoff(now)]

    def _read_or_acquire(self, state: State, event: Tick, now: float, wall: str) -> Step:
        if now >= state.reread:
            return replace(state, reread=math.inf), [Timer(now + self.timing.retry_period), self._read(now)]
        return self._follow(state, now, wall)

    def _take_over(self, state: State, event: HolderGone, now: float, wall: str) -> Step:
        before = state.gone
        state, _ = self._keep_gone(state, event, now, wall)
        if state.gone is before or state.seen is None or state.seen.holder != event.holder:
            return state, []
        return self._follow(state, now, wall)

    def _wait_or_acquire(self, state: State, event: HeadStart, now: float, wall: str) -> Step:
        state, _ = self._keep_head_start(state, event, now, wall)
        return self._follow(state, now, wall)

    def _follow(self, state: State, now: float, wall: str) -> Step:
        """Acquire the Lease if it is free, or set the timer to the moment when it will be."""
        seen, attempt = state.seen, state.attempt
        if not state.known:
            return state, [Timer(state.reread)]
        if attempt is not None and seen is not None:
            if seen.fields == attempt.record.fields and attempt.record.uid in ("", seen.uid):
                # The PUT whose answer was lost was done. The grant counts from when it was sent: nobody saw it earlier.
                return self._lead(state, attempt.started, now, wall)
            if newer(seen.resource_version, attempt.record.resource_version):
                state = replace(state, attempt=None)  # its precondition is gone, so it will never be done
        if seen is not None and seen.holder and seen.holder not in state.gone and not self._holds(state):
            state = replace(state, conflicts=0)
        # Never forever: a head start counts from the moment at which the Lease became free.
        free = state.changed if self._holds(state) else self._free_at(state) + state.head_start
        due = max(free, state.not_before)
        if now >= due:
            return self._acquire(state, now, wall)
        return state, [Timer(min(due, state.reread))]

    def _free_at(self, state: State) -> float:
        """Say when the Lease, as seen, is free for anybody. Only times seen by this process count.

        A holder that is gone is not waited for. If it runs after all, its grant may still be open, but its token is
        below the next one, so its writes are refused (I2, I3). The run layer decides whether that is enough.
        """
        seen = state.seen
        if seen is None or not seen.holder:
            return state.changed
        if seen.holder in state.gone:
            return max(state.changed, state.gone[seen.holder])
        return state.changed + (seen.lease_duration or self.timing.lease_duration)

    def _acquire(self, state: State, now: float, wall: str) -> Step:
        """PUT my name on the revision that was seen to be free, with a token above all that are known (I2)."""
        seen, attempt = state.seen, state.attempt
        token = max(seen.transitions if seen else 0, state.floor) + 1
        if token > TOKEN_MAX:
            cause = (
                f"no token is left: the highest so far is {token - 1}, the limit is {TOKEN_MAX};"
                " docs/runbook.md says how to begin again"
            )
            state = replace(state, phase=Phase.FOLLOWING, not_before=now + self.timing.retry_period)
            return state, [Warn(cause), self._backoff(now)]
        base = seen or LeaseRecord(holder="", transitions=0)
        record = base.changed(
            holder=self.identity,
            transitions=token,
            lease_duration=int(self.timing.lease_duration),
            acquire_time=wall,
            renew_time=wall,
        )
        started = now
        if attempt is not None and attempt.record.transitions == token and _same_base(attempt.record, record):
            # Exactly the same PUT again, so that it is recognised as mine whichever of the two is done.
            record, started = attempt.record, attempt.started
        state = replace(state, phase=Phase.ACQUIRING, attempt=Attempt(record, started), sent=now)
        return state, [Put(record, now + self.timing.request_timeout)]

    # --- ACQUIRING

    def _acquired(self, state: State, event: Written, now: float, wall: str) -> Step:
        attempt = state.attempt
        assert attempt is not None  # noqa: S101  `_acquire` sets it with the phase
        state, news = self._note(replace(state, conflicts=0), event.record, event.record.resource_version, now)
        if event.record.fields != attempt.record.fields:
            # Something changes Leases on their way. A term must be what the Lease says.
            cause = f"Lease {self.lease} was stored otherwise than it was written; is there a mutating webhook?"
            at = now + self.timing.retry_period
            state = replace(state, phase=Phase.FOLLOWING, attempt=None, not_before=at)
            return state, [*news, Warn(cause), Timer(at)]
        state, actions = self._lead(state, state.sent, now, wall)
        return state, news + actions

    def _overtaken(self, state: State, event: Conflict, now: float, wall: str) -> Step:
        # The attempt is kept: an earlier sending of it, whose answer was lost, may have been done.
        conflicts = state.conflicts + 1
        # The first time at once, since an edited label is enough for a conflict; then slower, to outlast a busy editor.
        not_before = now if conflicts < 2 else now + self.timing.retry_period / 10
        state = replace(state, phase=Phase.FOLLOWING, conflicts=conflicts, not_before=not_before)
        return state, [Timer(now + self.timing.retry_period), self._read(now)]

    def _maybe_acquired(self, state: State, event: Failed, now: float, wall: str) -> Step:
        state = replace(state, phase=Phase.FOLLOWING, not_before=now + self.timing.retry_period)
        return state, [Warn(event.cause), self._backoff(now), self._read(now)]

    def _not_acquired(self, state: State, event: Denied, now: float, wall: str) -> Step:
        state = replace(state, phase=Phase.FOLLOWING, not_before=now + self.timing.retry_period)
        if state.attempt is not None and state.attempt.started == state.sent:
            state = replace(state, attempt=None)  # otherwise an earlier sending of it may still be done
        return state, [Warn(event.cause), self._backoff(now)]

    def _lead(self, state: State, started: float, now: float, wall: str) -> Step:
        """Begin a term with a grant that counts from `started`, when the PUT was sent."""
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
            # Acquired, but too long ago to begin a term. Nobody leads by that token, so take the next one at once.
            return self._acquire(state, now, wall)
        state = replace(state, phase=Phase.LEADING)
        return state, [Open(state.token, started + self.timing.lease_duration), self._renewal_timer(state)]

    # --- LEADING

    def _check(self, state: State, event: LeaseSeen, now: float, wall: str) -> Step:
        """End the term if the Lease is no longer that of this term."""
        cause = self._went_back(state, event)
        state, news = self._note(state, event.record, event.version, now)
        cause = cause or self._lost_to(state) or self._overdue(state, now)
        if not cause:
            return state, news
        state, actions = self._lose(state, cause)
        return state, news + actions

    def _lose_sight(self, state: State, event: LeaseUnusable, now: float, wall: str) -> Step:
        state, actions = self._lose(_unseen(state, event), event.cause)
        return state, [*actions, Warn(event.cause)]

    def _renew(self, state: State, event: Tick, now: float, wall: str) -> Step:
        state = replace(state, beat=max(state.beat, event.beat))
        cause = self._overdue(state, now)
        if not cause and now - state.beat > self.timing.renew_deadline:
            cause = (
                f"event loop blocked: no sign of life for {now - state.beat:.1f} s;"
                " a handler blocks it, call blocking code in a sync handler or a thread"
            )
        return self._lose(state, cause) if cause else self._put_renewal(replace(state, conflicts=0), now, wall)

    def _check_floor(self, state: State, event: RaiseFloor, now: float, wall: str) -> Step:
        """End the term if an object records a token that is not below mine: the next term is above it (I2)."""
        state, _ = self._keep_floor(state, event, now, wall)
        if event.floor < state.token:
            return state, []
        cause = f"floor: an object records token {event.floor}, which is not below mine ({state.token})"
        return self._lose(replace(state, raised=True), cause)

    def _step_down(self, state: State, event: StepDown, now: float, wall: str) -> Step:
        state, actions = self._put_release(replace(state, then=Phase.LOST), now, wall)
        return state, [Close(event.cause), *actions]

    def _close_and_release(self, state: State, event: Release, now: float, wall: str) -> Step:
        state, actions = self._release(state, event, now, wall)
        return state, [Close("released"), *actions]

    def _close_and_stop(self, state: State, event: Stop, now: float, wall: str) -> Step:
        state, actions = self._stop(state, event, now, wall)
        return state, [Close("stopped"), *actions]

    # --- RENEWING

    def _put_renewal(self, state: State, now: float, wall: str) -> Step:
        assert state.seen is not None  # noqa: S101  a leader that sees no Lease has lost
        record = state.seen.changed(lease_duration=int(self.timing.lease_duration), renew_time=wall)
        until = min(now + self.timing.request_timeout, state.renewed + self.timing.renew_deadline)
        return replace(state, phase=Phase.RENEWING, sent=now), [Put(record, until)]

    def _renewed(self, state: State, event: Written, now: float, wall: str) -> Step:
        """Extend the grant, counted from when the renewal was sent."""
        state = replace(state, conflicts=0, renewed=state.sent)
        state, news = self._note(state, event.record, event.record.resource_version, now)
        cause = self._lost_to(state) or self._overdue(state, now)
        if cause:
            state, actions = self._lose(state, cause)
            return state, news + actions
        state = replace(state, phase=Phase.LEADING, failure="")
        return state, [Extend(state.renewed + self.timing.lease_duration), *news, self._renewal_timer(state)]

    def _read_before_renewing(self, state: State, event: Conflict, now: float, wall: str) -> Step:
        state = replace(state, conflicts=state.conflicts + 1)
        cause = self._overdue(state, now)
        if cause:
            return self._lose(state, cause)
        return state, [Read(min(now + self.timing.request_timeout, state.renewed + self.timing.renew_deadline))]

    def _renew_again(self, state: State, event: LeaseSeen, now: float, wall: str) -> Step:
        """After a conflict that left the Lease mine, such as an edited label: renew once more, then wait a little."""
        state, actions = self._check(state, event, now, wall)
        if state.phase is Phase.LOST:
            return state, actions
        if state.conflicts < 2:
            state, renewal = self._put_renewal(state, now, wall)
            return state, actions + renewal
        at = min(now + self.timing.retry_period / 10, state.renewed + self.timing.renew_deadline)
        state = replace(state, phase=Phase.LEADING, failure="the Lease is being edited all the time")
        return state, [*actions, Timer(at)]

    def _not_renewed(self, state: State, event: Failed | Denied | ReadFailed, now: float, wall: str) -> Step:
        state = replace(state, phase=Phase.LEADING, failure=event.cause)
        cause = self._overdue(state, now)
        if cause:
            state, actions = self._lose(state, cause)
            return state, [Warn(event.cause), *actions]
        at = min(now + self.timing.retry_period, state.renewed + self.timing.renew_deadline)
        return state, [Warn(event.cause), Timer(at)]

    def _lose(self, state: State, cause: str) -> Step:
        return replace(state, phase=Phase.LOST, attempt=None), [Close(cause), Timer(math.inf)]

    # --- RELEASING

    def _put_release(self, state: State, now: float, wall: str) -> Step:
        """Give the Lease back with its counter. The short duration is for readers that ignore the empty holder."""
        assert state.seen is not None  # noqa: S101  only a Lease that is held is released
        record = state.seen.changed(holder="", lease_duration=1, acquire_time=wall, renew_time=wall)
        state = replace(state, phase=Phase.RELEASING)
        return state, [Timer(math.inf), Put(record, now + self.timing.request_timeout)]

    def _released(self, state: State, event: Written, now: float, wall: str) -> Step:
        state, news = self._note(state, event.record, event.record.resource_version, now)
        state, actions = self._after_release(state)
        return state, news + actions

    def _read_before_releasing(self, state: State, event: Conflict, now: float, wall: str) -> Step:
        return replace(state, conflicts=state.conflicts + 1), [self._read(now)]

    def _release_again(self, state: State, event: LeaseSeen, now: float, wall: str) -> Step:
        state, news = self._note(state, event.record, event.version, now)
        again = self._holds(state) and state.conflicts <= 3
        state, actions = self._put_release(state, now, wall) if again else self._after_release(state)
        return state, news + actions

    def _not_released(self, state: State, event: Failed | Denied | ReadFailed, now: float, wall: str) -> Step:
        state, actions = self._after_release(state)
        return state, [Warn(event.cause), *actions]

    def _release_unseen(self, state: State, event: LeaseUnusable, now: float, wall: str) -> Step:
        state, actions = self._after_release(_unseen(state, event))
        return state, [Warn(event.cause), *actions]

    def _after_release(self, state: State) -> Step:
        """Go on, even if the Lease could not be given back: then it expires."""
        state = replace(state, phase=state.then, conflicts=0)
        return state, [Timer(state.not_before if state.phase is Phase.FOLLOWING else math.inf)]

    # --- LOST

    def _look_only(self, state: State, event: LeaseSeen, now: float, wall: str) -> Step:
        return self._note(state, event.record, event.version, now)

    def _resume(self, state: State, event: Resume, now: float, wall: str) -> Step:
        if not self._holds(state):
            return self._follow(replace(state, phase=Phase.FOLLOWING, raised=False), now, wall)
        if state.raised:
            return self._acquire(replace(state, raised=False), now, wall)
        # The term did not end well here, so the others get their chance first.
        state = replace(state, then=Phase.FOLLOWING, not_before=now + self.timing.retry_period)
        return self._put_release(state, now, wall)

    # --- in several phases

    def _ignore(self, state: State, event: Event, now: float, wall: str) -> Step:
        return state, []

    def _keep_floor(self, state: State, event: RaiseFloor, now: float, wall: str) -> Step:
        state = replace(state, floor=max(state.floor, event.floor))
        if state.attempt is not None and state.attempt.record.transitions <= event.floor:
            # If that PUT turns out to have been done, its token is too low by now: too old, it is acquired over.
            state = replace(state, attempt=replace(state.attempt, started=-math.inf))
        return state, []

    def _keep_gone(self, state: State, event: HolderGone, now: float, wall: str) -> Step:
        """Keep who is gone. News that this process is gone is wrong: it lives."""
        if event.holder in ("", self.identity) or event.holder in state.gone:
            return state, []
        return replace(state, gone={**state.gone, event.holder: now}), []

    def _keep_head_start(self, state: State, event: HeadStart, now: float, wall: str) -> Step:
        return replace(state, head_start=max(0.0, event.seconds)), []

    def _release(self, state: State, event: Release, now: float, wall: str) -> Step:
        if not self._holds(state):
            return replace(state, phase=Phase.STOPPED), [Timer(math.inf)]
        return self._put_release(replace(state, then=Phase.STOPPED), now, wall)

    def _stop(self, state: State, event: Stop, now: float, wall: str) -> Step:
        return replace(state, phase=Phase.STOPPED), [Timer(math.inf)]

    # --- what the Lease says

    def _note(self, state: State, record: LeaseRecord | None, version: str, now: float) -> Step:
        """Keep what was seen. Only a change of the spec restarts the expiry: a label keeps no dead leader alive."""
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

    def _went_back(self, state: State, event: LeaseSeen) -> str:
        """Say that a GET showed an older revision than was seen before; empty otherwise. Tokens may be lost (I2)."""
        seen, read = state.seen, event.record if event.read else None
        if seen is None or read is None or not newer(seen.resource_version, read.resource_version):
            return ""
        return f"Lease {self.lease} went back to an earlier revision; was etcd restored from a snapshot?"

    def _lost_to(self, state: State) -> str:
        """Say why the Lease, as seen, is no longer that of my term; empty if it is."""
        seen = state.seen
        if seen is None:
            return f"Lease {self.lease} was deleted"
        if seen.uid != state.uid:
            return f"Lease {self.lease} was deleted and made again"
        if seen.holder != self.identity:
            return f"Lease {self.lease} is held by {seen.holder or 'nobody'} (token {seen.transitions})"
        if seen.transitions != state.token:
            way = "lowered" if seen.transitions < state.token else "raised"
            return f"leaseTransitions of Lease {self.lease} was {way} to {seen.transitions}, my token is {state.token}"
        return ""

    def _holds(self, state: State) -> bool:
        """Whether the Lease still shows my present or last term.

        Only this process ever wrote this token with my name into this Lease, so nobody else leads by it.
        """
        return state.known and state.token > 0 and not self._lost_to(state)

    # --- what the clock says

    def _overdue(self, state: State, now: float) -> str:
        """Say why the last renewal was too long ago; empty if it was not."""
        if now < state.renewed + self.timing.renew_deadline:
            return ""
        passed = now - state.renewed
        if state.failure:
            return f"not renewed for {passed:.1f} s: {state.failure}"
        return f"not renewed for {passed:.1f} s, and no attempt failed: the process or the machine was paused"

    def _renewal_timer(self, state: State) -> Timer:
        return Timer(state.renewed + self.timing.retry_period, self.timing.spread)

    def _backoff(self, now: float) -> Timer:
        return Timer(now + self.timing.retry_period, self.timing.spread)

    def _read(self, now: float) -> Read:
        return Read(now + self.timing.request_timeout)


def _unseen(state: State, event: LeaseUnusable) -> State:
    return replace(state, known=False, seen=None, attempt=None, version=event.version or state.version)


def _same_base(one: LeaseRecord, other: LeaseRecord) -> bool:
    return (one.resource_version, one.uid) == (other.resource_version, other.uid)


#: A rule takes the event of its cell: ``rule(election, state, event, now, wall)``.
Rule = Callable[[Election, State, Any, float, str], Step]

#: phase → event → rule. What has no cell here cannot happen.
RULES: Mapping[Phase, Mapping[type[Event], Rule]] = {
    Phase.FOLLOWING: {
        LeaseSeen: Election._look,
        LeaseUnusable: Election._await_repair,
        ReadFailed: Election._read_later,
        Tick: Election._read_or_acquire,
        RaiseFloor: Election._keep_floor,
        HolderGone: Election._take_over,
        HeadStart: Election._wait_or_acquire,
        StepDown: Election._ignore,
        Release: Election._release,
        Stop: Election._stop,
    },
    Phase.ACQUIRING: {
        Written: Election._acquired,
        Conflict: Election._overtaken,
        Failed: Election._maybe_acquired,
        Denied: Election._not_acquired,
    },
    Phase.LEADING: {
        LeaseSeen: Election._check,
        LeaseUnusable: Election._lose_sight,
        Tick: Election._renew,
        RaiseFloor: Election._check_floor,
        HolderGone: Election._keep_gone,  # about an earlier holder, or wrong
        HeadStart: Election._keep_head_start,
        StepDown: Election._step_down,
        Release: Election._close_and_release,
        Stop: Election._close_and_stop,
    },
    Phase.RENEWING: {
        Written: Election._renewed,
        Conflict: Election._read_before_renewing,
        Failed: Election._not_renewed,
        Denied: Election._not_renewed,
        LeaseSeen: Election._renew_again,
        LeaseUnusable: Election._lose_sight,
        ReadFailed: Election._not_renewed,
    },
    Phase.RELEASING: {
        Written: Election._released,
        Conflict: Election._read_before_releasing,
        Failed: Election._not_released,
        Denied: Election._not_released,
        LeaseSeen: Election._release_again,
        LeaseUnusable: Election._release_unseen,
        ReadFailed: Election._not_released,
    },
    Phase.LOST: {
        LeaseSeen: Election._look_only,
        LeaseUnusable: Election._await_repair,
        Tick: Election._ignore,
        RaiseFloor: Election._keep_floor,
        HolderGone: Election._keep_gone,
        HeadStart: Election._keep_head_start,
        StepDown: Election._ignore,
        Resume: Election._resume,
        Release: Election._release,
        Stop: Election._stop,
    },
    Phase.STOPPED: {},
}
