"""The Lease and the electors of one moment, and the one form of those that nobody can tell apart.

Each replica counts time in units: three for the lease duration, two for the renew deadline, one for the retry period,
and two for recovery where terms recover. Its state is moved so that it is now 0. Times that no rule can tell apart are
one: what was three units ago or more is "long ago". So clocks are regions: before the next renewal, until the renew
deadline, until the grant's deadline, after it, and the exact moments between them.

Versions of the Lease and the times written into it are only compared with each other. So they are numbered by their
order among all that somebody still knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from kopf_ha.core import grant as core
from kopf_ha.core.election import Phase, State, Timing
from kopf_ha.core.election import events as el
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.siblings import pod_of
from model.wire import holder, replica_of, stamp_of

#: What replicas are called in stories.
NAMES = ("A", "B", "C", "D")
#: Units of time: the lease duration, the renew deadline, the retry period.
DURATION, DEADLINE, RETRY = 3.0, 2.0, 1.0
TIMING = Timing(DURATION, DEADLINE, RETRY)
#: The same where a term may go on after its renew deadline.
RECOVERING = Timing(DURATION, DEADLINE, RETRY, 2.0)
#: A time that is so long ago that no rule asks for how long.
LONG_AGO = -DURATION
_WAITING = (Phase.ACQUIRING, Phase.RENEWING, Phase.REGAINING)
LEADING = (Phase.LEADING, Phase.RENEWING)
HOLDING = (Phase.RECOVERING, Phase.REGAINING)

#: How a grant's gate is.
OPEN, EXPIRED, CLOSED, HELD = 0, 1, 2, 3


class Lease(NamedTuple):
    """The Lease as etcd has it, or one revision that somebody writes."""

    version: int
    uid: int
    holder: int  #: a replica; -1 for nobody
    token: int
    duration: int | None
    acquired: int
    renewed: int
    paused: bool = False
    to: int = -1  #: to which replica the leader shall hand over; -1 for to none
    preferred: int = -1  #: to which replica it was handed over


class Grant(NamedTuple):
    """A grant that the election opened: the token, when it runs out, and whether it is closed, or held."""

    token: int
    deadline: float
    closed: bool = False
    held: bool = False

    @property
    def gate(self) -> int:
        """Whether a write may leave now: what the grant that ships says."""
        if self.closed or self.held:
            return CLOSED if self.closed else HELD
        return OPEN if _is_valid(self.deadline) else EXPIRED


@cache
def _is_valid(deadline: float) -> bool:
    return core.Grant(stamp_of((1, 0)), deadline).remaining(0.0) > 0


class Pending(NamedTuple):
    """The one request of an elector that is under way: a write, or a read if `lease` is None."""

    lease: Lease | None = None
    creates: bool = False
    answer: Any = None  #: the event that is its answer, if the API server has given it already


class Elector(NamedTuple):
    """One replica's part in the election."""

    state: State
    due: float = math.inf  #: when its timer fires
    grant: Grant | None = None
    pending: Pending | None = None
    queue: tuple[el.Event, ...] = ()  #: what waits until the request under way is answered


class Scene(NamedTuple):
    """The Lease, the electors, and the writes of the Lease that nobody waits for any more."""

    lease: Lease | None
    electors: tuple[Elector, ...]
    waiting: tuple[tuple[int, Lease], ...] = ()


def with_elector(scene: Scene, r: int, me: Elector) -> Scene:
    """Return the scene with another elector in the place of one."""
    electors = scene.electors
    return scene._replace(electors=(*electors[:r], me, *electors[r + 1 :]))


@cache
def record(lease: Lease) -> LeaseRecord:
    """Return a revision of the Lease as the core has it."""
    return LeaseRecord(
        holder=holder(lease.holder) if lease.holder >= 0 else "",
        transitions=lease.token,
        lease_duration=lease.duration,
        acquire_time=str(lease.acquired),
        renew_time=str(lease.renewed),
        resource_version=str(lease.version) if lease.version else "",
        uid=str(lease.uid) if lease.uid else "",
        paused="" if lease.paused else None,
        handover=_pod(lease.to),
        preferred=_pod(lease.preferred),
    )


def _pod(replica: int) -> str:
    return pod_of(holder(replica))[0] if replica >= 0 else ""


@cache
def lease_of(record: LeaseRecord) -> Lease:
    """Return a revision of the Lease as the model has it."""
    return Lease(
        int(record.resource_version or 0),
        int(record.uid or 0),
        replica_of(record.holder),
        record.transitions,
        record.lease_duration,
        int(record.acquire_time or 0),
        int(record.renew_time or 0),
        record.paused is not None,
        replica_of(record.handover),
        replica_of(record.preferred),
    )


def shifted(me: Elector, by: float, over: float = LONG_AGO) -> Elector:
    """Move an elector's clock so that the present is 0 again.

    Args:
        me: the elector.
        by: so many units.
        over: a time before which no rule asks when a term was renewed.
    """
    state = me.state
    sent = state.sent - by if state.phase in _WAITING else LONG_AGO
    attempt = state.attempt
    if attempt is not None:
        same = attempt.started == state.sent
        started = max(LONG_AGO, attempt.started - by)
        attempt = replace(attempt, started=started)
        sent = started if same and state.phase in _WAITING else sent
    leads = state.phase in LEADING + HOLDING
    not_before = state.not_before - by
    state = replace(
        state,
        changed=max(LONG_AGO, state.changed - by),
        sent=max(LONG_AGO, sent),
        attempt=attempt,
        renewed=max(over, state.renewed - by) if leads else LONG_AGO,
        beat=0.0 if leads else LONG_AGO,
        failure="failed" if state.failure and leads else "",
        not_before=not_before if not_before > 0 else LONG_AGO,
        reread=max(0.0, state.reread - by),
        conflicts=min(state.conflicts, 4),
        announced=("", 0),
        then=state.then if state.phase is Phase.RELEASING else Phase.STOPPED,
        resumed=LONG_AGO if leads else max(LONG_AGO, state.resumed - by),
        retiring="ordered" if state.retiring and leads else "",
    )
    grant = me.grant and me.grant._replace(deadline=0.0 if me.grant.closed else max(0.0, me.grant.deadline - by))
    return Elector(state, max(0.0, me.due - by), grant, me.pending, me.queue)


def timeless(me: Elector) -> Elector:
    """Forget the times of an elector that does not lead: with clocks apart, its timer may fire at any time."""
    state = me.state
    if state.phase in LEADING:
        return me._replace(state=replace(state, conflicts=0))
    if state.phase in HOLDING:
        # Its time is over when a move says so. What it has sent, it has sent just now.
        sent = 0.0 if state.phase is Phase.REGAINING else LONG_AGO
        state = replace(state, changed=LONG_AGO, renewed=LONG_AGO, sent=sent, failure="")
        grant = me.grant and me.grant._replace(deadline=0.0)
        return me._replace(state=replace(state, conflicts=min(state.conflicts, 2)), due=0.0, grant=grant)
    state = replace(
        state, changed=LONG_AGO, not_before=LONG_AGO, reread=math.inf, resumed=LONG_AGO,
        conflicts=state.conflicts if state.phase is Phase.RELEASING else 0,
    )  # fmt: skip
    grant = me.grant if state.phase in (Phase.LOST, Phase.RELEASING) else None
    return me._replace(state=state, due=0.0, grant=grant)


def leases(scene: Scene) -> Iterator[Lease]:
    """Yield each revision of the Lease that somebody still knows or writes."""
    if scene.lease is not None:
        yield scene.lease
    for me in scene.electors:
        if me.state.seen is not None:
            yield lease_of(me.state.seen)
        if me.state.attempt is not None:
            yield lease_of(me.state.attempt.record)
        if me.pending is not None and me.pending.lease is not None:
            yield me.pending.lease
        if isinstance(me.pending and me.pending.answer, el.Written):
            yield lease_of(me.pending.answer.record)  # type: ignore[union-attr]
    for _, lease in scene.waiting:
        yield lease


def newest(scene: Scene) -> int:
    """Return the highest version that somebody knows."""
    versions = [lease.version for lease in leases(scene)]
    return max([0, *versions, *(int(me.state.version or 0) for me in scene.electors)])


def highest(scene: Scene) -> int:
    """Return the highest token that the Lease has, or that somebody has asked for."""
    return max([*(lease.token for lease in leases(scene)), *(me.state.floor for me in scene.electors)])


def fresh(scene: Scene) -> int:
    """Return a time that nobody has written into the Lease."""
    return max((max(lease.acquired, lease.renewed) for lease in leases(scene)), default=0) + 1


def canonical(scene: Scene) -> Scene:
    """Return the same scene with its versions and written times numbered by their order."""
    found = list(leases(scene))
    versions = {lease.version for lease in found} | {int(me.state.version or 0) for me in scene.electors} - {0}
    order = {version: i for i, version in enumerate(sorted(versions | {0}))}
    uids = {uid: i for i, uid in enumerate(sorted({lease.uid for lease in found} | {0}))}
    times = {time: i for i, time in enumerate(sorted({t for lease in found for t in (lease.acquired, lease.renewed)}))}

    current = scene.lease.version if scene.lease is not None else 0
    if all(number == i for of in (order, uids, times) for number, i in of.items()) and all(
        lease.version >= current for _, lease in scene.waiting
    ):
        return scene

    def one(lease: Lease) -> Lease:
        moved = lease._replace(version=order[lease.version], uid=uids[lease.uid])
        return moved._replace(acquired=times[lease.acquired], renewed=times[lease.renewed])

    def kept(given: LeaseRecord | None) -> LeaseRecord | None:
        return record(one(lease_of(given))) if given is not None else None

    def mine(me: Elector) -> Elector:
        state = me.state
        version = str(order[int(state.version)]) if state.version else ""
        uid = str(uids.get(int(state.uid or 0), -1)) if state.uid else ""
        attempt = state.attempt
        if attempt is not None:
            attempt = replace(attempt, record=record(one(lease_of(attempt.record))))
        state = replace(state, seen=kept(state.seen), version=version, attempt=attempt, uid=uid)
        pending = me.pending
        if pending is not None and pending.lease is not None:
            pending = pending._replace(lease=one(pending.lease))
        if pending is not None and isinstance(pending.answer, el.Written):
            pending = pending._replace(answer=el.Written(kept(pending.answer.record)))  # type: ignore[arg-type]
        return me._replace(state=state, pending=pending)

    # What asks for an earlier revision of the Lease can never be stored.
    waiting = tuple(sorted((r, one(lease)) for r, lease in scene.waiting if lease.version >= current))
    lease = one(scene.lease) if scene.lease is not None else None
    return Scene(lease, tuple(map(mine, scene.electors)), waiting)


def key_of(scene: Scene) -> Any:
    """Return what tells scenes apart, as something that can be hashed."""
    return scene.lease, tuple((_state_key(me.state), *me[1:]) for me in scene.electors), scene.waiting


class Numbered:
    """Scenes by number, so that a state that has one is small. The same scene has the same number."""

    def __init__(self) -> None:
        self._scenes: list[Scene] = []
        self._numbers: dict[Any, int] = {}

    def __getitem__(self, number: int) -> Scene:
        return self._scenes[number]

    def number(self, scene: Scene) -> int:
        """Return a scene's number, a new one if it has none."""
        key = key_of(scene)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._scenes)
            self._scenes.append(scene)
        return number


def _state_key(state: State) -> Any:
    attempt = state.attempt and (lease_of(state.attempt.record), state.attempt.started)
    seen = lease_of(state.seen) if state.seen is not None else None
    return (
        state.phase, state.known, seen, state.version, state.changed, state.floor, attempt, state.sent, state.token,
        state.uid, state.renewed, state.raised, state.not_before, state.reread, state.conflicts, state.then,
        tuple(sorted(state.gone)), state.failure, state.resumed, state.retiring,
    )  # fmt: skip


def changes(before: Scene, after: Scene) -> list[str]:
    """Return in sentences what is different: whose terms begin and end, and what the Lease says."""
    said = []
    for name, old, new in zip(NAMES, before.electors, after.electors, strict=False):
        was = old.grant.gate if old.grant is not None else CLOSED
        now = new.grant.gate if new.grant is not None else CLOSED
        if new.grant is not None and now == OPEN and (was != OPEN or old.grant != new.grant._replace(deadline=0.0)):
            if old.grant is None or old.grant.token != new.grant.token:
                said.append(f"term {new.grant.token} of {name} begins")
            elif was == HELD:
                said.append(f"term {new.grant.token} of {name} goes on")
        elif old.grant is not None and was == OPEN and now != OPEN:
            said.append(f"term {old.grant.token} of {name} " + ("ends" if now == CLOSED else "may write no more"))
        elif old.grant is not None and was == HELD and now == CLOSED:
            said.append(f"term {old.grant.token} of {name} ends")
    one, other = before.lease, after.lease
    if other is None and one is not None:
        said.append("there is no Lease")
    elif other is not None and (one is None or (one.holder, one.token) != (other.holder, other.token)):
        who = NAMES[other.holder] if other.holder >= 0 else "nobody"
        said.append(f"the Lease names {who}, with number {other.token}" + (", and is paused" if other.paused else ""))
    return said
