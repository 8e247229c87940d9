"""The reference operator does all its work behind its policies."""

from __future__ import annotations

from testbed.deployment import NAME
from tests.policies.deployed import World


def test_the_reference_operator_behind_its_policies(world: World) -> None:
    one, two = (world.plane.pod_identity(NAME, NAME, name) for name in ("one", "two"))
    first = world.start(one)
    world.claims(*(f"c{n}" for n in range(10)))
    world.until_bound(10)

    world.kill(first)  # and the kubelet starts the container again: same pod, another identity
    second = world.start(one)
    world.claims("restarted")
    world.until_bound(11)
    world.delete("c0")
    world.until_bound(10)

    world.start(two)
    world.kill(second)
    world.claims("after")
    world.until_bound(11)
    world.delete("after", "c1")  # its own, and one whose child an earlier leader made
    world.until_bound(9)
    world.delete("--all")
    world.until_bound(0)
    world.plane.kubectl("delete", "addresspool", "pool")
    world.check_nothing_was_refused()
