"""A leader that was paused in the middle of its work wakes up (I5). test_ipam_pauses.py tries every pair of pauses.

Why the operator needs the fence: it froze with a decision made, right before the pool's write left: x gets the first
address. Meanwhile it was succeeded, the administrator took the first address out of the pool for a while, so x got the
second one, and a claim made after that got the first. When it wakes, it goes on from its memory.
"""

from __future__ import annotations

from typing import Any

import pytest

from devcluster.waiting import until
from testbed.replica import PATIENCE, Replica
from tests.kit.ipam import FAULTY, Ipam, address, condition

POOL = {"cidr": "10.94.0.0/28"}


def freeze_and_succeed(ipam: Ipam, mode: str) -> Replica:
    """Give the paused leader, which has a successor that is done with its work."""
    fence: dict[str, Any] = {"KOPF_HA_FENCE": mode, "KOPF_HA_UNSAFE": "true"} if mode != "full" else {}
    paused = ipam.operator("old", launcher=FAULTY, IPAM_STOP_BEFORE="/addresspools/ /x/", **fence)
    ipam.apply(ipam.pool("small", **POOL))
    ipam.until_reason("addresspool", "small", "Active")
    ipam.apply(ipam.claim("x", "small"))
    until("it to freeze", lambda: paused.said("frozen before"), PATIENCE)
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

    def given() -> dict[str, str]:
        return {c["metadata"]["name"]: address(c) for c in ipam.all("addressclaims")}

    # The gate tells first, and what was under way ends after that.
    ipam.until("both to have one address", lambda: given() == {"x": "10.94.0.1", "y": "10.94.0.1"})


def test_with_the_fence_it_changes_nothing(ipam: Ipam) -> None:
    paused = freeze_and_succeed(ipam, "full")
    before = {k: ipam.all(k) for k in ("addresspools", "addressclaims", "configmaps")}
    paused.resume()
    ipam.until("its term to end", lambda: paused.said("term 1 of .* is over"))
    ipam.until_quiet()
    assert {k: ipam.all(k) for k in before} == before
    ipam.check_consistent()
    assert paused.running  # it follows


def frozen(ipam: Ipam, before: str) -> Replica:
    """Start a leader that stands still before a certain write."""
    paused = ipam.operator("old", launcher=FAULTY, IPAM_STOP_BEFORE=before)
    ipam.until_leader(paused)
    return paused


def succeed(ipam: Ipam, paused: Replica) -> None:
    until("it to freeze", lambda: paused.said("frozen before"), PATIENCE)
    ipam.vacate_lease()
    ipam.until_leader(ipam.operator("new"))


def wakes(ipam: Ipam, paused: Replica) -> None:
    paused.resume()
    ipam.until("its term to end", lambda: paused.said("term 1 of .* is over"))


def test_a_creation_that_comes_late_publishes_nothing_that_is_another_claims(ipam: Ipam) -> None:
    """A creation is no compare-and-swap. So an address is freed when its claim is gone, not while it is going."""
    paused = frozen(ipam, "/configmaps x-")
    ipam.apply(ipam.pool("small", cidr="10.94.0.4/32"), ipam.claim("x", "small"))
    until("it to freeze", lambda: paused.said("frozen before"), PATIENCE)
    hold = '[{"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/hold"}]'
    ipam.kubectl("patch", "aclaim", "x", "--type=json", "-p", hold)
    succeed(ipam, paused)
    ipam.delete("addressclaim", "x", wait=False)
    finalizers = ["example.com/hold"]
    ipam.until("only the user's finalizer", lambda: ipam.get("aclaim", "x")["metadata"]["finalizers"] == finalizers)
    ipam.apply(ipam.claim("victim", "small"))
    ipam.until_reason("addressclaim", "victim", "PoolExhausted")
    wakes(ipam, paused)
    assert [c["data"]["ADDRESS"] for c in ipam.children()] == ["10.94.0.4"]  # late, and true
    assert condition(ipam.get("aclaim", "victim")) == "PoolExhausted"
    ipam.kubectl("patch", "aclaim", "x", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    assert ipam.until_ready("victim") == {"victim": "10.94.0.4"}
    ipam.until("the late one to be collected", lambda: len(ipam.children()) == 1)
    ipam.check_consistent()


def test_a_claim_to_which_an_earlier_leader_may_still_write_is_stamped_before_a_pool_is_active(ipam: Ipam) -> None:
    paused = frozen(ipam, "/addressclaims/ 10.94.0.1")
    ipam.apply(ipam.claim("x", "first"))
    ipam.until_reason("addressclaim", "x", "PoolNotFound")
    ipam.apply(ipam.pool("first", **POOL))
    until("it to freeze", lambda: paused.said("frozen before"), PATIENCE)
    ipam.kubectl("delete", "addresspool", "first", "--wait=false")
    ipam.kubectl("patch", "addresspool", "first", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    succeed(ipam, paused)
    ipam.apply(ipam.pool("second", **POOL), ipam.claim("victim", "second"))
    assert ipam.until_ready("victim") == {"victim": "10.94.0.1"}
    wakes(ipam, paused)
    ipam.until_quiet()
    assert address(ipam.get("aclaim", "x")) == ""
    ipam.check_consistent()
