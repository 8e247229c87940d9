"""Rules of several phases, which remember what they are told."""

from __future__ import annotations

import math
from dataclasses import replace

from kopf_ha.core.election.candidate import Candidate, Step
from kopf_ha.core.election.events import Event, HeadStart, HolderGone, RaiseFloor, Retire, State
from kopf_ha.core.orders import order


def ignore(me: Candidate, state: State, event: Event, now: float, wall: str) -> Step:
    """Do nothing."""
    return state, []


def keep_floor(me: Candidate, state: State, event: RaiseFloor, now: float, wall: str) -> Step:
    """Remember that every term that begins from now on needs a token above this one."""
    state = replace(state, floor=max(state.floor, event.floor))
    if state.attempt is not None and state.attempt.record.transitions <= event.floor:
        # If that PUT turns out to have been done, its token is too low now. Marked as too old, it begins no term.
        state = replace(state, attempt=replace(state.attempt, started=-math.inf))
    return state, []


def keep_gone(me: Candidate, state: State, event: HolderGone, now: float, wall: str) -> Step:
    """Remember that a holder is gone. If it is this process, the news is wrong, since this process lives."""
    if event.holder in ("", me.identity) or event.holder in state.gone:
        return state, []
    return replace(state, gone={**state.gone, event.holder: now}), []


def keep_head_start(me: Candidate, state: State, event: HeadStart, now: float, wall: str) -> Step:
    """Remember for how long a free Lease is left to better suited replicas."""
    return replace(state, head_start=max(0.0, event.seconds)), []


def obey(me: Candidate, state: State) -> Step:
    """Ask the run layer, once in a term, to end it by choice, if the Lease as seen orders that."""
    cause = order(state.seen, me.pod) if state.seen is not None and not state.retiring else None
    return (state, []) if cause is None else (replace(state, retiring=cause), [Retire(cause)])
