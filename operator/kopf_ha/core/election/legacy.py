"""What a candidate concludes from the lock of before (`--legacy-lock`), which it keeps beside the Lease.

While an operator moves to kopf-ha, three sorts of replicas may run: *old* ones, which know only their lock; *both*,
with ``--legacy-lock``, which need that lock and the Lease; and *new* ones, without the option, which know only the
Lease. Old and new ones never run together: the option is dropped in a rollout of its own, when no old replica is
left.

No two of them lead at once, by this argument:

- *New and both, or both and both*: the Lease decides, as it does without a legacy lock. So the legacy lock need not
  tell them apart. It is held by the Lease, whoever has that: each holder's name begins with the Lease's, and any
  sibling may write its own over it.
- *Old and both*: the legacy lock decides. A grant is opened or extended only after a write of the legacy lock and
  then one of the Lease were accepted, and it counts from before both were sent. The write is a compare-and-swap on a
  revision in which no old replica holds the lock, or has held it unchanged for its own duration, counted here from
  the last change that this process saw. An old replica counts from when it saw that write, for its own lease
  duration. So the grant ends first, if the old replicas' lease duration is not shorter than ours. If a record shows a
  shorter one, this process does not lead, and says why.
- *The legacy lock first, then the Lease*: so no Lease is held, and no token used up, by a replica that waits for an
  old one. A crash between the two leaves the legacy lock with the Lease's name. Siblings go on at once, old replicas
  when it expires.
- *The end*: if the legacy lock is taken, freed or deleted by anybody else, the term ends as if the Lease was lost. If
  it cannot be renewed, the Lease is not renewed either, and the term ends at the renew deadline. A release gives the
  Lease back first, then the legacy lock, unless a sibling has written it since.

Kopf's peering is weaker, since it is no lock: each peer writes a claim of its own, a peer of lower priority pauses
when its watch shows a higher one, and nobody learns that it has paused. So at first this process waits until no old
peer lives, of whatever priority. Then it writes a claim of the highest priority, with compare-and-swap, looks again
after a retry period, and leads. Old peers that come later pause. A successor need not wait for them if it replaces
the claim of a sibling: an old peer removes a dead claim before it goes on. Peers judge a claim by the wall clock. It
lasts three lease durations, and a sibling continues it within two, so clocks may differ by one. An old peer of the
same priority or a higher one ends the term.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kopf_ha.core.election.timing import Timing
from kopf_ha.core.legacy_lock import PRIORITY, Claim, LegacyLock, LegacyRecord

#: Lease durations for which our claim in a peering lasts, and within which a sibling continues it.
LASTS, CONTINUES = 3, 2


@dataclass(frozen=True, slots=True)
class LegacyView:
    """What this process saw of the lock. Times are seconds on this machine's boot-time clock.

    Args:
        known: whether it was looked at.
        record: its last revision; None if there is no object.
        version: the highest resourceVersion seen, to recognise late news from the watch.
        since: holder → when its claim was last seen to change.
        changed: when any claim was.
        ours: since when there has been a claim of this Lease, without a gap; infinite if there is none.
        shortest: the shortest duration that an old replica's claim had.
    """

    known: bool = False
    record: LegacyRecord | None = None
    version: str = ""
    since: Mapping[str, float] = field(default_factory=dict)
    changed: float = -math.inf
    ours: float = math.inf
    shortest: float = math.inf


@dataclass(frozen=True, slots=True)
class Legacy:
    """One candidate at the legacy lock.

    Args:
        lock: which one.
        lease: ``namespace/name`` of the Lease that holds it.
        identity: this process's.
        timing: the durations.
    """

    lock: LegacyLock
    lease: str
    identity: str
    timing: Timing

    @property
    def ours(self) -> str:
        """What the names of all holders of this Lease begin with."""
        return f"kopf-ha:{self.lease}:"

    @property
    def holder(self) -> str:
        """My name as a holder."""
        return self.ours + self.identity

    @property
    def lasts(self) -> float:
        """For how many seconds my claim holds."""
        return self.timing.lease_duration * (LASTS if self.lock.is_peering else 1)

    def note(self, view: LegacyView, record: LegacyRecord | None, version: str, now: float) -> LegacyView:
        """Note the lock as it was just seen. Only a change of a claim restarts its expiry."""
        before = {c.holder: c.content for c in view.record.claims} if view.record else {}
        claims = record.claims if record else ()
        since = {c.holder: view.since[c.holder] if before.get(c.holder) == c.content else now for c in claims}
        if not view.known:
            # Nobody knows how old a sibling's claim is at the first look. So no peer counts as paused because of it.
            since |= {c.holder: -math.inf for c in claims if c.holder.startswith(self.ours)}
        others = [c for c in claims if not c.holder.startswith(self.ours)]
        shortest = min([view.shortest, *(c.duration for c in others if c.duration and not self.lock.is_peering)])
        ours = math.inf
        if len(others) < len(claims):
            ours = min(view.ours, now) if self._is_kept(view, now) else now
        return LegacyView(
            known=True,
            record=record,
            version=version or view.version,
            since=since,
            changed=view.changed if view.known and before == {c.holder: c.content for c in claims} else now,
            ours=ours,
            shortest=shortest,
        )

    def unfit(self, view: LegacyView) -> str:
        """Return why the lock cannot be used, so that somebody has to do something; empty if it can."""
        if view.record is not None and view.record.unusable:
            return view.record.unusable
        if view.known and view.record is None and self.lock.is_peering:
            return f"there is no {self.lock}: name the peering of the old replicas, or drop --legacy-lock"
        if view.shortest < self.timing.lease_duration:
            return (
                f"{self.lock} was held for {view.shortest:g} s at a time: --lease-duration"
                f" ({self.timing.lease_duration:g} s) must not be longer than the old replicas' lease duration"
            )
        return ""

    def free_at(self, view: LegacyView, now: float) -> float:
        """Return when the lock, as seen, can be taken; infinite if that is unknown."""
        if not view.known or self.unfit(view):
            return math.inf
        return max([view.changed, *(self._until(view, c) for c in self.rivals(view, now))])

    def rivals(self, view: LegacyView, now: float) -> list[Claim]:
        """Return the claims of old replicas that count. In a peering that we hold, only a high priority does."""
        claims = view.record.claims if view.record else ()
        old = [c for c in claims if not c.holder.startswith(self.ours)]
        if self.lock.is_peering and self._is_kept(view, now):
            return [c for c in old if c.priority >= PRIORITY]
        return old

    def is_settled(self, view: LegacyView, now: float) -> bool:
        """Whether a term may begin after my write: in a peering, old peers first get the time to see it."""
        return not self.lock.is_peering or now >= view.ours + self.timing.retry_period

    def lost_to(self, view: LegacyView, now: float) -> str:
        """Return why the lock, as seen, is no longer ours; empty if it is."""
        if view.record is None:
            return f"{self.lock} was deleted"
        if view.record.unusable:
            return view.record.unusable
        ours = any(c.holder.startswith(self.ours) for c in view.record.claims)
        rivals = (
            [c for c in self.rivals(view, now) if now < self._until(view, c)] if self.lock.is_peering and ours else []
        )
        if ours and not rivals:
            return ""
        others = [c.holder for c in rivals or view.record.claims]
        return f"{self.lock} is held by {' and '.join(others) or 'nobody'}"

    def taken(self, view: LegacyView, wall: str) -> dict[str, Any]:
        """Return the object to write so that this process holds the lock."""
        return self.lock.taken(view.record, self.holder, self.ours, self.lasts, wall)

    def given_back(self, view: LegacyView, wall: str) -> dict[str, Any] | None:
        """Return the object to write so that the lock is free; None if I do not hold it, or a sibling does by now."""
        if view.record is None or view.record.unusable or view.record.claim_of(self.holder) is None:
            return None
        return self.lock.given_back(view.record, self.holder, wall)

    def was_stored(self, record: LegacyRecord) -> bool:
        """Whether the answer to my write shows me as the holder."""
        return record.claim_of(self.holder) is not None

    def told(self, view: LegacyView, now: float) -> str:
        """Return for people which old replicas the lock names."""
        claims = view.record.claims if view.record else ()
        old = " and ".join(sorted(c.holder for c in claims if not c.holder.startswith(self.ours)))
        if not old:
            return f"{self.lock} is held by no old replica"
        return f"{self.lock} is held by {old}, which is waited for" if self.rivals(view, now) else f"{old} pauses"

    def _until(self, view: LegacyView, claim: Claim) -> float:
        lasts = self.timing.lease_duration if claim.duration is None else claim.duration
        return view.since[claim.holder] + lasts

    def _is_kept(self, view: LegacyView, now: float) -> bool:
        """Whether a sibling's or my own claim was there until a moment ago, so that old peers still pause."""
        claims = [c for c in (view.record.claims if view.record else ()) if c.holder.startswith(self.ours)]
        return any(
            now < view.since[c.holder] + self.timing.lease_duration * CONTINUES
            for c in claims
            if not self.lock.is_peering or (c.priority == PRIORITY and c.duration == self.lasts)
        )
