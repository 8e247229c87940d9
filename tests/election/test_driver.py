"""What the election's thread does with what the rules say; the Lease is a stand-in, and the test sets the clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kopf_ha.core.election import events as el
from kopf_ha.core.election.timing import JITTER_FACTOR, Timing
from kopf_ha.core.grant import Grant
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.election import Elector
from kopf_ha.election.driver import Driver
from kopf_ha.election.leadership import Leadership
from kopf_ha.election.lease_client import LeaseClient
from kopf_ha.election.signs import Observer
from kopf_ha.election.troubles import Troubles
from tests.election.world import FakeLease, settings


class Client:
    """Writes the Lease of a test. `floor` is what the API server said when it refused an acquisition."""

    def __init__(self) -> None:
        self.lease, self.floor = FakeLease(), 0

    def read(self, timeout: float) -> el.Event:
        return self.lease.seen()

    def write(self, record: LeaseRecord, timeout: float) -> el.Event:
        return self.lease.put(record)


def nothing() -> Any:
    raise AssertionError("nobody asks for it")


class Place:
    """One replica: its driver, its grants, and the clock."""

    def __init__(self) -> None:
        mine = settings("me_uid_1")
        self.now, self.floor = 1000.0, 0
        self.begun: list[Grant] = []
        self.open_when_stopped: list[bool] = []
        self.client = Client()
        leadership = Leadership(mine, self.begun.append, self._stopped)
        self.driver = Driver(
            mine,
            leadership,
            Troubles(mine.lease),
            on_new_leader=lambda holder, token: None,
            floor=lambda: self.floor,
            observer=Observer(),
            legacy=nothing,
            clock=lambda: self.now,
        )

    def take(self, event: el.Event) -> None:
        self.driver.take(event, cast(LeaseClient, self.client))

    def _stopped(self, grant: Grant, cause: str) -> None:
        self.open_when_stopped.append(not grant.closed)


@pytest.fixture
def place() -> Place:
    return Place()


def test_an_acquisition_is_above_every_token_that_any_object_records(place: Place) -> None:
    """I2: the Lease is gone, and this process has never seen it. What objects record is all that is left of it."""
    place.floor = 41
    place.take(el.LeaseSeen(None, "100"))
    assert [grant.stamp.token for grant in place.begun] == [42]


def test_an_acquisition_is_above_the_token_that_the_api_server_named(place: Place) -> None:
    """The Term has kept the count. Otherwise the same acquisition would be refused again and again."""
    place.client.floor = 57
    place.take(el.LeaseSeen(None, "100"))
    assert [grant.stamp.token for grant in place.begun] == [58]


def test_a_renewal_comes_a_retry_period_later_and_not_in_step_with_other_replicas(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never earlier, and at most by client-go's factor later: from the start of the request, not from its answer."""
    place.take(el.LeaseSeen(None, "100"))
    due = []
    for chance in (0.0, 0.5, 1.0):
        monkeypatch.setattr(random, "random", lambda chance=chance: chance)
        place.take(el.Tick(place.now))
        due.append(round(place.driver.due - place.now, 6))
    assert due == [2.0, 2.2, 2.4]


@pytest.mark.parametrize(("deadline", "period"), [(10.0, 2.0), (2.5, 2.0)])
def test_two_attempts_fit_into_the_renew_deadline(deadline: float, period: float) -> None:
    """An answer that is lost costs no term. The settings promise `deadline > period × factor`."""
    timing = Timing(15.0, deadline, period)
    assert period + timing.spread == pytest.approx(period * JITTER_FACTOR)
    assert 2 * timing.request_timeout <= deadline


def test_the_grant_is_closed_before_anybody_hears_of_its_end(place: Place) -> None:
    place.take(el.LeaseSeen(None, "100"))
    place.client.lease.edit(holderIdentity="another", leaseTransitions=2)
    place.take(place.client.lease.seen())
    assert place.open_when_stopped == [False]


def leading() -> tuple[Elector, Grant]:
    begun: list[Grant] = []
    mine = settings("me_uid_1")
    elector = Elector(mine, nothing, on_started=begun.append, on_stopped=lambda grant, cause: None)
    elector._leadership.open(7, deadline=1e9)
    return elector, begun[0]


@pytest.mark.parametrize(
    ("end", "closed"),
    [
        (lambda e, g: e.step_down("why", grant=g), "why"),
        (lambda e, g: e.raise_floor(7), "floor: an object records token 7"),
        (lambda e, g: e.raise_floor(8), "floor: an object records token 8"),
        # It is another term's, or a token below this one's: then nothing is over.
        (lambda e, g: e.step_down("why", grant=Grant(g.stamp, 1e9)), ""),
        (lambda e, g: e.raise_floor(6), ""),
    ],
)
def test_the_gate_is_closed_before_the_elector_s_thread_hears_of_it(
    end: Callable[[Elector, Grant], None], closed: str
) -> None:
    """I3: that thread may be in the middle of a request, and the writer whose write was refused goes on at once."""
    elector, grant = leading()
    end(elector, grant)
    assert grant.closed == closed


# --- the Lease as it was, for the history of terms


def other(transitions: int, holder: str = "other_o_1", version: str = "101") -> LeaseRecord:
    return LeaseRecord(
        holder, transitions, 15, "2026-01-01T00:00:00.0Z", "2026-01-01T00:00:01.0Z", resource_version=version, uid="l"
    )


def put_anyway(place: Place) -> None:
    """Take each write, whatever is stored."""
    place.client.lease = cast(FakeLease, SimpleNamespace(put=el.Written))


def test_a_release_that_was_seen_is_counted_by_one_clock(place: Place) -> None:
    put_anyway(place)
    place.take(el.LeaseSeen(other(6), "101"))
    place.now += 5
    place.take(el.LeaseSeen(other(6, holder="", version="102"), "102"))
    taken = place.driver.taken
    assert taken is not None
    assert taken.record == other(6, holder="", version="102")
    assert (taken.silent, taken.gone) == (0.0, False)
    assert [grant.stamp.token for grant in place.begun] == [7]


def test_an_expiry_is_counted_from_the_last_renewal_that_was_seen(place: Place) -> None:
    put_anyway(place)
    place.take(el.LeaseSeen(other(6), "101"))
    place.now += 1
    place.take(el.LeaseSeen(replace(other(6), renew_time="2026-01-01T00:00:02.0Z", resource_version="102"), "102"))
    place.now += 15
    place.take(el.Tick(0.0))
    assert place.driver.taken is not None
    assert place.driver.taken.silent == 15.0


def test_nobody_knows_how_long_ago_it_was_what_was_seen_first(place: Place) -> None:
    put_anyway(place)
    place.take(el.LeaseSeen(other(6, holder=""), "101"))
    assert place.driver.taken is not None
    assert place.driver.taken.silent is None


def test_a_holder_that_was_gone(place: Place) -> None:
    put_anyway(place)
    place.take(el.LeaseSeen(other(6), "101"))
    place.now += 1
    place.take(el.HolderGone("other_o_1"))
    assert place.driver.taken is not None
    assert place.driver.taken.gone
