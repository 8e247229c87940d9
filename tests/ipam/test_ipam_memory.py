"""The memory of a term, with an API server made up of a dict: batches, conflicts, pools that are not mine."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest

from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.model import ACTIVE, FINALIZER, Claim, Pool
from kopf_ha_ipam.planning import Give, Wait
from kopf_ha_ipam.pools import PoolKeeper
from kopf_ha_ipam.writes import Api, Conflict, Unavailable


class Server:
    """Keeps pools, with resourceVersions; `before` runs before each write arrives."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.found_claims: list[dict[str, Any]] = []
        self.writes: list[Mapping[str, Any]] = []
        self.before: list[Any] = []

    def put(self, name: str, cidr: str = "10.0.0.0/24", **status: Any) -> Pool:
        meta = {"name": name, "uid": f"uid-{name}", "resourceVersion": "0", "generation": 1}
        self.objects[name] = {"metadata": meta, "spec": {"cidr": cidr}, "status": {"state": ACTIVE, **status}}
        return Pool.parse(self.edit(name))

    def edit(self, name: str, **status: Any) -> dict[str, Any]:
        body = self.objects[name]
        body["metadata"]["resourceVersion"] = str(int(body["metadata"]["resourceVersion"]) + 1)
        for key, value in status.items():
            if isinstance(value, dict):
                merged = (body["status"].get(key) or {}) | value
                body["status"][key] = {k: v for k, v in merged.items() if v is not None}
            else:
                body["status"][key] = value
        return copy.deepcopy(body)

    async def patch_pool_status(self, name: str, version: str, status: Mapping[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.before:
            self.before.pop(0)()
        if version != self.objects[name]["metadata"]["resourceVersion"]:
            raise Conflict("409")
        self.writes.append(status)
        return self.edit(name, **status)

    async def pool(self, name: str) -> dict[str, Any]:
        return copy.deepcopy(self.objects[name])

    async def pools(self) -> list[dict[str, Any]]:
        return [copy.deepcopy(o) for o in self.objects.values()]

    async def claims(self) -> list[dict[str, Any]]:
        return self.found_claims

    async def claim_pages(self) -> AsyncIterator[list[dict[str, Any]]]:
        yield await self.claims()


def memory(server: Server, aside: set[str] | None = None, **more: Any) -> Allocator:
    options: dict[str, Any] = {"clock": lambda: 0.0, "quarantine": 60.0, "stamp": (7, "me"), **more}
    return Allocator(cast(Api, server), set_aside=lambda: aside or set(), **options)


def keeper(server: Server, pool: Pool, *, mine: bool = True, aside: set[str] | None = None) -> PoolKeeper:
    term = memory(server, aside)
    made = PoolKeeper(pool, cast(Api, server), term, mine=mine, clock=lambda: 0.0, quarantine=60.0)
    term.keepers[pool.name] = made
    return made


def body(name: str, created: str = "", **more: Any) -> dict[str, Any]:
    meta = {"namespace": "ns", "name": name, "uid": f"uid-{name}", "resourceVersion": "1", "creationTimestamp": created}
    return {"metadata": meta | {"finalizers": [FINALIZER]} | more, "spec": {"poolName": "p"}}


def claim(name: str, created: str = "", **more: Any) -> Claim:
    return Claim.parse(body(name, created, **more))


def test_claims_that_wait_share_a_write() -> None:
    async def scenario() -> None:
        server = Server()
        one = keeper(server, server.put("p", allocations={}))
        answers = await asyncio.gather(*(one.ask(claim(f"c{n:02}")) for n in range(20)))
        assert [a.address for a in answers if isinstance(a, Give)] == [f"10.0.0.{n}" for n in range(1, 21)]
        assert len(server.writes) == 1
        assert await one.ask(claim("c07")) == answers[7]
        assert len(server.writes) == 1

    asyncio.run(scenario())


def test_after_a_conflict_the_memory_is_the_truth() -> None:
    """Which is why I5 needs the fence: whatever another writer recorded goes."""

    async def scenario() -> None:
        server = Server()
        one = keeper(server, server.put("p", allocations={"10.0.0.9": "ns/old/uid-old"}))
        server.before = [lambda: server.edit("p", allocations={"10.0.0.1": "ns/other/uid-other"})]
        answer = await one.ask(claim("a"))
        assert isinstance(answer, Give)
        assert answer.address == "10.0.0.1"
        assert server.objects["p"]["status"]["allocations"] == {
            "10.0.0.1": "ns/a/uid-a",
            "10.0.0.9": "ns/old/uid-old",
        }

    asyncio.run(scenario())


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("news", ["before the error", "after it", "none"])
def test_after_a_write_without_an_answer_the_object_is_the_truth(news: str, cancelled: bool) -> None:
    """I5: it was stored, so the address is the claim's, and another claim gets another one."""

    async def scenario() -> None:
        server = Server()
        one = keeper(server, server.put("p", allocations={}))

        def stored_and_lost() -> None:
            done = server.edit("p", allocations={"10.0.0.1": "ns/a/uid-a"})
            if news == "before the error":
                one.seen(Pool.parse(done))
            raise asyncio.CancelledError if cancelled else Unavailable("no answer")

        server.before = [stored_and_lost]
        with pytest.raises(asyncio.CancelledError if cancelled else Unavailable):
            await one.ask(claim("a"))
        if news == "after it":
            one.seen(Pool.parse(await server.pool("p")))
        other, again = await one.ask(claim("b")), await one.ask(claim("a"))
        assert (isinstance(other, Give), isinstance(again, Give)) == (True, True)
        assert server.objects["p"]["status"]["allocations"] == {"10.0.0.1": "ns/a/uid-a", "10.0.0.2": "ns/b/uid-b"}

    asyncio.run(scenario())


def test_a_write_without_an_answer_that_was_not_done_is_planned_again() -> None:
    async def scenario() -> None:
        server = Server()
        one = keeper(server, server.put("p", allocations={"10.0.0.1": "ns/old/uid-old"}))

        def lost() -> None:
            raise Unavailable("no answer")

        server.before = [lost]
        with pytest.raises(Unavailable):
            await one.ask(claim("a"))
        assert isinstance(await one.ask(claim("b")), Give)
        assert server.objects["p"]["status"]["allocations"] == {
            "10.0.0.1": "ns/old/uid-old",
            "10.0.0.2": "ns/b/uid-b",
        }

    asyncio.run(scenario())


def test_before_the_first_write_what_stands_there_counts() -> None:
    """A pool made after the barrier may still be written by an earlier leader ."""

    async def scenario() -> None:
        server = Server()
        one = keeper(server, server.put("p", allocations={}), mine=False)
        assert isinstance(await one.ask(claim("a")), Wait)
        server.before = [lambda: server.edit("p", allocations={"10.0.0.1": "ns/other/uid-other"})]
        await one.reserve()
        assert one.mine
        answer = await one.ask(claim("a"))
        assert isinstance(answer, Give)
        assert answer.address == "10.0.0.2"

    asyncio.run(scenario())


def test_a_user_who_edits_all_the_time_is_an_error_in_the_end() -> None:
    async def scenario() -> None:
        server = Server()
        one = keeper(server, server.put("p", allocations={}))
        server.before = [lambda: server.edit("p")] * 100
        with pytest.raises(Unavailable):
            await one.ask(claim("a"))
        server.before = []
        assert isinstance(await one.ask(claim("a")), Give)

    asyncio.run(scenario())


def test_nothing_is_given_from_a_pool_that_goes() -> None:
    async def scenario() -> None:
        server = Server()
        one = keeper(server, server.put("p", allocations={}))

        def delete() -> None:
            server.objects["p"]["metadata"]["deletionTimestamp"] = "now"
            server.edit("p")

        server.before = [delete]
        answer = await one.ask(claim("a"))
        assert answer == Wait("PoolTerminating", "Pool p is being deleted.")
        assert server.objects["p"]["status"]["allocations"] == {}

    asyncio.run(scenario())


def test_a_pool_that_is_set_aside_is_left_alone() -> None:
    async def scenario() -> None:
        server = Server()
        one = keeper(server, server.put("p", allocations={"10.0.0.9": "ns/a/uid-a"}), aside={"uid-p"})
        for name in ("a", "b"):
            answer = await one.ask(claim(name))
            assert isinstance(answer, Wait)
            assert answer.reason == "PoolNotActive"
        await one.refresh()
        with pytest.raises(Unavailable):
            await one.free("uid-a")
        assert server.writes == []

    asyncio.run(scenario())


def test_a_settled_pool_is_not_written_again() -> None:
    async def scenario() -> None:
        server = Server()
        one = keeper(server, server.put("p", allocations={}))
        await one.refresh()
        await one.refresh()
        assert len(server.writes) == 1

    asyncio.run(scenario())


def test_an_unreadable_record_sets_one_pool_aside() -> None:
    async def scenario() -> None:
        server = Server()
        server.put("p", allocations={"10.0.0.9": "whose?"})
        server.put("q", allocations={"10.0.0.9": "ns/gone/uid-gone"})
        term = memory(server)
        await term.load()
        assert [k.set_aside for k in term.keepers.values()] == [True, False]
        assert list(term.agenda.leaving) == ["uid-gone"]

    asyncio.run(scenario())


def test_a_pool_that_gets_its_stamp_after_all_is_no_longer_aside() -> None:
    async def scenario() -> None:
        server, aside = Server(), {"uid-p"}
        one = keeper(server, server.put("p", allocations={}), aside=aside)
        answer = await one.ask(claim("a"))
        assert isinstance(answer, Wait)
        assert answer.retry_at is not None  # it is looked at again
        # meanwhile an earlier leader gave an address, then the barrier got its stamp on it
        found = server.edit("p", allocations={"10.0.0.1": "ns/b/uid-b"}, fencing={"token": 7, "holder": "me"})
        one.seen(Pool.parse(found))
        assert isinstance(await one.ask(claim("a")), Wait)
        aside.clear()
        answer = await one.ask(claim("a"))
        assert isinstance(answer, Give)
        assert answer.address == "10.0.0.2"

    asyncio.run(scenario())


def test_who_waits_longest_is_served_first_whoever_asks() -> None:
    async def scenario() -> None:
        server = Server()
        server.put("p", cidr="10.0.0.0/30", allocations={"10.0.0.1": "ns/x/uid-x"})
        server.found_claims = [body(n, created=f"2026-01-01T00:00:0{n}Z") for n in "123"]
        term = memory(server)
        await term.load()
        one = term.keepers["p"]
        assert isinstance(await one.ask(term.claims["uid-3"]), Wait)
        assert one.holds("uid-1") == "10.0.0.2"
        assert await one.ask(term.claims["uid-1"]) == Give("10.0.0.2", one.pool.spec)
        assert len(server.writes) == 1

    asyncio.run(scenario())


def test_a_pool_that_is_gone_is_not_brought_back_by_a_late_event() -> None:
    """A read found out before the watch told; what the watch has still to tell is older."""

    async def scenario() -> None:
        server = Server()
        server.put("p", allocations={"10.0.0.1": "ns/a/uid-a"}, fencing={"token": 7, "holder": "me"})
        term = memory(server)
        await term.load()
        late = copy.deepcopy(server.objects["p"])
        term.pool_gone(late)
        term.pool_seen(late)
        assert term.keepers == {}

    asyncio.run(scenario())


# --- pools without a stamp (`--barrier each`)


def unstamped(server: Server, *names: str) -> tuple[Allocator, list[str]]:
    """A memory that has listed the pools, and which of them were stamped since."""
    asked: list[str] = []

    async def stamped(body: Mapping[str, Any]) -> Mapping[str, Any]:
        asked.append(body["metadata"]["name"])
        return server.edit(asked[-1], fencing={"token": 7, "holder": "me"})

    return memory(server, stamped=stamped), asked


def test_a_decision_is_made_from_what_the_stamp_shows() -> None:
    """I4: an earlier leader wrote the pool after it was listed."""

    async def scenario() -> None:
        server = Server()
        server.put("p", allocations={})
        term, asked = unstamped(server)
        await term.load()
        server.edit("p", allocations={"10.0.0.1": "ns/other/uid-other"})
        answer = await term.keepers["p"].ask(claim("a"))
        assert isinstance(answer, Give)
        assert answer.address == "10.0.0.2"
        await term.keepers["p"].ask(claim("b"))
        assert asked == ["p"]

    asyncio.run(scenario())


def test_one_pool_waits_for_no_other() -> None:
    async def scenario() -> None:
        server = Server()
        for n in range(9):
            server.put(f"p{n}", f"10.{n}.0.0/24", allocations={})
        term, asked = unstamped(server)
        await term.load()
        await term.keepers["p7"].ask(claim("a"))
        assert asked == ["p7"]
        assert term.unsure
        assert [k.mine for k in term.keepers.values()].count(True) == 1

    asyncio.run(scenario())


def test_a_pool_that_needs_nothing_is_not_asked_for() -> None:
    async def scenario() -> None:
        server = Server()
        server.put("p", allocations={})
        first = keeper(server, Pool.parse(server.edit("p")))
        await first.refresh()
        server.writes.clear()
        term, asked = unstamped(server)
        await term.load()
        assert term.keepers["p"].settled, "it is active, whoever stamped it"
        await term.keepers["p"].refresh()
        assert (asked, server.writes) == ([], [])

    asyncio.run(scenario())


def test_a_stamp_that_was_put_behind_is_seen_by_the_watch_and_still_waited_for_before_a_write() -> None:
    """The fence refuses a write whose code did not wait for the stamp."""

    async def scenario() -> None:
        server = Server()
        server.put("p", allocations={})
        term, asked = unstamped(server)
        await term.load()
        body = server.edit("p", fencing={"token": 7, "holder": "me"}, allocations={"10.0.0.1": "ns/x/uid-x"})
        term.claims["uid-x"] = claim("x")
        term.pool_seen(body)
        assert not term.unsure
        assert term.keepers["p"].holds("uid-x") == "10.0.0.1"
        assert "uid-x" in term.agenda.waiting, "what was concluded from the list is looked at again"
        assert asked == []
        await term.keepers["p"].ask(claim("a"))
        assert asked == ["p"]

    asyncio.run(scenario())
