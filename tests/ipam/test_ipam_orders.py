"""The order of an operator's writes, what each of them carries, and what a term hands on to its memory (I4, I5)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import kopf
import pytest

from kopf_ha._context import entered
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha_ipam import activation, children, claims, conflicts, handlers
from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.model import Claim, ClaimRef
from kopf_ha_ipam.planning import Wait
from kopf_ha_ipam.writes import Api, Gone
from tests.ipam.pauses import HOLD, Leader, World, led
from tests.ipam.test_ipam_memory import Server, claim, keeper

WRITES = (
    "patch_pool_status",
    "patch_claim_status",
    "create_child",
    "patch_child",
    "delete_child",
    "finalizer",
)


@pytest.fixture(autouse=True)
def _no_events(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (activation, claims, conflicts):
        monkeypatch.setattr(module, "event", lambda *_, **__: None)
    yield
    conflicts.GIVEN_TWICE.set(0)


def recorded(leader: Leader, *also: str) -> list[Any]:
    """Note each write of a leader: its name, and the state or the reason that it sets."""
    told: list[Any] = []

    def noting(name: str) -> None:
        send = getattr(leader.view, name)

        async def call(*args: Any) -> Any:
            status = args[-1] if name.endswith("_status") else {}
            reason = (status.get("conditions") or [{}])[0].get("reason") if name == "patch_claim_status" else None
            state = status.get("state") if "state" in status else reason
            told.append((name, state) if state is not None else name)
            return await send(*args)

        setattr(leader.view, name, call)

    for name in (*WRITES, *also):
        noting(name)
    return told


def test_an_address_is_recorded_in_the_pool_then_in_the_claim_and_published_last() -> None:
    """Whatever was published, the claim's status and the pool say whose it is, even if one of the two is lost."""

    async def scenario() -> None:
        world, leader = await led()
        world.claim("a", "p")
        told = recorded(leader)
        await leader.turn()
        assert told == [
            "patch_pool_status",
            ("patch_claim_status", "Publishing"),
            "create_child",
            ("patch_claim_status", "Bound"),
        ]

    asyncio.run(scenario())


def test_it_is_taken_back_from_the_child_and_from_the_pool_only_when_the_claim_is_gone() -> None:
    """Somebody's finalizer may keep the claim, and a paused leader may publish for it as long as it exists."""

    async def scenario() -> None:
        world = World()
        world.pool("p")
        world.claim("a", "p", HOLD)
        leader = Leader(world, 1)
        await leader.lead()
        address = world.status("a")["address"]
        world.delete("claim", "a")
        told = recorded(leader)
        for _ in range(3):
            await leader.turn()
            world.now += 400
        assert told == ["delete_child", "finalizer"]
        # The pool may be deleted by force now. Then the claim's status is the only record of the address.
        assert world.status("a")["address"] == address
        assert address in world.objects["pool", "p"]["status"]["allocations"]
        world.release("claim", "a", HOLD)
        await leader.turn()
        assert told == ["delete_child", "finalizer", "patch_pool_status"]
        assert world.objects["pool", "p"]["status"]["allocations"] == {}

    asyncio.run(scenario())


def test_a_child_that_came_late_is_gone_before_its_address_is_freed() -> None:
    """A paused leader made it after the claim was taken back."""

    async def scenario() -> None:
        world, leader = await led("a")
        child = next(body for (kind, _), body in world.objects.items() if kind == "child")
        await leader.end("a")
        await leader.view.create_child({k: v for k, v in child.items() if k != "token"})
        told = recorded(leader)
        await leader.turn()
        assert told == ["delete_child", "patch_pool_status"]

    asyncio.run(scenario())


def test_a_pool_announces_its_range_before_it_looks_and_is_active_after_that() -> None:
    """Two that do so at the same time cannot both find nothing."""

    async def scenario() -> None:
        world = World()
        leader = Leader(world, 1)
        await leader.lead()
        world.pool("p")
        told = recorded(leader, "pools", "claims")
        leader.memory.pool_seen(world.objects["pool", "p"])
        await activation.settle_pool(leader.memory, "p")
        after = told[told.index(("patch_pool_status", "Claiming")) :]
        assert after == [("patch_pool_status", "Claiming"), "pools", "claims", ("patch_pool_status", "Active")]

    asyncio.run(scenario())


def test_a_pool_that_is_made_again_begins_with_what_its_claims_have() -> None:
    """I5: somebody deleted it by force, and its record with it. Only the claims' statuses say who has what."""

    async def scenario() -> None:
        world, leader = await led("a")
        address = world.status("a")["address"]
        world.force("pool", "p")
        world.pool("p")
        send, written = leader.view.patch_pool_status, []

        async def call(name: str, version: str, status: Any) -> Any:
            written.append(status)
            return await send(name, version, status)

        leader.view.patch_pool_status = call  # type: ignore[method-assign]
        await leader.turn()
        # Not by a later write: until then another claim could get it.
        active = next(status for status in written if status.get("state") == "Active")
        assert active["allocations"][address].split("/")[1] == "a"

    asyncio.run(scenario())


def test_claims_that_follow_each_other_under_one_name_have_children_of_different_names() -> None:
    """A late creation for the one that is gone would take the place of the other's."""
    assert len({children.child_name(ClaimRef("ns", "a", uid)) for uid in ("11111111-x", "22222222-x")}) == 2


def test_a_claim_that_is_being_deleted_gets_nothing_also_if_that_shows_only_after_a_conflict() -> None:
    """The API server would remove the claim together with the address."""

    async def scenario() -> None:
        world, leader = await led()
        world.claim("a", "p", HOLD)
        seen = leader.memory.claim_seen(world.objects["claim", "a"])
        send = leader.view.patch_pool_status

        async def deleted_meanwhile(*args: Any) -> Any:
            answer = await send(*args)
            world.delete("claim", "a")
            return answer

        leader.view.patch_pool_status = deleted_meanwhile  # type: ignore[method-assign,assignment]
        told = recorded(leader)
        assert await claims.settle(leader.memory, seen) is None
        assert told == ["patch_pool_status", ("patch_claim_status", "Publishing")]
        assert "address" not in world.status("a")

    asyncio.run(scenario())


def test_a_pool_that_was_made_again_is_not_written_for_the_one_that_is_gone() -> None:
    server = Server()
    one = keeper(server, server.put("p"))

    def made_again() -> None:
        server.put("p")
        server.objects["p"]["metadata"] |= {"uid": "uid-another", "resourceVersion": "7"}

    server.before.append(made_again)
    with pytest.raises(Gone, match="made again"):
        asyncio.run(one.ask(claim("a")))
    assert server.writes == []


# What each write carries.


class Http:
    """A client that keeps what it is asked to send, and answers with 200."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Any]] = []

    def __getattr__(self, method: str) -> Any:
        def call(*, url: str, json: Any = None, **_: Any) -> Any:
            self.sent.append((method, url, json))
            return self

        return call

    ok = True

    def json(self) -> dict[str, Any]:
        return {"kind": "Status"}


REF = ClaimRef(namespace="ns", name="a", uid="u1")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr(Api, "__init__", lambda self: setattr(self, "_client", Http()))
    return Api()


@pytest.mark.parametrize(
    ("write", "body"),
    [
        (
            lambda api: api.patch_pool_status("p", "7", {"state": "Active"}),
            {"metadata": {"resourceVersion": "7"}, "status": {"state": "Active"}},
        ),
        (
            lambda api: api.patch_claim_status(REF, "7", {"address": "10.0.0.1"}),
            {"metadata": {"resourceVersion": "7"}, "status": {"address": "10.0.0.1"}},
        ),
        (
            lambda api: api.patch_child("ns", "a", "7", {"metadata": {"labels": {"a": "b"}}, "data": {}}),
            {"metadata": {"labels": {"a": "b"}, "resourceVersion": "7"}, "data": {}},
        ),
    ],
    ids=["pool", "claim", "child"],
)
def test_a_write_names_the_revision_that_it_was_decided_from(api: Api, write: Any, body: Any) -> None:
    """Without it the fence would send the decision on whatever stands there by now."""
    asyncio.run(write(api))
    assert [json.loads(json.dumps(sent[2])) for sent in api._client.sent] == [body]


def test_only_the_child_that_was_read_is_deleted(api: Api) -> None:
    """A user may have made another one of that name in the meantime."""
    assert asyncio.run(api.delete_child("ns", "a-u1", "u2")) is True
    assert [sent[2]["preconditions"] for sent in api._client.sent] == [{"uid": "u2"}]


def test_a_configmap_that_a_user_made_is_left_alone() -> None:
    """I6: it has the name of the claim's child."""

    async def scenario() -> None:
        world, leader = await led()
        world.claim("a", "p")
        ref = Claim.parse(world.objects["claim", "a"]).ref
        # It belongs to somebody else's object.
        meta = {"name": children.child_name(ref), "namespace": "ns", "ownerReferences": [{"uid": "another"}]}
        mine: dict[str, Any] = {"metadata": meta, "data": {"ADDRESS": "mine"}}
        world.add("child", mine)
        await leader.turn()
        assert mine["data"] == {"ADDRESS": "mine"}
        assert world.status("a")["conditions"][0]["reason"] == "ConfigMapTaken"

    asyncio.run(scenario())


# What a term hands on.


class Empty:
    """An API server with one pool that has one address, which was freed a moment ago."""

    async def pools(self) -> list[Any]:
        meta = {"name": "p", "uid": "uid-p", "resourceVersion": "1", "generation": 1}
        spec = {"cidr": "10.0.0.0/30", "excluded": ["10.0.0.2"]}
        status = {"state": "Active", "tombstones": {"10.0.0.1": "ns/gone/u0"}}
        return [{"metadata": meta, "spec": spec, "status": status}]

    async def claim_pages(self) -> Any:
        yield []


async def begun(monkeypatch: pytest.MonkeyPatch, grant: Grant) -> Allocator:
    """Begin a term as Kopf does; return its memory."""
    monkeypatch.setattr(handlers, "Api", Empty)
    start: Any = handlers.start
    memo = kopf.Memo()
    with entered(grant):
        await start(settings=kopf.OperatorSettings(), memo=memo)
    for task in (memo.retries, memo.rest):
        task.cancel()
    memory: Allocator = memo.memory
    return memory


@pytest.fixture
def grant() -> Grant:
    return Grant(Stamp(7, "me", "ns/op", "uid"), deadline=float("inf"))


def test_what_the_barrier_sets_aside_is_not_decided_from(monkeypatch: pytest.MonkeyPatch, grant: Grant) -> None:
    """I4: as long as it is set aside, also if that ends later in the term."""

    async def scenario() -> None:
        grant.set_aside = frozenset({"uid-p"})
        memory = await begun(monkeypatch, grant)
        assert memory.keepers["p"].set_aside
        answer = await memory.keepers["p"].ask(claim("a"))
        assert isinstance(answer, Wait)
        assert "aside" in answer.message
        grant.set_aside = frozenset()
        assert not memory.keepers["p"].set_aside

    asyncio.run(scenario())


def test_an_address_that_was_freed_rests_for_the_quarantine_from_when_this_leader_saw_it(
    monkeypatch: pytest.MonkeyPatch, grant: Grant
) -> None:
    """I5: who freed it, and when, a new leader does not know."""

    async def scenario() -> None:
        monkeypatch.setenv("KOPF_HA_IPAM_QUARANTINE", "300")
        memory = await begun(monkeypatch, grant)
        chance = memory.keepers["p"].chance
        assert chance is not None
        assert 290 < chance - memory.clock() <= 300

    asyncio.run(scenario())


def test_with_barrier_each_nothing_is_decided_before_the_pool_s_stamp(
    monkeypatch: pytest.MonkeyPatch, grant: Grant
) -> None:
    """I4."""

    async def scenario() -> None:
        grant.behind = True
        memory = await begun(monkeypatch, grant)
        assert memory.unsure
        grant.behind = False
        assert not (await begun(monkeypatch, grant)).unsure

    asyncio.run(scenario())
