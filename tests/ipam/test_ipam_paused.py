"""Why the operator needs the fence: a leader that was paused in the middle of its work wakes up (I5).

It froze with a decision made, right before the pool's write left: x gets the first address. Meanwhile it was
succeeded, the administrator took the first address out of the pool for a while, so x got the second one, and
a claim made after that got the first. When it wakes, it goes on from its memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devcluster.waiting import until
from tests.ipam.support import LIMIT, Ipam, Operator, address

LAUNCHER = Path(__file__).with_name("launcher.py")
POOL = {"cidr": "10.94.0.0/28"}


def freeze_and_succeed(ipam: Ipam, mode: str) -> Operator:
    """Give the paused leader, which has a successor that is done with its work."""
    fence: dict[str, Any] = {"KOPF_HA_FENCE": mode, "KOPF_HA_UNSAFE": "true"} if mode != "full" else {}
    paused = ipam.operator("old", launcher=LAUNCHER, IPAM_STOP_BEFORE="/addresspools/ /x/", **fence)
    ipam.apply(ipam.pool("small", **POOL))
    ipam.until_reason("addresspool", "small", "Active")
    ipam.apply(ipam.claim("x", "small"))
    until("it to freeze", lambda: paused.said("frozen before"), LIMIT)
    ipam.apply(ipam.pool("small", **POOL, excluded=["10.94.0.1"]))
    ipam.vacate_lease()
    ipam.operator("new", **fence)
    assert ipam.until_ready("x") == {"x": "10.94.0.2"}
    ipam.apply(ipam.pool("small", **POOL))
    ipam.until("the address to be back", lambda: ipam.get("addresspool", "small")["status"]["free"] == 13)
    ipam.apply(ipam.claim("y", "small"))
    assert ipam.until_ready("y") == {"y": "10.94.0.1"}
    ipam.until_quiet()
    return paused


@pytest.mark.parametrize("mode", ["none", "rv"])
def test_without_the_fence_it_gives_an_address_twice(ipam: Ipam, mode: str) -> None:
    paused = freeze_and_succeed(ipam, mode)
    paused.resume()
    ipam.until("its term to end", lambda: paused.said("term 1 of .* is over"))
    given = {c["metadata"]["name"]: address(c) for c in ipam.all("addressclaims")}
    assert given == {"x": "10.94.0.1", "y": "10.94.0.1"}


def test_with_the_fence_it_changes_nothing(ipam: Ipam) -> None:
    paused = freeze_and_succeed(ipam, "full")
    before = {k: ipam.all(k) for k in ("addresspools", "addressclaims", "configmaps")}
    paused.resume()
    ipam.until("its term to end", lambda: paused.said("term 1 of .* is over"))
    ipam.until_quiet()
    assert {k: ipam.all(k) for k in before} == before
    ipam.check_consistent()
    assert paused.running  # it follows
