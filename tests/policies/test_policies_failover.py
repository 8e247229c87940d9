"""A leader that is paused in the middle of a decision, and whose Pod is then deleted by force: why that is safe.

Its successor does not wait for the Lease. When it wakes, it has a grant that has not run out, and goes on from memory:
what refuses it is the token alone (I3, I5). The Lease lasts for longer than the test waits.
"""

from __future__ import annotations

import json
from typing import Any

from devcluster.waiting import until
from judge import Expectations, judge, read_history
from testbed.deployment import NAME
from tests.kit.ipam import FAULTY
from tests.policies.deployed import CLAIMS, World

LONG = ("--lease-duration=600", "--renew-deadline=400")


def exclude(world: World, *addresses: str) -> None:
    patch = json.dumps({"spec": {"excluded": list(addresses)}})
    world.plane.kubectl("patch", "addresspool", "pool", "--type=merge", "-p", patch)


def addresses(world: World) -> dict[str, Any]:
    claims = world.list(CLAIMS)
    return {c["metadata"]["name"]: (c.get("status") or {}).get("address") for c in claims}


def test_a_leader_whose_pod_was_deleted_by_force_wakes_up(world: World) -> None:
    one, two = (world.plane.pod_identity(NAME, NAME, name) for name in ("one", "two"))
    old = world.start(one, *LONG, launcher=FAULTY, IPAM_STOP_BEFORE="/addresspools/ /x/")
    until("it to lead", lambda: old.said(r"barrier: \d+ deciding"), watched=[old])
    new = world.start(two, *LONG)
    until("the other one to follow", lambda: new.said("new leader: one_"), watched=[new])
    world.claims("x")
    until("the leader to freeze with x decided", lambda: old.said("frozen before"))
    # Until then the address that it decided on is not to be had.
    exclude(world, "10.77.0.1")

    world.plane.kubectl("delete", "pod", "one", "-n", NAME, "--force", "--grace-period=0")
    until("the other one to lead", lambda: new.said("leading: token 2"), watched=[new])
    assert new.said("Pod one is gone: taking over from one_.* without waiting")
    until("x to be bound", lambda: addresses(world)["x"], watched=[new])
    assert addresses(world) == {"x": "10.77.0.2"}
    exclude(world)
    world.claims("y")
    until("y to be bound", lambda: addresses(world)["y"], watched=[new])
    assert addresses(world)["y"] == "10.77.0.1"

    world.running.remove(old)
    old.resume()
    until("the old one to end", lambda: not old.running)
    # Or the API server does not know the credentials of a pod that is gone any more.
    assert old.said("refused by (precondition|server|term), token 1|/status: 401 Unauthorized")
    assert addresses(world) == {"x": "10.77.0.2", "y": "10.77.0.1"}
    world.claims("z")
    world.until_bound(3)

    plane = world.plane
    history = read_history(plane.etcd_endpoints[0], plane.etcd_ca, plane.etcd_cert, plane.etcd_key)
    verdict = judge(history, (), Expectations())
    assert verdict.ok, verdict
