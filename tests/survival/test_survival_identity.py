"""One identity, two processes: whoever acquires raises the token, whatever its name (I2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from devcluster.waiting import until
from testbed.replica import PATIENCE
from tests.survival.support import BEFORE, Site, terms

NAMED = Path(__file__).with_name("named.py")
MINE = BEFORE + 1


def named(site: Site, name: str, **env: str) -> dict[str, Any]:
    return {"name": name, "launcher": NAMED, "SURVIVAL_IDENTITY": "same_one-pod_1", **env}


def test_after_one_that_was_killed(site: Site) -> None:
    first = site.begin(**named(site, "first"))
    assert site.lease()["holderIdentity"] == "same_one-pod_1"
    site.kill(first)
    second = site.operator(**named(site, "second"))
    site.goes_on(MINE)
    assert terms(second) == [MINE + 1], "the name in the Lease is no proof of leadership"


def test_after_one_that_is_paused_in_the_middle_of_a_write(site: Site) -> None:
    site.make_lease(leaseTransitions=BEFORE)
    first = site.operator(**named(site, "first", IPAM_STOP_BEFORE="/addresspools/ /x1/"))
    site.apply(site.claim("x1", "p"))
    site.until_reason("addressclaim", "x1", "PoolNotFound")
    site.apply(site.pool("p", cidr="10.80.0.0/28"))
    until("it to freeze", lambda: first.said("frozen before"), PATIENCE)
    second = site.operator(**named(site, "second"))
    site.until_ready("x1")
    site.goes_on(MINE)
    before = site.quiet()
    first.resume()
    until("it to learn that it is lost", lambda: first.said(f"term {MINE} of .* is over"), PATIENCE)
    assert site.touched(before) == []
    assert terms(second) == [MINE + 1]


def test_two_live_processes(site: Site) -> None:
    """One leads, the other follows; when the first gives back, the second is above it."""
    first = site.begin(**named(site, "first"))
    second = site.operator(**named(site, "second"))
    until("second to follow", lambda: second.said("new leader: same"), PATIENCE)
    site.goes_on(BEFORE)
    assert terms(second) == []
    site.end(first)
    site.goes_on(MINE, claim="later")
    assert terms(second) == [MINE + 1]
    tokens = terms(first) + terms(second)
    assert len(tokens) == len(set(tokens)), "one token was given twice"


def test_the_lease_counts_from_below_as_well(site: Site) -> None:
    """Made again with the number of before, it gives a process the number that its namesake had."""
    first = site.begin(**named(site, "first"))
    first.pause()
    site.drop_lease()
    site.make_lease(leaseTransitions=BEFORE)
    second = site.operator(**named(site, "second"))
    site.apply(site.claim("after", "p"))
    site.until_settled("after")
    assert min(site.token("addresspool", "p"), site.token("addressclaim", "after")) > MINE, (
        "two processes wrote the pool under one token, and nobody can tell their stamps apart"
    )
    assert terms(second) == [MINE, MINE + 1]
