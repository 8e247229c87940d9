"""The election that ships, on a Lease of the model: both electors' states, their requests, and their clocks.

`Election.step` takes the time as an argument. Here each replica counts in units, three for the lease duration, two for
the renew deadline, one for the retry period, and each state is moved so that it is now 0. Times that no rule can tell
apart become one: what was three units ago or more is "long ago". So clocks are regions: before the next renewal, until
the renew deadline, until the grant's deadline, after it, and the exact moments between them.

Clocks are shared or apart. Shared, they run at one rate, and followers wait until the Lease expires (`Electing.tick`).
Apart, each replica's clock may be anywhere: a follower may find the Lease expired, or its holder gone, at any time. That
includes everything that fast failover, a paused process, and a clock that is wrong can do.

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
from kopf_ha.core.election import Election, Phase, State, Timing
from kopf_ha.core.election import events as el
from kopf_ha.core.lease import LeaseRecord
from model.wire import LEASE, holder, replica_of, stamp_of

#: Units of time: the lease duration, the renew deadline, the retry period.
DURATION, DEADLINE, RETRY = 3.0, 2.0, 1.0
TIMING = Timing(DURATION, DEADLINE, RETRY)
#: A time that is so long ago that no rule asks for how long.
LONG_AGO = -DURATION
_WAITING = (Phase.ACQUIRING, Phase.RENEWING)
_LEADING = (Phase.LEADING, Phase.RENEWING)

#: How a grant's gate is.
OPEN, EXPIRED, CLOSED = 0, 1, 2


class Lease(NamedTuple):
    """The Lease as etcd has it, or one revision that somebody writes."""

    version: int
    uid: int
    holder: int  #: a replica; -1 for nobody
    token: int
    duration: int | None
    acquired: int
    renewed: int


class Grant(NamedTuple):
    """A grant that the election opened: the token, when it runs out, and whether it is closed."""

    token: int
    deadline: float
    closed: bool = False

    @property
    def gate(self) -> int:
        """Whether a write may leave now: what the grant that ships says."""
        return CLOSED if self.closed else OPEN if _is_valid(self.deadline) else EXPIRED


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


Move = tuple[str, Scene]


class Electing:
    """The moves of an election.

    Args:
        replicas: how many there are.
        tokens: the highest token; no elector asks for a higher one. That is the bound.
        shared: whether all clocks run at one rate; otherwise they are apart.
        renewals: whether the leader renews.
        asleep: whether all but the first replica start at some later time.
        off: defences that are switched off.
    """

    def __init__(
        self,
        replicas: int,
        tokens: int,
        *,
        shared: bool,
        renewals: bool,
        asleep: bool = False,
        off: frozenset[str] = frozenset(),
    ) -> None:
        self.replicas, self.tokens, self.shared, self.renewals = replicas, tokens, shared, renewals
        self.asleep, self.off = asleep, off
        self._rules = [Election(holder(r), LEASE, TIMING) for r in range(replicas)]

    def begin(self) -> Scene:
        """Return the beginning: there is no Lease, and nobody has looked."""
        return Scene(None, tuple(Elector(State()) for _ in range(self.replicas)))

    # --- steps of one elector

    def step(self, scene: Scene, r: int, event: el.Event, now: float = 0.0) -> Scene | None:
        """Let an elector take one event in; None if it would ask for a token above the bound."""
        me = scene.electors[r]
        state, actions = self._rules[r].step(me.state, event, now, str(_fresh(scene)))
        if "rising" in self.off and state.phase is Phase.ACQUIRING and state.seen is not None:
            state, actions = _unraised(state, actions)
        due, grant, pending = me.due, me.grant, None
        for action in actions:
            match action:
                case el.Put(record):
                    lease = _lease(record)
                    if state.phase is Phase.ACQUIRING and lease.token > self.tokens:
                        return None
                    pending = Pending(lease, creates=not record.resource_version)
                case el.Read():
                    pending = Pending()
                case el.Timer(at):
                    due = at
                case el.Open(token, deadline):
                    grant = Grant(token, self._deadline(deadline, now))
                case el.Extend(deadline) if grant is not None:
                    grant = grant._replace(deadline=max(grant.deadline, self._deadline(deadline, now)))
                case el.Close() if grant is not None and not ("drain" in self.off and isinstance(event, el.Release)):
                    grant = grant._replace(closed=True)
        moved = _shifted(Elector(state, due, grant, pending, me.queue), now)
        return _with(scene, r, moved if self.shared else _timeless(moved))

    def _deadline(self, deadline: float, now: float) -> float:
        """Return when a grant runs out; without one of the defences it is another time."""
        deadline = now + DURATION if "sending" in self.off else deadline
        return math.nextafter(deadline, math.inf) if "moment" in self.off else deadline

    def tell(self, scene: Scene, r: int, event: el.Event) -> Scene:
        """Put an event into an elector's queue; it is taken at once if no request is under way."""
        me = scene.electors[r]
        if isinstance(event, el.StepDown) and me.grant is not None:
            me = me._replace(grant=me.grant._replace(closed=True))
        return self.quiet(_with(scene, r, me._replace(queue=(*me.queue, event))))

    # --- moves

    def moves(self, scene: Scene) -> Iterator[tuple[str, int, Scene | None]]:
        """Yield what can happen in the election: what it is, how many faults it takes, and what comes of it.

        None comes of what the bound cuts off.
        """
        of = self._moves_at_one_rate if self.shared else self._moves_apart
        for r in range(self.replicas):
            for what, cost, after in of(scene, r, scene.electors[r]):
                yield f"{NAMES[r]}{what}", cost, after and self.quiet(after)
        for i, (r, lease) in enumerate(scene.waiting):
            rest = (*scene.waiting[:i], *scene.waiting[i + 1 :])
            stored, _ = _write(scene._replace(waiting=rest), lease, creates=not lease.version)
            yield f"the network delivers {NAMES[r]}'s late write of the Lease", 0, self.quiet(stored)
        if self.shared:
            yield "a unit of time passes", 0, self.quiet(self.tick(scene))

    def _moves_at_one_rate(self, scene: Scene, r: int, me: Elector) -> Iterator[tuple[str, int, Scene | None]]:
        if me.pending is not None:
            yield from self._answers(scene, r, me, me.pending)
            return
        if (news := _news(scene.lease, me.state)) is not None and me.state.phase is not Phase.STOPPED:
            yield " hears of the Lease", 0, self.step(scene, r, news)
        if me.due <= 0:
            yield "'s timer fires", 0, self.step(scene, r, el.Tick(0.0))

    def _moves_apart(self, scene: Scene, r: int, me: Elector) -> Iterator[tuple[str, int, Scene | None]]:
        if me.pending is not None:
            yield from self._answers(scene, r, me, me.pending)
        elif not me.state.known:
            if self.asleep and (news := _news(scene.lease, me.state)) is not None:
                yield " starts", 0, self.step(scene, r, news)
        elif me.state.phase is Phase.FOLLOWING:
            yield "'s timer fires", 0, self.step(scene, r, el.Tick(), 0.0 if me.due == math.inf else me.due)
        elif me.state.phase is Phase.LEADING:
            if (news := _news(scene.lease, me.state)) is not None:
                yield " hears of the Lease", 0, self.step(scene, r, news)
            if self.renewals or me.due <= 0:
                yield "'s timer fires", 0, self.step(scene, r, el.Tick(me.due), me.due)
        if me.grant is not None and me.grant.gate == OPEN:
            yield "'s grant runs out", 0, _with(scene, r, _shifted(me, me.grant.deadline))

    def _answers(self, scene: Scene, r: int, me: Elector, pending: Pending) -> Iterator[tuple[str, int, Scene | None]]:
        ready = _with(scene, r, me._replace(pending=None))
        if pending.answer is not None:
            yield "'s answer about the Lease comes", 0, self.step(ready, r, pending.answer)
            return
        if pending.lease is None:
            yield " reads the Lease", 0, self.step(ready, r, _read(scene.lease))
            yield "'s read of the Lease fails", 1, self.step(ready, r, el.ReadFailed("no answer"))
            return
        stored, answer = _write(scene, pending.lease, creates=pending.creates)
        done = _with(stored, r, me._replace(pending=None))
        yield "'s write of the Lease is answered", 0, self.step(done, r, answer)
        lost = el.Failed("no answer")
        if isinstance(answer, el.Written):
            if self.shared:
                held = me._replace(pending=pending._replace(answer=answer))
                yield "'s write of the Lease is stored, and its answer is late", 1, _with(stored, r, held)
            yield "'s write of the Lease is stored, and its answer is lost", 1, self.step(done, r, lost)
        late = ready._replace(waiting=tuple(sorted((*scene.waiting, (r, pending.lease)))))
        yield "'s write of the Lease gets no answer, and waits in the network", 1, self.step(late, r, lost)

    def tick(self, scene: Scene) -> Scene:
        """Let a unit of time pass for everybody."""
        return scene._replace(electors=tuple(_shifted(one, 1.0) for one in scene.electors))

    def quiet(self, scene: Scene) -> Scene:
        """Let everybody do what nobody else can notice, and number the versions anew.

        With clocks apart that is sound for these steps, so the explorer need not try them in every order:

        - what is in an elector's own queue;
        - a write of the Lease whose precondition is gone: its answer is a conflict, whenever it comes;
        - a read after that: what it would have shown later, the watch shows later;
        - news of the Lease for whoever does not lead: it changes what that replica knows, and at most sends a write
          that is conditioned on the revision just seen. Heard later, it would send the same write later.

        A leader's news wait: it may be the last to know.
        """
        changed = True
        while changed:
            changed = False
            for r in range(self.replicas):
                after = self._settled(scene, r) if not self.shared else self._queue(scene, r)
                if after is not None and after is not scene:
                    scene, changed = canonical(after), True
        return canonical(scene)

    def _queue(self, scene: Scene, r: int) -> Scene | None:
        me = scene.electors[r]
        if me.pending is not None or not me.queue:
            return None
        event, *rest = me.queue
        scene = _with(scene, r, me._replace(queue=tuple(rest)))
        if type(event) is el.Resume and me.state.phase is not Phase.LOST:
            return scene
        return self.step(scene, r, event)

    def _settled(self, scene: Scene, r: int) -> Scene | None:
        if (after := self._queue(scene, r)) is not None:
            return after
        me = scene.electors[r]
        ready = _with(scene, r, me._replace(pending=None))
        if me.pending is not None and me.pending.lease is None:
            return self.step(ready, r, _read(scene.lease))
        if me.pending is not None and me.pending.lease is not None:
            _, answer = _write(scene, me.pending.lease, creates=me.pending.creates)
            return self.step(ready, r, answer) if isinstance(answer, el.Conflict) else None
        news = _news(scene.lease, me.state)
        if me.state.phase in (Phase.FOLLOWING, Phase.LOST) and news is not None and not me.queue:
            # Which replica is the first one has no meaning, so the first one makes the Lease.
            waits = r > 0 and not me.state.known and (self.asleep or scene.lease is None)
            return None if waits else self.step(scene, r, news)
        return None


NAMES = ("A", "B", "C", "D")


def _unraised(state: State, actions: list[el.Action]) -> tuple[State, list[el.Action]]:
    """Return an acquisition that leaves the Lease's number as it is."""
    attempt, seen = state.attempt, state.seen
    assert attempt is not None  # noqa: S101  it goes with the phase
    assert seen is not None  # noqa: S101  the caller has looked
    attempt = replace(attempt, record=attempt.record.changed(transitions=max(1, seen.transitions)))
    puts = [replace(one, record=attempt.record) if isinstance(one, el.Put) else one for one in actions]
    return replace(state, attempt=attempt), puts


def _with(scene: Scene, r: int, me: Elector) -> Scene:
    electors = scene.electors
    return scene._replace(electors=(*electors[:r], me, *electors[r + 1 :]))


# --- the Lease at the API server


def _write(scene: Scene, lease: Lease, *, creates: bool) -> tuple[Scene, el.Event]:
    """Store a write of the Lease if its precondition holds; the policies' rules never apply to what an elector sends."""
    old = scene.lease
    if creates:
        if old is not None:
            return scene, el.Conflict()
        stored = lease._replace(version=_newest(scene) + 1, uid=_newest(scene) + 1)
    else:
        if old is None or (old.version, old.uid) != (lease.version, lease.uid):
            return scene, el.Conflict()
        stored = lease._replace(version=_newest(scene) + 1)
    return scene._replace(lease=stored), el.Written(record(stored))


def _read(lease: Lease | None) -> el.LeaseSeen:
    return el.LeaseSeen(record(lease), str(lease.version), read=True) if lease else el.LeaseSeen(None, "", read=True)


def _news(lease: Lease | None, state: State) -> el.LeaseSeen | None:
    """Return the news that the watch has for an elector; None if it has none."""
    if lease is None:
        return None if state.known and state.seen is None else el.LeaseSeen(None, str(int(state.version or 0) + 1))
    if state.known and state.version and int(state.version) >= lease.version:
        return None
    return el.LeaseSeen(record(lease), str(lease.version))


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
    )


def _lease(record: LeaseRecord) -> Lease:
    return Lease(
        int(record.resource_version or 0),
        int(record.uid or 0),
        replica_of(record.holder),
        record.transitions,
        record.lease_duration,
        int(record.acquire_time or 0),
        int(record.renew_time or 0),
    )


# --- one form for states that nobody can tell apart


def _shifted(me: Elector, by: float) -> Elector:
    """Move an elector's clock so that the present is 0 again."""
    state = me.state
    sent = state.sent - by if state.phase in _WAITING else LONG_AGO
    attempt = state.attempt
    if attempt is not None:
        same = attempt.started == state.sent
        started = max(LONG_AGO, attempt.started - by)
        attempt = replace(attempt, started=started)
        sent = started if same and state.phase in _WAITING else sent
    leads = state.phase in _LEADING
    not_before = state.not_before - by
    state = replace(
        state,
        changed=max(LONG_AGO, state.changed - by),
        sent=max(LONG_AGO, sent),
        attempt=attempt,
        renewed=max(LONG_AGO, state.renewed - by) if leads else LONG_AGO,
        beat=0.0 if leads else LONG_AGO,
        failure="failed" if state.failure and leads else "",
        not_before=not_before if not_before > 0 else LONG_AGO,
        reread=max(0.0, state.reread - by),
        conflicts=min(state.conflicts, 4),
        announced=("", 0),
        then=state.then if state.phase is Phase.RELEASING else Phase.STOPPED,
    )
    grant = me.grant and me.grant._replace(deadline=0.0 if me.grant.closed else max(0.0, me.grant.deadline - by))
    return Elector(state, max(0.0, me.due - by), grant, me.pending, me.queue)


def _timeless(me: Elector) -> Elector:
    """Forget the times of an elector that does not lead: with clocks apart, its timer may fire at any time."""
    state = me.state
    if state.phase in _LEADING:
        return me._replace(state=replace(state, conflicts=0))
    state = replace(
        state, changed=LONG_AGO, not_before=LONG_AGO, reread=math.inf,
        conflicts=state.conflicts if state.phase is Phase.RELEASING else 0,
    )  # fmt: skip
    grant = me.grant if state.phase in (Phase.LOST, Phase.RELEASING) else None
    return me._replace(state=state, due=0.0, grant=grant)


def _leases(scene: Scene) -> Iterator[Lease]:
    if scene.lease is not None:
        yield scene.lease
    for me in scene.electors:
        if me.state.seen is not None:
            yield _lease(me.state.seen)
        if me.state.attempt is not None:
            yield _lease(me.state.attempt.record)
        if me.pending is not None and me.pending.lease is not None:
            yield me.pending.lease
        if isinstance(me.pending and me.pending.answer, el.Written):
            yield _lease(me.pending.answer.record)  # type: ignore[union-attr]
    for _, lease in scene.waiting:
        yield lease


def _newest(scene: Scene) -> int:
    versions = [lease.version for lease in _leases(scene)]
    return max([0, *versions, *(int(me.state.version or 0) for me in scene.electors)])


def highest(scene: Scene) -> int:
    """Return the highest token that the Lease has, or that somebody has asked for."""
    return max([*(lease.token for lease in _leases(scene)), *(me.state.floor for me in scene.electors)])


def _fresh(scene: Scene) -> int:
    """Return a time that nobody has written into the Lease."""
    return max((max(lease.acquired, lease.renewed) for lease in _leases(scene)), default=0) + 1


def canonical(scene: Scene) -> Scene:
    """Return the same scene with its versions and written times numbered by their order."""
    found = list(_leases(scene))
    versions = {lease.version for lease in found} | {int(me.state.version or 0) for me in scene.electors} - {0}
    order = {version: i for i, version in enumerate(sorted(versions | {0}))}
    uids = {uid: i for i, uid in enumerate(sorted({lease.uid for lease in found} | {0}))}
    times = {time: i for i, time in enumerate(sorted({t for lease in found for t in (lease.acquired, lease.renewed)}))}

    def one(lease: Lease) -> Lease:
        moved = lease._replace(version=order[lease.version], uid=uids[lease.uid])
        return moved._replace(acquired=times[lease.acquired], renewed=times[lease.renewed])

    def kept(given: LeaseRecord | None) -> LeaseRecord | None:
        return record(one(_lease(given))) if given is not None else None

    def mine(me: Elector) -> Elector:
        state = me.state
        version = str(order[int(state.version)]) if state.version else ""
        uid = str(uids.get(int(state.uid or 0), -1)) if state.uid else ""
        attempt = state.attempt and replace(state.attempt, record=kept(state.attempt.record))
        state = replace(state, seen=kept(state.seen), version=version, attempt=attempt, uid=uid)
        pending = me.pending
        if pending is not None and pending.lease is not None:
            pending = pending._replace(lease=one(pending.lease))
        if pending is not None and isinstance(pending.answer, el.Written):
            pending = pending._replace(answer=el.Written(kept(pending.answer.record)))  # type: ignore[arg-type]
        return me._replace(state=state, pending=pending)

    current = scene.lease.version if scene.lease is not None else 0
    # What asks for an earlier revision of the Lease can never be stored.
    waiting = tuple(sorted((r, one(lease)) for r, lease in scene.waiting if lease.version >= current))
    lease = one(scene.lease) if scene.lease is not None else None
    return Scene(lease, tuple(map(mine, scene.electors)), waiting)


def key_of(scene: Scene) -> Any:
    """Return what tells scenes apart, as something that can be hashed."""
    return scene.lease, tuple((_state_key(me.state), *me[1:]) for me in scene.electors), scene.waiting


def _state_key(state: State) -> Any:
    attempt = state.attempt and (_lease(state.attempt.record), state.attempt.started)
    seen = _lease(state.seen) if state.seen is not None else None
    return (
        state.phase, state.known, seen, state.version, state.changed, state.floor, attempt, state.sent, state.token,
        state.uid, state.renewed, state.raised, state.not_before, state.reread, state.conflicts, state.then,
        tuple(sorted(state.gone)), state.failure,
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
        elif old.grant is not None and was == OPEN and now != OPEN:
            said.append(f"term {old.grant.token} of {name} " + ("ends" if now == CLOSED else "may write no more"))
    one, other = before.lease, after.lease
    if other is None and one is not None:
        said.append("there is no Lease")
    elif other is not None and (one is None or (one.holder, one.token) != (other.holder, other.token)):
        who = NAMES[other.holder] if other.holder >= 0 else "nobody"
        said.append(f"the Lease names {who}, with number {other.token}")
    return said
