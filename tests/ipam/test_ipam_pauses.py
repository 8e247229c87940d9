"""A leader is paused before any of its writes, its successor before any of its own, and the first one wakes then (I5).

A pause has no limit. So every pair of pauses is tried, with what users can do meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from kopf_ha_ipam import activation, allocator, claims, conflicts
from tests.ipam.pauses import HOLD, GivenTwice, Leader, View, World


@pytest.fixture(autouse=True)
def _no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (activation, claims, conflicts):
        monkeypatch.setattr(module, "event", lambda *_, **__: None)


def deleted(world: World) -> None:
    world.delete("claim", "a")


def removed_by_force(world: World) -> None:
    world.force("claim", "a")


def another_pool(world: World) -> None:
    """The pool goes by force, and another one has its range."""
    world.force("pool", "p")
    world.pool("q")


def the_pool_anew(world: World) -> None:
    world.force("pool", "p")
    world.pool("p")


def both(world: World) -> None:
    world.delete("claim", "a")
    another_pool(world)


def nothing(world: World) -> None:
    pass


USERS = [deleted, removed_by_force, another_pool, the_pool_anew, both, nothing]


async def story(
    user: Callable[[World], None],
    first: int,
    second: int,
    finalizers: tuple[str, ...],
    gate: bool,
    behind: int | None = None,
) -> str:
    """Tell it once; give who was paused: "", "first", "both"."""
    world = World()
    world.pool("p")
    world.claim("a", "p", *finalizers)
    world.claim("b", "p")
    old = Leader(world, 1, first)
    if not await old.until_frozen():
        return ""
    user(world)
    for name in ("v", "w"):
        world.claim(name, "p")
        world.claim(f"{name}-q", "q")
    new = Leader(world, 2, second, behind)
    paused = await new.until_frozen()
    await old.wake(gate_open=gate)
    if paused:
        await new.wake()
    await settled(world, 3)
    if world.broken:
        raise world.broken
    return "both" if paused else "first"


async def settled(world: World, token: int) -> None:
    """Everything is served in the end, and nothing stays recorded for nobody (I7)."""
    world.collect()
    last = Leader(world, token)
    await last.lead()
    world.release("claim", "a", HOLD)
    for _ in range(6):
        world.now += 400
        await last.turn()
    living = {b["metadata"]["uid"]: b for (k, _), b in world.objects.items() if k == "claim"}
    for (kind, name), body in world.objects.items():
        if kind != "pool" or body["status"].get("state") != "Active":
            continue
        held = body["status"]["allocations"]
        owners = {owner.rpartition("/")[2] for owner in held.values()}
        assert owners <= living.keys(), f"{name} records an address for a claim that is gone"
        waiting = [c for c in living.values() if c["spec"]["poolName"] == name and c["metadata"]["uid"] not in owners]
        assert len(held) == 2 or not waiting, f"{name} has free addresses, and claims wait"
        bound = [c for c in living.values() if c["metadata"]["uid"] in owners]
        assert all(c["status"]["conditions"][0]["reason"] == "Bound" for c in bound)


@pytest.mark.parametrize("finalizers", [(), (HOLD,)], ids=["plain", "held"])
@pytest.mark.parametrize("user", USERS)
def test_every_pair_of_pauses(user: Callable[[World], None], finalizers: tuple[str, ...]) -> None:
    every_pair(user, finalizers, gate=True)


def test_every_pair_of_pauses_when_the_first_one_sees_that_its_lease_ran_out() -> None:
    """Only the write that it was about to send goes out then."""
    every_pair(both, (HOLD,), gate=False)


@pytest.mark.parametrize(("user", "finalizers", "behind"), [(deleted, (HOLD,), 1), (another_pool, (), 0)])
def test_every_pair_of_pauses_when_decisions_wait_for_their_own_stamps(
    user: Callable[[World], None], finalizers: tuple[str, ...], behind: int
) -> None:
    """I4, with `--barrier each`: the first one wakes between the list and the stamp of any pool, and writes it."""
    every_pair(user, finalizers, gate=True, behind=behind)


def test_every_pair_of_pauses_when_decisions_do_not_wait_for_all_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """I5: a leader that knows the first claims only asks for each address before it gives it."""
    monkeypatch.setattr(allocator, "FIRST", 4)
    monkeypatch.setattr(allocator, "LOOKS", 0)
    monkeypatch.setattr(View, "page", 4)
    every_pair(the_pool_anew, (), gate=True, behind=0)


def every_pair(
    user: Callable[[World], None], finalizers: tuple[str, ...], *, gate: bool, behind: int | None = None
) -> None:
    pairs = 0
    for first in range(1, 100):
        paused = ""
        for second in range(1, 200):
            try:
                paused = asyncio.run(story(user, first, second, finalizers, gate, behind))
            except GivenTwice as error:
                raise AssertionError(f"paused before writes {first} and {second}: {error}") from error
            pairs += 1
            if paused != "both":
                break
        if not paused:
            break
    assert pairs > 100
