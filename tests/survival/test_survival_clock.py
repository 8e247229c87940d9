"""No decision is made by anybody's wall clock, nor by the times in the Lease."""

from __future__ import annotations

import datetime
import random

import pytest

from devcluster.waiting import until
from kopf_ha.election import driver
from tests.kit.ipam import LEASE
from tests.survival.support import DURATION, Follower, Site

LONG_AGO, FAR_AHEAD = "2001-01-01T00:00:00.000001Z", "2099-01-01T00:00:00.000001Z"


@pytest.mark.parametrize("time", [LONG_AGO, FAR_AHEAD, None])
def test_a_lease_expires_by_the_clock_of_who_looks(site: Site, time: str | None) -> None:
    """A holder's Lease is not taken before the duration has passed here, and is taken then."""
    held = {"holderIdentity": "x", "leaseTransitions": 7, "leaseDurationSeconds": 15}
    site.make_lease(**held, acquireTime=time, renewTime=time)
    one = Follower(site, "one", turned=True)
    try:
        until("one to see x", lambda: one.elector.observed_holder == "x")
        one.now += 14
        site.kubectl("label", "lease", LEASE, "seen=1")
        until("one to look after 14 s", lambda: one.seen == site.lease_version)
        assert one.elector.state == "following"
        one.now += 1
        until("one to lead after 15 s", one.leads)
        assert one.grants[0].stamp.token == 8
    finally:
        one.elector.stop()


@pytest.mark.parametrize("time", [LONG_AGO, FAR_AHEAD])
def test_a_holder_whose_clock_is_wrong_is_alive_as_long_as_it_writes(site: Site, time: str) -> None:
    """Its times stand still or lie anywhere; that the spec changes counts."""
    site.make_lease(holderIdentity="x", leaseTransitions=7, leaseDurationSeconds=15, renewTime=time)
    one = Follower(site, "one", turned=True)
    try:
        until("one to see x", lambda: one.elector.observed_holder == "x")
        for number in range(3):
            one.now += 14
            site.edit_lease(renewTime=time.replace("00:00:00", f"00:00:0{number + 1}"))
            until("one to see the renewal", lambda: one.seen == site.lease_version)
            assert one.elector.state == "following"
    finally:
        one.elector.stop()


def test_the_wall_clock_jumps_with_each_renewal(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader goes on, and followers wait; when it ends, one of them leads."""
    monkeypatch.setattr(driver, "_wall", lambda: random.choice([FAR_AHEAD, LONG_AGO]))
    patient = 2 * DURATION  # the test itself gives the signs of life, between its requests
    one = Follower(site, "one", duration=patient)
    try:
        until("one to lead", one.leads)
        two = Follower(site, "two", duration=patient)
        try:
            until("two to see one", lambda: two.elector.observed_holder == "one")
            seen: set[str] = set()
            deadline = one.grants[0].deadline

            def outlived() -> bool:
                one.elector.beat()
                seen.add(site.lease()["renewTime"])
                return seen >= {LONG_AGO, FAR_AHEAD} and one.grants[0].deadline > deadline + patient

            until("a lease duration with both times in the Lease", outlived)
            assert one.elector.leading
            assert (len(one.grants), one.causes, two.grants) == (1, [], [])
            one.elector.stop()
            until("two to lead", two.leads)
            assert two.grants[0].stamp.token == 2
        finally:
            two.elector.stop()
    finally:
        one.elector.stop()


def test_a_whole_second_is_a_time_like_any_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server answers a MicroTime without microseconds with 400, also when they are 0."""
    whole = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    monkeypatch.setattr(driver, "_wall", lambda: driver._micro_time(whole))
    one = Follower(site, "one")
    try:
        until("one to lead, or to say why not", lambda: one.leads() or one.elector.last_error)
        assert one.elector.last_error == ""
    finally:
        one.elector.stop()


def test_a_clock_that_jumps_ahead_ends_no_term_if_nobody_acquired_the_lease(site: Site) -> None:
    """As after a nap. Until that is known, the gate is not open."""
    one = Follower(site, "one", turned=True, recovery=DURATION)
    try:
        until("one to lead", one.leads)
        one.now += DURATION
        assert not one.elector.leading

        def again() -> bool:
            one.now += 0.05  # it asks once its event loop has said that it lives
            return one.leads()

        until("one to lead again", again)
        assert (len(one.grants), one.causes) == (1, [])
    finally:
        one.elector.stop()


def test_a_clock_that_jumps_ahead_closes_the_gate_at_once(site: Site) -> None:
    """As after a suspended machine: no request is needed to know that the grant is over."""
    one = Follower(site, "one", turned=True)
    try:
        until("one to lead", one.leads)
        one.now += DURATION
        assert not one.elector.leading
        until("the term to end", lambda: one.causes)
        assert "not renewed for" in one.causes[0]
        one.elector.resume()

        def again() -> bool:
            one.now += 0.05  # it waits a while before it tries again
            one.elector.beat()
            return len(one.grants) == 2

        until("a new term", again)
        assert [g.stamp.token for g in one.grants] == [1, 2]
    finally:
        one.elector.stop()
