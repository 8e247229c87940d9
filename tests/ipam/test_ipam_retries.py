"""What is done again, and when. What can be done only, ever more seldom; one object's trouble is its own (I7, I10)."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import kopf
import pytest

import kopf_ha
from kopf_ha_ipam import activation, claims, conflicts, handlers, retries
from kopf_ha_ipam.backoff import FIRST, LONGEST, Backoff, delay
from kopf_ha_ipam.model import Claim
from kopf_ha_ipam.writes import Rejected, Unavailable
from tests.ipam.pauses import Leader, World, led


@pytest.fixture(autouse=True)
def _no_events(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (activation, claims, conflicts):
        monkeypatch.setattr(module, "event", lambda *_, **__: None)
    yield
    conflicts.GIVEN_TWICE.set(0)  # tests of the metrics may run in this process


def failing(leader: Leader, method: str, errors: Callable[..., Iterator[Exception | None]]) -> list[Any]:
    """Have a request of a leader fail; give the list of its calls."""
    calls: list[Any] = []
    given = getattr(leader.view, method)

    async def call(*args: Any) -> Any:
        calls.append(args)
        error = next(errors(*args), None)
        if error is not None:
            raise error
        return await given(*args)

    setattr(leader.view, method, call)
    return calls


def bound(world: World, name: str) -> bool:
    conditions = world.status(name).get("conditions") or [{}]
    return bool(conditions[0].get("reason") == "Bound")


def test_delays_grow_and_have_an_end() -> None:
    delays = [delay(n) for n in range(1, 50)]
    assert delays[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST
    backoff = Backoff()
    assert not backoff.waits("a", 0.0)
    until = backoff.failed("a", 100.0)
    assert backoff.waits("a", until - 0.1)
    assert not backoff.waits("a", until)
    assert backoff.failed("a", until) == until + 2 * FIRST
    backoff.forget("a")
    assert not backoff.waits("a", until)


@pytest.mark.parametrize(
    "error",
    [Rejected("quota"), Unavailable("no answer"), kopf_ha.Unfenced("annotations"), kopf_ha.Denied("no"), ValueError()],
)
def test_one_claims_trouble_is_its_own(error: Exception) -> None:
    async def scenario() -> None:
        world = World()
        world.pool("p")
        world.claim("a", "p")
        world.claim("b", "p")
        leader = Leader(world, 1)
        broken = True

        def errors(body: Any) -> Iterator[Exception | None]:
            return iter([error if broken and body["metadata"]["name"].startswith("a-") else None])

        calls = failing(leader, "create_child", errors)
        await leader.turn()
        assert bound(world, "b")
        assert not bound(world, "a")
        before = len(calls)
        await leader.retries.once()  # the world has not changed, and its time has not come
        assert len(calls) == before
        broken = False
        world.now += LONGEST
        await leader.retries.once()
        assert bound(world, "a")

    asyncio.run(scenario())


def test_of_several_that_wait_each_is_tried_again_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarm is set for the first one. When it rings, the others still have to wait, and need it once more (I7)."""
    monkeypatch.setattr("kopf_ha_ipam.backoff.FIRST", 0.2)

    class Timed(World):
        now = property(lambda self: asyncio.get_running_loop().time(), lambda self, _: None)

    async def scenario() -> None:
        world = Timed()
        world.pool("p")
        world.claim("a", "p")
        world.claim("b", "p")
        leader = Leader(world, 1)
        leader.memory.pool_seen(world.objects["pool", "p"])
        await retries.settle_pool(leader.memory, "p")
        broken = True
        failing(leader, "create_child", lambda body: iter([Unavailable("no answer") if broken else None]))
        for name in ("a", "b"):
            await retries.settle(leader.memory, leader.memory.claim_seen(world.objects["claim", name]))
            await asyncio.sleep(0.1)
        broken = False
        task = asyncio.create_task(leader.retries.run())
        async with asyncio.timeout(10):
            while not (bound(world, "a") and bound(world, "b")):  # noqa: ASYNC110  nothing else tells it
                await asyncio.sleep(0.02)
        task.cancel()

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [kopf_ha.StaleLeader("newer"), kopf_ha.NoTerm("none")])
def test_the_end_of_the_term_ends_it(error: Exception) -> None:
    async def scenario() -> None:
        world = World()
        world.pool("p")
        world.claim("a", "p")
        leader = Leader(world, 1)
        failing(leader, "create_child", lambda body: iter([error]))
        with pytest.raises(type(error)):
            await leader.lead()

    asyncio.run(scenario())


def test_freeing_one_address_runs_one_of_those_that_wait() -> None:
    async def scenario() -> None:
        world = World()
        world.pool("p")  # gives two addresses
        for name in ("a", "b", *(f"w{n}" for n in range(50))):
            world.claim(name, "p")
        leader = Leader(world, 1)
        await leader.lead()
        assert len(leader.memory.agenda.waiting) == 50
        assert leader.retries.due() == []
        writes = leader.view.count
        claim = leader.memory.claims[world.objects["claim", "a"]["metadata"]["uid"]]
        world.delete("claim", "a")
        await leader.take_back(Claim.parse(world.objects["claim", "a"]))
        leader.memory.claim_gone(world.ends[-1][1])
        await leader.retries.once()
        assert leader.memory.holder_of(claim.ref.uid) is None
        assert leader.retries.due() == []  # it rests
        world.now += 61
        assert [c.ref.name for c in leader.retries.due()] == ["w0"]
        await leader.retries.once()
        assert bound(world, "w0")
        assert leader.view.count - writes < 12

    asyncio.run(scenario())


def test_an_address_whose_write_may_still_arrive_keeps_a_new_pool_from_it() -> None:
    """No answer is no "no": a pool of the same range waits until the claim was written anew."""

    async def scenario() -> None:
        world = World()
        world.pool("p")
        world.claim("a", "p")
        leader = Leader(world, 1)
        lost = True

        def errors(ref: Any, version: str, status: Any) -> Iterator[Exception | None]:
            return iter([Unavailable("no answer") if lost and status.get("address") else None])

        failing(leader, "patch_claim_status", errors)
        await leader.turn()
        uid = world.objects["claim", "a"]["metadata"]["uid"]
        assert leader.memory.promised == {uid: "10.0.0.1"}
        world.force("pool", "p")
        world.pool("q")
        leader.memory.pool_gone(world.ends[-1][1])
        leader.memory.pool_seen(world.objects["pool", "q"])
        await activation.settle_pool(leader.memory, "q")
        assert world.objects["pool", "q"]["status"].get("state") is None
        lost = False
        world.now += LONGEST
        await leader.retries.once()  # the claim is told that its pool is gone, which no late write survives
        assert leader.memory.promised == {}
        await leader.retries.once()
        assert world.objects["pool", "q"]["status"]["state"] == "Active"

    asyncio.run(scenario())


def test_a_claim_that_an_earlier_term_writes_just_before_the_stamp_keeps_a_new_pool_from_its_address() -> None:
    """The pool is judged by the claim as the stamp found it, and all claims are listed only once for that (I4, I5)."""

    async def scenario() -> None:
        world = World()
        world.claim("a", "p")
        world.pool("q")
        leader = Leader(world, 2)
        lists = failing(leader, "claims", lambda: iter([]))
        stamp = leader.view.stamp_claim

        async def late(ref: Any) -> Any:
            found = world.objects["claim", "a"]
            found["status"] = {"address": "10.0.0.1", "fencing": {"token": 1, "holder": "pod-1"}}
            world.changed(found)
            return await stamp(ref)

        leader.view.stamp_claim = late  # type: ignore[method-assign]
        leader.memory.pool_seen(world.objects["pool", "q"])
        await activation.settle_pool(leader.memory, "q")
        assert world.status("a")["fencing"]["token"] == 2
        assert world.objects["pool", "q"]["status"].get("state") is None
        assert "ns/a" in (leader.memory.keepers["q"].trouble or "")
        assert len(lists) == 2  # before the range is announced, and after it

    asyncio.run(scenario())


def test_a_pool_whose_end_no_event_showed_gives_nothing_any_more_once_another_one_has_its_range() -> None:
    """A claim that it recorded, and whose status could not be written, gets an address of nobody else (I5)."""

    async def scenario() -> None:
        world = World()
        world.pool("p")
        world.claim("a", "p")
        leader = Leader(world, 1)
        refused = True

        def errors(ref: Any, version: str, status: Any) -> Iterator[Exception | None]:
            return iter([Rejected("a policy") if refused and status.get("address") else None])

        failing(leader, "patch_claim_status", errors)
        await leader.turn()
        assert leader.memory.promised == {}
        world.force("pool", "p")
        world.pool("q")
        world.claim("b", "q")
        refused = False
        leader.memory.pool_seen(world.objects["pool", "q"])
        await activation.settle_pool(leader.memory, "q")
        assert await retries.settle(leader.memory, leader.memory.claim_seen(world.objects["claim", "b"])) == "10.0.0.1"
        assert await retries.settle(leader.memory, leader.memory.claim_seen(world.objects["claim", "a"])) is None
        assert world.status("a")["conditions"][0]["reason"] == "PoolNotFound"

    asyncio.run(scenario())


def test_a_claim_whose_end_no_watch_showed_is_found() -> None:
    async def scenario() -> None:
        world, leader = await led("a")
        world.force("claim", "a")
        leader.memory.context = contextvars.copy_context()
        await leader.memory.sweep()
        await leader.retries.once()
        assert world.objects["pool", "p"]["status"]["allocations"] == {}

    asyncio.run(scenario())


def test_retries_of_a_claim_do_not_use_kopfs() -> None:
    """Kopf would write down each retry of its own."""

    async def scenario() -> None:
        world = World()
        world.claim("a", "p")
        leader = Leader(world, 1)
        failing(leader, "patch_claim_status", lambda *_: iter([Unavailable("no answer")]))
        claim = leader.memory.claim_seen(world.objects["claim", "a"])
        assert await retries.settle(leader.memory, claim) is None
        assert claim.ref.uid in leader.memory.agenda.waiting

    asyncio.run(scenario())


def test_a_term_ends_after_the_answers_to_what_its_pools_are_being_told() -> None:
    """A retry's write is let end, as a handler's is: whoever follows finds the whole of it, or the fence refused it."""

    async def scenario() -> None:
        world, leader = await led("a")
        world.claim("b", "p")
        claim = leader.memory.claim_seen(world.objects["claim", "b"])
        under_way, answered = asyncio.Event(), asyncio.Event()
        send = leader.view.patch_pool_status

        async def slow(*args: Any) -> Any:
            under_way.set()
            await answered.wait()
            return await send(*args)

        leader.view.patch_pool_status = slow  # type: ignore[method-assign,assignment]
        leader.memory.agenda.wait(claim.ref.uid, None)
        leader.memory.agenda.changed()
        task = asyncio.create_task(leader.retries.run())
        await under_way.wait()
        stop: Any = handlers.stop
        ending: asyncio.Task[None] = asyncio.create_task(stop(memo=kopf.Memo(memory=leader.memory, retries=task)))
        await asyncio.sleep(0.01)
        assert not ending.done()
        answered.set()
        await ending
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        owners = world.objects["pool", "p"]["status"]["allocations"].values()
        assert {owner.split("/")[1] for owner in owners} == {"a", "b"}

    asyncio.run(scenario())


class Broken(World):
    """One in which an address may be given twice, as a status edited by hand can have it."""

    def check(self) -> None:
        pass


def test_what_was_given_twice_is_logged_once_a_term_whenever_it_happened(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        world = Broken()
        world.pool("p", "10.0.0.0/29")
        for name in ("a", "b", "c", "d"):
            world.claim(name, "p")
        await Leader(world, 1).lead()
        world.force("pool", "p")  # with the record, so that nothing tells whose the address is

        def same(name: str, as_of: str) -> None:
            world.objects["claim", name]["status"]["address"] = world.status(as_of)["address"]
            world.changed(world.objects["claim", name])

        same("b", "a")
        leader = Leader(world, 2)
        leader.memory.context = contextvars.copy_context()
        await leader.lead()
        assert caplog.text.count("is given twice: to claims ns/a and ns/b") == 1
        same("d", "c")
        await leader.turn()
        assert caplog.text.count("is given twice: to claims ns/c and ns/d") == 1
        assert caplog.text.count("is given twice") == 2

    asyncio.run(scenario())
