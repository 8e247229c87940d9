"""Claims that wait: whoever is served stands at the head of a queue, however many wait; nobody is forgotten (I7)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kopf_ha_ipam import activation, claims, conflicts, planning, retries
from kopf_ha_ipam.model import FINALIZER, Claim, PoolSpec
from kopf_ha_ipam.planning import Give, Record, Tombstone, Wait, plan
from kopf_ha_ipam.waiting import Claims, Queue
from tests.ipam.pauses import Leader, World

SPEC = PoolSpec("10.0.0.0/29")  # usable: .1 to .6


@pytest.fixture(autouse=True)
def _no_events(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (activation, claims, conflicts):
        monkeypatch.setattr(module, "event", lambda *_, **__: None)
    yield
    conflicts.GIVEN_TWICE.set(0)  # tests of the metrics may run in this process


def a_claim(number: int, wanted: str | None = None, pool: str = "p", **status: Any) -> Claim:
    meta: dict[str, Any] = {
        "namespace": "ns", "name": f"c{number}", "uid": f"uid-{number}", "resourceVersion": "1",
        "creationTimestamp": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z", "finalizers": [FINALIZER],
    }  # fmt: skip
    spec = {"poolName": pool, "address": wanted} if wanted else {"poolName": pool}
    return Claim.parse({"metadata": meta, "spec": spec, "status": status})


addresses = st.sampled_from([f"10.0.0.{n}" for n in range(9)])
some_claims = st.lists(st.none() | addresses, max_size=14).map(lambda many: [a_claim(n, w) for n, w in enumerate(many)])


@given(
    some_claims,
    st.dictionaries(addresses, st.integers(0, 20), max_size=6),
    st.dictionaries(addresses, st.integers(0, 99), max_size=4),
    st.sets(st.integers(0, 20), max_size=3),
    st.dictionaries(addresses, st.integers(100, 102), max_size=2),  # a claim that shows an address is in no queue
    st.sampled_from([0.0, 60.0]),
)
def test_the_heads_of_the_queue_get_what_all_would_get(
    waiting: Sequence[Claim],
    having: dict[str, int],
    freed_at: dict[str, int],
    gone: set[int],
    showing: dict[str, int],
    quarantine: float,
) -> None:
    owners = {f"uid-{n}": a for a, n in having.items()}
    record = Record(
        {a: f"ns/c/{uid}" for uid, a in owners.items()},
        {a: Tombstone("ns/x/x", n) for a, n in freed_at.items() if a not in owners.values()},
    )
    known = Claims()
    for claim in waiting:
        known[claim.ref.uid] = claim

    def of(asking: Sequence[Claim], queue: Queue | None) -> planning.Plan:
        return plan(
            SPEC, record, asking, [f"uid-{n}" for n in gone], name="p", closed=None, now=100.0, quarantine=quarantine,
            shown={a: f"uid-{n}" for a, n in showing.items()}, queue=queue,
        )  # fmt: skip

    every, heads = of(waiting, None), of(waiting[-1:], known.queues.get("p"))
    given = {uid: a for uid, a in every.answers.items() if isinstance(a, Give)}
    held = set(owners) - {f"uid-{n}" for n in gone}
    assert {uid: a for uid, a in heads.answers.items() if isinstance(a, Give) and uid not in held} == {
        uid: a for uid, a in given.items() if uid not in held
    }
    assert heads.record == every.record
    for claim in waiting[-1:]:
        assert heads.answers[claim.ref.uid] == every.answers[claim.ref.uid]


def test_a_queue_holds_who_waits_in_order_of_age() -> None:
    known = Claims()
    for number in (3, 1, 2):
        known[f"uid-{number}"] = a_claim(number)
    known["uid-9"] = a_claim(9, "10.0.0.4")
    known["uid-8"] = a_claim(8, "10.0.0.4")
    assert known.changed() == {"uid-1", "uid-2", "uid-3", "uid-8", "uid-9"}
    queue = known.queues["p"]

    def heads(*free: str, held: Sequence[str] = ()) -> list[str]:
        return [claim.ref.name for claim in queue.heads(free, held)]

    assert heads("10.0.0.1") == ["c1"]
    assert heads("10.0.0.1", held=["uid-1"]) == ["c2"]
    assert heads("10.0.0.4", "10.0.0.5") == ["c1", "c2", "c8"]
    known["uid-1"] = a_claim(1, address="10.0.0.1")  # it was bound
    del known["uid-8"]
    known["uid-2"] = a_claim(2, pool="other")
    assert heads("10.0.0.4") == ["c3", "c9"]
    assert known.changed() == {"uid-1", "uid-2", "uid-8"}
    assert set(known.queues) == {"p", "other"}
    for uid in list(known):
        del known[uid]
    assert not known.queues


def test_of_thousands_that_wait_only_the_next_one_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    told, judged = claims.told, planning.plan

    def counting(claim: Claim, answer: Give | Wait) -> bool:
        looked.append(claim.ref.name)
        return told(claim, answer)

    sizes: list[int] = []

    def measured(*args: Any, **more: Any) -> Any:
        planned = judged(*args, **more)
        sizes.append(len(planned.answers))
        return planned

    monkeypatch.setattr(claims, "told", counting)
    monkeypatch.setattr("kopf_ha_ipam.pools.plan", measured)

    async def scenario() -> None:
        world = World()
        world.pool("p")  # gives two addresses
        for name in ("a", "b", *(f"w{n}" for n in range(300))):
            world.claim(name, "p")
        for name in ("x", "y"):  # not served before the others, which are older
            world.claim(name, "p", wanted="10.0.0.1")
        leader = Leader(world, 1)
        await leader.lead()
        assert leader.retries.due() == []
        looked.clear()
        sizes.clear()
        writes = leader.view.count
        await leader.end("a")
        await leader.retries.once()
        world.now += 61
        await leader.retries.once()
        await leader.retries.once()
        assert world.status("w0")["conditions"][0]["reason"] == "Bound"
        assert len(looked) < 10
        assert max(sizes) <= 4
        assert leader.view.count - writes < 12

    asyncio.run(scenario())


@pytest.mark.parametrize("quarantine", [0.0, 0.2])
def test_whoever_waits_is_served_when_the_quarantine_ends(quarantine: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a quarantine the write that frees the address gives it, too."""
    monkeypatch.setattr("kopf_ha_ipam.backoff.FIRST", 1000.0)  # nothing else wakes the retries

    class Timed(World):
        now = property(lambda self: asyncio.get_running_loop().time(), lambda self, _: None)

    async def scenario() -> None:
        world = Timed()
        world.pool("p")
        for name in ("a", "b", "c"):
            world.claim(name, "p")
        leader = Leader(world, 1, quarantine=quarantine)
        await leader.lead()
        task = asyncio.create_task(leader.retries.run())
        leader.memory.agenda.changed()
        await asyncio.sleep(0.05)
        await leader.end("a")
        async with asyncio.timeout(10):
            while world.status("c")["conditions"][0]["reason"] != "Bound":  # noqa: ASYNC110  nothing else tells it
                await asyncio.sleep(0.02)
        task.cancel()

    asyncio.run(scenario())


def test_a_new_claim_for_a_full_pool_costs_its_own_condition_only() -> None:
    async def scenario() -> None:
        world = World()
        world.pool("p")
        for name in ("a", "b", "c"):
            world.claim(name, "p")
        leader = Leader(world, 1)
        await leader.lead()
        writes = leader.view.count
        world.claim("late", "p")
        late = leader.memory.claim_seen(world.objects["claim", "late"])
        assert await retries.settle(leader.memory, late) is None
        assert world.status("late")["conditions"][0]["reason"] == "PoolExhausted"
        assert leader.view.count - writes == 1
        await leader.retries.once()
        assert leader.view.count - writes == 1  # waiting writes nothing

    asyncio.run(scenario())


def test_who_wants_an_address_that_is_freed_and_given_again_is_told_nothing_new() -> None:
    async def scenario() -> None:
        world = World()
        world.pool("p")
        for name in ("a", "b", "c"):
            world.claim(name, "p")
        for name in ("x", "y"):
            world.claim(name, "p", wanted="10.0.0.1")
        leader = Leader(world, 1)
        await leader.lead()
        before = world.status("x"), world.status("y")
        assert before[0]["conditions"][0]["reason"] == "AddressTaken"
        await leader.end("a")
        for _ in range(3):
            await leader.retries.once()
            world.now += 61
        assert world.status("c")["address"] == "10.0.0.1"
        assert (world.status("x"), world.status("y")) == before
        await leader.end("c")
        for _ in range(3):
            await leader.retries.once()
            world.now += 61
        assert world.status("x")["address"] == "10.0.0.1"
        assert world.status("y") == before[1]

    asyncio.run(scenario())


STEPS = st.one_of(
    st.tuples(st.just("claim"), st.integers(0, 7), st.none() | st.sampled_from([f"10.0.0.{n}" for n in range(1, 5)])),
    st.tuples(st.just("end"), st.integers(0, 7)),
    st.tuples(st.just("later"), st.integers(1, 70)),
    st.tuples(st.just("exclude"), st.integers(1, 3)),
    st.tuples(st.just("damage"), st.integers(0, 7)),
    st.tuples(st.just("remake")),
)


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=14))
def test_after_each_change_nobody_is_left_who_could_be_served_or_told(steps: Sequence[tuple[Any, ...]]) -> None:
    """All who wait are planned together, which takes long: what the retries look at must come to the same."""

    async def scenario() -> None:
        world = World()
        world.pool("p")
        leader = Leader(world, 1)
        await leader.lead()
        for step in steps:
            await _do(leader, step)
            for _ in range(4):
                await leader.retries.once()
            memory = leader.memory
            waiting = [memory.claims[uid] for uid in memory.agenda.waiting if uid in memory.claims]
            keeper = memory.keepers.get("p")
            answers = keeper.preview(waiting) if keeper is not None else {}
            for claim in waiting:
                answer = answers.get(claim.ref.uid) or memory.no_pool(claim)
                assert claims.told(claim, answer), (claim, answer)
            unbound = [c.ref.uid for c in memory.claims.values() if not c.address]
            assert memory.agenda.waiting.keys() >= set(unbound)

    asyncio.run(scenario())


async def _do(leader: Leader, step: tuple[Any, ...]) -> None:
    world, memory = leader.world, leader.memory
    match step:
        case "claim", number, wanted:
            if ("claim", f"c{number}") not in world.objects:
                world.claim(f"c{number}", "p", wanted=wanted)
                await retries.settle(memory, memory.claim_seen(world.objects["claim", f"c{number}"]))
        case "end", number:
            if ("claim", f"c{number}") in world.objects:
                await leader.end(f"c{number}")
        case "later", seconds:
            world.now += seconds
        case "exclude", last:
            pool = world.objects.get(("pool", "p"))
            if pool is not None:
                pool["spec"] = {"cidr": "10.0.0.0/29", "excluded": [f"10.0.0.{last + 1}-10.0.0.7"]}
                memory.pool_seen(world.changed(pool))
                await retries.settle_pool(memory, "p")
        case "damage", number:
            claim = world.objects.get(("claim", f"c{number}"))
            if claim is not None and not claim["status"].get("address"):
                claim["status"]["conditions"] = []
                memory.claim_seen(world.changed(claim))
        case ("remake",):
            if not any((b.get("status") or {}).get("address") for (k, _), b in world.objects.items() if k == "claim"):
                world.force("pool", "p")
                memory.pool_gone(world.ends[-1][1])
                await leader.retries.once()
                world.pool("p")
                memory.pool_seen(world.objects["pool", "p"])
                await retries.settle_pool(memory, "p")
