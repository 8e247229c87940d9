"""What one candidate concludes from the Lease and from the clock, for the rules of all phases."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kopf_ha.core.election.events import (
    Action,
    LeaseSeen,
    LeaseUnusable,
    LegacySeen,
    LegacyWritten,
    NewLeader,
    Put,
    PutLegacy,
    Read,
    State,
    Tell,
    Timer,
    Warn,
)
from kopf_ha.core.election.legacy import Legacy
from kopf_ha.core.election.timing import Timing
from kopf_ha.core.lease import OPERATOR, LeaseRecord
from kopf_ha.core.orders import ANY, named, pause_of
from kopf_ha.core.revisions import newer

Step = tuple[State, list[Action]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One process that stands for election, and what it concludes from the Lease and from the clock.

    Args:
        identity: the holder identity, unique per process.
        lease: ``namespace/name`` of the Lease, for messages.
        timing: the durations.
        legacy: the lock that old replicas know; None if there are none.
        operator: the operator that this process belongs to, by the name of its workload; empty when that is unknown.
    """

    identity: str
    lease: str
    timing: Timing
    legacy: Legacy | None = None
    operator: str = ""

    @property
    def pod(self) -> str:
        """The name of this process's pod, with which its identity begins."""
        return self.identity.split("_")[0]

    # --- what the Lease says

    def note(self, state: State, record: LeaseRecord | None, version: str, now: float) -> Step:
        """Note the Lease as it was just seen.

        Only a change of its spec restarts the expiry. An edited label must not keep a dead leader alive.
        """
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
            resumed=now if is_paused(old) and not is_paused(record) else state.resumed,
        )
        told: list[Action] = [Tell(text) for text in self._told(old, record)]
        leader = (record.holder, record.transitions) if record and record.holder else None
        if leader is None or leader == state.announced:
            return state, told
        return replace(state, announced=leader), [NewLeader(*leader), *told]

    def _told(self, old: LeaseRecord | None, new: LeaseRecord | None) -> Iterator[str]:
        """Yield for people what was ordered since the Lease was last seen, once."""
        before, pause = pause_of(old), pause_of(new)
        if pause is not None and pause != before:
            yield f"Lease {self.lease} is {pause}"
        if before is not None and pause is None:
            yield f"Lease {self.lease} is no longer paused"
        if new is not None and new.handover and new.handover != (old.handover if old else ""):
            yield f"Lease {self.lease} is to be handed over to {named(new.handover)}"

    def went_back(self, state: State, event: LeaseSeen) -> str:
        """Return the cause if a GET showed an older revision than was seen before; then tokens may be lost (I2)."""
        seen, read = state.seen, event.record if event.read else None
        if seen is None or read is None or not newer(seen.resource_version, read.resource_version):
            return ""
        return f"Lease {self.lease} went back to an earlier revision; was etcd restored from a snapshot?"

    def lost_to(self, state: State) -> str:
        """Return why the Lease, as seen, no longer belongs to my term; empty if it does."""
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

    def holds(self, state: State) -> bool:
        """Return whether the Lease still shows my current or last term.

        Only this process ever wrote this token with my name into this Lease, so nobody else leads with it.
        """
        return state.known and state.token > 0 and not self.lost_to(state)

    def free_at(self, state: State) -> float:
        """Return when the Lease, as seen, is free for everybody; never while it is paused.

        Only times that this process saw count.

        If the holder is gone, nobody waits for it. If it still runs after all, its grant may be open, but its token is
        below the next one, so its writes are refused (I2, I3). The run layer decides whether that is enough.
        """
        seen = state.seen
        if is_paused(seen):
            return math.inf
        since = max(state.changed, state.resumed)
        if seen is None or not seen.holder:
            return since
        if seen.holder in state.gone:
            return max(since, state.gone[seen.holder])
        return max(state.changed + (seen.lease_duration or self.timing.lease_duration), state.resumed)

    def patience(self, state: State) -> float:
        """Return for how many seconds a free Lease is left to better suited replicas.

        After a handover the replica that was named waits for nobody, all others wait for it, and who handed over waits
        longest. All of it ends, so a replica that was named and is gone costs seconds.
        """
        seen = state.seen
        if seen is None or not seen.preferred:
            return state.head_start
        if seen.preferred == self.pod:
            return 0.0
        mine = (seen.uid, seen.transitions) == (state.uid, state.token)
        periods = (0 if seen.preferred == ANY else 1) + (2 if mine else 0)
        return state.head_start + periods * self.timing.retry_period

    def stranger(self, state: State) -> str:
        """Return why the Lease seems to be another operator's, in a sentence; empty if it does not."""
        seen = state.seen
        if seen is None or not self.operator or seen.operator in ("", self.operator):
            return ""
        return (
            f"Lease {self.lease} belongs to operator {seen.operator} ({OPERATOR}), this is {self.operator}. Two"
            " operators need two Leases: give this one another --lease-name. If it was renamed, it takes the Lease when"
            f" nobody has held it for {self.strangers_wait:g} s"
        )

    @property
    def strangers_wait(self) -> float:
        """Seconds for which another operator's free Lease is left to its own replicas, which may just be restarting."""
        return 4 * self.timing.lease_duration

    # --- what the legacy lock says

    def note_legacy(self, state: State, event: LegacySeen | LegacyWritten, now: float) -> Step:
        """Note the legacy lock as it was just seen."""
        legacy = self.legacy
        assert legacy is not None  # noqa: S101  without one there are no such events
        version = event.record.version if event.record else event.version if isinstance(event, LegacySeen) else ""
        view = legacy.note(state.legacy, event.record, version, now)
        actions: list[Action] = []
        if (unfit := legacy.unfit(view)) != legacy.unfit(state.legacy):
            actions.append(Warn(unfit))
        if (text := legacy.told(view, now)) != legacy.told(state.legacy, now):
            actions.append(Tell(text))
        return replace(state, legacy=view), actions

    def legacy_free_at(self, state: State, now: float) -> float:
        """Return when the legacy lock can be taken; infinite if that is unknown, -inf if there is none."""
        return -math.inf if self.legacy is None else self.legacy.free_at(state.legacy, now)

    def legacy_lost_to(self, state: State, now: float) -> str:
        """Return why the legacy lock no longer belongs to this Lease; empty if it does, or if there is none."""
        return "" if self.legacy is None else self.legacy.lost_to(state.legacy, now)

    def put(self, state: State, record: LeaseRecord, until: float, wall: str) -> Put | PutLegacy:
        """Return the first request of a write that makes or keeps me the leader: the legacy lock comes first."""
        if self.legacy is None:
            return Put(record, until)
        return PutLegacy(self.legacy.taken(state.legacy, wall), until)

    # --- what the clock says

    def overdue(self, state: State, now: float) -> str:
        """Return why the last renewal was too long ago; empty if it was not."""
        if now < state.renewed + self.timing.renew_deadline:
            return ""
        passed = now - state.renewed
        if state.failure:
            return f"not renewed for {passed:.1f} s: {state.failure}"
        return f"not renewed for {passed:.1f} s, and no attempt failed: the process or the machine was paused"

    def recovers_until(self, state: State) -> float:
        """Return until when a term that was not renewed may still go on; -inf if it may not.

        It counts from the last renewal and not from when the delay was noticed. So whoever slept for longer than that
        finds its term over.
        """
        timing = self.timing
        return state.renewed + timing.renew_deadline + timing.recovery if timing.recovery > 0 else -math.inf

    def renewal_timer(self, state: State) -> Timer:
        """Return the timer for the next renewal."""
        return Timer(state.renewed + self.timing.retry_period, self.timing.spread)

    def backoff(self, now: float) -> Timer:
        """Return the timer for the next attempt after a failure."""
        return Timer(now + self.timing.retry_period, self.timing.spread)

    def read(self, now: float) -> Read:
        """Return the action that reads the Lease."""
        return Read(now + self.timing.request_timeout)


def is_paused(record: LeaseRecord | None) -> bool:
    """Whether nobody may acquire the Lease as it is here."""
    return record is not None and record.paused is not None


def unseen(state: State, event: LeaseUnusable) -> State:
    """Forget the Lease, since its content is invalid."""
    return replace(state, known=False, seen=None, attempt=None, version=event.version or state.version)
