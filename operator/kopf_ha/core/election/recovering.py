"""The rules of a term whose Lease could not be renewed in time: RECOVERING and REGAINING.

The gate is held, so nothing of the term leaves. Kopf, its watches and memory stay. The term goes on, with its token,
if the Lease still belongs to it: then nobody acquired the Lease in between, because whoever does that changes holder
and token. Two requests say so, one after the other:

- A GET from the quorum shows my holder identity, my token and the uid that I acquired, at no earlier revision than the
  last one seen. A renewal whose answer was lost may have made a later revision.
- A PUT on the very resourceVersion that the GET showed is accepted. So nobody acquired the Lease between the two.

After the PUT, a follower waits for a lease duration from when it sees it. The grant counts from when the PUT was sent,
which is earlier. So no two grants are open at the same time. And all that earlier terms could write was stamped by this
term's barrier, so no second one is needed (I4): whatever was written since, this term wrote it, or no operator did.

The term ends for good when the Lease shows anything else, when it is paused (whoever paused it may have been told that
nobody leads, since the Lease had expired), when the recovery time is over, and for each cause that ends
a term whose gate is open. A term whose event loop gives no sign of life asks for nothing until it does.
"""

from __future__ import annotations

from dataclasses import replace

from kopf_ha.core.election import leading, memory
from kopf_ha.core.election.candidate import Candidate, Step
from kopf_ha.core.election.events import (
    Conflict,
    Failed,
    LeaseSeen,
    NotWritten,
    Phase,
    Put,
    Read,
    ReadFailed,
    Reopen,
    State,
    Tick,
    Timer,
    Warn,
    Written,
)
from kopf_ha.core.orders import pause_of


def hear(me: Candidate, state: State, event: LeaseSeen, now: float, wall: str) -> Step:
    """End the term if the Lease no longer belongs to it. Otherwise ask at once, since the API server answers again."""
    state, news = me.note(state, event.record, event.version, now)
    if cause := me.lost_to(state) or _paused(state):
        state, actions = leading.lose(me, state, cause)
    else:
        state, actions = _ask(me, state, now)
    return state, news + actions


def try_again(me: Candidate, state: State, event: Tick, now: float, wall: str) -> Step:
    """Ask whether the Lease still belongs to the term."""
    return _ask(me, replace(state, beat=max(state.beat, event.beat), conflicts=0), now)


def renew(me: Candidate, state: State, event: LeaseSeen, now: float, wall: str) -> Step:
    """PUT the Lease on the revision that was just read, if it still belongs to the term."""
    cause = me.went_back(state, event)
    state, news = me.note(state, event.record, event.version, now)
    if cause := cause or me.lost_to(state) or _paused(state) or _too_late(me, state, now):
        state, actions = leading.lose(me, state, cause)
    elif state.conflicts > 1:
        busy = "other clients edit the Lease all the time"
        state, actions = _wait(me, replace(state, failure=busy), now, me.timing.retry_period / 10)
    else:
        state = replace(state, sent=now)
        actions = [Put(leading.renewal(me, state, wall), _until(me, state, now))]
    return state, news + actions


def regained(me: Candidate, state: State, event: Written, now: float, wall: str) -> Step:
    """Open the gate again, with a deadline that counts from when the PUT was sent."""
    state = replace(state, conflicts=0, renewed=state.sent)
    state, news = me.note(state, event.record, event.record.resource_version, now)
    if cause := me.lost_to(state):
        state, actions = leading.lose(me, state, cause)
    elif me.overdue(state, now):
        # The process was paused before it got the answer, so it has to ask once more.
        state, actions = _ask(me, state, now)
    else:
        state, ordered = memory.obey(me, replace(state, phase=Phase.LEADING, failure=""))
        actions = [Reopen(state.renewed + me.timing.lease_duration), me.renewal_timer(state), *ordered]
    return state, news + actions


def read_again(me: Candidate, state: State, event: Conflict, now: float, wall: str) -> Step:
    """Read the Lease again after a conflict: it may be another's, or only a label was edited."""
    return _ask(me, replace(state, conflicts=state.conflicts + 1), now)


def not_regained(me: Candidate, state: State, event: Failed | NotWritten | ReadFailed, now: float, wall: str) -> Step:
    """Try again soon, unless the recovery time is over."""
    state = replace(state, failure=event.cause)
    if cause := _too_late(me, state, now):
        state, actions = leading.lose(me, state, cause)
    else:
        state, actions = _wait(me, state, now, me.timing.recovery_pause)
    return state, [Warn(event.cause), *actions]


def _ask(me: Candidate, state: State, now: float) -> Step:
    if cause := _too_late(me, state, now):
        return leading.lose(me, state, cause)
    if now - state.beat > me.timing.renew_deadline:
        # A machine that woke up gives one in a moment. An event loop that is blocked gives none until it is too late.
        return _wait(me, state, now, me.timing.recovery_pause)
    return replace(state, phase=Phase.REGAINING), [Read(_until(me, state, now))]


def _wait(me: Candidate, state: State, now: float, seconds: float) -> Step:
    return replace(state, phase=Phase.RECOVERING), [Timer(min(now + seconds, me.recovers_until(state)))]


def _paused(state: State) -> str:
    pause = pause_of(state.seen)
    return "" if pause is None else f"the Lease could not be renewed, and is {pause}"


def _too_late(me: Candidate, state: State, now: float) -> str:
    """Return why the term is over, once its recovery time is."""
    return me.overdue(state, now) if now >= me.recovers_until(state) else ""


def _until(me: Candidate, state: State, now: float) -> float:
    return min(now + me.timing.request_timeout, me.recovers_until(state))
