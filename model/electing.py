"""The election that ships, on a Lease of the model: what each elector does, and what becomes of its requests.

Clocks are shared or apart. Shared, they run at one rate, and followers wait until the Lease expires (`Electing.tick`).
Apart, each replica's clock may be anywhere: a follower may find the Lease expired, or its holder gone, at any time.
That includes everything that fast failover, a paused process, and a clock that is wrong can do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from kopf_ha.core.election import Election, Phase, State
from kopf_ha.core.election import events as el
from model.scene import (
    DEADLINE,
    DURATION,
    LEADING,
    LONG_AGO,
    NAMES,
    OPEN,
    RECOVERING,
    TIMING,
    Elector,
    Grant,
    Lease,
    Pending,
    Scene,
    canonical,
    fresh,
    lease_of,
    newest,
    record,
    shifted,
    timeless,
    with_elector,
)
from model.wire import LEASE, holder

#: Events by which a term ends after its handlers were drained.
_BY_CHOICE = (el.Release, el.StepDown)


class Electing:
    """The moves of an election.

    Args:
        replicas: how many there are.
        tokens: the highest token; no elector asks for a higher one. That is the bound.
        shared: whether all clocks run at one rate; otherwise they are apart.
        renewals: whether the leader renews.
        asleep: whether all but the first replica start at some later time.
        recovers: whether a term may go on after its renew deadline.
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
        recovers: bool = False,
        off: frozenset[str] = frozenset(),
    ) -> None:
        self.replicas, self.tokens, self.shared, self.renewals = replicas, tokens, shared, renewals
        self.asleep, self.off = asleep, off
        self.timing = RECOVERING if recovers else TIMING
        self._rules = [Election(holder(r), LEASE, self.timing) for r in range(replicas)]
        #: before that, no rule asks when a term was renewed
        self._over = min(LONG_AGO, -DEADLINE - self.timing.recovery)

    def begin(self) -> Scene:
        """Return the beginning: there is no Lease, and nobody has looked."""
        return Scene(None, tuple(Elector(State()) for _ in range(self.replicas)))

    # --- steps of one elector

    def step(self, scene: Scene, r: int, event: el.Event, now: float = 0.0) -> Scene | None:
        """Let an elector take one event in; None if it would ask for a token above the bound."""
        me = scene.electors[r]
        if "heeded" in self.off and me.state.phase not in LEADING:
            event = _unpaused(event)
        state, actions = self._rules[r].step(me.state, event, now, str(fresh(scene)))
        if "rising" in self.off and state.phase is Phase.ACQUIRING and state.seen is not None:
            state, actions = _unraised(state, actions)
        if "asking" in self.off and state.phase is Phase.REGAINING and isinstance(event, el.Tick):
            state, actions = replace(state, phase=Phase.LEADING, renewed=now), [el.Reopen(now + DURATION)]
        due, grant, pending = me.due, me.grant, None
        for action in actions:
            match action:
                case el.Put(record):
                    lease = lease_of(record)
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
                case el.Hold() if grant is not None:
                    grant = grant._replace(held=True)
                case el.Reopen(deadline) if grant is not None:
                    grant = grant._replace(held=False, deadline=max(grant.deadline, self._deadline(deadline, now)))
                case el.Close() if grant is not None and not ("drain" in self.off and isinstance(event, _BY_CHOICE)):
                    grant = grant._replace(closed=True)
        moved = shifted(Elector(state, due, grant, pending, me.queue), now, self._over)
        return with_elector(scene, r, moved if self.shared else timeless(moved))

    def _deadline(self, deadline: float, now: float) -> float:
        """Return when a grant runs out; without one of the defences it is another time."""
        deadline = now + DURATION if "sending" in self.off else deadline
        return math.nextafter(deadline, math.inf) if "moment" in self.off else deadline

    def tell(self, scene: Scene, r: int, event: el.Event) -> Scene:
        """Put an event into an elector's queue; it is taken at once if no request is under way."""
        me = scene.electors[r]
        if isinstance(event, el.StepDown) and me.grant is not None and "drain" not in self.off:
            me = me._replace(grant=me.grant._replace(closed=True))
        return self.quiet(with_elector(scene, r, me._replace(queue=(*me.queue, event))))

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

    def orders(self, scene: Scene, pauses: bool, handovers: bool) -> Iterator[tuple[str, tuple[int, int], Scene]]:
        """Yield what people may order by annotations: what it is, its cost in pauses and handovers, what comes of it.

        Args:
            scene: the present.
            pauses: whether there may be another pause. One that began may always end.
            handovers: whether there may be another handover.
        """
        lease = scene.lease
        if lease is None:
            return
        if lease.paused:
            yield "somebody ends the pause", (0, 0), self._annotated(scene, lease._replace(paused=False))
        elif pauses:
            yield "somebody pauses", (1, 0), self._annotated(scene, lease._replace(paused=True))
        if handovers and lease.to < 0:
            for r in range(self.replicas):
                after = self._annotated(scene, lease._replace(to=r))
                yield f"somebody asks to hand over to {NAMES[r]}", (0, 1), after

    def _annotated(self, scene: Scene, lease: Lease) -> Scene:
        return self.quiet(scene._replace(lease=lease._replace(version=newest(scene) + 1)))

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
            if self.timing.recovery and (late := max(0.0, me.state.renewed + DEADLINE)) != me.due:
                yield " cannot renew the Lease in time", 0, self.step(scene, r, el.Tick(late), late)
        elif me.state.phase is Phase.RECOVERING:
            if (news := _news(scene.lease, me.state)) is not None:
                yield " hears of the Lease", 0, self.step(scene, r, news)
            yield "'s timer fires", 0, self.step(scene, r, el.Tick(0.0))
            over = me.state.renewed + DEADLINE + self.timing.recovery
            yield " waits for too long", 0, self.step(scene, r, el.Tick(over), over)
        if me.grant is not None and me.grant.gate == OPEN:
            yield "'s grant runs out", 0, with_elector(scene, r, shifted(me, me.grant.deadline, self._over))

    def _answers(self, scene: Scene, r: int, me: Elector, pending: Pending) -> Iterator[tuple[str, int, Scene | None]]:
        ready = with_elector(scene, r, me._replace(pending=None))
        if pending.answer is not None:
            yield "'s answer about the Lease comes", 0, self.step(ready, r, pending.answer)
            return
        if pending.lease is None:
            yield " reads the Lease", 0, self.step(ready, r, _read(scene.lease))
            yield "'s read of the Lease fails", 1, self.step(ready, r, el.ReadFailed("no answer"))
            return
        stored, answer = _write(scene, pending.lease, creates=pending.creates)
        done = with_elector(stored, r, me._replace(pending=None))
        yield "'s write of the Lease is answered", 0, self.step(done, r, answer)
        lost = el.Failed("no answer")
        if isinstance(answer, el.Written):
            if self.shared:
                held = me._replace(pending=pending._replace(answer=answer))
                yield "'s write of the Lease is stored, and its answer is late", 1, with_elector(stored, r, held)
            yield "'s write of the Lease is stored, and its answer is lost", 1, self.step(done, r, lost)
        late = ready._replace(waiting=tuple(sorted((*scene.waiting, (r, pending.lease)))))
        yield "'s write of the Lease gets no answer, and waits in the network", 1, self.step(late, r, lost)

    def tick(self, scene: Scene) -> Scene:
        """Let a unit of time pass for everybody."""
        return scene._replace(electors=tuple(shifted(one, 1.0, self._over) for one in scene.electors))

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
        scene = with_elector(scene, r, me._replace(queue=tuple(rest)))
        if type(event) is el.Resume and me.state.phase is not Phase.LOST:
            return scene
        return self.step(scene, r, event)

    def _settled(self, scene: Scene, r: int) -> Scene | None:
        if (after := self._queue(scene, r)) is not None:
            return after
        me = scene.electors[r]
        ready = with_elector(scene, r, me._replace(pending=None))
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


def _unpaused(event: el.Event) -> el.Event:
    """Return news of the Lease as they look to who does not know of pauses."""
    if isinstance(event, el.LeaseSeen | el.Written) and event.record is not None:
        return replace(event, record=event.record.changed(paused=None))
    return event


def _unraised(state: State, actions: list[el.Action]) -> tuple[State, list[el.Action]]:
    """Return an acquisition that leaves the Lease's number as it is."""
    attempt, seen = state.attempt, state.seen
    assert attempt is not None  # noqa: S101  it goes with the phase
    assert seen is not None  # noqa: S101  the caller has looked
    attempt = replace(attempt, record=attempt.record.changed(transitions=max(1, seen.transitions)))
    puts = [replace(one, record=attempt.record) if isinstance(one, el.Put) else one for one in actions]
    return replace(state, attempt=attempt), puts


def _write(scene: Scene, lease: Lease, *, creates: bool) -> tuple[Scene, el.Event]:
    """Store a write of the Lease if its precondition holds. What electors send, the policies of the Lease allow."""
    old = scene.lease
    if creates:
        if old is not None:
            return scene, el.Conflict()
        stored = lease._replace(version=newest(scene) + 1, uid=newest(scene) + 1)
    else:
        if old is None or (old.version, old.uid) != (lease.version, lease.uid):
            return scene, el.Conflict()
        # An elector writes the annotation back as it was in the revision that its write is conditioned on.
        stored = lease._replace(version=newest(scene) + 1, paused=old.paused)
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
