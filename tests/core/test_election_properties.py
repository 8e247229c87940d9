"""Any order of events, pauses, lost answers and late writes: never two leaders, never a token twice.

`Replica.step` holds each step against `tests.election.phases` and against what each phase means for grant and request.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kopf_ha.core.election import Phase
from kopf_ha.core.election import events as el
from kopf_ha.core.lease import LeaseRecord
from tests.election.world import Old, Replica, World

WHO = st.integers(0, 2)
# Whole and half periods, so that deadlines are met exactly, and pauses that are longer than the lease.
TIMES = st.sampled_from([0.1, 0.5, 1.0, 2.0, 2.2, 5.0, 9.9, 10.0, 14.9, 15.0, 15.1, 40.0])


class Faults(RuleBasedStateMachine):
    """Everything but edits and deletions of the Lease."""

    identities = ("a", "b", "c")
    legacy = False  #: whether they keep the legacy lock, too
    examples = 150
    unique = True  #: as identities are: only then is news of a process's end right

    def __init__(self) -> None:
        super().__init__()
        self.recovery = 0.0
        self.dead: list[str] = []  #: identities of processes that ended
        self.world = World()
        self.late: list[LeaseRecord] = []  #: writes whose client gave up, and that may still be done
        self.late_legacy: list[Mapping[str, Any]] = []

    @initialize(n=st.sampled_from([2, 3]), recovery=st.sampled_from([0.0, 15.0, 40.0]))
    def begin(self, n: int, recovery: float) -> None:
        # With a legacy lock there is no recovery (`Settings.timing`).
        self.recovery = 0.0 if self.legacy else recovery
        for identity in self.identities[:n]:
            self.world.replica(identity, legacy=self.legacy, recovery=self.recovery)

    def pick(self, who: int) -> Replica:
        return self.world.replicas[who % len(self.world.replicas)]

    # --- ordinary life; `flow` makes progress likely, the small steps make orders likely

    @rule(dt=TIMES)
    def time_passes(self, dt: float) -> None:
        self.world.now += dt

    @rule(who=WHO, dt=st.sampled_from([0.0, 0.5, 2.0, 2.3, 15.0]))
    def one_runs(self, who: int, dt: float) -> None:
        self.world.now += dt
        self.pick(who).last_beat = self.world.now
        self.pick(who).flow()

    @rule(dt=st.sampled_from([0.5, 2.3, 16.0]))
    def all_run(self, dt: float) -> None:
        self.world.run(dt, step=0.5)

    @rule(who=WHO, dt=TIMES)
    def one_sleeps(self, who: int, dt: float) -> None:
        """The others saw all that it did, and go on without it."""
        self.world.run(0.5, step=0.5)
        self.without(self.pick(who), dt)

    @rule(who=WHO, dt=TIMES)
    def slow_answer(self, who: int, dt: float) -> None:
        """The server does it now, the answer comes later, and then it sleeps."""
        sleeper = self.pick(who)
        if sleeper.request is None:
            sleeper.last_beat = self.world.now = max(self.world.now, min(sleeper.due, self.world.now + 20))
            sleeper.tick()
        sleeper.serve()
        self.without(sleeper, dt)
        if sleeper.request is not None:
            sleeper.answer()
        self.without(sleeper, 16.0)

    def without(self, sleeper: Replica | Old, seconds: float) -> None:
        others = [r for r in self.world.everybody if r is not sleeper]
        for _ in range(int(seconds * 2)):
            self.world.run(0.5, *others, step=0.5)
            self.one_leader()

    @rule(who=WHO)
    def timer(self, who: int) -> None:
        replica = self.pick(who)
        replica.last_beat = self.world.now
        replica.tick()

    @rule(who=WHO)
    def early_timer(self, who: int) -> None:
        if self.free(who):
            self.pick(who).step(el.Tick(self.world.now))

    @rule(who=WHO)
    def blocked_timer(self, who: int) -> None:
        self.pick(who).tick()

    @rule(who=WHO)
    def news(self, who: int) -> None:
        self.pick(who).deliver()

    @rule(who=WHO)
    def watch_begins_anew(self, who: int) -> None:
        if self.free(who):
            self.pick(who).relist()

    @rule(who=WHO)
    def server_does_it(self, who: int) -> None:
        self.pick(who).serve()

    @rule(who=WHO)
    def answer(self, who: int) -> None:
        if self.pick(who).request is not None:
            self.pick(who).answer()

    @rule()
    def label_edit(self) -> None:
        if self.world.lease.body is not None:
            self.world.lease.edit(labels={"n": str(self.world.lease.version)})

    # --- faults

    @rule(who=WHO, late=st.booleans())
    def answer_lost(self, who: int, late: bool) -> None:
        replica = self.pick(who)
        if replica.request is None:
            return
        if isinstance(replica.request, el.Put) and replica.outcome is None and late:
            self.late.append(replica.request.record)
        if isinstance(replica.request, el.PutLegacy) and replica.outcome is None and late:
            self.late_legacy.append(replica.request.body)
        replica.lose_answer()

    @rule(who=WHO)
    def denied(self, who: int) -> None:
        replica = self.pick(who)
        if replica.request is not None and replica.outcome is None:
            replica.answer(replica.refusal("403", el.NotWritten))

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def late_write(self, data: st.DataObject) -> None:
        self.world.lease.put(self.late.pop(data.draw(st.integers(0, len(self.late) - 1))))

    @precondition(lambda self: self.late_legacy)
    @rule(data=st.data())
    def late_legacy_write(self, data: st.DataObject) -> None:
        self.world.legacy.put(self.late_legacy.pop(data.draw(st.integers(0, len(self.late_legacy) - 1))))

    # --- the run layer

    @rule(who=WHO)
    def resume(self, who: int) -> None:
        if self.pick(who).phase is Phase.LOST:
            self.pick(who).step(el.Resume())

    @rule(who=WHO)
    def step_down(self, who: int) -> None:
        if self.free(who):
            self.pick(who).step(el.StepDown("refused"))

    @rule(who=WHO, up=st.integers(-2, 5))
    def raise_floor(self, who: int, up: int) -> None:
        # On this Lease's objects there is no token above its own, but floors from elsewhere are told all the same.
        if self.free(who):
            replica = self.pick(who)
            floor = max(0, replica.state.token + up)
            replica.told_floor = max(replica.told_floor, floor)
            replica.step(el.RaiseFloor(floor))

    @rule(who=WHO, how=st.sampled_from([el.Release(), el.Stop()]))
    def ends(self, who: int, how: Any) -> None:
        if self.free(who):
            self.pick(who).step(how)

    @rule(who=WHO)
    def process_restarts(self, who: int) -> None:
        """A container that is restarted: it remembers nothing, and has an identity of its own if they are unique."""
        old = self.pick(who)
        if old.grant is not None:
            old.grant.close("killed")  # a dead process writes nothing
        if isinstance(old.request, el.Put) and old.outcome is None:
            self.late.append(old.request.record)
        identity = old.settings.identity
        if self.unique:
            self.dead.append(identity)
            identity = f"{identity[0]}{len(self.dead)}"
        new = self.world.replica(identity, legacy=old.legacy, recovery=0.0 if old.legacy else self.recovery)
        self.world.replicas[self.world.replicas.index(old)] = new
        self.world.replicas.pop()

    @precondition(lambda self: self.dead)
    @rule(who=WHO, data=st.data())
    def holder_gone(self, who: int, data: st.DataObject) -> None:
        """News of a process that ended: at once, late, or again. Exclusion in time holds with it."""
        if self.free(who):
            self.pick(who).step(el.HolderGone(data.draw(st.sampled_from(self.dead))))

    @rule(who=WHO, seconds=st.sampled_from([0.0, 0.5, 2.0, -1.0]))
    def head_start(self, who: int, seconds: float) -> None:
        if self.free(who):
            self.pick(who).step(el.HeadStart(seconds))

    def free(self, who: int) -> bool:
        return self.pick(who).request is None and self.pick(who).phase is not Phase.STOPPED

    # --- what must hold

    @invariant()
    def one_leader(self) -> None:
        assert len(self.world.leaders()) <= 1, "two grants are open and not expired"

    @invariant()
    def tokens_rise(self) -> None:
        tokens = self.world.tokens
        assert all(a < b for a, b in pairwise(tokens)), f"tokens do not rise: {tokens}"

    def teardown(self) -> None:
        """When faults end, somebody leads (I7)."""
        alive = [r for r in self.world.replicas if r.phase is not Phase.STOPPED]
        if not alive:
            return
        for r in alive:
            r.inbox.clear()
            r.flow()
        alive = [r for r in alive if r.phase is not Phase.STOPPED]  # a release was under way
        if not alive:
            return
        for r in alive:
            r.relist()
        for _ in range(40):
            for r in alive:
                if r.phase is Phase.LOST:
                    r.step(el.Resume())
            self.world.run(1.0, *alive, step=0.5)
            self.one_leader()
            self.tokens_rise()
        assert len(self.world.leaders()) == 1, [r.state for r in alive]


class Migration(Faults):
    """Replicas of before run beside, which know only the legacy lock. One of all of them leads."""

    legacy = True
    examples = 80

    @initialize(duration=st.sampled_from([15.0, 17.0, 40.0]))
    def begin_old(self, duration: float) -> None:
        for name in ("old0", "old1"):  # with one duration, without which they would not even exclude each other
            self.world.old(name, duration=duration, deadline=duration - 2)

    @rule(who=WHO)
    def old_runs(self, who: int) -> None:
        self.an_old(who).run()

    @rule(who=WHO)
    def old_reads(self, who: int) -> None:
        self.an_old(who).read()

    @rule(who=WHO)
    def old_writes_what_it_read(self, who: int) -> None:
        self.an_old(who).write()

    @rule(who=WHO)
    def old_releases(self, who: int) -> None:
        self.an_old(who).release()

    @rule(who=WHO, dt=TIMES)
    def old_sleeps(self, who: int, dt: float) -> None:
        self.without(self.an_old(who), dt)

    @rule()
    def legacy_label_edit(self) -> None:
        body = self.world.legacy.body
        if body is not None:
            body["metadata"]["labels"] = {"n": str(self.world.legacy.version)}
            self.world.legacy.swap(body)

    def an_old(self, who: int) -> Old:
        return self.world.olds[who % len(self.world.olds)]

    def teardown(self) -> None:
        """When the old ones are gone, a replica with the legacy lock leads."""
        self.world.olds.clear()
        self.world.run(60, *[r for r in self.world.replicas if r.phase is not Phase.STOPPED], step=1)
        super().teardown()


class Dropping(Faults):
    """No old replica is left, and the option is dropped: some keep the legacy lock, some do not."""

    examples = 50

    @initialize()
    def begin_new(self) -> None:
        self.world.replicas.clear()
        for identity, legacy in zip(self.identities, (True, False, True), strict=True):
            self.world.replica(identity, legacy=legacy)


class SharedIdentity(Faults):
    """Everybody has one name, as when a name is set by hand. Only the acquisition tells them apart."""

    identities = ("a", "a", "a")
    unique = False


class WrongNews(Faults):
    """Processes that live are taken for gone. Two may lead then, but no two terms share a token (I2)."""

    @rule(who=WHO, about=st.sampled_from(["", "a", "b", "c", "stranger"]))
    def taken_for_gone(self, who: int, about: str) -> None:
        if self.free(who):
            replica = self.pick(who)
            held = replica.grant
            replica.step(el.HolderGone(about))
            assert replica.grant is held, "such news ends nobody's own term"

    @rule(who=WHO)
    def the_holder_is_taken_for_gone(self, who: int) -> None:
        seen = self.pick(who).state.seen
        if seen is not None:
            self.taken_for_gone(who=who, about=seen.holder)

    @invariant()
    def one_leader(self) -> None:
        pass

    @invariant()
    def tokens_rise(self) -> None:
        """In the Lease they do; a term may be told of its own after the next one was."""
        assert len(set(self.world.tokens)) == len(self.world.tokens), f"a token was given twice: {self.world.tokens}"


class Vandals(Faults):
    """The Lease is deleted and edited, too. Two may lead then, but never with a token that one of them saw."""

    def __init__(self) -> None:
        super().__init__()
        self.world.tampered = True

    @rule()
    def deleted(self) -> None:
        if self.world.lease.body is not None:
            self.world.lease.delete()

    @rule(holder=st.sampled_from(["", "a", "b", "stranger"]), token=st.integers(0, 12))
    def edited(self, holder: str, token: int) -> None:
        if self.world.lease.body is not None:
            self.world.lease.edit(holderIdentity=holder, leaseTransitions=token)

    @rule(duration=st.sampled_from([None, 1, 60]))
    def duration_edited(self, duration: int | None) -> None:
        if self.world.lease.body is not None:
            self.world.lease.edit(leaseDurationSeconds=duration)

    @rule()
    def made_by_hand(self) -> None:
        if self.world.lease.body is None:
            self.world.lease.create({"spec": {"leaseTransitions": 0}})

    @rule()
    def counter_removed(self) -> None:
        if self.world.lease.body is not None:
            self.world.lease.edit(leaseTransitions=None)

    @invariant()
    def one_leader(self) -> None:
        pass

    @invariant()
    def tokens_rise(self) -> None:
        """Each replica's own do; `World.opened` holds them against floors, too."""

    def teardown(self) -> None:
        if self.world.lease.body is not None:
            self.world.lease.edit(leaseTransitions=20, leaseDurationSeconds=15)
        super().teardown()


BOUNDS = settings(stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("machine", [Faults, Migration, Dropping, SharedIdentity, WrongNews, Vandals])
def test_whatever_happens(machine: type[Faults]) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=settings(BOUNDS, max_examples=machine.examples))
