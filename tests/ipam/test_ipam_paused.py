"""Why the operator needs the fence: a leader that was paused in the middle of its work wakes up (I5).

It froze with a decision made, right before the pool's write left: x1 gets the first address, x2 the second one.
Meanwhile it was succeeded, x1 was deleted, x2 got the first address, and a new claim the second one. When it
wakes, it goes on from its memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devcluster.waiting import until
from tests.ipam.support import LIMIT, Ipam, Operator, address

LAUNCHER = Path(__file__).with_name("launcher.py")


def freeze_and_succeed(ipam: Ipam, mode: str) -> Operator:
    """Give the paused leader, which has a successor that is done with its work."""
    fence: dict[str, Any] = {"KOPF_HA_FENCE": mode, "KOPF_HA_UNSAFE": "true"} if mode != "full" else {}
    paused = ipam.operator("old", launcher=LAUNCHER, IPAM_STOP_BEFORE="/addresspools/ /x1/ /x2/", **fence)
    # both wait, so that both go into one write once there is a pool
    ipam.apply(ipam.claim("x1", "small"), ipam.claim("x2", "small"))
    ipam.until_reason("addressclaim", "x1", "PoolNotFound")
    ipam.until_reason("addressclaim", "x2", "PoolNotFound")
    ipam.apply(ipam.pool("small", cidr="10.94.0.0/28"))
    until("it to freeze", lambda: paused.said("frozen before"), LIMIT)
    ipam.delete("addressclaim", "x1", wait=False)
    ipam.vacate_lease()
    ipam.operator("new", **fence)
    ipam.until_gone("addressclaim", "x1")
    assert ipam.until_ready("x2") == {"x2": "10.94.0.1"}
    ipam.apply(ipam.claim("y", "small"))
    assert ipam.until_ready("y") == {"y": "10.94.0.2"}
    ipam.until_quiet()
    return paused


@pytest.mark.parametrize("mode", ["none", "rv"])
def test_without_the_fence_it_gives_an_address_twice(ipam: Ipam, mode: str) -> None:
    paused = freeze_and_succeed(ipam, mode)
    paused.resume()
    ipam.until("its term to end", lambda: paused.said("term 1 of .* is over"))
    # It has given x2 the address of y, and may have given y another one, of which its successor does not know.
    ipam.apply(ipam.claim("z", "small"))
    ipam.until_ready("z")
    given = {c["metadata"]["name"]: address(c) for c in ipam.all("addressclaims")}
    assert len(set(given.values())) < len(given), given


def test_with_the_fence_it_changes_nothing(ipam: Ipam) -> None:
    paused = freeze_and_succeed(ipam, "full")
    before = {k: ipam.all(k) for k in ("addresspools", "addressclaims", "configmaps")}
    paused.resume()
    until("it to learn that it is stale", lambda: paused.said("stale leader|term 1 is over"), LIMIT)
    ipam.until_quiet()
    assert {k: ipam.all(k) for k in before} == before
    ipam.check_consistent()
    assert paused.running  # it follows
