"""The election's table: which rule handles which event in which phase.

`Election.step` looks the rule up in `RULES` and calls it. An event that cannot come in a phase has no entry there.
Nothing here reads a clock, waits, or sends a request.

While nobody deletes or edits the Lease and all clocks run at the same rate, no two grants are open and unexpired at
the same time; a held grant is not open. A wrong `HolderGone` breaks that. I2 and I3 hold even then, since they rest on
the tokens: whatever happens to the Lease, `following.acquire` takes a token above all that this process saw in it or
was told of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kopf_ha.core.election import following, leading, leaving, memory, recovering
from kopf_ha.core.election.candidate import Candidate, Step
from kopf_ha.core.election.events import (
    Close,
    Conflict,
    Event,
    Failed,
    HeadStart,
    Hold,
    HolderGone,
    LeaseSeen,
    LeaseUnusable,
    LegacyFailed,
    LegacySeen,
    LegacyWritten,
    NotWritten,
    Phase,
    RaiseFloor,
    ReadFailed,
    Release,
    Resume,
    State,
    StepDown,
    Stop,
    Tick,
    Written,
)
from kopf_ha.core.election.legacy import Legacy
from kopf_ha.core.election.timing import Timing
from kopf_ha.core.legacy_lock import LegacyLock
from kopf_ha.core.revisions import newer
from kopf_ha.errors import KopfHAError


class IllegalMove(KopfHAError):
    """An event that cannot come in this phase; nothing has changed."""


class Election:
    """The election as one process sees it. It keeps no state between two steps.

    Args:
        identity: the holder identity, unique per process.
        lease: ``namespace/name`` of the Lease, for messages.
        timing: the durations.
        legacy: the lock that old replicas know (`legacy`); None if there are none.
        operator: the operator that the process belongs to; empty when that is unknown.
    """

    def __init__(
        self, identity: str, lease: str, timing: Timing, legacy: LegacyLock | None = None, operator: str = ""
    ) -> None:
        held = Legacy(legacy, lease, identity, timing) if legacy else None
        self._me = Candidate(identity, lease, timing, held, operator)

    def step(self, state: State, event: Event, now: float, wall: str = "") -> Step:
        """Handle one event.

        Args:
            state: is not changed.
            event: what happened.
            now: seconds on this machine's boot-time clock, taken just before.
            wall: the wall-clock time as MicroTime. It is written into the Lease for people, and nothing is timed by it.

        Returns:
            The next state, and the actions in order: a `Close` or `Hold` always comes first, a request last.

        Raises:
            IllegalMove: the event cannot come in this phase.
        """
        rule = RULES[state.phase].get(type(event))
        if rule is None:
            raise IllegalMove(f"{type(event).__name__} cannot come while {state.phase.value}")
        if isinstance(event, LeaseSeen | LeaseUnusable) and not event.read and not newer(event.version, state.version):
            # Late news from the watch. Taken for new, the Lease from before my own PUT would end my term.
            return state, []
        if isinstance(event, LegacySeen) and not event.read and not newer(event.version, state.legacy.version):
            return state, []
        state, actions = rule(self._me, state, event, now, wall)
        # The sort is stable, so what shuts no gate keeps its order.
        return state, sorted(actions, key=lambda action: not isinstance(action, Close | Hold))

    def vacant_since(self, state: State, now: float) -> float | None:
        """Return since when the Lease, as seen, has been free for everybody; None while it is not.

        It is also None while the Lease still shows the last term of this process, since its next term is no takeover.
        """
        if not state.known or self._me.holds(state):
            return None
        since = max(self._me.free_at(state), self._me.legacy_free_at(state, now))
        return since if now >= since else None


#: A rule handles the event of its entry: ``rule(me, state, event, now, wall)``.
Rule = Callable[[Candidate, State, Any, float, str], Step]

#: phase → event → rule. What has no entry here cannot come: a request blocks the driver until its answer, so that a
#: `Tick` or news from the watch wait while one is under way.
RULES: Mapping[Phase, Mapping[type[Event], Rule]] = {
    Phase.FOLLOWING: {
        LeaseSeen: following.look,
        LeaseUnusable: following.await_repair,
        ReadFailed: following.read_later,
        LegacySeen: following.look_at_legacy,
        Tick: following.read_or_acquire,
        RaiseFloor: memory.keep_floor,
        HolderGone: following.take_over,
        HeadStart: following.wait_or_acquire,
        StepDown: memory.ignore,
        Release: leaving.release,
        Stop: leaving.stop,
    },
    Phase.ACQUIRING: {
        Written: following.acquired,
        Conflict: following.overtaken,
        Failed: following.maybe_acquired,
        NotWritten: following.not_acquired,
        LegacyWritten: following.put_lease,
        LegacySeen: following.overtaken_at_legacy,
        LegacyFailed: following.not_acquired,
    },
    Phase.LEADING: {
        LeaseSeen: leading.check,
        LeaseUnusable: leading.lose_sight,
        LegacySeen: leading.check_legacy,
        Tick: leading.renew,
        RaiseFloor: leading.check_floor,
        HolderGone: memory.keep_gone,  # about an earlier holder, or wrong
        HeadStart: memory.keep_head_start,
        StepDown: leading.step_down,
        Release: leading.close_and_release,
        Stop: leading.close_and_stop,
    },
    Phase.RENEWING: {
        Written: leading.renewed,
        Conflict: leading.read_before_renewing,
        Failed: leading.not_renewed,
        NotWritten: leading.not_renewed,
        LeaseSeen: leading.renew_again,
        LeaseUnusable: leading.lose_sight,
        ReadFailed: leading.not_renewed,
        LegacyWritten: leading.put_lease,
        LegacySeen: leading.renew_legacy_again,
        LegacyFailed: leading.not_renewed,
    },
    # Without a legacy lock, since a term with one does not recover (`Settings.timing`).
    Phase.RECOVERING: {
        LeaseSeen: recovering.hear,
        LeaseUnusable: leading.lose_sight,
        Tick: recovering.try_again,
        RaiseFloor: leading.check_floor,
        HolderGone: memory.keep_gone,
        HeadStart: memory.keep_head_start,
        StepDown: leading.step_down,
        Release: leading.close_and_release,
        Stop: leading.close_and_stop,
    },
    Phase.REGAINING: {
        Written: recovering.regained,
        Conflict: recovering.read_again,
        Failed: recovering.not_regained,
        NotWritten: recovering.not_regained,
        LeaseSeen: recovering.renew,
        LeaseUnusable: leading.lose_sight,
        ReadFailed: recovering.not_regained,
    },
    Phase.RELEASING: {
        Written: leaving.released,
        Conflict: leaving.read_before_releasing,
        Failed: leaving.not_released,
        NotWritten: leaving.not_released,
        LeaseSeen: leaving.release_again,
        LeaseUnusable: leaving.release_unseen,
        ReadFailed: leaving.not_released,
        LegacyWritten: leaving.legacy_released,
        LegacySeen: leaving.release_legacy_again,
        LegacyFailed: leaving.not_released,
    },
    Phase.LOST: {
        LeaseSeen: leaving.watch_only,
        LeaseUnusable: following.await_repair,
        LegacySeen: leaving.watch_legacy_only,
        Tick: memory.ignore,
        RaiseFloor: memory.keep_floor,
        HolderGone: memory.keep_gone,
        HeadStart: memory.keep_head_start,
        StepDown: memory.ignore,
        Resume: leaving.resume,
        Release: leaving.release,
        Stop: leaving.stop,
    },
    Phase.STOPPED: {},
}
