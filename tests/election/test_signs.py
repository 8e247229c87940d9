"""Since when the Lease could be had, by a clock that the test turns; and what an elector tells its observer."""

from __future__ import annotations

from devcluster.waiting import until
from kopf_ha.core.election import events as el
from kopf_ha.election.signs import Observer
from testbed.replica import PATIENCE
from tests.election.stage import LONG, Stage
from tests.election.world import Replica, World


def since(replica: Replica) -> float | None:
    return replica.rules.vacant_since(replica.state, replica.world.now)


def test_a_lease_that_is_held_cannot_be_had() -> None:
    world = World()
    a, b = world.replica("a"), world.replica("b")
    world.run(5)
    assert [r.leads() for r in (a, b)] == [True, False]
    assert since(b) is None


def test_it_can_be_had_from_the_release_on() -> None:
    world = World()
    a, b = world.replica("a"), world.replica("b")
    world.run(5)
    a.step(el.Release())
    a.flow()
    released = world.now
    b.deliver()  # renewals come first
    while b.inbox:
        b.deliver()
    world.now += 1  # its PUT takes a while
    assert since(b) == released


def test_it_can_be_had_from_the_expiry_on() -> None:
    world = World()
    a, b = world.replica("a"), world.replica("b")
    world.run(5)
    assert a.leads()
    expiry = b.state.changed + 15
    world.run(expiry - world.now - 0.5, b)
    assert since(b) is None
    world.now = expiry + 2  # nobody looked for a while
    assert since(b) == expiry


def test_it_can_be_had_from_the_moment_its_holder_is_gone() -> None:
    world = World()
    a, b = world.replica("a"), world.replica("b")
    world.run(5)
    assert a.leads()
    b.step(el.HeadStart(3))
    b.step(el.HolderGone("a"))
    gone = world.now
    world.now += 2
    assert since(b) == gone, "others could have had it, whatever this one leaves to them"
    assert not b.grants


def test_a_replica_s_own_last_term_is_no_vacancy() -> None:
    world = World()
    a = world.replica("a")
    world.run(5)
    a.step(el.RaiseFloor(500))
    assert not a.leads()
    world.now += 100
    assert since(a) is None


class Notes(Observer):
    def __init__(self) -> None:
        self.renewals: list[float] = []
        self.takeovers: list[float] = []
        self.failures = 0

    def renewed(self, seconds: float) -> None:
        self.renewals.append(seconds)
        raise RuntimeError("an observer costs no term")

    def not_renewed(self) -> None:
        self.failures += 1

    def took_over(self, seconds: float) -> None:
        self.takeovers.append(seconds)


def test_the_observer_hears_of_takeovers_and_renewals(stage: Stage) -> None:
    a = stage.replica("a", **LONG).leads()
    notes = Notes()
    b = stage.replica("b", start=False)
    b.elector._driver._observer = notes
    b.start()
    until("b to follow", lambda: b.leaders)
    assert b.elector.signs.alive
    assert b.elector.signs.watching
    assert b.elector.signs.trouble == ""
    a.elector.release(10)
    b.leads()
    until("renewals", lambda: len(notes.renewals) > 1, PATIENCE)
    assert len(notes.takeovers) == 1
    # Measured from the release: by the lease it would have been 900 s.
    assert 0 <= notes.takeovers[0] < 900
    assert all(seconds > 0 for seconds in notes.renewals)
    assert b.tokens == [2]
    stage.kubectl("delete", "lease", "op")
    b.lost("was deleted")
    assert notes.failures == 0, "a lost Lease is no renewal that failed"
